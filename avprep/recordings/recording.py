"""Finding the recordings of an input folder, and cutting them into clips."""

from __future__ import annotations

import csv
import hashlib
import math
import re
from dataclasses import dataclass
from pathlib import Path

from avprep.errors import UserError
from avprep.sample.options import SHORTEST_CLIP_S, Clip

VIDEO_SUFFIXES = (".mp4", ".mkv", ".webm", ".mov", ".avi")
SIDE_SUFFIXES = (".wav", ".flac", ".m4a", ".ogg", ".opus", ".amb")
DEFAULT_SPLIT = "train"
UNLISTED = "(unlisted)"
"""In place of a split: the lists of the layout do not name the recording."""
_SEGMENTS = re.compile(r"(?P<name>.+?)\s+(?P<times>[^\s,]+(\s*,\s*[^\s,]+)*)")
_SPLIT_LISTS = ("train", "test", "val", "validation")
_NO_SPLITS = ("segments",)  # YT-360's list of moments stands beside its splits
_LONGEST_KEY = 64
_DURATION_TOLERANCE_S = 0.25


@dataclass(frozen=True)
class Recording:
    """A video file with its sound: the whole of recording ``source`` or a part from ``start_s``.

    ``duration_s`` is None where the file must be asked for it; ``windows`` are the parts of the
    file that are wanted, as (start, duration) in seconds, None for all of it; ``formats_known``
    where the layout says what picture and sound are like; ``flat`` for an ordinary video, which is
    no picture of the sphere. ``split`` and the role in each of several ``folds`` are the layout's;
    ``truth`` is a file of labels in time, ``maps`` a folder that holds a folder of label maps for
    each window, named by `window_name`.
    """

    source: str
    video: Path
    audio: Path
    file: str
    start_s: float = 0.0
    duration_s: float | None = None
    windows: tuple[tuple[float, float], ...] | None = None
    formats_known: bool = False
    flat: bool = False
    split: str | None = None
    label: str | None = None
    folds: tuple[str, ...] | None = None
    truth: Path | None = None
    maps: Path | None = None


@dataclass(frozen=True)
class Failure:
    """A line of ``failures.jsonl``: what did not become a sample, at which stage, and why."""

    source: str
    stage: str
    reason: str


def cut(recording: Recording, duration_s: float, clip_s: float) -> list[Clip]:
    """Consecutive clips of ``clip_s`` seconds; a rest of at least half a clip is one as well.

    A recording, or a wanted window of it, that is shorter than a clip is one clip; a window that
    begins after the end is none. The clips' ``key`` and ``split`` are still empty.
    """
    clips = []
    for start_s, length_s in recording.windows or ((0.0, duration_s),):
        left_s = min(length_s, duration_s - start_s)
        if left_s > 0 or recording.windows is None:
            clips += _cut_window(recording, start_s, left_s, clip_s)
    # Windows may overlap by whole clips.
    return list({clip.offset_s: clip for clip in reversed(clips)}.values())[::-1]


