"""A recording of an input folder, and the files there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

VIDEO_SUFFIXES = (".mp4", ".mkv", ".webm", ".mov", ".avi")
SIDE_SUFFIXES = (".wav", ".flac", ".m4a", ".ogg", ".opus", ".amb")


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


def files_in(folder: Path, recursive: bool) -> list[Path]:
    found = folder.rglob("*") if recursive else folder.glob("*")
    return sorted(path for path in found if path.is_file() and not path.name.startswith("."))


def is_kind(path: Path, suffixes: tuple[str, ...]) -> bool:
    return path.suffix.lower() in suffixes


def side_files(folder: Path, stem: str) -> list[Path]:
    candidates = (folder / f"{stem}{suffix}" for suffix in SIDE_SUFFIXES)
    return [path for path in candidates if path.is_file()]
