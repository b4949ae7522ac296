"""The clips of a build, and what each is made into."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from avprep.formats.decide import PictureFormat, SoundFormat
from avprep.media.probe import Media
from avprep.sphere.viewpoints import FixedViews, RandomViews

SHORTEST_CLIP_S = 1.0


@dataclass(frozen=True)
class Clip:
    """A clip to be made: ``duration_s`` seconds from ``offset_s`` in its files.

    ``start_s`` is the same moment in the original recording ``source``, of which the files may be
    a part; ``file`` is the video's path relative to the input folder; ``picture`` and ``sound``
    say how the files are to be read. ``maps`` is a folder of label maps, and the clip begins at
    ``maps_offset_s`` of what they are of. ``flat``: it is an ordinary video, not of the sphere.
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
    folds: tuple[str, ...] | None = None
    truth: Path | None = None
    maps: Path | None = None
    maps_offset_s: float = 0.0
    flat: bool = False
    media: tuple[Media, Media] | None = None
    """What video and audio file hold, if that is known already."""


@dataclass(frozen=True)
class Cleaning:
    """Below which of these a clip is dropped; None: never.

    ``level_dbfs`` of the omnidirectional channel, RMS; ``change``: mean difference of grey levels
    (0 to 255) between moments a second apart; ``spatiality``: see `avprep.foa.ambix.spatiality`.
    """

    level_dbfs: float | None = None
    change: float | None = None
    spatiality: float | None = None

    def __bool__(self) -> bool:
        return (self.level_dbfs, self.change, self.spatiality) != (None, None, None)


@dataclass(frozen=True)
class ClipOptions:
    """What every clip of a build is made into.

    ``audio``: foa, or mono (a beam to the view) or stereo (what ears on its left and right hear).
    """

    views: RandomViews | FixedViews
    size: int
    fps: float
    sample_rate: int
    audio_layout: str
    seed: int
    timeout_s: float
    audio: str = "foa"
    cleaning: Cleaning = Cleaning()
