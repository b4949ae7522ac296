"""Probes: what is in a feature is found exactly, what is not gives chance, in any view."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from avtrain.checkpoint import Checkpoint
from avtrain.config import AugmentConfig, ClipConfig, tiny
from avtrain.data.clips import Clips
from avtrain.evals.evaluation import EvaluationOptions
from avtrain.evals.probe import model
from avtrain.evals.probe.data import Items, Truth, read_truth
from avtrain.evals.probe.evaluate import ProbeOptions, evaluate_probe
from avtrain.evals.probe.fit import probe_target, split_name
from avtrain.evals.probe.model import hold_out
from avtrain.evals.probe.targets import TARGETS, balance, measure_errors
from avtrain.evals.progress import Progress, delete_progress
from avtrain.evals.results import Metric, Result
from avtrain.evals.truth import sources_in
from avtrain.options import with_options
from shards.geometry import direction_deg, unit_vector
from shards.reader import ShardSet
from shards.schema import SampleInfo
from tests.support.runs import SMALL, avtrain, refused
from tests.support.tiny_set import SIZE, ball_mask, make_set

TARGET = {target.name: target for target in TARGETS}
NAMES = [metric for target in TARGETS for metric in target.metrics]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("set")
    return make_set(folder, {"train": 24, "test": 12}, tilt_deg=60, labelled=True)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    return make_set(folder, {"train": 5, "test": 3}, views=4, labelled=True)


def made_items(seed: int, count: int) -> Items:
    """Items of windows at random, whose audio feature mixes all that is true of them, and whose
    video feature is noise."""
    rng = np.random.default_rng(seed)
    direction = unit_vector(rng.uniform(-180, 180, count), rng.uniform(-60, 60, count))
    kind, number = rng.choice([2, 5, 9], count, p=[0.6, 0.3, 0.1]), rng.integers(1, 6, count)
    distance_m, rt60_s = np.exp(rng.normal(0, 0.5, (2, count)))
    truth = Truth(direction, rng.integers(0, 2, count), kind, number, distance_m, rt60_s)
    knows = [
        *direction.T,
        *(kind == value for value in (2, 5)),
        *(number == value for value in (1, 2)),
        truth.in_view,
        np.log(distance_m),
        np.log(rt60_s),
    ]
    mix = np.random.default_rng(0).normal(size=(len(knows), 30))
    features = {"audio": np.array(knows, float).T @ mix, "video": rng.normal(size=(count, 30))}
    tensors = {name: torch.tensor(values).float() for name, values in features.items()}
    return Items(tensors, truth, np.array([f"source {n}" for n in rng.integers(12, size=count)]))


@pytest.fixture(scope="module")
def probed() -> dict[str, Metric]:
    train, test = made_items(1, 1000), made_items(2, 1000)
    metrics: dict[str, Metric] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "_MOST_STEPS", 300)
        for target in TARGETS:
            metrics |= probe_target(target, train, test, 0).metrics
    return metrics


def test_what_the_feature_holds_is_read_exactly(probed: dict[str, Metric]) -> None:
    assert list(dict.fromkeys(split_name(name)[0] for name in probed)) == NAMES
    assert next(iter(probed)) == "azimuth from audio, linear"
    for name in NAMES:
        linear = probed[f"{name} from audio, linear"]
        hidden = probed[f"{name} from audio, hidden layer"]
        if linear.better == "lower":  # degrees, or a share
            assert linear.value < (0.05 if linear.unit == "°" else 0.001), name
            assert hidden.value < 0.3 * (hidden.chance or 0), name
        else:
            assert linear.value > 0.99, name
            assert hidden.value > 0.95, name


def test_noise_gives_chance(probed: dict[str, Metric]) -> None:
    for name in NAMES:
        for probe in ("linear", "hidden layer"):
            metric = probed[f"{name} from video, {probe}"]
            assert metric.chance is not None
            assert metric.value == pytest.approx(metric.chance, rel=0.15), (name, probe)
    chances = {name: probed[f"{name} from video, linear"].chance for name in NAMES}
    assert chances["azimuth"] == pytest.approx(90, abs=5)
    assert chances["elevation"] == pytest.approx(30, abs=2)  # the mean of |u|, u in ±60°
    assert chances["source in view"] == pytest.approx(1 / 2)
    assert chances["number of sources"] == pytest.approx(1 / 3)
    assert chances["class"] == pytest.approx(0.6, abs=0.05)


def test_errors_of_known_outputs() -> None:
    """Azimuths turn through the back; a quantity's error is relative; classes weigh the same."""
    truth = unit_vector([170, 0], [30, -20])
    found = measure_errors(TARGET["direction"], 0.7 * unit_vector([-170, 10], [0, 0]), truth)
    assert found["azimuth"].values == pytest.approx([20, 10])
    assert found["elevation"].values == pytest.approx([30, 20])
    distance = measure_errors(TARGET["distance"], np.log([[2.0], [3.0]]), np.array([1.0, 4.0]))
    assert distance["distance"].values == pytest.approx([1.0, 0.25])
    assert balance(np.array([0, 0, 0, 4])).tolist() == pytest.approx([2 / 3, 2 / 3, 2 / 3, 2])
    number = measure_errors(TARGET["number of sources"], np.eye(2)[[0, 0, 0]], np.array([0, 0, 1]))
    assert np.average(
        number["number of sources"].values, weights=number["number of sources"].weights
    ) == pytest.approx(0.5)


