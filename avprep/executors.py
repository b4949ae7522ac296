"""Making shards: here, in worker processes, or on a Dask cluster."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

from avprep.clip import ClipOptions, make_sample
from avprep.errors import ClipError, UserError
from avprep.plan import ShardPlan
from avprep.sources import Failure
from shards.files import remove_temporary_files
from shards.writer import open_shard

Failures = tuple[Failure, ...]
Advance = Callable[[int], None]
"""Called with a number of clips that were done since the last call."""


def make_shard(out: Path, shard: ShardPlan, options: ClipOptions, advance: Advance) -> Failures:
    """Make one shard; returns what of its clips did not go in."""
    failures: list[Failure] = []
    tar = out / shard.file
    remove_temporary_files(tar.parent, tar.name)  # of a process that was killed
    with open_shard(out, shard.file, shard.index) as writer:
        for clip in shard.clips:
            try:
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
            advance(1)
    return tuple(failures)


class Workers:
    """Processes of this machine; none for one worker. Made by `workers`."""

    def __init__(self, pool: ProcessPoolExecutor | None, counter: Synchronized[int]) -> None:
        self.pool = pool
        self._counter = counter

    def make(
        self, out: Path, shards: list[ShardPlan], options: ClipOptions, advance: Advance
    ) -> Iterator[Failures]:
        """Make shards, in any order; yields the failures of each."""
        if self.pool is None:
            for shard in shards:
                yield make_shard(out, shard, options, advance)
            return
        seen = self._counter.value
        pending = {self.pool.submit(_make_and_count, out, shard, options) for shard in shards}
        try:
            while pending:
                finished, pending = wait(pending, timeout=0.2, return_when=FIRST_COMPLETED)
                done = self._counter.value
                advance(done - seen)
                seen = done
                for future in finished:
                    yield future.result()
        finally:
            for future in pending:
                future.cancel()


@contextmanager
def workers(count: int) -> Iterator[Workers]:
    """Raises UserError where a process dies."""
    context = multiprocessing.get_context("forkserver")
    counter: Synchronized[int] = context.Value("q", 0)
    if count == 1:
        yield Workers(None, counter)
        return
    # One process imports the libraries, and the workers are forked from it.
    context.set_forkserver_preload([__name__])
    try:
        with ProcessPoolExecutor(count, context, _set_counter, (counter,)) as pool:
            yield Workers(pool, counter)
    except BrokenProcessPool:
        raise UserError(
            "a worker process died, perhaps for want of memory; finished shards are kept: run the "
            "same command again, with fewer --workers"
        ) from None


class DaskWorkers:
    """Workers of a Dask cluster, which see the same folders under the same paths."""

    pool: Executor | None = None

    def __init__(self, address: str) -> None:
        self._address = address

    def make(
        self, out: Path, shards: list[ShardPlan], options: ClipOptions, advance: Advance
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
                client.submit(_make, out.absolute(), shard, options, pure=False, retries=2): shard
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


def _make(out: Path, shard: ShardPlan, options: ClipOptions) -> Failures:
    return make_shard(out, shard, options, lambda _: None)


_counter: Synchronized[int] | None = None


def _set_counter(counter: Synchronized[int]) -> None:
    global _counter
    _counter = counter


def _count(clips: int) -> None:
    if _counter is not None:
        with _counter.get_lock():
            _counter.value += clips


def _make_and_count(out: Path, shard: ShardPlan, options: ClipOptions) -> Failures:
    return make_shard(out, shard, options, _count)
