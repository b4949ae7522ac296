"""The plan of a run: which clips each step shows, and which of them each rank reads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from avtrain.data.sampling import Mix, pass_batches
from avtrain.data.shard_sets import Shards, ShardSets, sets_in
from avtrain.errors import TrainingError

SPARES = 3
"""Replacement candidates per clip, tried one after the other."""


@dataclass(frozen=True)
class Step:
    """A global step: its clips (``samples``) and its position in the run, all counted from 0.
    Random choices of a clip differ from pass to pass; with weights, where a pass may show a clip
    several times, ``pass_index`` counts the steps of the run instead."""

    epoch: int
    pass_index: int
    step: int
    last_of_epoch: bool
    samples: NDArray[np.int64]


@dataclass(frozen=True)
class Share:
    """What this rank, number ``rank`` of ``size``, reads of a step: its part of each of
    ``micro_batches``. ``replace``: others replace clips that cannot be read."""

    rank: int = 0
    size: int = 1
    micro_batches: int = 1
    replace: bool = False

    def parts(self, samples: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """This rank's part of each micro-batch; sizes of parts differ by at most one."""
        whole = np.array_split(samples, self.micro_batches)
        return [np.array_split(part, self.size)[self.rank] for part in whole]


ALL = Share()
"""All clips of a step, in one micro-batch."""
_SPARE = 2  # keeps its random numbers apart from those of the plan


@dataclass(frozen=True)
class Plan:
    """The steps of a run, a pure function of the set and the settings.

    An epoch is one pass, which shows every clip; or, with ``clips_per_source``, that number of
    passes, each of which shows one clip of every source. Sources with fewer clips repeat some.
    With ``weights``, which several sets may have, each set is shown as often as its weight says.
    """

    shards: Shards
    seed: int
    batch_size: int
    clips_per_source: int | None = None
    weights: tuple[float, ...] = ()

    @property
    def passes_per_epoch(self) -> int:
        return 1 if self.clips_per_source is None else self.clips_per_source

    def batches_of_pass(self, pass_index: int) -> list[NDArray[np.int64]]:
        """The global batches of one pass, as clip numbers."""
        shards, each = self.shards, self.clips_per_source is not None
        sources, shard_index = shards.sources, shards.shard_index
        mix = Mix(shards.sizes, self.weights) if isinstance(shards, ShardSets) else None
        batch_size = self.batch_size
        return pass_batches(sources, shard_index, self.seed, pass_index, batch_size, each, mix)

    @cached_property
    def first_pass(self) -> list[NDArray[np.int64]]:
        """The batches of pass 0. All passes have equally many, of the same sizes."""
        return self.batches_of_pass(0)

    @property
    def _steps_per_pass(self) -> int:
        return len(self.first_pass)

    @property
    def clips_per_epoch(self) -> int:
        return self.passes_per_epoch * sum(map(len, self.first_pass))

    def shown_per_pass(self) -> list[int]:
        """How many clips of each set the first pass shows."""
        ends = np.cumsum([len(one) for one in sets_in(self.shards)])
        found = np.searchsorted(ends, np.concatenate(self.first_pass), side="right")
        return [int(count) for count in np.bincount(found, minlength=len(ends))]

    @property
    def steps_per_epoch(self) -> int:
        return self.passes_per_epoch * self._steps_per_pass

    def steps(self, epochs: Iterable[int], first_step: int = 0) -> Iterator[Step]:
        """All steps of ``epochs``, the first one from ``first_step`` on."""
        size, last = self._steps_per_pass, self.steps_per_epoch - 1
        for epoch in epochs:
            for number in range(first_step // size, self.passes_per_epoch):
                pass_index = epoch * self.passes_per_epoch + number
                for position, samples in enumerate(self.batches_of_pass(pass_index)):
                    step = number * size + position
                    draws = epoch * self.steps_per_epoch + step if self.weights else pass_index
                    if step >= first_step:
                        yield Step(epoch, draws, step, step == last, samples)
            first_step = 0

    def check_batches(self, share: Share = ALL) -> None:
        """Raise TrainingError unless every micro-batch has clips of at least two sources, and every
        rank gets a clip of each."""
        smallest = min(len(part) for part in self.first_pass) // share.micro_batches
        if smallest < 2:
            shards = self.shards
            raise TrainingError(
                f"{shards.where} has {len(shards)} clips of "
                f"{len(set(shards.sources))} sources, which leaves batches of one clip with "
                "nothing to compare it with; add sources, or show a few clips of each alone"
                + ", or lower the weight of the set with few sources"
                * bool(self.weights)
            )
        if smallest < share.size:
            raise TrainingError(
                f"batches of {smallest} clips cannot be split among {share.size} processes; start "
                "fewer, or take larger batches"
            )

    def spares(self, step: Step) -> NDArray[np.int64]:
        """Replacement candidates for each clip of a step, (n, <= `SPARES`), used if it cannot be
        read: clips of sources that the step lacks, no candidate for two clips; in sets of few
        sources another clip of the same source (-1: there is none)."""
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
            rng.choice(clips[clips != sample]) if len(clips) > 1 else -1
            for clips, sample in zip(others, step.samples, strict=True)
        ]
        return np.array(own, dtype=np.int64)[:, None]

    @cached_property
    def _source_ids(self) -> NDArray[np.int64]:
        return np.unique(np.array(self.shards.sources), return_inverse=True)[1]
