"""Making shards: here, in worker processes, or on a Dask cluster."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, replace
from multiprocessing.sharedctypes import Synchronized
from pathlib import PurePosixPath
from typing import Any, TypeVar

from avprep.clips import ClipOptions
from avprep.errors import ClipError, UserError
from avprep.plan import ShardPlan
from avprep.sources import Failure
from shards.places import Folder
from shards.writer import open_shard

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

DEADLY = "decoding it ended the process; it is damaged (or memory is short): download it again"
_NOTHING = -1
_MOST_IDLE_DEATHS = 3
Failures = tuple[Failure, ...]
Advance = Callable[[int], object]
"""Called with a number of clips that were done since the last call."""


def make_shard(
    out: Folder,
    shard: ShardPlan,
    options: ClipOptions,
    starting: Callable[[int], None],
    fatal: frozenset[str] = frozenset(),
) -> Failures:
    """Make one shard; returns what of its clips did not go in.

    ``starting`` is called with the number of each clip before it is made, and with how many there
    are at the end; clips whose keys are in ``fatal`` are known to end the process.
    """
    from avprep.clip import make_sample  # what decodes and encodes; planning does without

    failures: list[Failure] = []
    out.delete_partial(shard.split, PurePosixPath(shard.file).name)  # of a process that was killed
    with open_shard(out, shard.file, shard.index) as writer:
        for number, clip in enumerate(shard.clips):
            starting(number)
            try:
                if clip.key in fatal:
                    raise ClipError(DEADLY)
                sample = make_sample(clip, options)
            except (UserError, MemoryError):
                raise
            except Exception as error:
                # Whatever a broken file provokes in a decoder costs this clip alone.
                known = isinstance(error, ClipError)
                reason = str(error) if known else f"unexpected {type(error).__name__}: {error}"
                failure = Failure(clip.source, "clip", f"{clip.file}: {reason}")
                writer.add_failure(asdict(failure))
                failures.append(failure)
            else:
                writer.add(*sample)
        starting(len(shard.clips))
    return tuple(failures)


class _Died:
    """Stands for the result of what ended its process."""


class Workers:
    """Processes of this machine. What ends one of them costs nothing but itself."""

    def __init__(self, count: int) -> None:
        self._count = count
        # Not fork, which threads do not survive, nor a fork server, whose children's time nobody
        # can account for.
        self._context = multiprocessing.get_context("spawn")
        self._pool: ProcessPoolExecutor | None = None
        self._doing = self._context.Array("q", [_NOTHING] * count)
        self._begun: Synchronized[int] = self._context.Value("q", 0)
        self._clip: Synchronized[int] = self._context.Value("q", 0)

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def ask(
        self,
        question: Callable[[_Item], _Result],
        items: Sequence[_Item],
        advance: Advance = lambda _: None,
    ) -> list[_Result | str]:
        """The answers in order; a sentence where finding it ended the process."""
        answers: list[_Result | str] = [DEADLY] * len(items)
        for number, answer in self._run(question, items, lambda: None):
            advance(1)
            if not isinstance(answer, _Died):
                answers[number] = answer
        return answers

    def make(
        self, out: Folder, shards: list[ShardPlan], options: ClipOptions, advance: Advance
    ) -> Iterator[Failures]:
        """Make shards, in any order; yields the failures of each."""
        seen = self._begun.value

        def tick() -> None:
            nonlocal seen
            done, seen = self._begun.value - seen, self._begun.value
            advance(done)

        jobs = [_Job(out, shard, options) for shard in shards]
        for number, result in self._run(_make, jobs, tick):
            yield self._make_around(jobs[number]) if isinstance(result, _Died) else result
        tick()

    def _make_around(self, job: _Job) -> Failures:
        """Make a shard without the clips that end the process that makes them."""
        while True:
            culprit = job.shard.clips[min(self._clip.value, len(job.shard.clips) - 1)].key
            if culprit in job.fatal:
                raise UserError(
                    "processes die again and again, perhaps for want of memory; finished shards "
                    "are kept: run the same command again, with fewer --workers"
                )
            job = replace(job, fatal=job.fatal | {culprit})
            result = self._run_alone(_make, job)
            if not isinstance(result, _Died):
                return result

    def _run(
        self,
        function: Callable[[_Item], _Result],
        items: Sequence[_Item],
        tick: Callable[[], None],
    ) -> Iterator[tuple[int, _Result | _Died]]:
        """Call a function for all items; yields their numbers and results as they come."""
        waiting = set(range(len(items)))
        idle_deaths = 0
        while waiting:
            try:
                for number, result in self._run_together(function, items, waiting, tick):
                    waiting.remove(number)
                    yield number, result
            except BrokenProcessPool:
                # What was being done when a process died may have ended it: that alone tells.
                suspects = [number for number in self._doing[:] if number in waiting]
                self._close()
                idle_deaths += not suspects
                if idle_deaths == _MOST_IDLE_DEATHS:
                    raise UserError(
                        "worker processes die before they begin, perhaps for want of memory; run "
                        "the same command again, with fewer --workers"
                    ) from None
                for number in suspects:
                    waiting.remove(number)
                    yield number, self._run_alone(function, items[number])

    def _run_together(
        self,
        function: Callable[[_Item], _Result],
        items: Sequence[_Item],
        waiting: set[int],
        tick: Callable[[], None],
    ) -> Iterator[tuple[int, _Result]]:
        if self._pool is None:
            self._pool = self._new_pool(self._count)
        futures = {
            self._pool.submit(_tracked, number, function, items[number]): number
            for number in sorted(waiting)
        }
        pending = set(futures)
        try:
            while pending:
                finished, pending = wait(pending, timeout=0.2, return_when=FIRST_COMPLETED)
                tick()
                for future in finished:
                    yield futures[future], future.result()
        finally:
            for future in pending:
                future.cancel()

    def _run_alone(self, function: Callable[[_Item], _Result], item: _Item) -> _Result | _Died:
        with self._new_pool(1) as pool:
            try:
                return pool.submit(_tracked, 0, function, item).result()
            except BrokenProcessPool:
                return _Died()

    def _new_pool(self, count: int) -> ProcessPoolExecutor:
        for slot in range(self._count):
            self._doing[slot] = _NOTHING
        number = self._context.Value("q", 0)
        shared = (number, self._doing, self._begun, self._clip)
        return ProcessPoolExecutor(count, self._context, _begin, shared)

    def _close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None


class DaskWorkers:
    """Workers of a Dask cluster, which see the same folders under the same paths."""

    def __init__(self, address: str) -> None:
        self._address = address

    def make(
        self, out: Folder, shards: list[ShardPlan], options: ClipOptions, advance: Advance
    ) -> Iterator[Failures]:
        """Make shards, in any order; yields the failures of each. Raises UserError."""
        try:
            from distributed import Client, as_completed
            from distributed.scheduler import KilledWorker
        except ModuleNotFoundError:
            raise UserError("--scheduler needs Dask; `pip install 'avsa360[dask]'`") from None

        try:
            client = Client(self._address, timeout="20s")  # type: ignore[no-untyped-call]
        except (OSError, ValueError) as error:
            raise UserError(
                f"no Dask scheduler answers at {self._address} ({error}); see --scheduler"
            ) from None
        with client:
            # A worker that dies loses nothing but time: its shard is made by another one.
            futures = {
                client.submit(
                    _make_on_cluster, out.absolute(), shard, options, pure=False, retries=2
                ): shard
                for shard in shards
            }
            try:
                for future in as_completed(futures):  # type: ignore[no-untyped-call]
                    yield future.result()
                    advance(len(futures[future].clips))
            except KilledWorker as error:
                raise UserError(
                    f"Dask workers died again and again ({error}); finished shards are kept: give "
                    "them more memory and run the same command again"
                ) from None


def _make_on_cluster(out: Folder, shard: ShardPlan, options: ClipOptions) -> Failures:
    return make_shard(out, shard, options, lambda _: None)


@dataclass(frozen=True)
class _Job:
    out: Folder
    shard: ShardPlan
    options: ClipOptions
    fatal: frozenset[str] = frozenset()


# What a worker process shares with the others; set when it begins.
_slot = 0
_shared: tuple[Any, Synchronized[int], Synchronized[int]] | None = None


def _begin(
    number: Synchronized[int], doing: Any, begun: Synchronized[int], clip: Synchronized[int]
) -> None:
    global _slot, _shared
    with number.get_lock():
        _slot, number.value = number.value, number.value + 1
    _shared = (doing, begun, clip)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A build that was killed ends in all its processes, and writes nothing more."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _tracked(number: int, function: Callable[[_Item], _Result], item: _Item) -> _Result:
    """Call a function, and show meanwhile what is being done."""
    if _shared is None:
        raise RuntimeError("this is no worker process")
    doing = _shared[0]
    doing[_slot] = number
    result = function(item)
    doing[_slot] = _NOTHING
    return result


def _make(job: _Job) -> Failures:
    if _shared is None:
        raise RuntimeError("this is no worker process")
    _, begun, at = _shared

    def starting(number: int) -> None:
        at.value = number
        if number:  # the one before is done
            with begun.get_lock():
                begun.value += 1

    return make_shard(job.out, job.shard, job.options, starting, job.fatal)
