"""The plan of a run: an epoch shows each clip as often as it should, whatever the set is."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.utils.data import Dataset

from avtrain.data.batch import Batch
from avtrain.data.clips import Clips
from avtrain.data.loader import PlanSampler, load
from avtrain.data.plan import Plan, Share
from avtrain.data.sampling import pass_batches

sets = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 6)), min_size=1, max_size=120)


def columns(samples: list[tuple[int, int]]) -> tuple[list[str], np.ndarray]:
    return [f"source{source}" for source, _ in samples], np.array([shard for _, shard in samples])


@given(sets, st.integers(0, 5), st.integers(0, 5), st.integers(1, 40))
def test_every_clip_once_no_source_twice_in_a_batch_and_even_sizes(
    samples: list[tuple[int, int]], seed: int, epoch: int, batch_size: int
) -> None:
    sources, shards = columns(samples)
    steps = pass_batches(sources, shards, seed, epoch, batch_size)
    assert sorted(np.concatenate(steps).tolist()) == list(range(len(samples)))
    for step in steps:
        assert len({sources[i] for i in step}) == len(step) <= batch_size
    sizes = [len(step) for step in steps]
    assert max(sizes) - min(sizes) <= 1
    most = max(Counter(sources).values())
    assert len(steps) == max(-(-len(samples) // batch_size), most)


@given(sets, st.integers(0, 5), st.integers(1, 9), st.integers(0, 5))
def test_clips_per_source_and_all_clips_over_the_passes(
    samples: list[tuple[int, int]], seed: int, clips_per_source: int, epoch: int
) -> None:
    sources, shard_index = columns(samples)
    shards: Any = SimpleNamespace(sources=sources, shard_index=shard_index)
    plan, counts = Plan(shards, seed, 16, clips_per_source), Counter(sources)
    steps = list(plan.steps(range(epoch, epoch + 1)))
    assert [step.step for step in steps] == list(range(plan.steps_per_epoch))
    assert [step.last_of_epoch for step in steps] == [False] * (len(steps) - 1) + [True]
    shown = [(step.pass_index, int(sample)) for step in steps for sample in step.samples]
    assert len(set(shown)) == len(shown)  # a clip that is repeated has other random choices
    assert Counter(sources[i] for _, i in shown) == dict.fromkeys(counts, clips_per_source)
    for step in steps:
        assert len({sources[i] for i in step.samples}) == len(step.samples) <= 16
    # As many passes as a source has clips, from the beginning of a round, show each clip once.
    source = sources[0]
    round_shown = [
        i
        for pass_index in range(epoch * counts[source], (epoch + 1) * counts[source])
        for step in plan.batches_of_pass(pass_index)
        for i in step.tolist()
        if sources[i] == source
    ]
    assert sorted(round_shown) == [i for i, name in enumerate(sources) if name == source]


def test_the_order_is_a_function_of_seed_and_epoch() -> None:
    sources, shards = [f"s{i // 3}" for i in range(300)], np.arange(300) // 20
    first = pass_batches(sources, shards, 7, 3, 24)
    again = pass_batches(sources, shards, 7, 3, 24)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    for other in (pass_batches(sources, shards, 8, 3, 24), pass_batches(sources, shards, 7, 4, 24)):
        assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_neighbouring_batches_read_few_shards() -> None:
    shards = np.arange(20_000) // 20  # 1000 shards
    steps = pass_batches([f"s{i}" for i in range(20_000)], shards, 0, 0, 32)
    assert max(len(np.unique(shards[np.concatenate(steps[i : i + 5])])) for i in range(600)) <= 32


def test_invalid_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="batch size"):
        pass_batches(["a"], np.array([0]), 0, 0, 0)
    with pytest.raises(ValueError, match="shard numbers"):
        pass_batches(["a", "b"], np.array([0]), 0, 0, 1)
    assert pass_batches([], np.array([], dtype=int), 0, 0, 4) == []


@given(st.integers(1, 300), st.integers(1, 16), st.integers(1, 5))
def test_ranks_and_micro_batches_divide_a_batch(count: int, size: int, pieces: int) -> None:
    """Every clip once, in the order of micro-batches and ranks; sizes of the parts of a micro-batch
    differ by at most one."""
    samples = np.arange(count) * 7
    shares = [Share(rank, size, pieces).parts(samples) for rank in range(size)]
    assert {len(share) for share in shares} == {pieces}
    for number in range(pieces):
        sizes = [len(share[number]) for share in shares]
        assert max(sizes) - min(sizes) <= 1
    parts = [share[number] for number in range(pieces) for share in shares]
    np.testing.assert_array_equal(np.concatenate(parts), samples)


@given(
    sets,
    st.integers(0, 5),
    st.integers(2, 40),
    st.none() | st.integers(1, 3),
    st.integers(1, 16),
    st.integers(1, 16),
    st.data(),
)
def test_any_number_of_processes_takes_the_same_steps_and_resumes_those_of_another(
    samples: list[tuple[int, int]],
    seed: int,
    batch_size: int,
    clips_per_source: int | None,
    size: int,
    later_size: int,
    data: st.DataObject,
) -> None:
    sources, shard_index = columns(samples)
    shards: Any = SimpleNamespace(sources=sources, shard_index=shard_index)
    plan, epochs = Plan(shards, seed, batch_size, clips_per_source), range(2)
    whole = [step.samples.tolist() for step in plan.steps(epochs)]
    for processes, first in ((size, 0), (later_size, data.draw(st.integers(0, len(whole) // 2)))):
        by_rank = [
            list(PlanSampler(plan, epochs, first, Share(rank, processes)))
            for rank in range(processes)
        ]
        assert {len(steps) for steps in by_rank} == {len(whole) - first}
        for step, parts in zip(whole[first:], zip(*by_rank, strict=True), strict=True):
            assert [sample for part in parts for _, sample in part] == step


class Numbers(Dataset[dict[str, np.ndarray]]):
    """Stands in for clips: the number of the clip in every field."""

    def __getitem__(self, place: tuple[int, ...]) -> dict[str, np.ndarray]:
        return {f.name: np.array(place[1]) for f in fields(Batch) if f.name != "faults"}


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@settings(max_examples=12, deadline=None)
@given(sets, st.integers(0, 5), st.integers(2, 40), st.integers(0, 8), st.integers(1, 16))
def test_any_number_of_workers_delivers_the_plan(
    samples: list[tuple[int, int]], seed: int, batch_size: int, workers: int, size: int
) -> None:
    sources, shard_index = columns(samples)
    shards: Any = SimpleNamespace(sources=sources, shard_index=shard_index)
    plan, clips, share = Plan(shards, seed, batch_size), cast("Clips", Numbers()), Share(0, size)
    expected = [
        (s.epoch, s.step, share.parts(s.samples)[0].tolist()) for s in plan.steps(range(2), 1)
    ]
    assume(all(part for _, _, part in expected))  # a process without clips is refused
    batches = load(clips, plan, range(2), 1, workers, False, share)
    found = [(step.epoch, step.step, batch.index.tolist()) for step, batch in batches]
    assert found == expected
