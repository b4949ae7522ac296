"""Options that decide what each clip becomes."""

from __future__ import annotations

from dataclasses import dataclass

from avprep.sphere.viewpoints import FixedViews, RandomViews


@dataclass(frozen=True)
class Cleaning:
    """Thresholds below which a clip is dropped; None: no threshold.

    ``level_dbfs``: RMS level of the omnidirectional channel; ``change``: mean absolute difference
    of grey levels (0 to 255) between frames a second apart; ``spatiality``: see
    `avprep.foa.ambix.spatiality`. The names are those in ``dropped.jsonl`` and in manifests.
    """

    level_dbfs: float | None = None
    change: float | None = None
    spatiality: float | None = None

    def __bool__(self) -> bool:
        return (self.level_dbfs, self.change, self.spatiality) != (None, None, None)


@dataclass(frozen=True)
class ClipOptions:
    """Options that are the same for all clips of a build.

    ``audio``: foa (ambisonics), mono (a beam towards the view) or stereo (a pair of ears).
    ``audio_layout``: rotated (one track per view) or source (one unrotated track per clip). The
    names and their order go into the digests of existing sets: never change them.
    ``panorama``: width and height of a video of the whole sphere; None: there is none.
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
    panorama: tuple[int, int] | None = None
