"""Batches of one pass through the set, as pure functions.

They depend on (sources, shards, seed, pass, batch size) alone, never on workers or ranks. A pass
shows every clip, or one of every source, exactly once; no batch holds two clips of one source (one
would be a false negative of the other); and neighbours in the order come from few shards, so that
reads stay nearly sequential.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

SHARDS_OPEN_AT_ONCE = 16
"""Shards are shuffled over the whole set, and clips within groups of this many shards."""


def pass_batches(
    sources: Sequence[str],
    shard_index: NDArray[np.int64],
    seed: int,
    pass_index: int,
    batch_size: int,
    one_of_each: bool = False,
) -> list[NDArray[np.int64]]:
    """The global batches of one pass: arrays of clip numbers.

    ``sources`` and ``shard_index`` give the source and the shard of every clip. A pass shows every
    clip once or, with ``one_of_each``, one clip of every source: as many passes as a source has
    clips show all of them.

    There are max(ceil(n / batch_size), clips of the largest source) batches, whose sizes differ by
    at most one.
    """
    if batch_size < 1:
        raise ValueError(f"batch size must be at least 1, not {batch_size}")
    if len(sources) != len(shard_index):
        raise ValueError(f"{len(sources)} sources but {len(shard_index)} shard numbers")
    if not len(sources):
        return []
    _, source_id = np.unique(np.asarray(sources, dtype=str), return_inverse=True)
    chosen = np.arange(len(sources))
    if one_of_each:
        chosen = _one_clip_per_source(source_id, seed, pass_index)
    order = _local_shuffle(
        chosen, np.asarray(shard_index), np.random.default_rng([seed, pass_index])
    )
    return _split_into_batches(order, source_id, batch_size)


def _one_clip_per_source(
    source_id: NDArray[np.int64], seed: int, pass_index: int
) -> NDArray[np.int64]:
    """Sorted clips: from each source the next one of its random order, which is drawn
    anew whenever all were shown."""
    by_source = np.split(
        np.argsort(source_id, kind="stable"), np.cumsum(np.bincount(source_id))[:-1]
    )
    chosen = []
    for source, clips in enumerate(by_source):
        round_number, position = divmod(pass_index, len(clips))
        rng = np.random.default_rng([seed, source, round_number, 1])
        chosen.append(rng.permutation(clips)[position])
    return np.sort(np.array(chosen, dtype=np.int64))


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
    order: NDArray[np.int64], source_id: NDArray[np.int64], batch_size: int
) -> list[NDArray[np.int64]]:
    """Split ``order`` into balanced batches without two clips of one source.

    A clip goes to the first batch at or after its place in the order that has room and lacks its
    source. A clip that finds none is placed by an exchange, which exists as long as no source has
    more clips than there are batches: given a full batch t without the source and a batch u with
    room and the source, some member of t has a source that u lacks; it moves to u.
    """
    most = max(Counter(source_id[order].tolist()).values())
    steps = max(-(-len(order) // batch_size), most)
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
