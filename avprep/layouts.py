"""The folders that recordings come in, and how each is read."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from avprep.container import info_json
from avprep.errors import UserError
from avprep.sources import (
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
_STARSS_SPLITS = {"dev-train": "train", "dev-test": "test", "eval": "eval"}

Found = tuple[list[Recording], list[Failure]]


def find_recordings(raw: Path, layout: str) -> tuple[list[Recording], list[Failure], str]:
    """The recordings in ``raw``, sorted, what cannot be one, and the layout that was read.

    Raises UserError where there is nothing to find.
    """
    if not raw.is_dir():
        raise UserError(f"{raw} is no folder; name the folder that holds the recordings")
    if layout == "auto":
        layout = _recognise(raw)
    recordings, failures = _READERS[layout](raw)
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


def _recognise(raw: Path) -> str:
    """The layout of a folder, by what only that one has."""
    if (raw / "foa_dev").is_dir() or (raw / "foa_eval").is_dir():
        return "starss"
    if (raw / "video").is_dir() and (raw / "audio").is_dir():
        names = [path.stem for path in files_in(raw / "video", recursive=False)]
        ambigen = sum(_SPHERE360_NAME.fullmatch(name) is not None for name in names)
        yt360 = sum(_YT360_NAME.fullmatch(name) is not None for name in names)
        return "yt-ambigen" if ambigen > yt360 else "yt360"
    if next(raw.rglob("*.info.json"), None) is not None:
        return "yt-dlp"
    videos = [path for path in files_in(raw, recursive=True) if is_kind(path, VIDEO_SUFFIXES)]
    if videos and all(
        path.suffix.lower() == ".webm" and _SPHERE360_NAME.fullmatch(path.stem) for path in videos
    ):
        return "sphere360"
    return "folder"


def _printable(name: str) -> str:
    """A file's name with its bytes that are no UTF-8 replaced."""
    return os.fsencode(name).decode(errors="replace")


def _folder(raw: Path) -> tuple[list[Recording], list[Failure]]:
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


def _yt360(raw: Path) -> tuple[list[Recording], list[Failure]]:
    """``video/{ID}-{start}.mp4`` with ``audio/{ID}-{start}.m4a`` (or another sound file)."""
    recordings, failures = [], []
    for video in files_in(raw / "video", recursive=False):
        if not is_kind(video, VIDEO_SUFFIXES):
            continue
        relative = video.relative_to(raw).as_posix()
        match = _YT360_NAME.fullmatch(video.stem)
        sides = side_files(raw / "audio", video.stem)
        if match is None:
            reason = f"{relative} is not named {{ID}}-{{start second}} as YT-360's clips are"
            failures.append(Failure(video.stem, "find", reason))
        elif len(sides) != 1:
            what = "several sound files" if sides else "no sound file"
            reason = f"{relative} has {what} audio/{video.stem}.m4a; there must be one"
            failures.append(Failure(video.stem, "find", reason))
        else:
            start = float(match["start"])
            recordings.append(
                Recording(match["source"], video, sides[0], relative, start, _YT360_CLIP_S, True)
            )
    return recordings, failures


def _sphere360(raw: Path) -> Found:
    """``{ID}_{start second}.webm`` anywhere, with four channels of sound inside."""
    recordings, failures = [], []
    for video in files_in(raw, recursive=True):
        if not is_kind(video, VIDEO_SUFFIXES):
            continue
        relative = video.relative_to(raw).as_posix()
        match = _SPHERE360_NAME.fullmatch(video.stem)
        if match is None:
            reason = f"{relative} is not named {{ID}}_{{start second}} as Sphere360's clips are"
            failures.append(Failure(video.stem, "find", reason))
        else:
            start = float(match["start"])
            recordings.append(Recording(match["source"], video, video, relative, start))
    return recordings, failures


def _yt_ambigen(raw: Path) -> Found:
    """``video/{ID}_{start second}.mp4`` with ``audio/{ID}_{start second}.opus``."""
    recordings, failures = [], []
    for video in files_in(raw / "video", recursive=False):
        if not is_kind(video, VIDEO_SUFFIXES):
            continue
        relative = video.relative_to(raw).as_posix()
        match = _SPHERE360_NAME.fullmatch(video.stem)
        sides = side_files(raw / "audio", video.stem)
        if match is None:
            reason = f"{relative} is not named {{ID}}_{{start second}} as YT-Ambigen's clips are"
            failures.append(Failure(video.stem, "find", reason))
        elif len(sides) != 1:
            what = "several sound files" if sides else "no sound file"
            reason = f"{relative} has {what} audio/{video.stem}.opus; there must be one"
            failures.append(Failure(match["source"], "find", reason))
        else:
            start = float(match["start"])
            recordings.append(Recording(match["source"], video, sides[0], relative, start))
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
        named.append(Recording(source, recording.video, recording.audio, recording.file))
    return named, failures


_READERS: dict[str, Callable[[Path], Found]] = {
    "folder": _folder,
    "yt360": _yt360,
    "sphere360": _sphere360,
    "yt-ambigen": _yt_ambigen,
    "starss": _starss,
    "yt-dlp": _yt_dlp,
}