def test_whole_recordings_are_held_out() -> None:
    sources = np.array([f"s{n % 10}" for n in range(200)])
    held_out = hold_out(sources, 3).numpy()
    assert len(set(sources[held_out])) == 2
    assert not set(sources[held_out]) & set(sources[~held_out])
    assert np.array_equal(held_out, hold_out(sources, 3).numpy())
    assert len(set(np.array(["a", "b"])[hold_out(np.array(["a", "b"]), 0).numpy()])) == 1


@pytest.mark.usefixtures("quick")
def test_a_class_of_held_out_recordings_alone_does_not_decide() -> None:
    """Features that tell the classes apart are used, however sure the probe then is."""
    rng = np.random.default_rng(0)
    kind = rng.integers(4, size=400)
    sources = np.array([f"s{n}" for n in rng.integers(10, size=400)])
    held_out = hold_out(sources, 0)
    kind[held_out.numpy()] = np.where(rng.random(int(held_out.sum())) < 0.5, 4, kind[held_out])
    truth = replace(made_items(0, 400).truth, kind=kind)
    features = torch.tensor(np.eye(5)[kind] + rng.normal(0, 0.1, (400, 5))).float()
    items = Items({"audio": features}, truth, sources)
    found = probe_target(TARGET["class"], items, items, 0)
    assert found.details["ridge, audio"] < 1e-2
    shown = kind != 4
    for name, metric in found.metrics.items():
        assert metric.value > 0.99 * shown.mean(), name


def test_a_feature_that_hardly_varies_in_training_does_not_decide() -> None:
    train, test = made_items(1, 40), made_items(2, 40)
    expected = probe_target(TARGET["distance"], train, test, 0).metrics
    for items, value in ((train, 0.25), (test, 0.5)):
        items.features["audio"] = torch.cat(
            [items.features["audio"], torch.full((40, 1), value)], dim=1
        )
    metrics = probe_target(TARGET["distance"], train, test, 0).metrics
    assert max(metric.value for metric in metrics.values()) < 2
    linear = "distance from audio, linear"
    assert metrics[linear].value == pytest.approx(expected[linear].value)


