"""Options of a build: those that decide what the set holds, and those that do not."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from avprep.errors import UserError
from avprep.formats.decide import FLAT_FOV_DEG, FormatOverrides
from avprep.recordings.labelled import FLAT_LAYOUTS
from avprep.sample.options import ClipOptions
from avprep.sphere.viewpoints import FixedViews
from shards.schema import View


@dataclass(frozen=True)
class BuildOptions:
    """Options of ``avprep build-shards`` that decide what the set holds. ``part_s``: the seconds of
    each file between which clips are cut; None for all of it."""

    clip: ClipOptions
    format_overrides: FormatOverrides
    layout: str
    clip_duration_s: float
    shard_bytes: int
    part_s: tuple[float, float] | None = None

    def for_layout(self, layout: str) -> BuildOptions:
        """These options adapted to the layout that was found.

        Ordinary videos get one view, their centre, and one audio channel. Raises UserError for
        options that do not apply to them.
        """
        if layout not in FLAT_LAYOUTS:
            return replace(self, layout=layout)
        if self.clip.cleaning:
            raise UserError(
                f"--drop-silent, --drop-static and --drop-mono are for 360° recordings; {layout} "
                "holds ordinary videos: leave them out"
            )
        if self.clip.panorama is not None:
            raise UserError(
                f"--panorama is for 360° recordings; {layout} holds ordinary videos: leave it out"
            )
        centre = FixedViews((View(0.0, 0.0, FLAT_FOV_DEG, FLAT_FOV_DEG),))
        clip = replace(self.clip, views=centre, audio="mono", audio_layout="rotated")
        return replace(self, layout=layout, clip=clip)

    def record(self) -> dict[str, Any]:
        """The options as the manifest stores them, without those that depend on the machine.

        Names and their order go into the digests of existing sets: never change them.
        """
        clip = asdict(self.clip)
        del clip["timeout_s"]
        if self.clip.panorama is None:  # as in sets that were built before there were panoramas
            del clip["panorama"]
        record = {
            "clip": clip,
            "wanted": self.format_overrides.record(),
            "layout": self.layout,
            "clip_duration_s": self.clip_duration_s,
            "shard_bytes": self.shard_bytes,
        }
        return record if self.part_s is None else record | {"part_s": list(self.part_s)}

    def clip_bytes(self) -> int:
        """Approximate size of a clip in a shard (measured on real 112² views and ambisonics)."""
        views = len(self.clip.views.draw("", 0))
        channels = {"foa": 4, "mono": 1, "stereo": 2}[self.clip.audio]
        channels *= views if self.clip.audio_layout == "rotated" else 1
        width, height = self.clip.panorama or (0, 0)
        video = (views * self.clip.size**2 + width * height) * self.clip.fps * 0.04
        audio = channels * self.clip.sample_rate * 2 * 0.72
        return round(self.clip_duration_s * (video + audio))


@dataclass(frozen=True)
class Task:
    """Part ``index`` of ``count`` of a build: one element of a job array."""

    index: int
    count: int


@dataclass(frozen=True)
class RunOptions:
    """How a build is run; the set does not depend on any of these.

    With ``task``, only a part of the shards is made; with ``append``, clips that a finished set
    does not hold yet are added to it.
    """

    workers: int = 1
    task: Task | None = None
    append: bool = False
    scheduler: str | None = None
    show_progress: bool = True
