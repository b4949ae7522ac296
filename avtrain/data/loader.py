"""Batches of a run's steps, read ahead by loader workers."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, TypeVar

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from avtrain.data.batch import Batch, collate
from avtrain.data.clips import Clips
from avtrain.data.plan import ALL, Plan, Share, Step
from avtrain.data.unreadable import CatchUnreadable, CollateReadable, Unreadable
from avtrain.errors import TrainingError
from avtrain.runtime.lifeline import Lifeline, hold
from avtrain.runtime.shared_memory import Room, deliver_or_end, share, tensors_of
from avtrain.runtime.signals import (
    StopRequest,
    WaitGivenUp,
    delayed_signals,
    leave_signals_to_parent,
)

_Item = TypeVar("_Item")
_Batch = TypeVar("_Batch")
PREFETCH = 2
"""Batches that each worker holds ready."""
POLL_S, END_S, LONGEST_WAIT_S = 1.0, 2.0, 1800.0
"""A cache may copy a shard for every clip of a first batch: that takes its time."""


def load(
    clips: Clips,
    plan: Plan,
    epochs: range,
    first_step: int,
    workers: int,
    pin: bool,
    share: Share = ALL,
    unreadable: Unreadable | None = None,
) -> Generator[tuple[Step, Batch]]:
    """Steps with this rank's batches, see `read_ahead`, also for how to close it. A step comes once
    per micro-batch; a micro-batch without readable clips is skipped."""
    sampler = PlanSampler(plan, epochs, first_step, share)
    steps = (step for step in plan.steps(epochs, first_step) for _ in range(share.micro_batches))
    batches = read_ahead(clips, sampler, collate, workers, pin, unreadable)
    with closing(batches):
        for step, batch in zip(steps, batches, strict=True):
            if batch is not None:
                yield step, batch


def read_ahead(
    dataset: Dataset[_Item],
    batches: Iterable[list[Any]],
    join: Callable[[list[_Item]], _Batch],
    workers: int,
    pin: bool,
    unreadable: Unreadable | None = None,
) -> Generator[_Batch | None]:
    """Items of ``dataset``, joined to batches, read ahead by ``workers`` processes (0: this one).
    They end when the iterator is closed, by ``contextlib.closing`` on every way out.

    Each of ``batches`` lists places (pass, number of the clip, …) in ``dataset``. With
    ``unreadable``, clips that cannot be read are added there and left out of the batch (None: none
    is left). Without it their errors are raised.
    """
    tolerant, line = unreadable is not None, Lifeline()
    joined = CollateReadable(join) if tolerant else join
    room = Room.measure(workers, PREFETCH * workers + 1) if workers else None
    loader: DataLoader[Any] = DataLoader(
        CatchUnreadable(dataset) if tolerant else dataset,
        batch_sampler=batches,
        num_workers=workers,
        prefetch_factor=PREFETCH if workers else None,
        collate_fn=CollateShared(joined, room) if workers else joined,
        pin_memory=pin,
        generator=torch.Generator(),  # the default would draw from the model's generator
        timeout=POLL_S if workers else 0,
        worker_init_fn=partial(_begin_worker, line.end),
    )
    with closing(_deliver(loader, line)) as delivered:
        for found in delivered:
            if unreadable is None:
                yield found
            else:
                batch, faults = found
                unreadable.add(faults)
                yield batch


def _deliver(loader: DataLoader[Any], line: Lifeline) -> Generator[Any]:
    """The batches of ``loader``, whose processes end with this iterator."""
    try:
        with delayed_signals():  # a worker must not get one before it can ignore it
            batches = iter(loader)
    except OSError as error:
        line.cut()
        raise TrainingError(
            f"{loader.num_workers} loader processes cannot be started ({error.strerror}); lower "
            "--num-workers"
        ) from None
    waiting, ended = threading.Event(), threading.Event()
    if loader.num_workers:
        watch = partial(_watch, batches, waiting, ended)
        threading.Thread(target=watch, name="stopped loaders", daemon=True).start()
    try:
        while True:
            waiting.set()
            try:
                batch = _next(batches)
            except StopIteration:
                return
            finally:
                waiting.clear()
            yield batch
    finally:
        ended.set()
        _end(batches, line)


def _next(batches: Iterator[Any]) -> Any:
    """The next batch; waits for it in short turns, since a run must be able to stop meanwhile."""
    began = time.monotonic()
    while True:
        try:
            return next(batches)
        except (RuntimeError, OSError, EOFError) as error:
            if StopRequest.current is not None and StopRequest.current.is_overdue:
                raise WaitGivenUp from None
            if not str(error).startswith("DataLoader timed out"):
                raise
        pinning = getattr(batches, "_pin_memory_thread", None)
        if pinning is not None and not pinning.is_alive():
            raise RuntimeError("DataLoader worker (its thread that pins memory) has ended")
        if time.monotonic() - began > LONGEST_WAIT_S:
            raise TrainingError(
                f"the loader processes have delivered no batch for {LONGEST_WAIT_S / 60:.0f} "
                "minutes; check that the storage of the set answers, or copy the set to a local "
                "disk (--cache)"
            )


def _watch(batches: Iterator[Any], waiting: threading.Event, ended: threading.Event) -> None:
    """Kill the workers where a run that is to stop goes on ``waiting`` for them: PyTorch waits
    without limit for a worker that was suspended while it handed over a batch."""
    turns = 0
    while turns < 3 and not ended.wait(POLL_S):
        request = StopRequest.current
        is_overdue = request is not None and request.is_overdue
        turns = turns + 1 if is_overdue and waiting.is_set() else 0
    if not ended.is_set():
        _kill(batches)


def _kill(batches: Iterator[Any]) -> None:
    for worker in getattr(batches, "_workers", ()):
        worker.kill()  # a suspended process ends by no other signal


def _end(batches: Iterator[Any], line: Lifeline) -> None:
    """End the workers: in peace where they can, within seconds where they hang."""

    def force() -> None:
        line.cut()
        _kill(batches)

    # Where the interpreter ends, a thread that is started now never runs, and start() waits for it;
    # workers end by their lifeline.
    if not isinstance(batches, _MultiProcessingDataLoaderIter) or sys.is_finalizing():
        line.cut()
        return
    timer = threading.Timer(END_S, force)
    timer.daemon = True
    timer.start()
    try:
        # That workers are killed is meant here, and the error that ends the run is another.
        with suppress(RuntimeError):
            batches._shutdown_workers()
    finally:
        timer.cancel()
        line.cut()


@dataclass(frozen=True)
class CollateShared:
    """Joins items to a batch in shared memory, after a look at whether it has ``room``. PyTorch
    would do the latter in a thread whose errors nobody hears of."""

    join: Callable[[list[Any]], Any]
    room: Room | None

    def __call__(self, items: list[Any]) -> Any:
        batch = self.join(items)
        tensors = list(tensors_of(batch))
        if self.room is not None:
            self.room.check(tensors)
        share(tensors)
        return batch


@dataclass(frozen=True)
class PlanSampler:
    """Batch sampler for a DataLoader: lists of (pass, clip, replacement candidates…)."""

    plan: Plan
    epochs: range
    first_step: int
    share: Share

    def __iter__(self) -> Iterator[list[tuple[int, ...]]]:
        for step in self.plan.steps(self.epochs, self.first_step):
            rows = step.samples[:, None]
            if self.share.replace:
                rows = np.concatenate([rows, self.plan.spares(step)], axis=1)
            for part in self.share.parts(rows):
                yield [(step.pass_index, *row) for row in part.tolist()]


def _begin_worker(end: Connection, number: int) -> None:
    leave_signals_to_parent()
    hold(end)
    deliver_or_end()
