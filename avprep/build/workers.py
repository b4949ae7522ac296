"""Making shards in worker processes of this machine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from avprep.build.make_shard import Failures, make_shard
from avprep.build.plan import ShardPlan
from avprep.errors import UserError
from avprep.processes import Lost, Starting
from avprep.sample.options import ClipOptions
from avprep.workers import Advance, Workers
from shards.folders import Folder


def make_shards(
    workers: Workers, out: Folder, shards: list[ShardPlan], options: ClipOptions, advance: Advance
) -> Iterator[Failures]:
    """Make shards, in any order; yields the failures of each.

    A clip that ends the process that makes it, or hangs, costs itself alone: its shard is made
    again without it.
    """
    jobs = [_Job(out, shard, options) for shard in shards]
    while jobs:
        again = []
        steps = [0] * len(jobs)

        def on_step(number: int, step: int, steps: list[int] = steps) -> None:
            advance(max(0, step - steps[number]))
            steps[number] = step

        for number, result in workers.run(_make, jobs, on_step):
            if isinstance(result, Lost):
                advance(-steps[number])
                again.append(_without(jobs[number], result, workers.reason(result)))
            else:
                yield result
        jobs = again


@dataclass(frozen=True)
class _Job:
    out: Folder
    shard: ShardPlan
    options: ClipOptions
    fatal: dict[str, str] = field(default_factory=dict)


def _make(job: _Job, starting: Starting) -> Failures:
    return make_shard(job.out, job.shard, job.options, starting, job.fatal)


def _without(job: _Job, lost: Lost, reason: str) -> _Job:
    """The job without the clip at which its process was lost."""
    culprit = job.shard.clips[min(lost.step, len(job.shard.clips) - 1)].key
    if culprit in job.fatal:
        raise UserError(
            "processes die again and again, perhaps for want of memory; finished shards are "
            "kept: run the same command again, with fewer --workers"
        )
    return replace(job, fatal={**job.fatal, culprit: reason})