def test_the_truth_of_a_view_is_where_its_crop_shows_the_ball(root: Path) -> None:
    """Views look up and down by up to 60° and in all directions; a mirrored clip is mirrored."""
    shards = ShardSet(root, "train")
    config = tiny("avsa")
    clips = Clips(shards, ClipConfig(views=3, frames=1, fps=8.0), config.sound, AugmentConfig(), 0)
    seen = 0
    for epoch in range(3):
        truth = read_truth(clips, epoch, np.arange(len(shards)), 3)
        azimuth, elevation = direction_deg(truth.direction)
        for item, (sample, number) in enumerate(np.ndindex(len(shards), 3)):
            info, draw = shards.info(sample), clips.draw(epoch, sample)
            view, event = info.views[draw.views[number]], (info.events or [])[0]
            ball = unit_vector(event["azimuth_deg"], event["elevation_deg"])
            mask = ball_mask(view, ball, 6.0)
            mask = mask[:, ::-1] if draw.mirror else mask
            rows, columns = np.nonzero(mask)
            inside = bool(truth.in_view[item])
            if not len(rows) or min(*rows, *columns) == 0 or max(*rows, *columns) == SIZE - 1:
                assert len(rows) or not inside
                continue
            assert inside
            seen += 1
            left, up = (
                np.tan(np.radians(40)) * (1 - 2 * (place.mean() + 0.5) / SIZE)
                for place in (columns, rows)
            )
            wanted = direction_deg([1.0, left, up])
            assert azimuth[item] == pytest.approx(wanted[0], abs=2.0)
            assert elevation[item] == pytest.approx(wanted[1], abs=2.0)
    assert seen > 20


def test_a_source_that_sounds_for_a_moment_leaves_no_only_one(root: Path) -> None:
    def event(time_s: float, source: int, **more: Any) -> dict[str, Any]:
        place = {"azimuth_deg": 10.0, "elevation_deg": 0.0}
        return {"time_s": time_s, "class": 1, "source": source, **place, **more}

    info = ShardSet(root, "train").info(0)
    far = [event(n / 10, 1, distance_m=2.0 + n / 10) for n in range(10)]
    shown = [event(n / 10, 1, visible=n > 5) for n in range(10)]

    def with_events(events: list[dict[str, Any]]) -> SampleInfo:
        return SampleInfo(**{**vars(info), "events": events, "event_step_s": 0.1})

    (source,) = sources_in(with_events(far), 0.0, 1.0)
    assert (source.distance_m, source.visible) == (pytest.approx(2.45), True)
    (source,) = sources_in(with_events([*far[1:], event(0.0, 1)]), 0.0, 1.0)
    assert source.distance_m is None  # some moments do not state it
    (source,) = sources_in(with_events(shown), 0.0, 1.0)
    assert not source.visible

    class OneClip(Clips):
        """The events of the test's choice."""

        events: list[dict[str, Any]]

        def truth(self, events: list[dict[str, Any]], rt60_s: float | None = None) -> Truth:
            changed = replace(with_events(events), reverberation_rt60_s=rt60_s)
            self.shards.info = lambda _: changed  # type: ignore[method-assign]
            return read_truth(self, 0, np.array([0]), 2)

    config = ClipConfig(views=2, frames=1, fps=8.0)
    clips = OneClip(ShardSet(root, "train"), config, tiny("avsa").sound, AugmentConfig(), 0, 2)
    truth = clips.truth(far, 0.4)
    assert (truth.kind.tolist(), truth.count.tolist()) == ([1, 1], [1, 1])
    assert (truth.rt60_s.tolist(), np.isfinite(truth.distance_m).all()) == ([0.4, 0.4], True)
    truth = clips.truth([*far, event(0.5, 2)])
    assert (truth.kind.tolist(), truth.count.tolist()) == ([-1, -1], [1, 1])
    assert np.isnan([*truth.direction.ravel(), *truth.distance_m, *truth.rt60_s]).all()
    assert clips.truth(shown).in_view.tolist() == [0, 0]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "_MOST_STEPS", 50)


def evaluated(root: Path, out: Path, *, energy: bool, rounds: int) -> Result:
    features = "logmel+intensity" if energy else "logmel"
    config = with_options(tiny("avsa"), features=features)
    common = EvaluationOptions(str(root), config, out, device="cpu", workers=0, energy=energy)
    return evaluate_probe(common, ProbeOptions(views=2, windows=2, rounds=rounds))


