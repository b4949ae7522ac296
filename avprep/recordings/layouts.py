"""The folders that recordings come in, and how each is read."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from avprep.errors import UserError
from avprep.formats.container_tags import info_json
from avprep.recordings.events import is_world_truth
from avprep.recordings.labelled import FLAT_LAYOUTS, recognise_labelled
from avprep.recordings.lists import read_segments
from avprep.recordings.recording import (
    VIDEO_SUFFIXES,
    Failure,
    Recording,
    files_in,
    is_kind,
    side_files,
)

_YT360_CLIP_S = 10.0
_YT360_NAME = re.compile(r"(?P<source>.+)-(?P<start>\d+(\.\d+)?)")
_SPHERE360_NAME = re.compile(r"(?P<source>[\w-]{11})_(?P<start>\d+(\.\d+)?)")
_SEGMENTS_NAME = "segments.txt"
_ID_LENGTH = 11
"""Of YouTube's ids."""
_STARSS_SPLITS = {"dev-train": "train", "dev-test": "test", "eval": "eval"}

Found = tuple[list[Recording], list[Failure]]


def find_recordings(
    raw: Path, layout: str, segments: Path | None = None, lists: Path | None = None
) -> tuple[list[Recording], list[Failure], str]:
    """The recordings in ``raw``, sorted, what cannot be one, and the layout that was read.

    ``segments`` lists the moments of each recording at which clips begin; ``lists`` is the folder
    of the official split lists, where a layout has some and they are not in ``raw``. Raises
    UserError where there is nothing to find.
    """
    if not raw.is_dir():
        raise UserError(f"{raw} is no folder; name the folder that holds the recordings")
    if layout == "auto":
        layout = _recognise(raw)
    if layout in FLAT_LAYOUTS:
        recordings, failures = FLAT_LAYOUTS[layout](raw, raw if lists is None else lists)
    else:
        recordings, failures = _READERS[layout](raw)
    if segments is None and layout == "yt360" and (raw / _SEGMENTS_NAME).is_file():
        segments = raw / _SEGMENTS_NAME
    if segments is not None:
        recordings, unlisted = _in_segments(recordings, segments)
        failures += unlisted
    named = [r for r in recordings if _printable(r.file) == r.file]
    failures += [
        Failure(r.source, "find", f"the name of {r.file} is not valid UTF-8; rename it")
        for r in recordings
        if _printable(r.file) != r.file
    ]
    failures = [Failure(_printable(f.source), f.stage, _printable(f.reason)) for f in failures]
    if not named and not failures:
        raise UserError(
            f"{raw} holds no video ({', '.join(VIDEO_SUFFIXES)}) as layout {layout} has them; name "
            "the folder with the recordings, and see --layout"
        )
    return named, failures, layout


def _in_segments(recordings: list[Recording], path: Path) -> Found:
    """Whole recordings with their listed moments as windows; parts of recordings stay as they
    are."""
    moments = read_segments(path)
    listed, failures = [], []
    for recording in recordings:
        if recording.duration_s is not None or recording.start_s:
            listed.append(recording)
        elif recording.source in moments:
            windows = tuple((start_s, _YT360_CLIP_S) for start_s in moments[recording.source])
            listed.append(replace(recording, windows=windows))
        else:
            reason = f"{recording.file} is not listed in {path.name}; add it, or take it away"
            failures.append(Failure(recording.source, "find", reason))
    return listed, failures


def _recognise(raw: Path) -> str:
    """The layout of a folder, by what only that one has."""
    if (raw / "foa_dev").is_dir() or (raw / "foa_eval").is_dir():
        return "starss"
    if (raw / "video").is_dir() and (raw / "audio").is_dir():
        names = [path.stem for path in files_in(raw / "video", recursive=False)]
        ambigen = sum(_SPHERE360_NAME.fullmatch(name) is not None for name in names)
        yt360 = sum(_YT360_NAME.fullmatch(name) is not None for name in names)
        return "yt-ambigen" if ambigen > yt360 else "yt360"
    files = files_in(raw, recursive=True)
    if any(path.name.endswith(".info.json") for path in files):
        return "yt-dlp"
    labelled = recognise_labelled(raw, files)
    if labelled is not None:
        return labelled
    videos = [path for path in files if is_kind(path, VIDEO_SUFFIXES)]
    if videos and all(
        path.suffix.lower() == ".webm" and _SPHERE360_NAME.fullmatch(path.stem) for path in videos
    ):
        return "sphere360"
    return "folder"


def _printable(name: str) -> str:
    """A file's name with its bytes that are no UTF-8 replaced."""
    return os.fsencode(name).decode(errors="replace")


def _folder(raw: Path) -> Found:
    """Every video below ``raw`` is a recording; a sound file of its stem replaces its sound."""
    videos = [path for path in files_in(raw, recursive=True) if is_kind(path, VIDEO_SUFFIXES)]
    stems = Counter(path.with_suffix("") for path in videos)
    recordings, failures = [], []
    for video in videos:
        relative = video.relative_to(raw)
        unique = stems[video.with_suffix("")] == 1
        source = (relative.with_suffix("") if unique else relative).as_posix()
        sides = side_files(video.parent, video.stem)
        if len(sides) > 1:
            names = ", ".join(side.name for side in sides)
            reason = f"{relative} has several sound files beside it ({names}); leave the right one"
            failures.append(Failure(source, "find", reason))
        else:
            audio = sides[0] if sides else video
            recordings.append(Recording(source, video, audio, relative.as_posix()))
    return recordings, failures


