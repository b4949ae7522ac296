"""Several shard sets, read as one."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from functools import cached_property
from hashlib import sha256
from itertools import accumulate, combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from avtrain.errors import TrainingError
from shards.reader import CACHE_BYTES, ShardSet
from shards.schema import SampleInfo, ShardEntry


class ShardSets:
    """The same split of several sets: the clips of the first one, then those of the second, and so
    on. Recordings of the same name are the same source, whatever set they are in.

    Raises TrainingError for sets that are the same, empty, or of different splits.
    """

    def __init__(self, sets: Sequence[ShardSet]) -> None:
        if not isinstance(sets, Sequence) or not all(isinstance(one, ShardSet) for one in sets):
            raise TrainingError('several sets are a list, such as [ShardSet("a"), ShardSet("b")]')
        if not sets:
            raise TrainingError("an empty list of sets has no clips: name at least one")
        self.sets = tuple(sets)
        self.split = self.sets[0].split
        for one in self.sets:
            if not len(one):
                raise TrainingError(f"{one.where} has no clips: leave it out")
            if one.split != self.split:
                raise TrainingError(f"{one.where} is another split than {self.split!r}")
        for one, other in combinations(self.sets, 2):
            if one.sha256 == other.sha256:
                raise TrainingError(f"{one.root} and {other.root} are the same set: name it once")
        self.sizes = tuple(len(one) for one in self.sets)
        self._first = [0, *accumulate(self.sizes)]
        self.keys = [key for one in self.sets for key in one.keys]
        self.sources = [source for one in self.sets for source in one.sources]
        shards = [0, *accumulate(len(one.entries) for one in self.sets)]
        numbered = zip(self.sets, shards, strict=False)
        self.shard_index: NDArray[np.int64] = np.concatenate(
            [one.shard_index + first for one, first in numbered]
        )

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def where(self) -> str:
        return f"split {self.split!r} of {' and '.join(str(one.root) for one in self.sets)}"

    @property
    def entries(self) -> tuple[ShardEntry, ...]:
        return tuple(entry for one in self.sets for entry in one.entries)

    @cached_property
    def sha256(self) -> str:
        """Hash of the sets and their order."""
        return sha256(" ".join(one.sha256 for one in self.sets).encode()).hexdigest()

    def check_files(self) -> None:
        for one in self.sets:
            one.check_files()

    def shard_file(self, sample: int) -> str:
        """The shard that holds a sample, with the path of its set."""
        one, number = self._find(sample)
        return str(one.root.path(one.shard_file(number)))

    def info(self, sample: int) -> SampleInfo:
        one, number = self._find(sample)
        return one.info(number)

    def frames(
        self,
        sample: int,
        view: int,
        start: int,
        count: int,
        step: int = 1,
        out: NDArray[np.uint8] | None = None,
    ) -> NDArray[np.uint8]:
        one, number = self._find(sample)
        return one.frames(number, view, start, count, step, out)

    def panorama(
        self,
        sample: int,
        start: int,
        count: int,
        step: int = 1,
        out: NDArray[np.uint8] | None = None,
    ) -> NDArray[np.uint8]:
        one, number = self._find(sample)
        return one.panorama(number, start, count, step, out)

    def foa(
        self, sample: int, start: int, count: int, view: int = 0
    ) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        one, number = self._find(sample)
        return one.foa(number, start, count, view)

    def audio(self, sample: int, start: int, count: int, view: int = 0) -> NDArray[np.float32]:
        one, number = self._find(sample)
        return one.audio(number, start, count, view)

    def label_map(self, sample: int, view: int, number: int) -> NDArray[np.uint8]:
        one, place = self._find(sample)
        return one.label_map(place, view, number)

    def _find(self, sample: int) -> tuple[ShardSet, int]:
        """The set of a sample, and its number there."""
        number = bisect_right(self._first, sample) - 1
        return self.sets[number], sample - self._first[number]


Shards = ShardSet | ShardSets


def sets_in(shards: Shards) -> tuple[ShardSet, ...]:
    return shards.sets if isinstance(shards, ShardSets) else (shards,)


def join_sets(sets: Sequence[ShardSet]) -> Shards:
    return sets[0] if len(sets) == 1 else ShardSets(sets)


Roots = Path | str | tuple[str, ...]
"""Folder or URL of a set, or of several."""


def in_words(roots: Roots) -> str:
    return " and ".join(roots) if isinstance(roots, tuple) else str(roots)


def open_sets(
    roots: Roots, split: str, cache: Path | None = None, cache_bytes: int = CACHE_BYTES
) -> Shards:
    """A split of one set, or of several read as one. Raises ShardError and TrainingError."""
    several = roots if isinstance(roots, tuple) else (roots,)
    return join_sets([ShardSet(root, split, cache, cache_bytes) for root in several])