@pytest.mark.usefixtures("quick")
def test_intensity_tells_directions_and_log_mels_do_not(root: Path, tmp_path: Path) -> None:
    """Views with yaw and pitch at once, and half of the training clips mirrored."""
    energy = evaluated(root, tmp_path, energy=True, rounds=4).metrics
    assert energy["azimuth from audio, linear"].value < 3
    assert energy["elevation from audio, linear"].value < 3
    assert energy["azimuth from video, linear"].value > 30
    untrained = evaluated(root, tmp_path, energy=False, rounds=1).metrics
    assert untrained["azimuth from audio, linear"].value > 30


@pytest.mark.usefixtures("quick")
def test_an_interrupted_probe_of_a_transformer_resumes(
    small: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    pretrained = avtrain("pretrain", small, "--steps", 1, *SMALL, "--out", tmp_path / "run")
    assert pretrained.exit_code == 0, pretrained.output
    checkpoint = tmp_path / "run" / "checkpoint.pt"
    config = Checkpoint.load(checkpoint).settings()

    def evaluated(out: Path) -> Result:
        common = EvaluationOptions(
            str(small), config, out, checkpoint=checkpoint, device="cpu", workers=0
        )
        return evaluate_probe(common, ProbeOptions(views=2, windows=2, rounds=2))

    whole = evaluated(tmp_path / "whole")
    inputs = [split_name(name)[1] for name in whole.metrics]
    assert set(inputs) == {"audio", "video", "predicted audio", "audio + video"}
    save = Progress.save

    def save_and_stop(self: Progress, state: dict[str, Any]) -> None:
        save(self, state)
        if len(state.get("test", ())) == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Progress, "save", save_and_stop)
        with pytest.raises(KeyboardInterrupt):
            evaluated(tmp_path / "parts")
    saved: list[int] = []
    monkeypatch.setattr(Progress, "save", lambda _, state: saved.append(len(state.get("test", ()))))
    assert evaluated(tmp_path / "parts") == whole
    delete_progress(tmp_path / "parts", [whole])
    assert saved == [2, 0]  # one window, and the finished mark
    names = sorted(path.name for path in (tmp_path / "parts").iterdir())
    assert names == ["probe.png", "probe.result.json"]


@pytest.mark.usefixtures("quick")
def test_the_command(small: Path, tmp_path: Path) -> None:
    arguments = ["--windows", 1, "--rounds", 1, "--num-workers", 0, "--keep-features"]
    arguments += [tmp_path / "kept", "--checkpoint", "energy"]
    result = avtrain("eval", "probe", small, *arguments, "--out", tmp_path / "one")
    assert result.exit_code == 0, result.output
    rows = [[cell.strip() for cell in row.split("|")] for row in result.stdout.splitlines()]
    assert rows[0][4:9] == ["asked", "probe", "audio", "video", "audio + video"]
    assert rows[2][1:6] == ["energy", *rows[2][2:4], "azimuth (°)", "linear"]
    for reason in (
        "distance: no window",
        "reverberation time: no window",
        "number of sources: all",
    ):
        assert f"not asked: {reason}" in result.stderr
    written = Result.read(tmp_path / "one/probe-energy.result.json")
    assert set(written.details["unknown"]) == {
        "distance",
        "reverberation time",
        "number of sources",
    }
    assert (tmp_path / "one/probe-energy.png").exists()
    # The features are those that other evaluations keep, and the report shows the metrics.
    kept = sorted((tmp_path / "kept").iterdir())
    others = ["--views", 2, "--windows", 1, *arguments[4:]]
    done = avtrain("eval", "retrieval", small, *others, "--out", tmp_path / "other")
    assert done.exit_code == 0, done.output
    assert sorted((tmp_path / "kept").iterdir()) == kept
    again = avtrain("eval", "probe", small, *arguments, "--out", tmp_path / "two")
    assert again.stdout == result.stdout
    assert "azimuth from audio, linear (°)" in avtrain("report", tmp_path / "one").stdout


def test_a_set_that_says_nothing_is_refused(tmp_path: Path) -> None:
    unlabelled = make_set(tmp_path / "set", {"train": 2, "test": 1}, views=4)
    arguments = ["--checkpoint", "energy", "--num-workers", 0, "--out", tmp_path]
    sentence = refused("eval", "probe", unlabelled, *arguments)
    assert "says nothing about its clips that could be asked" in sentence
