"""AVC-Bin and AVSA-Bin: the test is balanced, and separable features are classified."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from avtrain.config import AugmentConfig, ClipConfig
from avtrain.data.clips import Clips
from avtrain.data.draws import NO_AUGMENTATION, Draw
from avtrain.data.unreadable import Unreadable
from avtrain.errors import TrainingError
from avtrain.evals.binary.data import PairReader, Pairs
from avtrain.evals.binary.decisions import Decisions, accuracies_by_truth
from avtrain.evals.binary.model import PairClassifier
from avtrain.evals.binary.protocol import BinaryProtocol, VideoInput, paper, tiny
from avtrain.evals.binary.train import decide_pairs, train_classifier
from avtrain.evals.feature_store import (
    PARTS,
    FrozenBatch,
    FrozenFeatures,
    Part,
    WindowOptions,
)
from avtrain.evals.progress import Progress
from avtrain.evals.results import Metric, Result
from avtrain.evals.truth import shows_source
from avtrain.networks.features import FeatureConfig
from shards.geometry import direction_deg, view_rotation
from shards.reader import ShardSet
from shards.schema import SampleInfo, View
from tests.support.runs import SMALL, avtrain
from tests.support.tiny_set import damage, make_set

SOUND = FeatureConfig(mels=64)
INFOS: list[SampleInfo] = []


@pytest.fixture(autouse=True, scope="module")
def _infos(root: Path) -> None:
    INFOS[:] = [ShardSet(root).info(0)]  # hypothesis takes no fixtures of functions


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sources = {"train": 8, "test": 4}
    return make_set(tmp_path_factory.mktemp("set"), sources, clips_per_source=2, labelled=True)


@pytest.mark.parametrize("task", ["avc", "avsa"])
def test_untrained_network(root: Path, tmp_path: Path, task: str) -> None:
    arguments = ["eval", task, root, "--checkpoint", "untrained", "--windows", 2, "--views", 2]
    result = avtrain(*arguments, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    written = Result.read(tmp_path / f"{task}-bin-untrained.result.json")
    metric = written.metrics["accuracy"]
    assert metric.chance == 0.5
    assert (written.test_clips, written.test_sources) == (8, 4)
    assert written.details["decisions"] == 8 * 2 * 2
    by_view = [written.details[f"views_{name}_source"]["decisions"] for name in ("with", "without")]
    assert sum(by_view) == 8 * 2 * 2 * 2
    assert min(by_view) > 0
    together = written.details["by_views_with_source"].values()
    right = sum(part["accuracy"] * part["decisions"] for part in together)
    assert right == pytest.approx(metric.value * written.details["decisions"])
    assert metric.interval_95 is not None
    low, high = metric.interval_95
    assert low <= metric.value <= high
    assert written.test["protocol"]["name"] == "tiny"
    assert f"{100 * metric.value:.1f}" in result.stdout
    assert not list(tmp_path.glob("*.part"))
    again = avtrain(*arguments, "--out", tmp_path / "again", "--num-workers", 1)
    assert again.stdout == result.stdout


def test_checkpoint_brings_its_settings(root: Path, tmp_path: Path) -> None:
    arguments = ["--steps", 2, "--batch-size", 8, "--features", "logmel+intensity"]
    arguments += ["--transformer", "--positions", "direction"]
    assert avtrain("pretrain", root, "--out", tmp_path, *arguments).exit_code == 0
    checkpoint = ["--checkpoint", tmp_path / "checkpoint.pt", "--out", tmp_path]
    result = avtrain("eval", "avsa", root, *checkpoint, "--views", 1, "--windows", 1)
    assert result.exit_code == 0, result.output
    written = Result.read(tmp_path / "avsa-bin.result.json")
    network = written.network
    assert (network.pretraining, network.steps) == ("AVSA", 2)
    assert (network.features, network.positions) == ("log-mel + intensity × 8", "direction")
    assert network.transformer
    # Random networks of the same kind are in the table and in the report too.
    baseline = Result.read(tmp_path / "avsa-bin-untrained.result.json")
    assert (baseline.network.pretraining, baseline.network.checkpoint) == ("none", None)
    assert [line.split("|")[2].strip() for line in result.stdout.splitlines()[2:]] == [
        "none",
        "AVSA, 2 steps",
    ]
    assert (network.seed, baseline.network.seed) == (0, 0)
    report = avtrain("report", tmp_path).stdout.splitlines()
    assert [line.split("|")[2].strip() for line in report[2:]] == ["none", "AVSA, 2 steps"]
    # Another input of the classifier is another test, with a file of its own.
    assert (written.task, "input" in written.test) == ("avsa-bin", False)
    for video_input in ("feature", "both"):
        more = ["--views", 1, "--windows", 1, "--no-baseline", "--input", video_input]
        result = avtrain("eval", "avsa", root, *checkpoint, *more)
        assert result.exit_code == 0, result.output
        other = Result.read(tmp_path / f"avsa-bin-{video_input}.result.json")
        assert (other.task, other.test["input"]) == (f"avsa-bin-{video_input}", video_input)
        assert other.test == {**written.test, "input": video_input}
    assert Result.read(tmp_path / "avsa-bin.result.json") == written
    result = avtrain("eval", "avsa", root, *checkpoint, "--features", "logmel")
    assert result.exit_code == 2
    result = avtrain("eval", "avsa", root, *checkpoint, "--test-split", "valid")
    assert result.exit_code == 2
    assert "no split 'valid'" in result.output


@pytest.mark.parametrize("transformer", [True, False])
def test_the_classifier_reads_what_input_says(transformer: bool) -> None:
    """Without a transformer it is always the feature, which is then the prediction."""
    video, audio, turned = (torch.rand(2, 3, 4) for _ in range(3))
    features: dict[Part, torch.Tensor] = {"video": video, "audio": audio, "turned": turned}
    batch = FrozenBatch(torch.arange(2), torch.zeros(2, 3, 3), features)
    networks = SimpleNamespace(
        transformer=transformer, predicted_audio=lambda video, directions: 7 + video
    )
    read = {}
    for video_input in get_args(VideoInput):
        frozen: Any = SimpleNamespace(networks=networks)
        reader = PairReader("avsa", video_input, frozen, bar=None)  # type: ignore[arg-type]
        read[video_input] = reader._pairs(batch, 0)
    expected = {"feature": [video], "prediction": [7 + video], "both": [video, 7 + video]}
    for video_input, parts in expected.items():
        parts = parts if transformer else [video]
        pairs = read[video_input]
        assert torch.equal(pairs.matched, torch.cat([*parts, audio], dim=-1))
        assert torch.equal(pairs.mismatched, torch.cat([*parts, turned], dim=-1))


@given(
    st.floats(-180, 180, exclude_min=True),
    st.floats(-80, 80),
    st.floats(20, 120),
    st.floats(-1.5, 1.5),
    st.floats(-1.5, 1.5),
    st.booleans(),
)
def test_a_view_shows_what_lies_in_its_crop(
    azimuth_deg: float, elevation_deg: float, hfov_deg: float, left: float, up: float, mirror: bool
) -> None:
    """At ``left`` and ``up`` of the crop's centre, in half sizes of the crop; and what is opposite
    lies behind the camera."""
    assume(abs(abs(left) - 1) > 1e-6)
    assume(abs(abs(up) - 1) > 1e-6)
    view = View(azimuth_deg, elevation_deg, hfov_deg, 50.0)
    width, height = (math.tan(math.radians(angle / 2)) for angle in (hfov_deg, 50.0))
    direction = view_rotation(azimuth_deg, elevation_deg).T @ [1.0, left * width, up * height]
    draw = Draw.from_seed([0], 5, ClipConfig(views=1), AugmentConfig())
    info, draw = INFOS[0], replace(draw, views=np.array([0]), mirror=mirror)

    def shows(vector: np.ndarray, **more: object) -> bool:
        azimuth, elevation = direction_deg(vector)
        event = {"time_s": 0.0, "class": 1, "azimuth_deg": float(azimuth), **more}
        events = [event | {"elevation_deg": float(elevation)}]
        labelled = replace(info, views=(view, *info.views[1:]), events=events, event_step_s=1.0)
        (shown,) = shows_source(labelled, draw, 1, 0.0, 1.0)
        return bool(shown)

    assert shows(direction) == (abs(left) < 1 and abs(up) < 1)
    assert not shows(direction, visible=False)
    assert not shows(-direction)


def test_accuracies_of_views_with_and_without_a_source(root: Path) -> None:
    """In the tiny set the first stored view alone shows the ball."""
    clips = Clips(ShardSet(root, "test"), ClipConfig(3, fps=8.0), SOUND, NO_AUGMENTATION, 0, 2)
    index, window = np.repeat(np.arange(8), 2), np.tile([0, 1], 8)
    views = np.array([clips.draw(*place).views for place in zip(window, index, strict=True)])
    shows = views == 0
    found = shows.any(axis=1)
    decisions = Decisions(found, shows, index, window)
    assert accuracies_by_truth(decisions, clips) == {
        "views_with_source": {"accuracy": 1.0, "decisions": found.sum()},
        "views_without_source": {"accuracy": 0.0, "decisions": 48 - found.sum()},
        "by_views_with_source": {
            "0": {"accuracy": 0.0, "decisions": 16 - found.sum()},
            "1": {"accuracy": 1.0, "decisions": found.sum()},
        },
    }


def test_without_events_there_is_no_truth_to_go_by(tmp_path: Path) -> None:
    shards = ShardSet(make_set(tmp_path, {"test": 2}), "test")
    clips = Clips(shards, ClipConfig(3, fps=8.0), SOUND, NO_AUGMENTATION, 0, 1)
    right, index = np.ones((2, 3), dtype=bool), np.arange(2)
    assert accuracies_by_truth(Decisions(right[:, 0], right, index, 0 * index), clips) == {}


def test_kept_features_equal_computed_ones(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = avtrain("pretrain", root, "--out", tmp_path, "--steps", 2, *SMALL)
    assert trained.exit_code == 0, trained.output
    evaluations = ("avsa", "avc", "retrieval")
    arguments = [root, "--checkpoint", tmp_path / "checkpoint.pt", "--no-baseline", "--windows", 2]

    def metrics(task: str, out: Path, *more: object) -> dict[str, Metric]:
        result = avtrain("eval", task, *arguments, "--out", out, *more)
        assert result.exit_code == 0, result.output
        (path,) = out.glob("*.result.json")
        return Result.read(path).metrics

    plain = {task: metrics(task, tmp_path / f"plain/{task}") for task in evaluations}
    kept = tmp_path / "kept"
    keep = ("--keep-features", kept)
    shared = {"avsa": metrics("avsa", tmp_path / "shared/avsa", *keep)}
    with monkeypatch.context() as patched:
        # The first evaluation has computed all that the others need.
        patched.delattr(Clips, "read")
        shared |= {task: metrics(task, tmp_path / f"shared/{task}", *keep) for task in plain}
        metrics("avsa", tmp_path / "shared/one view", *keep, "--views", 1)
    assert shared == plain
    # Features of other networks or another seed are not reused.
    count = len(list(kept.iterdir()))
    metrics("retrieval", tmp_path / "seed", *keep, "--seed", 1)
    assert len(list(kept.iterdir())) == count + 2
    for path in kept.iterdir():
        path.write_bytes(path.read_bytes()[:100])
    damaged = avtrain("eval", "avc", *arguments, "--out", tmp_path / "damaged", *keep)
    assert damaged.exit_code == 2
    assert "is damaged" in damaged.output
    assert "delete it" in damaged.output


@pytest.mark.parametrize(
    "change",
    [
        {"features": 3},
        {"features": {"video": torch.zeros(2, 3, 8)}},
        *({"turned": wrong} for wrong in (3, [1.0], torch.zeros(2, 3, 7), torch.zeros(2, 1, 8))),
        {"turned": torch.zeros(2, 3, 8).double()},
        *({"index": wrong} for wrong in ([0, 1], torch.tensor([0, 9]), torch.tensor([0, -1]))),
        {"index": torch.tensor([0.0, 1.0])},
        {"directions": torch.zeros(2, 3, 2)},
        {"directions": None},
        {"more": 1},
    ],
)
def test_kept_features_that_do_not_fit_are_refused(change: dict[str, Any], tmp_path: Path) -> None:
    def features(**parts: object) -> Any:
        rest: tuple[Any, ...] = (None, 0, Unreadable("the set", 9))
        networks = SimpleNamespace(audio_dim=8, video_dim=8)
        clips = SimpleNamespace(shards=range(9))
        made: Any = FrozenFeatures(networks, clips, *rest, WindowOptions())  # type: ignore[arg-type]
        torch.save({"batches": [parts], "left_out": {3: "a fault"}}, tmp_path / "x.pt")
        return made

    whole = dict.fromkeys(PARTS, torch.zeros(2, 4, 8))
    batch = {"index": torch.tensor([0, 8]), "directions": torch.zeros(2, 4, 3)}
    (read,) = features(**batch, features=whole)._read(tmp_path / "x.pt")
    assert read.features.keys() == whole.keys()
    turned = {name: change[name] for name in ("turned",) if name in change}
    wrong = {**batch, "features": whole | turned, **change}
    wrong.pop("turned", None)
    with pytest.raises(TrainingError, match=r"x\.pt is damaged \(a batch .*\); delete it"):
        list(features(**wrong)._read(tmp_path / "x.pt"))


def test_unreadable_clips_stay_left_out_of_kept_features(tmp_path: Path) -> None:
    root = make_set(tmp_path / "set", {"train": 8, "test": 4}, clips_per_source=2)
    damage(root, 0, "test")
    arguments = ["eval", "avc", root, "--checkpoint", "untrained", "--windows", 2]
    arguments += ["--keep-features", tmp_path / "kept"]
    written = []
    for out in (tmp_path / "first", tmp_path / "second"):
        result = avtrain(*arguments, "--out", out)
        assert result.exit_code == 1, result.output
        written.append(Result.read(out / "avc-bin-untrained.result.json"))
    assert written[0] == written[1]
    assert len(written[1].left_out) == 1


def test_a_resumed_classifier_ends_the_same(tmp_path: Path) -> None:
    protocol = BinaryProtocol("test", 6, 2, 3e-3, (4,), paired=False, clips_per_source=None)

    class Stop(Exception):
        pass

    def trained(path: Path, ends: int | None = None) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        classifier = PairClassifier(16, protocol.dropout)
        progress = Progress(path, {"seed": 0})
        save = progress.save

        def save_and_stop(state: dict[str, Any]) -> None:
            save(state)
            if state["epoch"] == ends:
                raise Stop

        progress.save = save_and_stop  # type: ignore[method-assign]
        train_classifier(classifier, lambda number: separable(40, number), protocol, 0, progress)
        return classifier.state_dict()

    whole = trained(tmp_path / "whole")
    with pytest.raises(Stop):
        trained(tmp_path / "parts", ends=3)
    parts = trained(tmp_path / "parts")
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=0, atol=0)


def test_paper_protocol_is_the_published_one() -> None:
    avc, avsa = paper("avc"), paper("avsa")
    assert (avc.epochs, avc.learning_rate, avc.milestones) == (10, 1e-5, (5, 8))
    assert (avsa.epochs, avsa.learning_rate, avsa.milestones) == (10, 1e-4, (8,))
    for protocol in (avc, avsa):
        assert (protocol.gamma, protocol.batch_size, protocol.dropout) == (0.1, 32, 0.5)
        assert (protocol.weight_decay, protocol.clips_per_source) == (1e-5, 16)
        assert protocol.rounds == protocol.epochs  # new windows every epoch
        assert not protocol.paired


def test_weight_decay_of_the_protocol_is_used() -> None:
    sizes = []
    for decay in (0.0, 1.0):
        protocol = replace(
            paper("avsa"), epochs=1, rounds=1, weight_decay=decay, learning_rate=0.01
        )
        torch.manual_seed(0)
        classifier = PairClassifier(16, protocol.dropout)
        train_classifier(classifier, lambda _: separable(640, 0), protocol, 0)
        sizes.append(sum(float(part.detach().norm()) for part in classifier.parameters()))
    assert sizes[1] < 0.8 * sizes[0]


def separable(clips: int, seed: int) -> Pairs:
    """Audio equals video where they match."""
    generator = torch.Generator().manual_seed(seed)
    video, other = torch.randn(2, clips, 4, 8, generator=generator)
    matched, mismatched = torch.cat([video, video], -1), torch.cat([video, other], -1)
    index = torch.arange(clips)
    return Pairs(matched, mismatched, index, 0 * index)


@pytest.mark.parametrize("paired", [True, False])
def test_classifier_learns_separable_features(paired: bool) -> None:
    torch.manual_seed(0)
    protocol = BinaryProtocol("test", 60, 3, 3e-3, (50,), paired=paired, clips_per_source=None)
    calls: list[int] = []

    def read_round(number: int) -> Pairs:
        calls.append(number)
        return separable(200, number)

    classifier = PairClassifier(16, protocol.dropout)
    train_classifier(classifier, read_round, protocol, 0)
    assert calls == [0, 1, 2]  # each round is extracted once
    decisions = decide_pairs(classifier, [separable(200, 99)])
    assert decisions.correct.mean() > 0.65  # chance is 0.5 with a standard deviation of 0.025
    assert decisions.by_view.mean() > 0.6
    assert np.bincount(decisions.index).tolist() == [2] * 200


def test_a_constant_decision_is_at_chance() -> None:
    """Matched and mismatched are tested equally often."""

    class Constant(PairClassifier):
        def by_view(self, pairs: torch.Tensor) -> torch.Tensor:
            return torch.tensor([0.0, 1.0]).expand(*pairs.shape[:2], -1)

    decisions = decide_pairs(Constant(16, 0.5), [separable(7, 0), separable(3, 1)])
    assert decisions.correct.mean() == decisions.by_view.mean() == 0.5


def test_tiny_protocol_is_the_same_for_both_tasks() -> None:
    assert tiny("avc") == tiny("avsa")
