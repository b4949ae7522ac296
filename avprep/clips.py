"""The clips of a build, and what each is made into."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from avprep.examine import PictureFormat, SoundFormat
from avprep.probe import Media
from avprep.viewpoints import FixedViews, RandomViews

SHORTEST_CLIP_S = 1.0


@dataclass(frozen=True)
class Clip:
    """A clip to be made: ``duration_s`` seconds from ``offset_s`` in its files.

    ``start_s`` is the same moment in the original recording ``source``, of which the files may be
    a part; ``file`` is the video's path relative to the input folder; ``picture`` and ``sound``
    say how the files are to be read.
    """

    key: str
    source: str
    split: str
    video: Path
    audio: Path
    file: str
    start_s: float
    offset_s: float
    duration_s: float
    picture: PictureFormat = PictureFormat()  # noqa: RUF009
    sound: SoundFormat = SoundFormat()  # noqa: RUF009
    label: str | None = None
    truth: Path | None = None
    media: tuple[Media, Media] | None = None
    """What video and audio file hold, if that is known already."""


@dataclass(frozen=True)
class ClipOptions:
    """What every clip of a build is made into."""

    views: RandomViews | FixedViews
    size: int
    fps: float
    sample_rate: int
    audio_layout: str
    seed: int
    timeout_s: float
