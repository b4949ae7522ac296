"""Batches of one pass through the set, as pure functions.

They depend on (sources, shards, seed, pass, batch size, mix) alone, never on workers or ranks. A
pass shows every clip, or one of every source, exactly once, or as often as the weights of several
sets ask; no batch holds two clips of one source (one would be a false negative of the other); and
neighbours in the order come from few shards, so that reads stay nearly sequential.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SHARDS_OPEN_AT_ONCE = 16
"""Shards are shuffled over the whole set, and clips within groups of this many shards."""
_ORDER = 2
"""Keeps the random numbers of a set's order apart from those of its rounds, 0 and 1."""


@dataclass(frozen=True)
class Mix:
    """Several sets whose clips are numbered one set after the other; set i has ``sizes[i]`` of
    them, and ``weights[i]`` is its share of the clips that a pass shows. Without weights, a pass
    shows every clip once."""

    sizes: tuple[int, ...]
    weights: tuple[float, ...] = ()

    def counts(self, sizes: Sequence[int]) -> list[int]:
        """Clips of each set in a pass over sets with ``sizes`` clips (or sources): as many in all,
        divided by weight; at least one of each set."""
        exact = np.array(self.weights) / sum(self.weights) * sum(sizes)
        counts = np.floor(exact).astype(int)
        largest = np.argsort(counts - exact, kind="stable")
        counts[largest[: sum(sizes) - counts.sum()]] += 1
        return [max(1, count) for count in counts.tolist()]


def pass_batches(
    sources: Sequence[str],
    shard_index: NDArray[np.int64],
    seed: int,
    pass_index: int,
    batch_size: int,
    one_of_each: bool = False,
    mix: Mix | None = None,
) -> list[NDArray[np.int64]]:
    """The global batches of one pass: arrays of clip numbers.

    ``sources`` and ``shard_index`` give the source and the shard of every clip. A pass shows every
    clip once or, with ``one_of_each``, one clip of every source: as many passes as a source has
    clips show all of them. With weights (``mix``) it shows as many clips in all, of each set its
    share: the set as often as it fits, and a part of it that moves on from pass to pass.

    There are max(ceil(n / batch_size), clips of the largest source) batches, whose sizes differ by
    at most one; of every pass equally many.
    """
    if batch_size < 1:
        raise ValueError(f"batch size must be at least 1, not {batch_size}")
    if len(sources) != len(shard_index):
        raise ValueError(f"{len(sources)} sources but {len(shard_index)} shard numbers")
    if not len(sources):
        return []
    _, source_id = np.unique(np.asarray(sources, dtype=str), return_inverse=True)
    sizes = (len(sources),) if mix is None else mix.sizes
    of_sets = np.split(np.arange(len(sources)), np.cumsum(sizes)[:-1])
    most = 0
    if mix is not None and mix.weights:
        sets = [_SetClips(clips, source_id[clips], one_of_each) for clips in of_sets]
        counts = mix.counts([one.size for one in sets])
        parts = [
            one.take(count, [seed, number], pass_index)
            for number, (one, count) in enumerate(zip(sets, counts, strict=True))
        ]
        last = int(source_id.max())
        found = [
            one.most(count, last + 1, [seed, number])
            for number, (one, count) in enumerate(zip(sets, counts, strict=True))
        ]
        most = int(np.sum(found, axis=0).max())
    elif one_of_each:
        chosen = np.sort(_one_clip_per_source(source_id, [seed], pass_index))
        parts = np.split(chosen, np.searchsorted(chosen, np.cumsum(sizes)[:-1]))
    else:
        parts = of_sets
    rng = np.random.default_rng([seed, pass_index])
    shards = np.asarray(shard_index)
    order = _interleave([_local_shuffle(part, shards, rng) for part in parts if len(part)], rng)
    return _split_into_batches(order, source_id, batch_size, most)