def _cut_window(
    recording: Recording, window_s: float, duration_s: float, clip_s: float
) -> list[Clip]:
    whole = int((duration_s + _DURATION_TOLERANCE_S) // clip_s)
    rest = duration_s - whole * clip_s
    lengths = [clip_s] * whole
    if rest >= max(clip_s / 2, SHORTEST_CLIP_S) or not whole:
        lengths.append(min(clip_s, max(rest, 0.0)))
    maps = None
    if recording.maps is not None:
        maps = recording.maps / window_name(recording.source, recording.start_s + window_s)
    return [
        Clip(
            key="",
            source=recording.source,
            split=recording.split or "",
            truth=recording.truth,
            video=recording.video,
            audio=recording.audio,
            file=recording.file,
            start_s=recording.start_s + window_s + number * clip_s,
            offset_s=window_s + number * clip_s,
            duration_s=length,
            label=recording.label,
            folds=recording.folds,
            maps=maps,
            maps_offset_s=number * clip_s if maps is not None else 0.0,
            flat=recording.flat,
        )
        for number, length in enumerate(lengths)
    ]


def window_name(source: str, start_s: float) -> str:
    """``{ID}-{start second}``, as YT-360 names its clips."""
    return f"{source}-{start_s:.0f}" if start_s == int(start_s) else f"{source}-{start_s:g}"


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
    """Which split each listed name belongs to, from ``{split}.txt`` files with a name a line, or
    ``{split}.csv`` files with a column ``id`` or ``file_path``.

    ``names`` limits which files are read. Raises UserError where a name stands in two lists.
    """
    splits: dict[str, str] = {}
    for path in sorted((*folder.glob("*.txt"), *folder.glob("*.csv"))):
        if path.stem in _NO_SPLITS or (names is not None and path.stem not in names):
            continue
        try:
            lines = read_list(path)
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{path} cannot be read as a list of names: {error}") from None
        if path.suffix == ".csv":
            lines = _names_of_csv(path, lines)
        for name in filter(None, (line.strip() for line in lines)):
            if splits.setdefault(name, path.stem) != path.stem:
                raise UserError(
                    f"{name} is listed in {splits[name]}.txt and in {path.name} of {folder}; "
                    "a recording belongs to one split"
                )
    return splits


def read_list(path: Path) -> list[str]:
    """A text file's lines, without the mark that some editors put first."""
    return path.read_text(encoding="utf-8-sig").splitlines()


def _names_of_csv(path: Path, lines: list[str]) -> list[str]:
    try:
        rows = list(csv.DictReader(lines))
    except csv.Error as error:
        raise UserError(f"{path} cannot be read as a list of names: {error}") from None
    column = next((name for name in ("id", "file_path") if rows and name in rows[0]), None)
    if column is None:
        raise UserError(f"{path} has no column id or file_path with names of recordings")
    return [Path(row[column] or "").name for row in rows]


def split_of(clip: Clip, splits: dict[str, str]) -> str | None:
    """A clip's split by its source, its key or its file's name; None where no list has it.

    Without lists it is the layout's, or ``train``.
    """
    if not splits:
        return None if clip.split == UNLISTED else clip.split or DEFAULT_SPLIT
    names = (clip.source, Path(clip.file).stem, clip.file, Path(clip.file).name)
    for name in names:
        if name in splits:
            return splits[name]
    return None


def default_splits(raw: Path) -> dict[str, str]:
    """The lists ``train.txt``, ``test.txt``, … that an input folder brings along."""
    return read_splits(raw, _SPLIT_LISTS)


def read_segments(path: Path) -> dict[str, tuple[float, ...]]:
    """The moments listed of each recording, from lines ``ID t1,t2,…`` with seconds.

    Raises UserError for another file.
    """
    moments: dict[str, tuple[float, ...]] = {}
    try:
        for line in filter(None, map(str.strip, read_list(path))):
            match = _SEGMENTS.fullmatch(line)
            times = [float(time) for time in match["times"].split(",")] if match else []
            if match is None or not all(0 <= time < math.inf for time in times):
                raise ValueError(repr(line))
            moments[match["name"]] = tuple(sorted(set(times)))
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise UserError(f"{path} is no list of lines `ID t1,t2,…` with seconds: {error}") from None
    if not moments:
        raise UserError(f"{path} lists no recording; its lines must be `ID t1,t2,…`")
    return moments


def files_in(folder: Path, recursive: bool) -> list[Path]:
    found = folder.rglob("*") if recursive else folder.glob("*")
    return sorted(path for path in found if path.is_file() and not path.name.startswith("."))


def is_kind(path: Path, suffixes: tuple[str, ...]) -> bool:
    return path.suffix.lower() in suffixes


def side_files(folder: Path, stem: str) -> list[Path]:
    candidates = (folder / f"{stem}{suffix}" for suffix in SIDE_SUFFIXES)
    return [path for path in candidates if path.is_file()]
