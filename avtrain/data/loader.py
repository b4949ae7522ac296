"""The steps of a run and their batches, read ahead by loader workers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from avtrain.data.clips import Batch, Clips
from avtrain.data.sampling import turn_steps
from avtrain.data.unreadable import Fault, LeftOut
from avtrain.errors import TrainingError
from avtrain.runtime.signals import ignore_signals
from shards.errors import ShardError
from shards.reader import ShardSet

_Item = TypeVar("_Item")
_Batch = TypeVar("_Batch")
SPARES = 3
"""Samples that are tried instead of one that cannot be read."""


@dataclass(frozen=True)
class Step:
    """A global step: which samples, and where in the run it is (all counted from 0). ``turn``
    through the set: what is random of a sample is other in every turn."""

    epoch: int
    turn: int
    step: int
    last_of_epoch: bool
    samples: NDArray[np.int64]


@dataclass(frozen=True)
class Share:
    """What this process reads of a step: its part, by ``rank`` of ``size``, of each of ``pieces``
    batches. ``replace``: samples that cannot be read are replaced by others."""

    rank: int = 0
    size: int = 1
    pieces: int = 1
    replace: bool = False

    def of(self, samples: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """Of each piece; parts differ in size by one at most."""
        pieces = np.array_split(samples, self.pieces)
        return [np.array_split(piece, self.size)[self.rank] for piece in pieces]


_ALL = Share()
_SPARE = 2  # tells its random numbers from those of the plan


@dataclass(frozen=True)
class Plan:
    """The steps of a run, a pure function of the set and the settings.

    An epoch is one turn, which shows every clip; or, with ``clips_per_source``, so many turns, each
    of which shows one clip of every source: of those that have fewer clips some again.
    """

    shards: ShardSet
    seed: int
    batch_size: int
    clips_per_source: int | None = None

    @property
    def turns(self) -> int:
        """Of an epoch."""
        return 1 if self.clips_per_source is None else self.clips_per_source

    def turn(self, turn: int) -> list[NDArray[np.int64]]:
        shards, each = self.shards, self.clips_per_source is not None
        sources, shard_index = shards.sources, shards.shard_index
        return turn_steps(sources, shard_index, self.seed, turn, self.batch_size, each)

    @cached_property
    def _steps_per_turn(self) -> int:
        """The same for every turn."""
        return len(self.turn(0))

    @property
    def clips_per_epoch(self) -> int:
        return self.turns * sum(map(len, self.turn(0)))

    @property
    def steps_per_epoch(self) -> int:
        return self.turns * self._steps_per_turn

    def steps(self, epochs: Iterable[int], first_step: int = 0) -> Iterator[Step]:
        """From ``first_step`` of the first epoch on."""
        size, last = self._steps_per_turn, self.steps_per_epoch - 1
        for epoch in epochs:
            for number in range(first_step // size, self.turns):
                turn = epoch * self.turns + number
                for place, samples in enumerate(self.turn(turn)):
                    step = number * size + place
                    if step >= first_step:
                        yield Step(epoch, turn, step, step == last, samples)
            first_step = 0

    def check_contrast(self, share: Share = _ALL) -> None:
        """Raise TrainingError unless every batch has clips of two sources or more, and every
        process a clip of every batch."""
        smallest = min(len(part) for part in self.turn(0)) // share.pieces
        if smallest < 2:
            shards = self.shards
            raise TrainingError(
                f"split {shards.split!r} of {shards.root} has {len(shards)} clips of "
                f"{len(set(shards.sources))} sources, which leaves batches of one clip with "
                "nothing to compare it with; more sources are needed (or fewer clips of the "
                "largest one: --clips-per-source)"
            )
        if smallest < share.size:
            raise TrainingError(
                f"batches of {smallest} clips cannot be dealt to {share.size} processes; start "
                "fewer, or raise --batch-size"
            )

    def spares(self, step: Step) -> NDArray[np.int64]:
        """For each sample of a step others, (n, up to `SPARES`), to take where it cannot be read:
        of sources that the step has not, each for one sample alone; in sets of few sources another
        clip of the same one (-1: there is none)."""
        rng = np.random.default_rng([self.seed, step.epoch, step.step, _SPARE])
        sources, wanted = self._source_ids, SPARES * len(step.samples)
        few = len(sources) < 16 * wanted
        pool = rng.permutation(len(sources)) if few else rng.integers(len(sources), size=8 * wanted)
        pool = pool[~np.isin(sources[pool], sources[step.samples])]
        _, first = np.unique(sources[pool], return_index=True)
        pool = pool[np.sort(first)]
        rounds = min(SPARES, len(pool) // len(step.samples))
        if rounds:
            return pool[: rounds * len(step.samples)].reshape(rounds, -1).T
        others = [np.nonzero(sources == sources[sample])[0] for sample in step.samples]
        own = [
            rng.choice(of[of != sample]) if len(of) > 1 else -1
            for of, sample in zip(others, step.samples, strict=True)
        ]
        return np.array(own, dtype=np.int64)[:, None]

    @cached_property
    def _source_ids(self) -> NDArray[np.int64]:
        return np.unique(np.array(self.shards.sources), return_inverse=True)[1]


def load(
    clips: Clips,
    plan: Plan,
    epochs: range,
    first_step: int,
    workers: int,
    pin: bool,
    share: Share = _ALL,
    left_out: LeftOut | None = None,
) -> Iterator[tuple[Step, Batch]]:
    """Steps with the batches of a share of them, see `read_ahead`. A step of several pieces comes
    several times; one of which nothing is left, not at all."""
    places = Places(plan, epochs, first_step, share)
    steps = (step for step in plan.steps(epochs, first_step) for _ in range(share.pieces))
    batches = read_ahead(clips, places, collate, workers, pin, left_out)
    for step, batch in zip(steps, batches, strict=True):
        if batch is not None:
            yield step, batch


def read_ahead(
    dataset: Dataset[_Item],
    batches: Iterable[list[Any]],
    join: Callable[[list[_Item]], _Batch],
    workers: int,
    pin: bool,
    left_out: LeftOut | None = None,
) -> Iterator[_Batch | None]:
    """What ``dataset`` has at the places of each of ``batches``, joined to one batch; read ahead by
    ``workers`` processes (0: in this one).

    Places are (turn, number of the clip, …). With ``left_out``, clips that cannot be read go
    there, and the batch has the others (None: there is no other). Else what is wrong is raised.
    """
    tolerant = left_out is not None
    loader: DataLoader[Any] = DataLoader(
        Tolerant(dataset) if tolerant else dataset,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=JoinRest(join) if tolerant else join,
        pin_memory=pin,
        generator=torch.Generator(),  # else it would draw from the model's random numbers
        worker_init_fn=_begin_worker,
    )
    for found in loader:
        if left_out is None:
            yield found
        else:
            batch, faults = found
            left_out.add(faults)
            yield batch


@dataclass(frozen=True)
class Unreadable:
    """In the place of an item."""

    fault: Fault


@dataclass(frozen=True)
class Tolerant(Dataset[Any]):
    """The items of a dataset, and `Unreadable` where it raises what is wrong with one."""

    dataset: Dataset[Any]

    def __getitem__(self, place: tuple[int, ...]) -> Any:
        try:
            return self.dataset[place]
        except (ShardError, TrainingError) as error:
            return Unreadable((place[1], str(error)))


@dataclass(frozen=True)
class JoinRest:
    """Joins the readable items (None: there is none), and hands on what is wrong with the rest."""

    join: Callable[[list[Any]], Any]

    def __call__(self, items: list[Any]) -> tuple[Any, list[Fault]]:
        faults = [item.fault for item in items if isinstance(item, Unreadable)]
        rest = [item for item in items if not isinstance(item, Unreadable)]
        return self.join(rest) if rest else None, faults


@dataclass(frozen=True)
class Places:
    """The plan as a DataLoader wants it: lists of (turn, sample index, spare indices…)."""

    plan: Plan
    epochs: range
    first_step: int
    share: Share

    def __iter__(self) -> Iterator[list[tuple[int, ...]]]:
        for step in self.plan.steps(self.epochs, self.first_step):
            rows = step.samples[:, None]
            if self.share.replace:
                rows = np.concatenate([rows, self.plan.spares(step)], axis=1)
            for part in self.share.of(rows):
                yield [(step.turn, *row) for row in part.tolist()]


def _begin_worker(number: int) -> None:
    # Launchers and schedulers signal whole groups of processes; this one ends with the trainer,
    # which has a step to finish.
    ignore_signals()


def collate(clips: list[dict[str, NDArray[np.generic]]]) -> Batch:
    """Clips as read to a batch. Raises TrainingError where their crops differ in size."""
    sizes = {clip["frames"].shape for clip in clips}
    if len(sizes) > 1:
        raise TrainingError(f"the clips' crops differ in size: {sorted(sizes)}")
    names = [field.name for field in fields(Batch) if field.name != "faults"]
    arrays = {name: np.stack([clip[name] for clip in clips]) for name in names}
    faults = tuple(
        (int(index), str(fault))
        for clip in clips
        for index, fault in zip(clip.get("faulty", ()), clip.get("faults", ()), strict=True)
    )
    return Batch(**{name: torch.from_numpy(array) for name, array in arrays.items()}, faults=faults)