@dataclass(frozen=True)
class _SetClips:
    """Clips of one of several sets with weights, and their sources. A round shows all of them, or
    ``one_of_each`` source."""

    clips: NDArray[np.int64]
    source_id: NDArray[np.int64]
    one_of_each: bool

    @property
    def size(self) -> int:
        """Clips of a round."""
        return len(np.unique(self.source_id)) if self.one_of_each else len(self.clips)

    def take(self, count: int, seed: list[int], pass_index: int) -> NDArray[np.int64]:
        """``count`` clips: whole rounds, and the next part of a random order of one round, so that
        after any number of passes no clip (of ``one_of_each``: no source) was shown two times more
        than another."""
        whole, rest = divmod(count, self.size)
        rounds = [self._round([*seed, 0], pass_index * whole + number) for number in range(whole)]
        places = pass_index * rest + np.arange(rest)
        order = self._order(seed)
        for number in np.unique(places // self.size).tolist():
            those = order[places[places // self.size == number] % self.size]
            rounds.append(self._round([*seed, 1], number)[those])
        return np.concatenate(rounds)

    def most(self, count: int, sources: int, seed: list[int]) -> NDArray[np.int64]:
        """The most clips of each of ``sources`` sources that `take` returns in any pass."""
        whole, rest = divmod(count, self.size)
        clips = np.bincount(self.source_id, minlength=sources)
        if self.one_of_each:
            return np.minimum(clips, 1) * (whole + (rest > 0))
        order = self.source_id[self._order(seed)]
        # The clips of each source in any part of ``rest`` places that begins with one of them.
        places = np.argsort(order, kind="stable")
        starts = np.searchsorted(order[places], np.arange(sources + 1))
        found = np.zeros(sources, dtype=np.int64)
        for source in np.flatnonzero(clips).tolist():
            own = places[starts[source] : starts[source + 1]]
            twice = np.concatenate([own, own + self.size])
            found[source] = (np.searchsorted(twice, own + rest) - np.arange(len(own))).max()
        return whole * clips + found

    def _order(self, seed: list[int]) -> NDArray[np.int64]:
        """A random order of a round in which the clips of each source are evenly spread: any part
        of it holds each source's share, so that few batches hold all clips of the part."""
        rng = np.random.default_rng([*seed, _ORDER])
        if self.one_of_each:
            return rng.permutation(self.size)
        shuffled = rng.permutation(self.size)
        _, sources = np.unique(self.source_id[shuffled], return_inverse=True)
        counts = np.bincount(sources)
        by_source = np.argsort(sources, kind="stable")
        rank = np.empty(self.size)
        rank[by_source] = np.arange(self.size) - np.repeat(np.cumsum(counts) - counts, counts)
        place = (rank + rng.random(len(counts))[sources]) / counts[sources]
        return shuffled[np.argsort(place, kind="stable")]

    def _round(self, seed: list[int], number: int) -> NDArray[np.int64]:
        if not self.one_of_each:
            return self.clips
        return self.clips[_one_clip_per_source(self.source_id, seed, number)]


def _interleave(parts: list[NDArray[np.int64]], rng: np.random.Generator) -> NDArray[np.int64]:
    """Joins orders of several sets, so that every stretch holds the same mixture of them."""
    if len(parts) == 1:
        return parts[0]
    places = [(np.arange(len(part)) + rng.random(len(part))) / len(part) for part in parts]
    return np.concatenate(parts)[np.argsort(np.concatenate(places), kind="stable")]


def _one_clip_per_source(
    source_id: NDArray[np.int64], seed: list[int], pass_index: int
) -> NDArray[np.int64]:
    """The next clip of each source, in their order, by its random order, which is drawn anew
    whenever all were shown."""
    sizes = np.unique(source_id, return_counts=True)[1]
    by_source = np.split(np.argsort(source_id, kind="stable"), np.cumsum(sizes)[:-1])
    chosen = []
    for source, clips in enumerate(by_source):
        round_number, position = divmod(pass_index, len(clips))
        rng = np.random.default_rng([*seed, source, round_number, 1])
        chosen.append(rng.permutation(clips)[position])
    return np.array(chosen, dtype=np.int64)


def _local_shuffle(
    samples: NDArray[np.int64], shard_index: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Shuffle shards, then clips within each group of ``SHARDS_OPEN_AT_ONCE`` shards."""
    shards = rng.permutation(np.unique(shard_index[samples]))
    group_of_shard = np.zeros(int(shards.max()) + 1, dtype=np.int64)
    group_of_shard[shards] = np.arange(len(shards)) // SHARDS_OPEN_AT_ONCE
    shuffled = rng.permutation(samples)
    return shuffled[np.argsort(group_of_shard[shard_index[shuffled]], kind="stable")]


def _split_into_batches(
    order: NDArray[np.int64], source_id: NDArray[np.int64], batch_size: int, least: int = 0
) -> list[NDArray[np.int64]]:
    """Split ``order`` into balanced batches, at least ``least``, without two clips of one source.

    A clip goes to the first batch at or after its place in the order that has room and lacks its
    source. A clip that finds none is placed by an exchange, which exists as long as no source has
    more clips than there are batches: given a full batch t without the source and a batch u with
    room and the source, some member of t has a source that u lacks; it moves to u.
    """
    most = max(Counter(source_id[order].tolist()).values())
    steps = max(-(-len(order) // batch_size), most, least)
    room = [len(part) for part in np.array_split(order, steps)]
    batches: list[dict[int, int]] = [{} for _ in range(steps)]  # source -> sample
    free_after: defaultdict[int, int] = defaultdict(int)
    first_open, left_over = 0, []
    for sample in order.tolist():
        source = int(source_id[sample])
        while first_open < steps and len(batches[first_open]) == room[first_open]:
            first_open += 1
        step = max(first_open, free_after[source])
        while step < steps and len(batches[step]) == room[step]:
            step += 1
        if step == steps:
            left_over.append(sample)
            continue
        batches[step][source] = sample
        free_after[source] = step + 1
    for sample in left_over:
        _place_by_exchange(sample, int(source_id[sample]), batches, room)
    return [np.array(list(batch.values()), dtype=np.int64) for batch in batches]


def _place_by_exchange(
    sample: int, source: int, batches: list[dict[int, int]], room: list[int]
) -> None:
    with_room = [step for step, batch in enumerate(batches) if len(batch) < room[step]]
    lacking = [step for step, batch in enumerate(batches) if source not in batch]
    for step in with_room:
        if source not in batches[step]:
            batches[step][source] = sample
            return
    for step in lacking:
        for target in with_room:
            for other in batches[step]:
                if other not in batches[target]:
                    batches[target][other] = batches[step].pop(other)
                    batches[step][source] = sample
                    return
    raise AssertionError("unreachable: an exchange exists, see _split_into_batches")
