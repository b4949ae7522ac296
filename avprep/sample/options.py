"""What each clip is made into."""

from __future__ import annotations

from dataclasses import dataclass

from avprep.sphere.viewpoints import FixedViews, RandomViews


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
