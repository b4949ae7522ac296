"""Action recognition: the generated videos, folds, windows, and that a killed run resumes."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import click.testing
import numpy as np
import pytest
import torch

from avprep.cli.main import main as avprep
from avprep.world.actions import ACTIONS, ActionVideo, move, render_video
from avtrain.cli.main import main as avtrain
from avtrain.config import AugmentConfig
from avtrain.config import tiny as tiny_networks
from avtrain.evals.action import data as action_data
from avtrain.evals.action import protocol as action_protocol
from avtrain.evals.action.data import VideoWindows, training_places, window_frames
from avtrain.evals.action.evaluate import ActionOptions, evaluate_action
from avtrain.evals.action.folds import Fold, LabelledSet, _origin
from avtrain.evals.action.metrics import Predictions, action_metrics
from avtrain.evals.action.model import classify_video
from avtrain.evals.action.protocol import ActionProtocol, tiny
from avtrain.evals.evaluation import EvaluationOptions
from avtrain.evals.progress import Progress
from avtrain.evals.results import Result
from shards.reader import ShardSet
from shards.schema import VideoInfo
from tests.support.tiny_set import damage, make_set

CONFIG = tiny_networks("avsa")
QUICK = replace(tiny(), epochs=2, milestones=(1,), windows=2)


def run(command: Any, *arguments: object) -> click.testing.Result:
    return click.testing.CliRunner().invoke(command, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("actions") / "world"
    result = run(avprep, "demo", out, "--actions", "--clips", 30, "--workers", 1)
    assert result.exit_code == 0, result.output
    return out


@pytest.fixture(scope="module")
def root(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("shards") / "set"
    result = run(avprep, "build-shards", world, "--out", out, "--workers", 1)
    assert result.exit_code == 0, result.output  # of MPEG-4 at 160x120, too: none is left out
    return out


def test_the_world_of_actions_has_the_layout_of_ucf101(world: Path, tmp_path: Path) -> None:
    lists = world / "ucfTrainTestlist"
    classes = (lists / "classInd.txt").read_text().split()
    assert classes[1::2] == list(ACTIONS)
    for fold in (1, 2, 3):
        train = [line.split() for line in (lists / f"trainlist0{fold}.txt").open()]
        test = [line.strip() for line in (lists / f"testlist0{fold}.txt").open()]
        assert len(train) == 20
        assert len(test) == 10
        assert all(name.startswith(classes[2 * int(n) - 1] + "/") for name, n in train)
        files = {name for name, _ in train} | set(test)
        assert files == {p.relative_to(world / "UCF-101").as_posix() for p in world.rglob("*.avi")}
        groups = [{name.split("_")[-2] for name in part} for part in ([n for n, _ in train], test)]
        assert not groups[0] & groups[1]
    refused = run(avprep, "demo", tmp_path / "few", "--actions", "--clips", 29)
    assert refused.exit_code == 2
    assert "must be 30 or more" in refused.output


def test_actions_are_what_their_names_say() -> None:
    times = np.arange(60) / 30
    for seed in range(5):
        done = {name: move(name, times, np.random.default_rng(seed)) for name in ACTIONS}
        steps = {name: np.median(np.diff(done[name].right)) for name in ("CrossLeft", "CrossRight")}
        assert steps["CrossLeft"] < 0 < steps["CrossRight"]
        for name, sense in (("CircleClockwise", -1), ("CircleCounterclockwise", 1)):
            dx, dy = np.diff(done[name].right), np.diff(done[name].up)
            assert (sense * (dx[:-1] * dy[1:] - dy[:-1] * dx[1:]) > 0).all()
        assert set(done["Blink"].visible) == {0.0, 1.0}
        assert np.median(np.diff(done["Grow"].size)) > 0
        assert np.ptp(done["Bounce"].right) == 0 < np.ptp(done["Bounce"].up)
        assert np.ptp(done["Spin"].roll) > np.pi
        assert np.ptp(done["Spin"].right) == 0


def test_videos_differ_only_in_their_action() -> None:
    """Ten videos, one of each action, start with the same frame."""
    rendered = [render_video(ActionVideo(3, 40 + number)) for number in range(len(ACTIONS))]
    assert len({rate for rate, _ in rendered}) == 1
    first, *others = [list(frames) for _, frames in rendered]
    for frames in others:
        assert len(frames) == len(first)
        # The object covers a small part of the background, which is the same in every frame.
        same = [np.mean(a == b) for a, b in zip(frames, first, strict=True)]
        assert min(same) > 0.7
        assert np.mean(same) < 1
    another = next(render_video(ActionVideo(3, 50))[1])
    assert another.shape != first[0].shape or np.mean(another == first[0]) < 0.3


def test_folds_pick_their_videos_from_all_splits(world: Path, root: Path) -> None:
    videos = LabelledSet(root)
    assert videos.classes == sorted(ACTIONS)
    names = [ShardSet(root, video.split).sources[video.index] for video in videos.videos]
    folds = videos.folds(None, "train", "test")
    assert [fold.name for fold in folds] == ["fold 1", "fold 2", "fold 3"]
    for number, fold in enumerate(folds, start=1):
        for role, chosen in (("train", fold.train), ("test", fold.test)):
            listed = (world / "ucfTrainTestlist" / f"{role}list0{number}.txt").read_text()
            wanted = {Path(line.split()[0]).stem for line in listed.splitlines()}
            assert {names[position] for position in chosen} == wanted
            labels = [names[position].split("_")[1] for position in chosen]
            assert [videos.classes[number] for number in videos.labels[chosen]] == labels
    assert {video.split for video in (videos.videos[n] for n in folds[1].train)} == {
        "train",
        "test",
    }
    assert videos.videos[0].origin == names[0].rpartition("_")[0]  # the group, not the clip
    # An epoch shows each video once, and draws the same windows in every fold.
    places = training_places(videos, folds[1].train, 0, 3, 8)
    assert sorted(position for batch in places for _, position in batch) == list(folds[1].train)
    windows = VideoWindows(videos, CONFIG.clip, AugmentConfig(), seed=0)
    first, again, other = (windows[epoch, 5] for epoch in (3, 3, 4))
    assert first["frames"].shape == (1, 4, 112, 112, 3)
    assert all((first[name] == again[name]).all() for name in first)
    assert not (first["jitter"] == other["jitter"]).all()


def test_windows_of_short_videos_stand_still() -> None:
    def numbers(frames: int, place: float) -> list[int]:
        return window_frames(VideoInfo(16, frames, 8, 8, 8, "", ()), 2, 4, place).tolist()

    assert numbers(5, 0.5) == [0, 2, 4, 4]
    assert numbers(7, 0.99) == [0, 2, 4, 6]
    assert numbers(9, 0.99) == [2, 4, 6, 8]
    assert numbers(9, 0.0) == [0, 2, 4, 6]


def test_a_video_is_classified_by_the_mean_of_its_windows_probabilities() -> None:
    def named(*probabilities: list[float]) -> tuple[list[int], int]:
        windows, video = classify_video(torch.tensor(probabilities).log().clamp_min(-50))
        return windows.tolist(), int(video)

    # Not by the majority of windows, and not by the mean of the logits.
    assert named([0.5, 0.3, 0.2], [0.5, 0.3, 0.2], [0.0, 1.0, 0.0]) == ([0, 0, 1], 1)
    assert named([0.9, 0.1], [0.9, 0.1], [0.0, 1.0]) == ([0, 0, 1], 0)


def test_metrics_are_means_over_folds(root: Path) -> None:
    videos = LabelledSet(root)
    folds = (Fold("a", np.arange(4), np.arange(4)), Fold("b", np.arange(4), np.arange(4, 24)))
    truth = [videos.labels[fold.test] for fold in folds]
    answers = [
        Predictions(folds[0].test, np.stack([truth[0], truth[0]], axis=1), truth[0]),
        Predictions(folds[1].test, np.stack([truth[1], truth[1] + 1], axis=1), truth[1] + 1),
    ]
    metrics = action_metrics(videos, folds, answers)
    values = {name: metric.value for name, metric in metrics.items()}
    assert values["Video@1"] == pytest.approx(0.5)  # not 4 of 24
    assert values["Clip@1"] == pytest.approx(0.75)
    assert values["Video@1, a"] == 1
    assert values["Clip@1, b"] == pytest.approx(0.5)
    shares = [np.bincount(labels).max() / len(labels) for labels in truth]
    assert metrics["Video@1"].chance == pytest.approx(np.mean(shares))


def test_evaluation_of_a_checkpoint_beside_its_baseline(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(action_protocol, "tiny", lambda probe: replace(QUICK, probe=probe))
    sounding = make_set(tmp_path / "sounding", {"train": 6})
    options = ["--steps", 1, "--batch-size", 4, "--out", tmp_path]
    assert run(avtrain, "pretrain", sounding, *options).exit_code == 0
    given = ["--checkpoint", tmp_path / "checkpoint.pt", "--out", tmp_path / "run", "--probe"]
    result = run(avtrain, "eval", "action", root, *given, "--folds", "3,1", "--windows", 2)
    assert result.exit_code == 0, result.output
    trained = Result.read(tmp_path / "run" / "action-probe.result.json")
    baseline = Result.read(tmp_path / "run" / "action-probe-untrained.result.json")
    assert list(trained.metrics)[:3] == ["Video@1", "Clip@1", "Video@1, fold 1"]
    assert set(trained.details["folds"]) == {"fold 1", "fold 3"}
    assert (trained.test_clips, trained.test_sources) == (20, 20)
    assert trained.metrics["Video@1"].chance == 0.1
    assert (trained.network.steps, baseline.network.pretraining) == (1, "none")
    assert f"{100 * trained.metrics['Clip@1'].value:.1f}" in result.stdout
    assert (tmp_path / "run" / "action-probe-confusion.png").read_bytes()[:4] == b"\x89PNG"
    assert not list((tmp_path / "run").glob("*.part"))


@pytest.mark.parametrize("probe", [False, True])
def test_a_killed_run_resumes_to_the_same_result(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, probe: bool
) -> None:
    # A probe sees the windows of its first epoch again in the third.
    protocol = replace(QUICK, probe=True, epochs=3, rounds=2) if probe else QUICK

    class Killed(Exception):
        pass

    def results(out: Path, saves: int | None = None) -> list[bytes]:
        left = saves
        save = Progress.save

        def save_and_die(progress: Progress, state: dict[str, Any]) -> None:
            nonlocal left
            save(progress, state)
            if left is not None:
                left -= 1
                if left == 0:
                    raise Killed

        with monkeypatch.context() as patch:
            patch.setattr(Progress, "save", save_and_die)
            folds = (1,) if probe else (1, 2)
            common = EvaluationOptions(str(root), CONFIG, out, device="cpu", workers=0)
            evaluate_action(common, ActionOptions(protocol, folds))
        return [path.read_bytes() for path in sorted(out.glob("action*"))]

    whole = results(tmp_path / "whole")
    for saves in (2,) if probe else (1, 4):  # after an epoch of the first fold, of the second one
        out = tmp_path / str(saves)
        with pytest.raises(Killed):
            results(out, saves)
        assert results(out) == whole
    if probe:
        return
    # A state of other settings is ignored.
    with pytest.raises(Killed):
        results(tmp_path / "other", 1)
    protocol = replace(protocol, learning_rate=0.1)
    assert results(tmp_path / "other") == results(tmp_path / "fresh")


SETTINGS_BEFORE = (
    "[('clip', {'views': 4, 'moments': 1, 'margin_s': 0.5, 'frames': 4, 'fps': 8.0, 'size': 32}), "
    "('data', 'SET'), ('fold', ['fold 1', TRAIN, TEST]), "
    "('networks', {'pretraining': 'none', 'steps': 0, 'features': 'log-mel', 'audio': 'foa', "
    "'transformer': False, 'positions': 'none', 'checkpoint': None, 'data': None, "
    "'preset': 'tiny', 'seed': 0, 'settings': '', 'weights': '', 'norm_first': False}), "
    "('protocol', {'name': 'tiny', 'probe': True, 'epochs': 100, 'learning_rate': 0.01, "
    "'milestones': (60, 80, 90), 'batch_size': 16, "
    "'augment': {'jitter': (0.2, 0.2, 0.2, 0.0), 'volume': 0.0, 'mirror': False}, 'gamma': 0.3, "
    "'dropout': 0.1, 'windows': 2, 'turns': 1, 'rounds': 8, 'smallest_part': None, "
    "'middle': 1.0}), ('seed', 0)]"
)
"""Settings that the version before stored, see tests/avtrain/evals/test_progress.py."""


def test_a_state_of_the_version_before_is_continued(root: Path, tmp_path: Path) -> None:
    videos = LabelledSet(root)
    (fold,) = videos.folds((1,), "train", "test")
    settings = SETTINGS_BEFORE.replace("SET", videos.manifest.sha256)
    settings = settings.replace("TRAIN", str(fold.train.tolist()))
    state = {
        "settings": settings.replace("TEST", str(fold.test.tolist())),
        "left_out": [{}],
        "positions": torch.from_numpy(fold.test),
        "windows": torch.zeros(len(fold.test), 2, dtype=torch.int64),
        "videos": torch.from_numpy(videos.labels[fold.test]),
    }
    torch.save(state, tmp_path / "action-probe-untrained-fold1.part")
    given = ["--checkpoint", "untrained", "--out", tmp_path, "--probe", "--folds", 1]
    result = run(avtrain, "eval", "action", root, *given, "--windows", 2, "--device", "cpu")
    assert result.exit_code == 0, result.output
    written = Result.read(tmp_path / "action-probe-untrained.result.json")
    values = [written.metrics[name].value for name in ("Video@1", "Clip@1")]
    assert values == pytest.approx([1.0, 0.1])


def test_videos_that_cannot_be_read_are_left_out(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root, tmp_path / "set")
    keys = [damage(tmp_path / "set", 1, split, "mp4") for split in ("train", "test")]
    common = EvaluationOptions(str(tmp_path / "set"), CONFIG, tmp_path / "run")
    (result,) = evaluate_action(common, ActionOptions(QUICK, (1,)))
    assert len(result.left_out) == 2
    for key, fault in zip(keys, sorted(result.left_out, reverse=True), strict=True):
        assert f"{key}.view00.mp4" in fault
    assert (result.test_clips, result.test_sources) == (9, 9)
    assert np.isfinite(result.metrics["Video@1"].value)
    done = run(
        avtrain,
        *("eval", "action", tmp_path / "set", "--checkpoint", "untrained", "--probe"),
        *("--folds", "1", "--out", tmp_path / "again", "--windows", 1, "--device", "cpu"),
    )
    assert done.exit_code == 1, done.output
    assert all(f"{key}.view00.mp4" in done.output for key in keys)


def test_a_video_network_of_the_users_own(root: Path, tmp_path: Path) -> None:
    given = ["--checkpoint", "untrained", "--out", tmp_path, "--probe", "--folds", 1]
    given += ["--windows", 1, "--device", "cpu", "--num-workers", 0]
    own = ["--video-network", "tests.avtrain.own_networks:video"]
    result = run(avtrain, "eval", "action", root, *given, *own)
    assert result.exit_code == 0, result.output
    assert Result.read(tmp_path / "action-probe-untrained.result.json").test_clips == 10


def test_mistakes_are_one_sentence(root: Path, tmp_path: Path) -> None:
    given = ["--checkpoint", "untrained", "--out", tmp_path / "run"]
    sounding = make_set(tmp_path / "sounding", {"train": 2})
    for folder, options, sentence in (
        (sounding, [], "have no labels; build a set of labelled videos"),
        (root, ["--folds", "4"], "has folds 1 to 3, and no fold 4"),
        (root, ["--folds", "one"], "'one' is no list of numbers"),
    ):
        result = run(avtrain, "eval", "action", folder, *given, *options)
        assert result.exit_code == 2
        assert sentence in result.output
        assert "Traceback" not in result.output


def test_splits_of_a_set_without_folds(tmp_path: Path, world: Path) -> None:
    raw = tmp_path / "k"
    for number, video in enumerate(sorted(world.rglob("*_g0[12]_*.avi"))):
        split = "val" if "_g01_" in video.name else "train"
        name = f"{number:011d}_000000_000010.avi"
        (raw / split / video.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(video, raw / split / video.parent.name / name)
    assert run(avprep, "build-shards", raw, "--out", tmp_path / "set").exit_code == 0
    videos = LabelledSet(tmp_path / "set")
    (fold,) = videos.folds(None, "train", "val")
    assert (fold.name, len(fold.train), len(fold.test)) == ("val", 10, 10)
    given = ["--checkpoint", "untrained", "--out", tmp_path / "run"]
    result = run(avtrain, "eval", "action", tmp_path / "set", *given)
    assert "has no split 'test'; its splits: train, val" in result.output
    result = run(avtrain, "eval", "action", tmp_path / "set", *given, "--folds", "1")
    assert "has no official folds; leave --folds out" in result.output
    given += ["--train-split", "train", "--test-split", "train", "--probe", "--windows", "1"]
    result = run(avtrain, "eval", "action", tmp_path / "set", *given, "--num-workers", "0")
    assert "warning: 10 of the test's recordings are in the training split too" in result.output


def test_clips_of_one_film_are_of_one_origin() -> None:
    for sources, same in (
        (("April_09_brush_hair_u_nm_np1_ba_goo_0", "April_09_brush_hair_u_nm_np1_ba_goo_12"), True),
        (("April_09_brush_hair_u_nm_np1_ba_goo_0", "April_08_brush_hair_u_nm_np1_ba_goo_0"), False),
        (("v_Archery_g01_c01", "v_Archery_g01_c02"), True),
        (("a_1", "a_2"), False),
    ):
        assert (len(set(map(_origin, sources))) == 1) is same


def test_the_protocol_decides_the_windows_and_crops(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    boxes: list[torch.Tensor] = []
    crop_and_resize = action_data.crop_and_resize

    def noted(frames: torch.Tensor, given: torch.Tensor, size: int) -> torch.Tensor:
        boxes.append(given)
        return crop_and_resize(frames, given, size)

    monkeypatch.setattr(action_data, "crop_and_resize", noted)
    protocol = replace(QUICK, turns=3, smallest_part=0.08, middle=0.5)
    common = EvaluationOptions(str(root), CONFIG, tmp_path, device="cpu")
    evaluate_action(common, ActionOptions(protocol, (1,)))
    # Two epochs of three windows of each of 20 videos, 16 at a time, and ten to test.
    assert [len(part) for part in boxes] == [10] * 12 + [1] * 10
    training = torch.cat(boxes[:12]).tolist()
    assert len({tuple(box) for box in training}) > 100
    (middle,) = {tuple(box) for box in torch.cat(boxes[12:]).tolist()}
    assert middle[2] == middle[3] == 2 * middle[0] == 2 * middle[1]


def test_paper_protocol_is_the_published_one() -> None:
    paper = action_protocol.paper()
    assert paper == ActionProtocol(
        name="paper",
        probe=False,
        epochs=20,
        learning_rate=1e-4,
        milestones=(8, 12, 16),
        batch_size=28,
        augment=AugmentConfig(jitter=(0.4, 0.4, 0.4, 0.2), volume=0.0, mirror=True),
        gamma=0.3,
        dropout=0.5,
        windows=25,
        turns=5,
        smallest_part=0.08,
        middle=0.875,
    )
