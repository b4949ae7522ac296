"""Making shards, and asking files what they are, in worker processes of this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from math import inf
from pathlib import PurePosixPath
from typing import TypeVar

from avprep.build.plan import ShardPlan
from avprep.errors import ClipError, UserError, in_a_sentence
from avprep.processes import Crew, Lost, Starting
from avprep.recordings.recording import Failure
from avprep.sample.options import ClipOptions
from shards.folders import Folder
from shards.writer import open_shard

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

DEADLY = "decoding it ended the process; it is damaged (or memory is short): download it again"
_GRACE_S = 30.0
"""ffmpeg's own time limit comes first, since it says more."""
Failures = tuple[Failure, ...]
Advance = Callable[[int], object]
"""Called with a number of clips that were done since the last call."""


def make_shard(
    out: Folder,
    shard: ShardPlan,
    options: ClipOptions,
    starting: Starting,
    fatal: Mapping[str, str] | None = None,
) -> Failures:
    """Make one shard; returns what of its clips did not go in.

    ``starting`` is called with the number of each clip before it is made, and with how many there
    are and None at the end; clips whose keys are in ``fatal`` are left out for the reasons there.
    """
    from avprep.sample.make_sample import (
        make_sample,  # what decodes and encodes; planning does without
    )
    from avprep.sample.thresholds import DroppedError

    failures: list[Failure] = []
    out.delete_partial(shard.split, PurePosixPath(shard.file).name)  # of a process that was killed
    with open_shard(out, shard.file, shard.index) as writer:
        for number, clip in enumerate(shard.clips):
            starting(number)
            try:
                if fatal is not None and clip.key in fatal:
                    raise ClipError(fatal[clip.key])
                sample = make_sample(clip, options)
            except UserError:
                raise
            except DroppedError as error:
                dropped = {"key": clip.key, "source": clip.source, "file": clip.file}
                why = {"start_s": clip.start_s, **error.numbers, "reason": str(error)}
                writer.add_dropped(dropped | why)
            except Exception as error:
                # Whatever a broken file provokes in a decoder costs this clip alone.
                failure = Failure(clip.source, "clip", f"{clip.file}: {in_a_sentence(error)}")
                writer.add_failure(asdict(failure))
                failures.append(failure)
            else:
                writer.add(*sample)
        starting(len(shard.clips))
        starting(None)  # disks may be slow
    return tuple(failures)


class Workers:
    """Processes of this machine. What ends one of them, or takes longer than ``timeout_s`` for one
    file or clip, costs nothing but itself."""

    def __init__(self, count: int, timeout_s: float = inf) -> None:
        self._crew = Crew(count)
        self._limit_s = timeout_s + _GRACE_S

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self._crew.close()

    def ask(
        self,
        question: Callable[[_Item], _Result],
        items: Sequence[_Item],
        advance: Advance = lambda _: None,
    ) -> list[_Result | str]:
        """The answers in order; a sentence where there is none."""
        answers: list[_Result | str] = [""] * len(items)
        asking = partial(_answer, question)
        for number, answer in self._crew.run(asking, items, self._limit_s):
            advance(1)
            answers[number] = self._reason(answer) if isinstance(answer, Lost) else answer
        return answers

    def make(
        self, out: Folder, shards: list[ShardPlan], options: ClipOptions, advance: Advance
    ) -> Iterator[Failures]:
        """Make shards, in any order; yields the failures of each."""
        jobs = [_Job(out, shard, options) for shard in shards]
        while jobs:
            again = []
            steps = [0] * len(jobs)

            def on_step(number: int, step: int, steps: list[int] = steps) -> None:
                advance(max(0, step - steps[number]))
                steps[number] = step

            for number, result in self._crew.run(_make, jobs, self._limit_s, on_step):
                if isinstance(result, Lost):
                    advance(-steps[number])
                    again.append(self._without(jobs[number], result))
                else:
                    yield result
            jobs = again

    def _without(self, job: _Job, lost: Lost) -> _Job:
        """The job without the clip that ends the process that makes it, or hangs."""
        culprit = job.shard.clips[min(lost.step, len(job.shard.clips) - 1)].key
        if culprit in job.fatal:
            raise UserError(
                "processes die again and again, perhaps for want of memory; finished shards are "
                "kept: run the same command again, with fewer --workers"
            )
        return replace(job, fatal={**job.fatal, culprit: self._reason(lost)})

    def _reason(self, lost: Lost) -> str:
        if not lost.late:
            return DEADLY
        return (
            f"reading it took more than {self._limit_s:g} s and was stopped; the file may be "
            "broken, or allow more with --clip-timeout"
        )


@dataclass(frozen=True)
class _Job:
    out: Folder
    shard: ShardPlan
    options: ClipOptions
    fatal: dict[str, str] = field(default_factory=dict)


def _make(job: _Job, starting: Starting) -> Failures:
    return make_shard(job.out, job.shard, job.options, starting, job.fatal)


def _answer(question: Callable[[_Item], _Result], item: _Item, _: Starting) -> _Result | str:
    try:
        return question(item)
    except UserError:
        raise
    except Exception as error:
        return in_a_sentence(error)