def _yt360(raw: Path) -> Found:
    """``video/{ID}-{start}.mp4`` with ``audio/{ID}-{start}.m4a`` (or another sound file), 10 s
    each; or whole recordings as ``{ID}``; and ``segmentation/{ID}-{start}/`` with label maps.

    Generated ones have their truth in ``truth/{ID}-{start}.json``, which says so itself: a file of
    that name that does not is not ours to read.
    """
    recordings, failures = _named(raw, raw / "video", _YT360_NAME, raw / "audio", "{ID}-{second}")
    maps = raw / "segmentation"
    found = []
    for recording in recordings:
        # Ids have 11 characters, and may themselves end in a dash and digits.
        stem = Path(recording.file).stem
        if len(stem) == _ID_LENGTH:
            recording = replace(recording, source=stem, start_s=0.0)
        else:
            truth = raw / "truth" / f"{stem}.json"
            recording = replace(
                recording,
                duration_s=_YT360_CLIP_S,
                formats_known=True,
                truth=truth if is_world_truth(truth) else None,
            )
        found.append(replace(recording, maps=maps) if maps.is_dir() else recording)
    return found, failures


def _sphere360(raw: Path) -> Found:
    """``{ID}_{start second}.webm`` anywhere, with four channels of sound inside."""
    return _named(raw, raw, _SPHERE360_NAME, None, "{ID}_{second}")


def _yt_ambigen(raw: Path) -> Found:
    """``video/{ID}_{start second}.mp4`` with ``audio/{ID}_{start second}.opus``."""
    return _named(raw, raw / "video", _SPHERE360_NAME, raw / "audio", "{ID}_{second}")


def _named(
    raw: Path, videos: Path, pattern: re.Pattern[str], sounds: Path | None, form: str
) -> Found:
    """Videos whose names say id and start, with their sound in the folder ``sounds`` under the
    same name (None: inside)."""
    recordings, failures = [], []
    for video in files_in(videos, recursive=sounds is None):
        if not is_kind(video, VIDEO_SUFFIXES):
            continue
        relative = video.relative_to(raw).as_posix()
        match = pattern.fullmatch(video.stem)
        sides = [video] if sounds is None else side_files(sounds, video.stem)
        if match is None and len(video.stem) != _ID_LENGTH:
            reason = f"{relative} is not named {form} as the clips of this layout are"
            failures.append(Failure(video.stem, "find", reason))
        elif len(sides) != 1:
            what = "several sound files" if sides else "no sound file"
            reason = (
                f"{relative} has {what} audio/{video.stem}.m4a (or .opus, .wav, .flac, .ogg); "
                "there must be one"
            )
            failures.append(Failure(match["source"] if match else video.stem, "find", reason))
        else:
            source, start_s = (match["source"], float(match["start"])) if match else (video.stem, 0)
            recordings.append(Recording(source, video, sides[0], relative, start_s))
    return recordings, failures


def _starss(raw: Path) -> Found:
    """``foa_dev/…/NAME.wav`` with ``video_dev/…/NAME.mp4`` and ``metadata_dev/…/NAME.csv``.

    Folders ``dev-train-…`` and ``dev-test-…`` are the splits. STARSS22 has no video.
    """
    recordings, failures = [], []
    for sound in files_in(raw, recursive=True):
        folder = sound.relative_to(raw).parts[0]
        if sound.suffix.lower() != ".wav" or not folder.startswith("foa_"):
            continue
        inside = sound.relative_to(raw / folder)
        part = folder.removeprefix("foa_")
        video = (raw / f"video_{part}" / inside).with_suffix(".mp4")
        truth = (raw / f"metadata_{part}" / inside).with_suffix(".csv")
        split = next((s for name, s in _STARSS_SPLITS.items() if name in inside.as_posix()), None)
        if not video.is_file():
            where = video.relative_to(raw).as_posix()
            reason = (
                f"{sound.relative_to(raw).as_posix()} has no video {where}; download it as well"
            )
            failures.append(Failure(sound.stem, "find", reason))
            continue
        recordings.append(
            Recording(
                sound.stem,
                video,
                sound,
                video.relative_to(raw).as_posix(),
                split=split,
                truth=truth if truth.is_file() else None,
            )
        )
    return recordings, failures


def _yt_dlp(raw: Path) -> Found:
    """A folder of downloads; ``.info.json`` beside a video says its id and projection."""
    recordings, failures = _folder(raw)
    named = []
    for recording in recordings:
        info = info_json(recording.video) or {}
        source = info.get("id")
        if not isinstance(source, str) or not source or not source.isprintable():
            source = recording.source
        named.append(replace(recording, source=source))
    return named, failures


_READERS: dict[str, Callable[[Path], Found]] = {
    "folder": _folder,
    "yt360": _yt360,
    "sphere360": _sphere360,
    "yt-ambigen": _yt_ambigen,
    "starss": _starss,
    "yt-dlp": _yt_dlp,
}
