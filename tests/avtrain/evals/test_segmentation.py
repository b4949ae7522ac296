"""Segmentation: metrics count the whole test set, labels belong to their frames, and a resumed
evaluation ends with the same result."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click.testing
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from avtrain.cli.main import main
from avtrain.config import AugmentConfig
from avtrain.config import tiny as tiny_config
from avtrain.data.clips import Clips
from avtrain.data.draws import NO_AUGMENTATION
from avtrain.data.unreadable import Unreadable
from avtrain.evals.evaluation import EvaluationOptions
from avtrain.evals.frozen import load_networks
from avtrain.evals.progress import Progress
from avtrain.evals.results import Result
from avtrain.evals.segmentation import train as segmentation_train
from avtrain.evals.segmentation.data import VOID, YT360, Classes, LabelledMoments, find_classes
from avtrain.evals.segmentation.evaluate import SegmentationOptions, evaluate_segmentation
from avtrain.evals.segmentation.fpn import FPN
from avtrain.evals.segmentation.metrics import (
    count_constant,
    count_pixels,
    iou,
    mean_iou,
    pixel_accuracy,
    segmentation_metrics,
)
from avtrain.evals.segmentation.model import Segmenter
from avtrain.evals.segmentation.protocol import paper, tiny
from shards.reader import ShardSet
from tests.support.tiny_set import make_set

TIMES = (0.0, 0.5, 1.0, 1.5, 1.875)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    splits = {"train": 8, "test": 4}
    # With this seed the white ball of the test is far from the centre of its view.
    return make_set(tmp_path_factory.mktemp("set"), splits, views=3, seed=2, map_times_s=TIMES)


def avtrain(*arguments: object) -> click.testing.Result:
    words = ["eval", "segmentation", *arguments]
    return click.testing.CliRunner().invoke(main, [str(word) for word in words])


def counted(
    predicted: list[list[int]], truth: list[list[int]], classes: int = 3
) -> NDArray[np.int64]:
    """Counts (pictures, 3, classes)."""
    counts = count_pixels(torch.tensor(predicted), torch.tensor(truth), classes)
    return np.asarray(counts.numpy())


def test_iou_counts_all_images_together() -> None:
    # Class 1: one pixel in the first image, which is missed; eight in the second, all hit.
    truth = [[0] * 9 + [1], [0, 0] + [1] * 8]
    predicted = [[0] * 10, [0, 1] + [1] * 8]
    counts = counted(predicted, truth)
    total = counts.sum(axis=0)
    # Class 0: 10 hits of 11 true and 11 predicted; class 1: 8 of 9 and 9; class 2 is nowhere.
    np.testing.assert_allclose(iou(total), [10 / 12, 8 / 10, np.nan])
    assert mean_iou(total) == pytest.approx((10 / 12 + 8 / 10) / 2)
    assert pixel_accuracy(total) == 18 / 20
    # The published mean over images and classes gives one missed pixel the weight of an image.
    per_image = mean_iou(counts).mean()
    assert per_image == pytest.approx(((9 / 10 + 0) / 2 + (1 / 2 + 8 / 9) / 2) / 2)
    assert abs(per_image - mean_iou(total)) > 0.2
    # Pixel accuracy is no IoU.
    assert pixel_accuracy(total) != pytest.approx(float(mean_iou(total)), abs=0.01)


def test_void_counts_nowhere() -> None:
    seen = counted([[0, 1, 1, 2]], [[0, 1, 0, 2]])
    with_void = counted([[0, 1, 1, 2, 2, 0, 1]], [[0, 1, 0, 2, VOID, VOID, VOID]])
    assert (seen == with_void).all()
    assert not counted([[1, 1]], [[VOID, VOID]]).any()


def test_chance_is_the_most_frequent_class() -> None:
    counts = counted([[0, 0, 1, 1, 2, 0]], [[1, 1, 1, 1, 2, VOID]])
    most, always = count_constant(counts[0])
    assert most == 1
    assert (always == counted([[1] * 6], [[1, 1, 1, 1, 2, VOID]])[0]).all()
    metrics, details = segmentation_metrics(counts, Classes((7, 9, 11), ("cat", "sky", "sea")))
    assert metrics["pixel accuracy"].chance == 4 / 5
    assert metrics["mIoU"].chance == pytest.approx((4 / 5 + 0) / 2)
    assert details["chance"] == "every pixel sky, the test's most frequent class"
    assert [line["iou"] for line in details["classes"]] == [None, 0.5, 1.0]
    assert details["classes"][1]["share_of_pixels"] == 4 / 5
    assert metrics["mIoU"].interval_95 is None  # there is one source


def test_intervals_draw_sources() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, (60, 500))
    # Half of the sources are always right, the others guess.
    right = rng.random((60, 500)) < np.where(np.arange(60) < 30, 1.0, 0.5)[:, None]
    counts = counted(np.where(right, truth, 1 - truth).tolist(), truth.tolist(), 2)
    metrics, details = segmentation_metrics(counts, Classes((0, 1), ("0", "1")))
    interval = metrics["pixel accuracy"].interval_95
    assert interval is not None
    # Sources are 1 or 0.5: a standard deviation of 0.25, of which 60 were drawn.
    assert interval[1] - interval[0] == pytest.approx(2 * 1.96 * 0.25 / 60**0.5, rel=0.15)
    for line in details["classes"]:
        assert line["interval_95"][0] < line["iou"] < line["interval_95"][1]


def test_a_rare_class_is_in_every_round_of_an_interval() -> None:
    """Only one source has it, and it is never hit: rounds without it would have 100 %."""
    truth = [[0, 0, 1, 1]] * 19 + [[0, 0, 2, 2]]
    counts = counted([[0, 0, 1, 1]] * 20, truth)
    interval = segmentation_metrics(counts, Classes((0, 1, 2), ("0", "1", "2")))[0][
        "mIoU"
    ].interval_95
    assert interval is not None
    assert interval[0] < float(mean_iou(counts.sum(axis=0))) < interval[1] < 2 / 3


def test_classes_of_labels(root: Path) -> None:
    assert len(YT360.ids) == len(set(YT360.ids)) == 32
    assert dict(zip(YT360.ids, YT360.names, strict=True))[120] == "sky"
    labels = np.array([0, 2, 4, 8, 116, 1, 80, 133, 255], dtype=np.uint8)
    assert YT360.from_labels(labels).tolist() == [0, 1, 2, 3, 31, VOID, VOID, VOID, VOID]
    assert find_classes(ShardSet(root)).ids == (0, 1, 2, 3, 4)


@pytest.mark.parametrize("mirror", [False, True])
def test_labels_fit_the_middle_frame_in_time_and_place(root: Path, mirror: bool) -> None:
    shards = ShardSet(root, "test")
    config = tiny_config("avsa")
    clip = replace(config.clip, views=1)
    augment = AugmentConfig((0.0, 0.0, 0.0, 0.0), 0.0, mirror=True)
    white = 3  # a ball with a sharp edge: colours are stored at half the size
    clips = next(
        clips
        for clips in (Clips(shards, clip, config.sound, augment, seed) for seed in range(20))
        if clips.draw(0, white).mirror == mirror
    )
    moments = LabelledMoments(clips, find_classes(shards), True, Unreadable.in_split(shards))
    assert moments.test_batches(5, 20) == [
        [(number, sample) for sample in range(4) for number in range(5)]
    ]
    for number, time_s in enumerate(TIMES):
        batch = next(moments.load([[(number, white)]], 0, torch.device("cpu")))
        truth = (batch.truth[0, 0] > 0).numpy()  # the first view has the ball in it
        video = batch.clips.video_input(48)[0, 0]  # (3, T, 48, 48)
        unlike = (video - video[:, :, :3, :3].mean(dim=(1, 2, 3), keepdim=True)).norm(dim=0)
        shown = (unlike > unlike.max() / 2).numpy()
        fit = (shown & truth).sum(axis=(1, 2)) / (shown | truth).sum(axis=(1, 2))
        if 0 < number < 4:  # else the ends of the clip are in the way
            assert fit.argmax() == 2, fit
            assert fit[2] > 0.9
        # The moment is in the middle of the second of audio as well.
        draw = replace(clips.draw(0, white), middle_s=time_s)
        start_s = clips.read_audio(white, draw)[0][0]
        assert start_s == pytest.approx(np.clip(time_s - 0.5, 0, 1))


def test_training_shows_random_maps_and_views(root: Path) -> None:
    config = tiny_config("avsa")
    clips = Clips(ShardSet(root), replace(config.clip, views=2), config.sound, config.augment, 0)
    moments = LabelledMoments(
        clips, find_classes(clips.shards), False, Unreadable.in_split(clips.shards)
    )
    sizes = set()
    for epoch in range(4):
        (places,) = moments.train_batches(epoch, 8, None)
        assert sorted(index for _, index in places) == list(range(8))
        first, again = (next(moments.load([places], 0, torch.device("cpu"))) for _ in range(2))
        assert first.truth.shape == (8, 2, 48, 48)
        assert (first.truth == again.truth).all()
        sizes |= set((first.truth > 0).sum(dim=(2, 3)).flatten().tolist())
    assert len(sizes) > 9


def test_context_has_as_many_views_in_the_test_as_in_training(root: Path) -> None:
    """Further views of a clip are no context of each other."""
    config = tiny_config("avsa")
    config = replace(config, model=replace(config.model, transformer=True))
    shards, device = ShardSet(root), torch.device("cpu")
    networks = load_networks(None, replace(config, batch_size=4), shards, 0, device, 0)
    classes = find_classes(shards)
    # Contrast is of all views together.
    clips = Clips(shards, replace(config.clip, views=2), config.sound, NO_AUGMENTATION, 0)
    moments = LabelledMoments(clips, classes, True, Unreadable.in_split(shards))
    batch = next(moments.load([[(0, 0)]], 0, device))
    assert batch is not None
    segmenter = Segmenter(networks, "audio+context", 2, classes, tiny())
    condition = segmenter.inputs(batch).condition
    frames = batch.clips.frames.clone()
    frames[:, 1] = 255 - frames[:, 1]
    changed_clips = replace(batch.clips, frames=frames)
    changed = segmenter.inputs(replace(batch, clips=changed_clips)).condition
    assert condition is not None
    assert changed is not None
    same = [bool(torch.equal(a, b)) for a, b in zip(condition, changed, strict=True)]
    assert same == [False, False, True]  # of three views


def test_head() -> None:
    head = FPN([8, 16, 32, 64], [7, 4, 2, 1], 10, 5, lateral=16, head=8)
    shapes = [(8, 7, 25, 30), (16, 4, 13, 15), (32, 2, 7, 8), (64, 1, 4, 4)]
    maps = [torch.randn(2, *shape) for shape in shapes]
    condition = torch.randn(2, 10)
    logits = head(maps, condition)
    assert logits.shape == (2, 5, 25, 30)
    # All stages and the condition matter, and time is a mean before anything is learned.
    for stage in range(4):
        changed = [x + (number == stage) * torch.randn_like(x) for number, x in enumerate(maps)]
        assert not torch.equal(head(changed, condition), logits)
        reversed_ = [x.flip(2) if number == stage else x for number, x in enumerate(maps)]
        torch.testing.assert_close(head(reversed_, condition), logits)
    assert not torch.equal(head(maps, condition + 1), logits)


def test_the_head_learns(root: Path, tmp_path: Path) -> None:
    other = make_set(tmp_path / "other", {"test": 3}, views=2, seed=5, map_times_s=TIMES)
    options = ["--checkpoint", "untrained", "--views", 3, "--maps", 1, "--num-workers", 0]
    options += ["--out", tmp_path, "--condition", "audio+context", "--test-dir", other]
    result = avtrain(root, *options, "--epochs", 30)
    assert result.exit_code == 0, result.output
    assert "chance: every pixel 0, the test's most frequent class" in result.stdout
    written = Result.read(tmp_path / "segmentation-audio+context-untrained.result.json")
    assert list(written.metrics) == ["mIoU", "pixel accuracy"]
    for metric in written.metrics.values():
        assert metric.chance is not None
        assert metric.value > metric.chance
        assert metric.interval_95 is not None
        assert metric.interval_95[0] <= metric.value <= metric.interval_95[1]
    first = written.metrics["mIoU"]
    assert first.chance is not None
    assert (
        first.value > first.chance + 0.1
    )  # most pixels are ground: the mean over classes shows more
    assert (written.test_clips, written.test_sources) == (3, 3)
    assert [line["id"] for line in written.details["classes"]] == [0, 1, 2, 3, 4]
    assert written.details["classes"][4]["iou"] is None  # of four kinds, three are in the test
    assert written.details["void_share"] == 0
    assert written.details["loss"][-1] < written.details["loss"][0]
    picture = tmp_path / "segmentation-audio+context-untrained.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize("rounds", [None, 1])
def test_an_interrupted_evaluation_resumes_to_the_same_result(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rounds: int | None
) -> None:
    monkeypatch.setattr(segmentation_train, "SAVE_STEPS", 1)
    config = replace(tiny_config("avsa"), batch_size=4)
    protocol = replace(tiny(), epochs=2, batch_size=4, milestones=(1,), lateral=16, head=8)
    protocol = replace(protocol, rounds=rounds)
    read = []
    label_map = ShardSet.label_map

    def counted(shards: ShardSet, sample: int, view: int, number: int) -> NDArray[np.uint8]:
        if shards.split == "train":
            read.append((sample, view, number))
        return label_map(shards, sample, view, number)

    monkeypatch.setattr(ShardSet, "label_map", counted)

    def run(out: Path) -> Result:
        common = EvaluationOptions(str(root), config, out, workers=0)
        options = SegmentationOptions(protocol=protocol, condition="audio", views=2, maps=2)
        return evaluate_segmentation(common, options)

    whole = run(tmp_path / "whole")
    # The outputs of the networks are kept for a round that is repeated.
    for_classes = 8 * 3 * len(TIMES)  # read first, to find the classes
    assert len(read) - for_classes == (rounds or 2) * 8 * 2  # clips and views
    save = Progress.save
    saves = []

    class Stop(Exception):
        pass

    def save_and_stop(self: Progress, state: dict[str, Any]) -> None:
        save(self, state)
        saves.append(len(state["losses"]) + state.get("tested", 0))
        raise Stop

    with monkeypatch.context() as patched:
        patched.setattr(Progress, "save", save_and_stop)
        for _ in range(6):  # four steps of training and two of the test
            with pytest.raises(Stop):
                run(tmp_path / "parts")
    assert saves == [1, 2, 3, 4, 5, 6]
    assert run(tmp_path / "parts") == whole
    assert whole.details["loss"][0] != whole.details["loss"][1]
    # A state of other settings is ignored.
    protocol = replace(protocol, learning_rate=1e-4)
    assert run(tmp_path / "parts").details["loss"] != whole.details["loss"]


def test_the_learning_rate_falls_at_the_same_parts_of_one_epoch(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates, step = [], segmentation_train._step

    def recorded(segmenter: Any, optimiser: torch.optim.Optimizer, inputs: Any) -> float:
        rates.append(optimiser.param_groups[0]["lr"])
        return step(segmenter, optimiser, inputs)

    monkeypatch.setattr(segmentation_train, "_step", recorded)
    protocol = replace(tiny().with_epochs(1), lateral=16, head=8)
    common = EvaluationOptions(str(root), tiny_config("avsa"), tmp_path, workers=0)
    evaluate_segmentation(common, SegmentationOptions(protocol=protocol, condition="none", views=2))
    # It falls after four and seven of eight epochs, and the set has eight clips.
    assert rates == pytest.approx([1e-3] * 4 + [1e-4] * 3 + [1e-5])
    assert tiny().with_epochs(8) == tiny()


def test_paper_protocol_is_the_published_one() -> None:
    protocol = paper()
    assert (protocol.epochs, protocol.learning_rate, protocol.weight_decay) == (10, 1e-4, 5e-4)
    assert (protocol.lateral, protocol.head, protocol.classes) == (256, 128, "yt360")
    assert protocol.clips_per_source == 16
    head = FPN([64, 128, 256, 512], [8, 4, 2, 1], 3 * 512, 32, 256, 128)
    assert sum(parameter.numel() for parameter in head.parameters()) == 4_628_271


def test_mistakes_are_one_sentence(root: Path, tmp_path: Path) -> None:
    plain = make_set(tmp_path / "plain", {"train": 2, "test": 2}, views=2)
    options = ["--checkpoint", "untrained", "--out", tmp_path, "--num-workers", 0, "--views", 2]
    for classes in ("all", "yt360"):
        result = avtrain(plain, *options, "--classes", classes)
        assert result.exit_code == 2
        assert "label maps" in result.output
        assert "segmentation/" in result.output
    pretrain = ["pretrain", root, "--steps", 1, "--batch-size", 8, "--views", 2, "--out", tmp_path]
    assert click.testing.CliRunner().invoke(main, [str(word) for word in pretrain]).exit_code == 0
    options[1] = tmp_path / "checkpoint.pt"
    result = avtrain(root, *options, "--condition", "audio+context", "--no-baseline")
    assert result.exit_code == 2
    assert "has no transformers that were trained" in result.output
    result = avtrain(root, *options, "--views", 9)
    assert result.exit_code == 2
    assert "fewer than the 9 that are needed" in result.output
