"""The steps of a run and their batches, read ahead by loader workers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from avtrain.data import Batch, Clips
from avtrain.errors import TrainingError
from shards.plan import epoch_steps
from shards.reader import ShardSet


@dataclass(frozen=True)
class Step:
    """A global step: which samples, and where in the run it is (all counted from 0)."""

    epoch: int
    step: int
    last_of_epoch: bool
    samples: NDArray[np.int64]


@dataclass(frozen=True)
class Plan:
    """The steps of a run, a pure function of the set and the settings."""

    shards: ShardSet
    seed: int
    batch_size: int
    clips_per_source: int | None = None

    def epoch(self, epoch: int) -> list[NDArray[np.int64]]:
        return epoch_steps(
            self.shards.sources,
            self.shards.shard_index,
            self.seed,
            epoch,
            self.batch_size,
            self.clips_per_source,
        )

    @cached_property
    def steps_per_epoch(self) -> int:
        """The same for every epoch."""
        return len(self.epoch(0))

    def steps(self, epochs: Iterable[int], first_step: int = 0) -> Iterator[Step]:
        """From ``first_step`` of the first epoch on."""
        for epoch in epochs:
            parts = self.epoch(epoch)
            for step in range(first_step, len(parts)):
                yield Step(epoch, step, step == len(parts) - 1, parts[step])
            first_step = 0

    def check_contrast(self) -> None:
        """Raise TrainingError unless every batch has clips of two sources or more."""
        smallest = min(len(part) for part in self.epoch(0))
        if smallest < 2:
            shards = self.shards
            raise TrainingError(
                f"split {shards.split!r} of {shards.root} has {len(shards)} clips of "
                f"{len(set(shards.sources))} sources, which leaves batches of one clip with "
                "nothing to compare it with; more sources are needed (or fewer clips of the "
                "largest one: --clips-per-source)"
            )


def load(
    clips: Clips, plan: Plan, epochs: range, first_step: int, workers: int, pin: bool
) -> Iterator[tuple[Step, Batch]]:
    """Steps with their batches, read ahead by ``workers`` processes (0: in this one)."""
    loader = DataLoader(
        clips,
        batch_sampler=_Places(plan, epochs, first_step),
        num_workers=workers,
        collate_fn=collate,
        pin_memory=pin,
        generator=torch.Generator(),  # else it would draw from the model's random numbers
    )
    return zip(plan.steps(epochs, first_step), loader, strict=True)


@dataclass(frozen=True)
class _Places:
    """The plan as a DataLoader wants it: lists of (epoch, sample index)."""

    plan: Plan
    epochs: range
    first_step: int

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for step in self.plan.steps(self.epochs, self.first_step):
            yield [(step.epoch, int(sample)) for sample in step.samples]


def collate(clips: list[dict[str, NDArray[np.generic]]]) -> Batch:
    """Clips as read to a batch. Raises TrainingError where their crops differ in size."""
    sizes = {clip["frames"].shape for clip in clips}
    if len(sizes) > 1:
        raise TrainingError(f"the clips' crops differ in size: {sorted(sizes)}")
    names = [field.name for field in fields(Batch)]
    return Batch(*(torch.from_numpy(np.stack([clip[name] for clip in clips])) for name in names))
