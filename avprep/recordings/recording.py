"""A recording, and the suffixes of media files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

VIDEO_SUFFIXES = (
    *(".mp4", ".mkv", ".webm", ".mov", ".avi"),
    *(".m4v", ".ts", ".mts", ".m2ts", ".3gp", ".ogv"),
)
AUDIO_SUFFIXES = (
    *(".wav", ".flac", ".m4a", ".ogg", ".opus", ".amb"),
    *(".caf", ".aiff", ".aif", ".w64", ".mka"),
)
MEDIA_SUFFIXES = (*VIDEO_SUFFIXES, *AUDIO_SUFFIXES)


@dataclass(frozen=True)
class Recording:
    """A video file with its audio: all of the original recording ``source``, or a part of it from
    ``start_s`` on.

    ``file`` is the video's path relative to the input folder. ``duration_s`` is None if it must be
    read from the file. ``windows`` are the parts of the file to use, as (start, duration) in
    seconds; None for all of it. ``formats_known``: the layout defines the formats of video and
    audio. ``flat``: an ordinary video, not a 360° one. ``split``, ``label`` and the role in each of
    several ``folds`` are given by the layout. ``truth`` is a file of labels in time; ``maps`` is a
    folder with one folder of label maps for each window, named by `window_name`.
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
    """A line of ``failures.jsonl``: a recording or clip that is not in the set, the stage (find,
    probe or clip) at which it failed, and the reason."""

    source: str
    stage: str
    reason: str
