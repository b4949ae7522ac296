"""Making shards in worker processes on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from avprep.build.make_shard import Failures, make_shard
from avprep.build.plan import ShardPlan
from avprep.errors import UserError
from avprep.processes import Lost, ReportStep
from avprep.sample.options import ClipOptions
from avprep.workers import Advance, WorkerPool
from shards.folders import Folder


def make_shards(
    pool: WorkerPool, out: Folder, shards: list[ShardPlan], options: ClipOptions, advance: Advance
) -> Iterator[Failures]:
    """Make shards, in any order; yields the failures of each.

    A clip that crashes or blocks its process loses only itself: its shard is made again without it.
    """
    jobs = [_Job(out, shard, options) for shard in shards]
    while jobs:
        again = []
        steps = [0] * len(jobs)

        def on_step(number: int, step: int, steps: list[int] = steps) -> None:
            advance(max(0, step - steps[number]))
            steps[number] = step

        for number, result in pool.run(_make, jobs, on_step):
            if isinstance(result, Lost):
                advance(-steps[number])
                again.append(_without_clip(jobs[number], result, pool.reason(result)))
            else:
                yield result
        jobs = again


@dataclass(frozen=True)
class _Job:
    out: Folder
    shard: ShardPlan
    options: ClipOptions
    fatal: dict[str, str] = field(default_factory=dict)


def _make(job: _Job, report_step: ReportStep) -> Failures:
    return make_shard(job.out, job.shard, job.options, report_step, job.fatal)


def _without_clip(job: _Job, lost: Lost, reason: str) -> _Job:
    """The job without the clip in which its process was lost. Raises UserError if it has been
    left out already, so that something else ends the processes."""
    key = job.shard.clips[min(lost.step, len(job.shard.clips) - 1)].key
    if key in job.fatal:
        raise UserError(
            "processes crash again and again, perhaps because memory is short; finished shards are "
            "kept: run the same command again with fewer --workers"
        )
    return replace(job, fatal={**job.fatal, key: reason})
