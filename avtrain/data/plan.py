"""The plan of a run: which clips each step shows, and which part of them each process."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from avtrain.data.sampling import pass_batches
from avtrain.errors import TrainingError
from shards.reader import ShardSet

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

    def micro_batches(self, samples: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """This process' part of each micro-batch; parts differ in size by one at most."""
        pieces = np.array_split(samples, self.pieces)
        return [np.array_split(piece, self.size)[self.rank] for piece in pieces]


ALL = Share()
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
        return pass_batches(sources, shard_index, self.seed, turn, self.batch_size, each)

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

    def check_batches(self, share: Share = ALL) -> None:
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
