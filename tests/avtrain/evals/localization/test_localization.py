"""Localization: vectors are rotated back to the recording's frame, and chance is 90°."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click.testing
import numpy as np
import pytest
import torch
from torch import Tensor

from avtrain.cli.main import main
from avtrain.config import AugmentConfig, ClipConfig, tiny
from avtrain.data.clips import Clips
from avtrain.data.draws import NO_AUGMENTATION
from avtrain.evals.evaluation import EvaluationOptions
from avtrain.evals.localization.data import Windows, label_windows
from avtrain.evals.localization.evaluate import LocalizationOptions, evaluate_localization
from avtrain.evals.localization.metrics import (
    CHANCE_DEG,
    Estimates,
    chance_near,
    match_sources,
)
from avtrain.evals.localization.model import LeastSquares
from avtrain.evals.progress import Progress, delete_progress
from avtrain.evals.results import Result
from avtrain.evals.truth import sources_in
from shards.reader import ShardSet
from shards.schema import SampleInfo
from tests.support.tiny_set import KINDS, make_set


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("set")
    return make_set(folder, {"train": 24, "test": 12}, tilt_deg=60, labelled=True)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    return make_set(folder, {"train": 4, "test": 3}, views=4, labelled=True)


def labelled_windows(shards: ShardSet, windows: int | None, epoch: int, first: int = 3) -> Windows:
    """Windows whose features contain, at the position of the ball's kind, the direction of its
    sound: the intensity of the audio that networks get, mirrored as they get it. The ``first`` of
    three views have features."""
    augment = NO_AUGMENTATION if windows else AugmentConfig()
    config = tiny("avsa").sound
    clips = Clips(shards, ClipConfig(views=3, frames=1, fps=8.0), config, augment, 0, windows)
    index = torch.arange(len(shards))
    features = []
    for sample in index.tolist():
        read = clips.read(sample, clips.draw(epoch, sample))
        field = read["matrices"][0] @ read["audio"][0]  # (V, 4, samples)
        intensity = np.einsum("vn,vcn->vc", field[:, 0], field[:, [3, 1, 2]])
        direction = intensity / np.linalg.norm(intensity, axis=-1, keepdims=True)
        kind = np.eye(KINDS)[(shards.info(sample).events or [])[0]["class"]]
        features.append(np.einsum("k,vc->vkc", kind, direction).reshape(3, -1))
    # Features of networks mix everything with everything.
    mix = np.random.default_rng(0).normal(size=(3 * KINDS, 40))
    mixed = torch.tensor(np.array(features) @ mix, dtype=torch.float32)
    return label_windows(clips, epoch, index, mixed[:, :first], tuple(range(KINDS)))


def errors(train: list[Windows], test: Windows) -> tuple[np.ndarray, np.ndarray]:
    fit = LeastSquares()
    for windows in train:
        fit.add(windows)
    by_class, lone = match_sources(test, fit.solve().directions(test))
    assert by_class.index.tolist() == lone.index.tolist() == list(range(12))
    return by_class.error_deg, lone.error_deg


def test_probe_recovers_directions_in_the_features_from_any_view(root: Path) -> None:
    train, test = ShardSet(root, "train"), ShardSet(root, "test")
    rounds = [labelled_windows(train, None, epoch) for epoch in range(2)]
    determinants = torch.linalg.det(torch.cat([part.rotations for part in rounds]))
    assert {-1, 1} == set(determinants.round().int().flatten().tolist())  # some are mirrored
    tested = labelled_windows(test, 1, 0)
    seen_first = [labelled_windows(test, 1, 0, first) for first in (1, 2)]
    for found in [error for part in (tested, *seen_first) for error in errors(rounds, part)]:
        assert found.max() < 3
    shuffled = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
    wrong = [replaced(part, part.features[shuffled]) for part in rounds]
    roll = replaced(tested, tested.features.roll(5, dims=0))
    for found in errors(wrong, tested) + errors(rounds, roll):
        assert 60 < found.mean() < 120


def replaced(windows: Windows, features: Tensor) -> Windows:
    return Windows(**{**vars(windows), "features": features})


def info_with(shards: ShardSet, events: list[dict[str, Any]]) -> SampleInfo:
    return SampleInfo(**{**vars(shards.info(0)), "events": events, "event_step_s": 0.1})


def test_sources_in_a_window(root: Path) -> None:
    def event(time_s: float, kind: int, azimuth_deg: float, **more: Any) -> dict[str, Any]:
        place = {"azimuth_deg": azimuth_deg, "elevation_deg": 0.0}
        return {"time_s": time_s, "class": kind, **place, **more}

    steps = np.arange(20) / 10
    moving = [event(time_s, 4, 170 + 20 * time_s, source=1) for time_s in steps]
    short = [event(0.5, 5, 0, source=2)]
    nameless = [event(time_s, 6, azimuth) for time_s in steps[:10] for azimuth in (10, 50)]
    info = info_with(ShardSet(root, "train"), moving + short + nameless)
    found = sources_in(info, 0.0, 1.0)
    # A moving source has its mean direction, across the back as well; one that sounds for a tenth
    # of the window is not in it; and sources without a number are told apart by their order.
    assert [(item.kind, item.source) for item in found] == [(4, 1), (6, 0), (6, 1)]
    azimuths = [np.degrees(np.arctan2(*item.direction[[1, 0]])) for item in found]
    assert azimuths == pytest.approx([179, 10, 50])
    assert [item.kind for item in sources_in(info, 1.0, 1.0)] == [4]
    # A step belongs to the window that contains its middle.
    info = info_with(ShardSet(root, "train"), [event(0.0, 5, 0), event(0.1, 5, 0)])
    assert len(sources_in(info, 0.04, 1.0)) == 1
    assert len(sources_in(info, 0.06, 1.0)) == 0


def test_two_sources_of_a_class_are_left_out() -> None:
    vectors = torch.zeros(3, 2, 3)
    vectors[0, 0] = vectors[1, 0] = vectors[1, 1] = torch.tensor([0.0, 1, 0])
    sources = torch.tensor([[1, 0], [1, 1], [2, 0]])
    rotations = torch.eye(3).expand(3, 1, 3, 3)
    windows = Windows(
        torch.zeros(3, 1, 4), rotations, vectors, sources, torch.zeros(3), torch.arange(3)
    )
    estimates = torch.tensor([0.0, 1, 1]).expand(3, 2, 3).clone()
    estimates[1, 1] = 0.0
    by_class, lone = match_sources(windows, estimates)
    assert (by_class.index.tolist(), by_class.kind.tolist()) == ([0, 1, 1], [0, 0, 1])
    # An estimate of length 0 points nowhere.
    assert by_class.error_deg == pytest.approx([45, 45, 180])
    assert (lone.index.tolist(), lone.error_deg.tolist()) == ([0], pytest.approx([45]))
    unlearned = Windows(**{**vars(windows), "others": torch.ones(3)})
    assert len(match_sources(unlearned, estimates)[1].index) == 0


def test_chance_is_that_of_a_uniform_guess() -> None:
    guesses = np.random.default_rng(0).normal(size=(200_000, 3))
    truth = np.broadcast_to([0.6, 0.0, 0.8], guesses.shape)
    zeros = np.zeros(len(guesses), np.int64)
    error_deg = Estimates(truth, guesses, zeros, zeros).error_deg
    assert error_deg.mean() == pytest.approx(CHANCE_DEG, abs=0.3)
    assert np.median(error_deg) == pytest.approx(CHANCE_DEG, abs=0.3)


def test_chance_of_being_near_uses_the_elevation_of_sources() -> None:
    rng = np.random.default_rng(0)
    anywhere = rng.normal(size=(5000, 3))
    anywhere /= np.linalg.norm(anywhere, axis=-1, keepdims=True)
    cap = (1 - np.cos(np.radians(20))) / 2
    assert chance_near(anywhere) == pytest.approx(cap, abs=0.002)
    azimuth = rng.uniform(-np.pi, np.pi, 5000)
    horizon = np.stack([np.cos(azimuth), np.sin(azimuth), np.zeros(5000)], axis=-1)
    assert chance_near(horizon) == pytest.approx(20 / 180, abs=0.003)
    # One recording is as good as many: its azimuth does not matter.
    assert chance_near(horizon[:1]) == pytest.approx(20 / 180, abs=0.003)


def test_an_interrupted_probe_resumes(small: Path, tmp_path: Path, monkeypatch: Any) -> None:
    def evaluated(out: Path) -> Result:
        common = EvaluationOptions(str(small), tiny("avsa"), out, device="cpu", workers=0)
        return evaluate_localization(common, LocalizationOptions(views=1, windows=1, rounds=3))

    whole = evaluated(tmp_path / "whole")
    save = Progress.save

    def save_and_stop(self: Progress, state: dict[str, Any]) -> None:
        save(self, state)
        if state.get("rounds") == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Progress, "save", save_and_stop)
        with pytest.raises(KeyboardInterrupt):
            evaluated(tmp_path / "parts")
    saved: list[int | None] = []
    monkeypatch.setattr(Progress, "save", lambda _, state: saved.append(state.get("rounds")))
    assert evaluated(tmp_path / "parts") == whole
    delete_progress(tmp_path / "parts", [whole])
    assert saved == [3, None]  # one round, and the finished mark
    names = sorted(path.name for path in (tmp_path / "parts").iterdir())
    assert names == ["localization-untrained.png", "localization-untrained.result.json"]


def test_the_command(small: Path, tmp_path: Path) -> None:
    def avtrain(*arguments: object) -> click.testing.Result:
        return click.testing.CliRunner().invoke(main, [str(argument) for argument in arguments])

    arguments = ["--checkpoint", "untrained", "--windows", 1, "--views", 1, "--num-workers", 0]
    result = avtrain("eval", "localization", small, *arguments, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    written = Result.read(tmp_path / "localization-untrained.result.json")
    assert list(written.metrics)[:3] == ["mean error", "median error", "within 20°"]
    assert written.metrics["mean error"].chance == 90
    assert (written.details["probe"], written.details["sources"]) == (
        "linear, least squares",
        3,
    )
    assert "mean error (°)" in result.stdout
    # An evaluation of one view can use kept features of four views.
    keep = [*arguments, "--keep-features", tmp_path / "kept"]
    result = avtrain("eval", "localization", small, *keep, "--out", tmp_path / "one")
    assert result.exit_code == 0, result.output
    four = [*arguments, "--views", 4]
    plain = avtrain("eval", "localization", small, *four, "--out", tmp_path / "plain")
    kept = avtrain("eval", "localization", small, *four, *keep[-2:], "--out", tmp_path / "four")
    assert kept.exit_code == 0, kept.output
    assert kept.stdout == plain.stdout
    unlabelled = make_set(tmp_path / "set", {"train": 1, "test": 1})
    result = avtrain("eval", "localization", unlabelled, *arguments, "--out", tmp_path)
    assert result.exit_code == 2
    assert "says where its sounds come from" in result.output
