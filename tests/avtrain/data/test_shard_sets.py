"""Several sets, with and without weights: the plan's promises hold for all of them together."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from avtrain import ClipLoader, ShardSets
from avtrain.cli.sets import parse_sets
from avtrain.data.plan import Plan
from avtrain.data.sampling import Mix, pass_batches
from avtrain.errors import TrainingError
from shards import ShardSet
from tests.support import tiny_set
from tests.support.runs import avtrain, steps_of
from tests.support.tiny_set import damage, make_set

CLIP: dict[str, Any] = {"views": 2, "frames": 4, "fps": 8.0, "seed": 3}
A_SET = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 6)), min_size=1, max_size=50)
SETS = st.lists(st.tuples(A_SET, st.floats(0.01, 1.0)), min_size=2, max_size=4)


def joined(sets: list[tuple[list[tuple[int, int]], float]]) -> tuple[list[str], np.ndarray, Mix]:
    """Sources of the same name may be in several sets; shards are not."""
    sources = [f"source{source}" for clips, _ in sets for source, _ in clips]
    shards = [100 * n + shard for n, (clips, _) in enumerate(sets) for _, shard in clips]
    sizes, weights = tuple(len(clips) for clips, _ in sets), tuple(weight for _, weight in sets)
    return sources, np.array(shards), Mix(sizes, weights)


@given(SETS, st.integers(0, 5), st.integers(0, 5), st.integers(2, 40), st.booleans())
def test_weights_are_shares_of_a_pass(
    sets: list[tuple[list[tuple[int, int]], float]],
    seed: int,
    begin: int,
    batch_size: int,
    one_of_each: bool,
) -> None:
    sources, shards, mix = joined(sets)
    ends = np.cumsum(mix.sizes)
    of_set = np.searchsorted(ends, np.arange(len(sources)), side="right")
    elements = [
        len({source for source, _ in clips}) if one_of_each else len(clips) for clips, _ in sets
    ]
    wanted = np.array(mix.weights) / sum(mix.weights) * sum(elements)
    passes = [
        pass_batches(sources, shards, seed, begin + number, batch_size, one_of_each, mix)
        for number in range(4)
    ]
    assert len({len(batches) for batches in passes}) == 1
    for batches in passes:
        for batch in batches:
            assert len({sources[clip] for clip in batch}) == len(batch) <= batch_size
        sizes = [len(batch) for batch in batches]
        assert max(sizes) - min(sizes) <= 1
        shown = np.bincount(of_set[np.concatenate(batches)], minlength=len(sets))
        assert all(abs(shown - wanted) < 1 + (wanted < 1))
    # From the first pass on, no clip (or source of a set) is shown two times more than another.
    begun = [pass_batches(sources, shards, seed, n, batch_size, one_of_each, mix) for n in range(3)]
    counts = Counter(
        (of_set[clip], sources[clip] if one_of_each else clip)
        for batches in begun
        for clip in np.concatenate(batches).tolist()
    )
    for number, (clips, _) in enumerate(sets):
        found = [count for (place, _), count in counts.items() if place == number]
        if len(found) < elements[number]:
            assert max(found) == 1
        assert max(found) - min(found) <= 1
        assert len(found) <= len(clips)


@given(SETS, st.integers(0, 5), st.integers(2, 40), st.booleans())
def test_without_weights_every_clip_once(
    sets: list[tuple[list[tuple[int, int]], float]], seed: int, batch_size: int, one_of_each: bool
) -> None:
    sources, shards, mix = joined(sets)
    batches = pass_batches(sources, shards, seed, 0, batch_size, one_of_each, Mix(mix.sizes))
    shown = np.concatenate(batches).tolist()
    if one_of_each:
        assert Counter(sources[clip] for clip in shown) == dict.fromkeys(sources, 1)
    else:
        assert sorted(shown) == list(range(len(sources)))
    for batch in batches:
        assert len({sources[clip] for clip in batch}) == len(batch)


@pytest.mark.parametrize("weights", [(), (1.0, 1.0, 6.0)])
def test_every_stretch_of_a_pass_holds_the_same_mixture(weights: tuple[float, ...]) -> None:
    """Also a set of a single shard, which a shuffle of all shards would show in one stretch."""
    sizes = (4000, 2000, 40)
    sources = [f"s{clip}" for clip in range(sum(sizes))]
    shards = np.concatenate([np.arange(4000) // 20, 200 + np.arange(2000) // 20, np.full(40, 300)])
    batches = pass_batches(sources, shards, 1, 5, 32, mix=Mix(sizes, weights))
    ends, whole = np.cumsum(sizes), np.concatenate(batches)
    share = np.bincount(np.searchsorted(ends, whole, side="right")) / len(whole)
    for part in np.array_split(whole, 10):
        found = np.bincount(np.searchsorted(ends, part, side="right"), minlength=3) / len(part)
        np.testing.assert_allclose(found, share, atol=0.02)


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("sets")
    first = make_set(folder / "a", {"train": 9, "test": 4})
    return first, make_set(folder / "b", {"train": 6}, seed=1, layout="source", views=4)


def test_clips_are_those_of_their_set(roots: tuple[Path, Path], tmp_path: Path) -> None:
    sets = [ShardSet(root) for root in roots]
    both = ClipLoader(shards=ShardSets(sets), batch_size=5, **CLIP)
    batches = list(both)
    assert sorted(clip for batch in batches for clip in batch.index.tolist()) == list(range(15))
    assert len(both) == len(batches) == 3
    for batch in batches:
        for row, clip in enumerate(batch.index.tolist()):
            one, number = (sets[0], clip) if clip < 9 else (sets[1], clip - 9)
            assert both.shards.keys[clip] == one.keys[number]
            assert both.shards.info(clip) == one.info(number)
            draw = both._clips.draw(0, clip)
            alone = ClipLoader(shards=one, batch_size=3, **CLIP)._clips.read(number, draw)
            for name in ("frames", "audio", "matrices", "directions"):
                assert torch.equal(getattr(batch, name)[row], torch.from_numpy(alone[name])), name


def test_a_clip_that_is_shown_twice_has_other_random_choices(roots: tuple[Path, Path]) -> None:
    sets = ShardSets([ShardSet(root) for root in roots])
    loader = ClipLoader(shards=sets, batch_size=3, weights=(0.2, 0.8), **CLIP)
    seen: dict[int, list[torch.Tensor]] = {}
    for batch in loader:
        for clip, sound in zip(batch.index.tolist(), batch.audio, strict=True):
            seen.setdefault(clip, []).append(sound)
    repeated = [sounds for clip, sounds in seen.items() if clip >= 9]
    assert all(len(sounds) == 2 for sounds in repeated)  # 12 of 15
    assert len(repeated) == 6
    assert not any(torch.equal(*sounds) for sounds in repeated)
    assert sum(len(sounds) for clip, sounds in seen.items() if clip < 9) == 3


def test_a_place_among_weighted_sets_continues(roots: tuple[Path, Path]) -> None:
    def loader(*weights: float, **options: Any) -> ClipLoader:
        sets = ShardSets([ShardSet(root) for root in roots])
        return ClipLoader(shards=sets, batch_size=4, weights=weights, **CLIP, **options)

    whole = loader(1, 3)
    wanted = [*whole, *whole][2:]
    first = loader(0.25, 0.75)
    for _ in zip(range(2), first, strict=False):
        pass
    state = json.loads(json.dumps(first.state_dict()))
    ranks = [loader(1, 3, rank=rank, world_size=2) for rank in range(2)]
    for rank in ranks:
        rank.load_state_dict(state)
    parts = [[*rank, *rank] for rank in ranks]
    for expected, part in zip(wanted, zip(*parts, strict=True), strict=True):
        assert torch.equal(torch.cat([one.audio for one in part]), expected.audio)
    with pytest.raises(TrainingError, match="differs in weights"):
        loader(1, 2).load_state_dict(state)
    with pytest.raises(TrainingError, match="differs in set, weights"):
        ClipLoader(shards=ShardSet(roots[0]), batch_size=4, **CLIP).load_state_dict(state)


def test_a_damaged_clip_is_named_with_its_set(roots: tuple[Path, Path], tmp_path: Path) -> None:
    other = make_set(tmp_path / "c", {"train": 7}, seed=2)
    key = damage(other, 3)
    loader = ClipLoader(
        shards=ShardSets([ShardSet(roots[0]), ShardSet(other)]), batch_size=4, **CLIP
    )
    assert 12 not in [clip for batch in loader for clip in batch.index.tolist()]
    assert list(loader.unreadable.faults) == [12]
    assert f"{other}" in loader.unreadable.faults[12]
    assert key in loader.unreadable.faults[12]
    assert loader.shards.shard_file(12).startswith(str(other))


def test_sets_that_do_not_go_together_are_refused(roots: tuple[Path, Path], tmp_path: Path) -> None:
    first, second = (ShardSet(root) for root in roots)
    with pytest.raises(TrainingError, match="are the same set"):
        ShardSets([first, second, ShardSet(roots[0])])
    with pytest.raises(TrainingError, match="another split than 'train'"):
        ShardSets([second, ShardSet(roots[0], "test")])
    for wrong in ([], ["a", "b"], first):
        with pytest.raises(TrainingError):
            ShardSets(wrong)  # type: ignore[arg-type]
    with pytest.raises(TrainingError, match="or ShardSets"):
        ClipLoader(shards=[first, second], batch_size=4)  # type: ignore[arg-type]
    several: Any = "numbers above 0, one for each set"
    for weights, sentence in (
        ((1, 2, 3), "there are 3 weights, and 2 sets"),
        ((1, 0), several),
        ((1, float("nan")), several),
        ((1e308, 1e308), several),
        (("1", 2), several),
        ((), several),
        (0.7, several),
    ):
        with pytest.raises(TrainingError, match=sentence):
            ClipLoader(shards=ShardSets([first, second]), batch_size=4, weights=weights, **CLIP)
    with pytest.raises(TrainingError, match="there are 1 weights, and 1 set"):
        ClipLoader(shards=first, batch_size=4, weights=[1.0], **CLIP)
    # A set of few sources cannot be shown more often: no batch would hold enough of them.
    few = make_set(tmp_path / "few", {"train": 1}, clips_per_source=8, seed=5)
    plan = Plan(ShardSets([first, ShardSet(few)]), 0, 6, weights=(0.2, 0.8))
    assert plan.steps_per_epoch >= 14  # 17 clips, 14 of one source
    with pytest.raises(TrainingError, match="leaves batches of one clip"):
        plan.check_batches()


def test_weights_are_the_same_whatever_numbers_they_are(roots: tuple[Path, Path]) -> None:
    sets = ShardSets([ShardSet(root) for root in roots])
    plain = ClipLoader(shards=sets, batch_size=4, weights=(0.5, 1.5), **CLIP)
    for weights in (np.array([0.5, 1.5]), np.array([1, 3], np.float32), torch.tensor([0.5, 1.5])):
        again = ClipLoader(shards=sets, batch_size=4, weights=weights, **CLIP)  # type: ignore[arg-type]
        again.load_state_dict(plain.state_dict())


@pytest.mark.parametrize(
    ("first", "second", "weights"),
    [((1000, 10), (20, 600), (0.9, 0.1)), ((100, 10), (60, 200), (0.5, 0.5))],
)
def test_a_part_of_a_large_set_holds_a_share_of_each_source(
    first: tuple[int, int], second: tuple[int, int], weights: tuple[float, float]
) -> None:
    """As many steps as the batch size or the largest source asks for, and hardly one more: a
    random part of a set would hold far more clips of one source than of another."""
    sources = [f"a{n % first[0]}" for n in range(first[0] * first[1])]
    sources += [f"b{n % second[0]}" for n in range(second[0] * second[1])]
    sizes = (first[0] * first[1], second[0] * second[1])
    shards = np.arange(len(sources)) // 100
    batches = pass_batches(sources, shards, 0, 3, 112, mix=Mix(sizes, weights))
    shown = np.concatenate(batches)
    largest = max(Counter(sources[clip] for clip in shown).values())
    least = max(-(-len(shown) // 112), largest)
    assert len(batches) <= least + 2


def test_words_with_and_without_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("odd:0.5").mkdir()
    for words, expected in {
        ("a", "b"): (("a", "b"), ()),
        ("a:0.7", "b:0.3"): (("a", "b"), (0.7, 0.3)),
        ("a:3", "s3://bucket/set:1"): (("a", "s3://bucket/set"), (0.75, 0.25)),
        ("http://host:8000",): (("http://host:8000",), ()),
        ("http://host:8000:1", "b:.5"): (("http://host:8000", "b"), (1 / 1.5, 0.5 / 1.5)),
        ("odd:0.5",): (("odd:0.5",), ()),
        ("odd:0.5:1", "C:x"): None,
        ("a:1", "b"): None,
        ("a:1",): None,
        ("a:0", "b:1"): None,
        ("a:-1", "b:1"): None,
        ("a:nan", "b:1"): None,
        ("a:1e-1", "b:0.9"): (("a", "b"), (0.1, 0.9)),
    }.items():
        if expected is None:
            with pytest.raises(TrainingError):
                parse_sets(words)
        else:
            assert parse_sets(words) == (expected[0], pytest.approx(expected[1]))


def test_a_run_on_weighted_sets_resumes_and_says_its_mixture(
    roots: tuple[Path, Path], tmp_path: Path
) -> None:
    first, second = (str(root) for root in roots)
    options = ("--batch-size", "4", "--views", "2", "--num-workers", "0", "--checkpoint-steps", "1")
    weighted = (f"{first}:1", f"{second}:3")

    def run(*words: str) -> Any:
        return avtrain("pretrain", *words, *options)

    whole = run(*weighted, "--out", str(tmp_path / "whole"), "--steps", "6")
    assert whole.exit_code == 0, whole.output
    assert "26.7% of the clips of an epoch are of" in whole.stderr
    assert "shows its 6 clips 1.83 times" in whole.stderr
    part = ("--out", str(tmp_path / "part"))
    assert run(*weighted, *part, "--steps", "3").exit_code == 0
    settings = json.loads((tmp_path / "part/config.json").read_text())
    assert settings["weights"] == [0.25, 0.75]
    for words, sentence in (
        ((f"{first}:1", f"{second}:2"), "weights was"),
        ((first, second), "weights was"),
        ((f"{second}:1", f"{first}:3"), "data was"),
        ((first,), "data was"),
        ((first, "--config", str(tmp_path / "part/config.json")), "name sets with weights"),
        ((f"{first}:1", second), "has no weight, but others have"),
        ((first, first), "are the same set"),
    ):
        refused = run(*words, *part, "--resume", "--steps", "6")
        assert (refused.exit_code, refused.stderr.count("\n")) == (2, 1), refused.stderr
        assert sentence in refused.stderr
    resumed = run(
        *weighted, *part, "--resume", "--steps", "6", "--config", str(tmp_path / "part/config.json")
    )
    assert resumed.exit_code == 0, resumed.stderr
    losses = [[step["loss"] for step in steps_of(tmp_path / name)] for name in ("whole", "part")]
    assert losses[0] == losses[1]
    rehearsed = run(*weighted, "--dry-run", "--epochs", "9")
    assert rehearsed.exit_code == 0, rehearsed.stderr
    assert f"split 'train' of {first} and {second}" in rehearsed.stdout


def test_sets_whose_crops_or_channels_differ_are_refused(
    roots: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = ShardSet(roots[0])
    short = ShardSet(make_set(tmp_path / "short", {"train": 4}, duration_s=0.5, seed=9))
    with pytest.raises(TrainingError, match=r"lasts 0.50 s"):
        ClipLoader(shards=ShardSets([first, short]), batch_size=4, **CLIP)
    monkeypatch.setattr(tiny_set, "SIZE", 32)
    small = ShardSet(make_set(tmp_path / "small", {"train": 4}, seed=10))
    with pytest.raises(TrainingError, match=r"has crops of 32x32, but .* has 48x48: .* --size"):
        ClipLoader(shards=ShardSets([first, small]), batch_size=4, **CLIP)


def test_smaller_batches_than_asked_for_are_said(roots: tuple[Path, Path], tmp_path: Path) -> None:
    few = make_set(tmp_path / "few", {"train": 3}, clips_per_source=6, seed=5)
    done = avtrain(
        "pretrain", roots[0], few, "--dry-run", "--batch-size", 9, "--views", 2, "--epochs", 9
    )
    assert done.exit_code == 0, done.output
    assert "check: steps show 3 to 4 clips instead of 9" in done.stdout
