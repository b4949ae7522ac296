"""Finding the recordings of an input folder, and cutting them into clips."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from avprep.clips import SHORTEST_CLIP_S, Clip
from avprep.errors import UserError

LAYOUTS = ("auto", "folder", "yt360")
VIDEO_SUFFIXES = (".mp4", ".mkv", ".webm", ".mov")
SIDE_SUFFIXES = (".wav", ".flac", ".m4a", ".ogg", ".opus", ".amb")
DEFAULT_SPLIT = "train"
_SPLIT_LISTS = ("train", "test", "val", "validation")
_NO_SPLITS = ("segments",)  # YT-360's list of moments stands beside its splits
_LONGEST_KEY = 64
_DURATION_TOLERANCE_S = 0.25
_YT360_CLIP_S = 10.0
_YT360_NAME = re.compile(r"(?P<source>.+)-(?P<start>\d+(\.\d+)?)")


@dataclass(frozen=True)
class Recording:
    """A video file with its sound: the whole of recording ``source`` or a part from ``start_s``.

    ``duration_s`` is None where the file must be asked for it; ``formats_known`` where the layout
    says what picture and sound are like.
    """

    source: str
    video: Path
    audio: Path
    file: str
    start_s: float = 0.0
    duration_s: float | None = None
    formats_known: bool = False


@dataclass(frozen=True)
class Failure:
    """A line of ``failures.jsonl``: what did not become a sample, at which stage, and why."""

    source: str
    stage: str
    reason: str


def find_recordings(raw: Path, layout: str) -> tuple[list[Recording], list[Failure], str]:
    """The recordings in ``raw``, sorted, what cannot be one, and the layout that was read.

    Raises UserError where there is nothing to find.
    """
    if not raw.is_dir():
        raise UserError(f"{raw} is no folder; name the folder that holds the recordings")
    if layout == "auto":
        is_yt360 = (raw / "video").is_dir() and (raw / "audio").is_dir()
        layout = "yt360" if is_yt360 else "folder"
    recordings, failures = _yt360(raw) if layout == "yt360" else _folder(raw)
    named = [r for r in recordings if _printable(r.file) == r.file]
    failures += [
        Failure(r.source, "find", f"the name of {r.file} is not valid UTF-8; rename it")
        for r in recordings
        if _printable(r.file) != r.file
    ]
    failures = [Failure(_printable(f.source), f.stage, _printable(f.reason)) for f in failures]
    if not named and not failures:
        where = raw / "video" if layout == "yt360" else raw
        raise UserError(
            f"{where} holds no video ({', '.join(VIDEO_SUFFIXES)}); name the folder with the "
            "recordings, and see --layout"
        )
    return named, failures, layout


def _printable(name: str) -> str:
    """A file's name with its bytes that are no UTF-8 replaced."""
    return os.fsencode(name).decode(errors="replace")


def _folder(raw: Path) -> tuple[list[Recording], list[Failure]]:
    """Every video below ``raw`` is a recording; a sound file of its stem replaces its sound."""
    videos = [path for path in _files(raw, recursive=True) if _is_kind(path, VIDEO_SUFFIXES)]
    stems = Counter(path.with_suffix("") for path in videos)
    recordings, failures = [], []
    for video in videos:
        relative = video.relative_to(raw)
        unique = stems[video.with_suffix("")] == 1
        source = (relative.with_suffix("") if unique else relative).as_posix()
        sides = _side_files(video.parent, video.stem)
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
    for video in _files(raw / "video", recursive=False):
        if not _is_kind(video, VIDEO_SUFFIXES):
            continue
        relative = video.relative_to(raw).as_posix()
        match = _YT360_NAME.fullmatch(video.stem)
        sides = _side_files(raw / "audio", video.stem)
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


def cut(recording: Recording, duration_s: float, clip_s: float) -> list[Clip]:
    """Consecutive clips of ``clip_s`` seconds; a rest of at least half a clip is one as well.

    A recording shorter than a clip is one clip. The clips' ``key`` and ``split`` are still empty.
    """
    whole = int((duration_s + _DURATION_TOLERANCE_S) // clip_s)
    rest = duration_s - whole * clip_s
    lengths = [clip_s] * whole
    if rest >= max(clip_s / 2, SHORTEST_CLIP_S) or not whole:
        lengths.append(min(clip_s, max(rest, 0.0)))
    return [
        Clip(
            key="",
            source=recording.source,
            split="",
            video=recording.video,
            audio=recording.audio,
            file=recording.file,
            start_s=recording.start_s + number * clip_s,
            offset_s=number * clip_s,
            duration_s=length,
        )
        for number, length in enumerate(lengths)
    ]


def clip_key(source: str, start_s: float) -> str:
    """The key of a clip, of ``[A-Za-z0-9_-]`` alone: stable, and unique for (source, start).

    Where the source's name has other characters or is long, a hash of it keeps keys apart.
    """
    start = f"{start_s:.0f}" if start_s == int(start_s) else f"{round(start_s * 1000)}ms"
    slug = re.sub(r"[^A-Za-z0-9_-]+", "_", source)
    if slug != source or len(slug) > _LONGEST_KEY:
        digest = hashlib.sha256(source.encode(errors="surrogateescape")).hexdigest()[:10]
        slug = f"{slug[: _LONGEST_KEY - 11]}_{digest}"
    return f"{slug}-{start}"


def read_splits(folder: Path, names: tuple[str, ...] | None = None) -> dict[str, str]:
    """Which split each listed name belongs to, from ``{split}.txt`` files with a name a line.

    ``names`` limits which files are read. Raises UserError where a name stands in two lists.
    """
    splits: dict[str, str] = {}
    for path in sorted(folder.glob("*.txt")):
        if path.stem in _NO_SPLITS or (names is not None and path.stem not in names):
            continue
        try:
            lines = path.read_text().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{path} cannot be read as a list of names: {error}") from None
        for name in filter(None, (line.strip() for line in lines)):
            if splits.setdefault(name, path.stem) != path.stem:
                raise UserError(
                    f"{name} is listed in {splits[name]}.txt and in {path.name} of {folder}; "
                    "a recording belongs to one split"
                )
    return splits


def split_of(clip: Clip, splits: dict[str, str]) -> str | None:
    """A clip's split by its source, its key or its file's name; None where no list has it.

    Without lists everything is in ``train``.
    """
    if not splits:
        return DEFAULT_SPLIT
    for name in (clip.source, Path(clip.file).stem, clip.file, Path(clip.file).name):
        if name in splits:
            return splits[name]
    return None


def default_splits(raw: Path) -> dict[str, str]:
    """The lists ``train.txt``, ``test.txt``, … that an input folder brings along."""
    return read_splits(raw, _SPLIT_LISTS)


def _files(folder: Path, recursive: bool) -> list[Path]:
    found = folder.rglob("*") if recursive else folder.glob("*")
    return sorted(path for path in found if path.is_file() and not path.name.startswith("."))


def _is_kind(path: Path, suffixes: tuple[str, ...]) -> bool:
    return path.suffix.lower() in suffixes


def _side_files(folder: Path, stem: str) -> list[Path]:
    candidates = (folder / f"{stem}{suffix}" for suffix in SIDE_SUFFIXES)
    return [path for path in candidates if path.is_file()]
