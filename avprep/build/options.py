"""Options of a build: those that decide what the set holds, and those that do not."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from avprep.errors import UserError
from avprep.formats.decide import FLAT_FOV_DEG, Wanted
from avprep.recordings.labelled import FLAT_LAYOUTS
from avprep.sample.options import ClipOptions
from avprep.sphere.viewpoints import FixedViews
from shards.schema import View


@dataclass(frozen=True)
class BuildOptions:
    """Options of ``avprep build-shards`` that decide what the set holds."""

    clip: ClipOptions
    wanted: Wanted
    layout: str
    clip_duration_s: float
    shard_bytes: int

    def for_layout(self, layout: str) -> BuildOptions:
        """The options with which the clips of a layout are made: ordinary videos have one view,
        their middle, and one channel of sound. Raises UserError for what they cannot have."""
        if layout not in FLAT_LAYOUTS:
            return replace(self, layout=layout)
        if self.clip.cleaning:
            raise UserError(
                f"--drop-silent, --drop-static and --drop-mono are for 360° recordings; {layout} "
                "holds ordinary videos: leave them out"
            )
        centre = FixedViews((View(0.0, 0.0, FLAT_FOV_DEG, FLAT_FOV_DEG),))
        clip = replace(self.clip, views=centre, audio="mono", audio_layout="rotated")
        return replace(self, layout=layout, clip=clip)

    def record(self) -> dict[str, Any]:
        """What the manifest keeps: nothing that depends on the machine or the run."""
        value = asdict(self)
        del value["clip"]["timeout_s"]
        return value

    def clip_bytes(self) -> int:
        """About how large a clip becomes (measured on real 112² views and real ambisonics)."""
        views = len(self.clip.views.draw("", 0))
        channels = {"foa": 4, "mono": 1, "stereo": 2}[self.clip.audio]
        channels *= views if self.clip.audio_layout == "rotated" else 1
        picture = views * self.clip.size**2 * self.clip.fps * 0.04
        sound = channels * self.clip.sample_rate * 2 * 0.72
        return round(self.clip_duration_s * (picture + sound))


@dataclass(frozen=True)
class Task:
    """Part ``index`` of ``count`` of a build, as an element of a job array makes it."""

    index: int
    count: int


@dataclass(frozen=True)
class Run:
    """How a build is run; the set is the same for all of these.

    ``task`` makes a part of the shards only; ``append`` adds what a finished set does not hold.
    """

    workers: int = 1
    task: Task | None = None
    append: bool = False
    scheduler: str | None = None
    show_progress: bool = True
