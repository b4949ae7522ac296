"""Labelled datasets of ordinary videos for action recognition: UCF101, HMDB51, Kinetics."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from avprep.errors import UserError
from avprep.recordings.files import FileSearch, has_suffix, is_video
from avprep.recordings.lists import UNLISTED, read_lines, why
from avprep.recordings.recording import Failure, Recording

_UCF101_NAME = re.compile(r"v_(?P<label>\w+)_g\d\d_c\d\d")
_UCF101_LIST = re.compile(r"(?P<role>train|test)list(?P<fold>\d\d)")
_HMDB51_LIST = re.compile(r"(?P<label>.+)_test_split(?P<fold>\d)")
_HMDB51_ROLES = {"0": "unused", "1": "train", "2": "test"}
_KINETICS_NAME = re.compile(r"(?P<source>[\w-]{11})_(?P<start>\d{6})_\d{6}")
_KINETICS_SPLITS = ("train", "val", "validate", "validation", "test")
_UNUSED = "unused"
_LISTS = (".txt",)

_Found = tuple[list[Recording], list[Failure]]

_Roles = dict[str, dict[int, str]]
"""Maps each video, named ``label/file name``, to its role (train, test, unused) by fold number."""


def detect_labelled(raw: Path, files: list[Path]) -> str | None:
    """The layout (ucf101, hmdb51 or kinetics) of a folder by its files; None for other folders."""
    if any(_UCF101_LIST.fullmatch(path.stem) and has_suffix(path, _LISTS) for path in files):
        return "ucf101"
    if any(_HMDB51_LIST.fullmatch(path.stem) and has_suffix(path, _LISTS) for path in files):
        return "hmdb51"
    videos = [path for path in files if is_video(path)]
    if videos and all(_UCF101_NAME.fullmatch(path.stem) for path in videos):
        return "ucf101"
    if videos and all(
        _KINETICS_NAME.fullmatch(path.stem) and path.parent != raw for path in videos
    ):
        return "kinetics"
    return None


def _ucf101(raw: Path, lists: Path, search: FileSearch) -> _Found:
    """Videos ``ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi``, and lists ``trainlist01.txt``,
    ``testlist01.txt``, … with lines ``ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi [label]``."""
    roles: _Roles = defaultdict(dict)
    for path in _list_files(lists, search):
        match = _UCF101_LIST.fullmatch(path.stem)
        if match is not None:
            for line in _non_empty_lines(path):
                roles[_label_and_name(Path(line.split()[0]))][int(match["fold"])] = match["role"]
    return _in_folds(raw, lists, roles, search)


def _hmdb51(raw: Path, lists: Path, search: FileSearch) -> _Found:
    """Videos ``brush_hair/NAME.avi``, and lists ``brush_hair_test_split1.txt``, … with lines
    ``NAME.avi ROLE`` (0: unused, 1: train, 2: test)."""
    roles: _Roles = defaultdict(dict)
    for path in _list_files(lists, search):
        match = _HMDB51_LIST.fullmatch(path.stem)
        if match is not None:
            for line in _non_empty_lines(path):
                name, _, role = line.rpartition(" ")
                if role not in _HMDB51_ROLES:
                    raise UserError(f"{path}: {line!r:.80} does not end in 0, 1 or 2")
                video = Path(match["label"]) / name.strip()
                roles[_label_and_name(video)][int(match["fold"])] = _HMDB51_ROLES[role]
    return _in_folds(raw, lists, roles, search)


def _in_folds(raw: Path, lists: Path, roles: _Roles, search: FileSearch) -> _Found:
    """All videos that a fold uses, labelled by their folders. A video's split is its role in the
    first fold."""
    if not roles:
        raise UserError(
            f"{lists} holds no official split lists; put them beside the videos, or name their "
            "folder with --splits"
        )
    folds = range(1, 1 + max(max(by_fold) for by_fold in roles.values()))
    recordings: list[Recording] = []
    failures: list[Failure] = []
    names = set()
    for video in _videos(raw, search):
        name = _label_and_name(video)
        names.add(name)
        video_roles = tuple(roles.get(name, {}).get(fold, _UNUSED) for fold in folds)
        if name not in roles:
            recordings.append(_recording(raw, video, video.stem, split=UNLISTED))
        elif set(video_roles) != {_UNUSED}:
            recordings.append(
                _recording(raw, video, video.stem, split=video_roles[0], folds=video_roles)
            )
    for name in sorted(roles.keys() - names):
        if set(roles[name].values()) != {_UNUSED}:
            reason = f"{name} is in the split lists, but not among the videos; download it again"
            failures.append(Failure(Path(name).stem, "find", reason))
    return recordings, failures


def _kinetics(raw: Path, _: Path, search: FileSearch) -> _Found:
    """Videos ``train/LABEL/{ID}_{start}_{end}.mp4``; ``raw`` may also be one split's folder."""
    recordings, failures = [], []
    for video in _videos(raw, search):
        parents = video.relative_to(raw).parts[:-1]
        if not parents or parents[-1] in _KINETICS_SPLITS:
            reason = f"{video.relative_to(raw)} does not lie in a folder named after its class"
            failures.append(Failure(video.stem, "find", reason))
            continue
        above = (*parents[::-1], raw.absolute().name)
        split = next((part for part in above if part in _KINETICS_SPLITS), None)
        match = _KINETICS_NAME.fullmatch(video.stem)
        source = match["source"] if match else video.stem
        start_s = float(match["start"]) if match else 0.0
        recordings.append(_recording(raw, video, source, start_s, split))
    return recordings, failures


def _recording(
    raw: Path,
    video: Path,
    source: str,
    start_s: float = 0.0,
    split: str | None = None,
    folds: tuple[str, ...] | None = None,
) -> Recording:
    return Recording(
        source,
        video,
        video,
        video.relative_to(raw).as_posix(),
        start_s,
        flat=True,
        split=split,
        label=video.parent.name,
        folds=folds,
    )


def _videos(raw: Path, search: FileSearch) -> list[Path]:
    return [path for path in search.files(raw, recursive=True) if is_video(path)]


def _list_files(folder: Path, search: FileSearch) -> list[Path]:
    return [path for path in search.files(folder, recursive=True) if has_suffix(path, _LISTS)]


def _non_empty_lines(path: Path) -> list[str]:
    try:
        lines = read_lines(path)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as a list of videos: {why(error)}") from None
    return [line.strip() for line in lines if line.strip()]


def _label_and_name(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}{path.suffix.lower()}"


FLAT_LAYOUTS: dict[str, Callable[[Path, Path, FileSearch], _Found]] = {
    "ucf101": _ucf101,
    "hmdb51": _hmdb51,
    "kinetics": _kinetics,
}
"""Maps each layout to its reader, called with the folders of the videos and the split lists, and
the search of their files."""

LAYOUTS_WITH_FOLDS = ("ucf101", "hmdb51")
"""Layouts with official split lists in their own formats."""
