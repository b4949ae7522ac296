"""The options of ``avprep build-shards``, checked and turned into those of a build."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from avprep.cli.choices import cores
from avprep.errors import UserError

if TYPE_CHECKING:  # importing the build takes a while, which --help should not
    from avprep.build.options import BuildOptions, RunOptions, Task
    from avprep.recordings.find_clips import ListFiles
    from avprep.sphere.viewpoints import FixedViews, RandomViews

_DEFAULT_VIEWS = 8


@dataclass(frozen=True)
class BuildShardsOptions:
    """The options under their names on the command line, parsed but not yet checked together.

    A test holds that names and types are those that click delivers.
    """

    layout: str
    splits: Path | None
    segments: Path | None
    views: int | None
    viewpoints: str
    hfov: tuple[float, float]
    min_separation: float
    size: int
    fps: float
    clip_duration: float
    part: tuple[float, float] | None
    sample_rate: int
    audio: str
    audio_layout: str
    foa_convention: str
    projection: str
    stereo: str
    fisheye_fov: float
    video_track: int | None
    audio_track: int | None
    drop_silent: float | None
    drop_static: float | None
    drop_mono: float | None
    workers: int | None
    shard_size: int
    seed: int
    clip_timeout: float
    panorama: tuple[int, int] | None
    append: bool
    task_index: int | None
    task_count: int | None
    scheduler: str | None

    def run(self) -> RunOptions:
        """How to run the build. Raises UserError for options that exclude each other."""
        from avprep.build.options import RunOptions

        task = self._task()
        if task is not None and self.scheduler is not None:
            raise UserError("--scheduler distributes the work itself; leave out --task-index")
        return RunOptions(self.workers or cores(), task, self.append, self.scheduler)

    def lists(self) -> ListFiles:
        from avprep.recordings.find_clips import ListFiles

        return ListFiles(self.splits, self.segments)

    def build_options(self) -> BuildOptions:
        """What the set will hold. Raises UserError for options that exclude each other."""
        from avprep.build.options import BuildOptions
        from avprep.formats.decide import FormatOverrides
        from avprep.sample.options import Cleaning, ClipOptions

        if self.size % 2:
            raise UserError(f"--size {self.size} is odd; H.264 needs an even size")
        if self.audio != "foa" and self.audio_layout == "source":
            raise UserError(
                f"--audio {self.audio} differs from view to view; leave out --audio-layout source"
            )
        clip = ClipOptions(
            views=self._viewpoints(),
            size=self.size,
            fps=int(self.fps) if self.fps == int(self.fps) else self.fps,
            sample_rate=self.sample_rate,
            audio_layout=self.audio_layout,
            seed=self.seed,
            timeout_s=self.clip_timeout,
            audio=self.audio,
            cleaning=Cleaning(self.drop_silent, self.drop_static, self.drop_mono),
            panorama=self.panorama,
        )
        overrides = FormatOverrides(
            *(self.projection, self.stereo, self.fisheye_fov, self.foa_convention),
            *(self.video_track, self.audio_track),
        )
        return BuildOptions(
            clip, overrides, self.layout, self.clip_duration, self.shard_size, self.part
        )

    def _viewpoints(self) -> RandomViews | FixedViews:
        from avprep.sphere.viewpoints import RandomViews, grid_views, read_views

        count = self.views or _DEFAULT_VIEWS
        if self.viewpoints in ("random", "energy"):
            by_energy = self.viewpoints == "energy"
            return RandomViews(count, self.hfov, self.min_separation, by_energy)
        if self.viewpoints == "grid":
            return grid_views(count, self.hfov[1])
        views = read_views(Path(self.viewpoints))
        if self.views not in (None, len(views.views)):
            raise UserError(
                f"--views {self.views} contradicts --viewpoints {self.viewpoints}, "
                f"which holds {len(views.views)}; leave --views out"
            )
        return views

    def _task(self) -> Task | None:
        """The task given by options, otherwise by Slurm's variables; None without either."""
        from avprep.build.options import Task

        index, count = self.task_index, self.task_count
        if index is None and count is None:
            names = ("ID", "COUNT", "MIN")
            slurm = {name: os.environ.get(f"SLURM_ARRAY_TASK_{name}", "") for name in names}
            if not all(value.isdecimal() for value in slurm.values()):
                return None
            step = os.environ.get("SLURM_ARRAY_TASK_STEP", "1")
            first = int(slurm["ID"]) - int(slurm["MIN"])
            step_size = int(step) if step.isdecimal() and int(step) else 1
            index, count = first // step_size, int(slurm["COUNT"])
            if index >= count:
                raise UserError(
                    f"Slurm's array has {count} tasks from {slurm['MIN']} on, and this one is "
                    f"{slurm['ID']}: they have unequal distances; submit the whole array again "
                    "(finished shards are kept), or give --task-index and --task-count"
                )
        if index is None or count is None:
            raise UserError("--task-index and --task-count go together")
        if index >= count:
            raise UserError(f"--task-index {index} is not below --task-count {count}")
        return Task(index, count)
