"""Batches of a run's steps, read ahead by loader workers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from avtrain.data.batch import Batch, collate
from avtrain.data.clips import Clips
from avtrain.data.plan import ALL, Plan, Share, Step
from avtrain.data.unreadable import CatchUnreadable, CollateReadable, Unreadable
from avtrain.runtime.signals import ignore_signals

_Item = TypeVar("_Item")
_Batch = TypeVar("_Batch")


def load(
    clips: Clips,
    plan: Plan,
    epochs: range,
    first_step: int,
    workers: int,
    pin: bool,
    share: Share = ALL,
    unreadable: Unreadable | None = None,
) -> Iterator[tuple[Step, Batch]]:
    """Steps with this rank's batches, see `read_ahead`. A step comes once per micro-batch; a
    micro-batch without readable clips is skipped."""
    sampler = PlanSampler(plan, epochs, first_step, share)
    steps = (step for step in plan.steps(epochs, first_step) for _ in range(share.micro_batches))
    batches = read_ahead(clips, sampler, collate, workers, pin, unreadable)
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
) -> Iterator[_Batch | None]:
    """Items of ``dataset``, joined to batches, read ahead by ``workers`` processes (0: this one).

    Each of ``batches`` lists places (pass, number of the clip, …) in ``dataset``. With
    ``unreadable``, clips that cannot be read are added there and left out of the batch (None: none
    is left). Without it their errors are raised.
    """
    tolerant = unreadable is not None
    loader: DataLoader[Any] = DataLoader(
        CatchUnreadable(dataset) if tolerant else dataset,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=CollateReadable(join) if tolerant else join,
        pin_memory=pin,
        generator=torch.Generator(),  # the default would draw from the model's generator
        worker_init_fn=_begin_worker,
    )
    for found in loader:
        if unreadable is None:
            yield found
        else:
            batch, faults = found
            unreadable.add(faults)
            yield batch


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


def _begin_worker(number: int) -> None:
    # Launchers and schedulers signal whole process groups; workers end with the trainer, which has
    # a step to finish.
    ignore_signals()
