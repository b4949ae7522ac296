"""Reading windows, the loop, and going on after a kill."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from numpy.typing import NDArray

from avtrain.checkpoint import Checkpoint
from avtrain.cli import main
from avtrain.data import Clips
from avtrain.draws import NO_AUGMENTATION
from avtrain.features import FeatureConfig
from avtrain.loader import Plan, load
from avtrain.presets import AugmentConfig, ClipConfig
from avtrain.trainer import Trainer
from shards.geometry import view_rotation
from shards.reader import ShardSet
from tests.tiny_set import FPS, RATE, make_set

HERE = Path(__file__).parent
# Networks small enough for many runs; everything else as in the preset.
SMALL = ["--batch-size", "4", "--views", "2", "--device", "cpu", "--features", "logmel+intensity"]
SMALL += ["--transformer", "--dropout", "0.1"]  # it draws from torch's generator, to resume too
CLIP = ClipConfig(views=3, frames=4, fps=8.0, size=48)
SOUND = FeatureConfig(mels=64)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_set(tmp_path_factory.mktemp("set"), {"train": 6, "test": 3}, clips_per_source=2)


def avtrain(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def steps_of(run: Path) -> list[dict[str, object]]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    times = {"clips_per_s", "data_wait_s"}
    return [{k: v for k, v in line.items() if k not in times} for line in lines]


def assert_same_state(a: Path, b: Path) -> None:
    one, other = Checkpoint.load(a / "checkpoint.pt"), Checkpoint.load(b / "checkpoint.pt")
    assert (one.epoch, one.step, one.total_steps) == (other.epoch, other.step, other.total_steps)
    for name, value in one.model.items():
        assert torch.equal(value, other.model[name]), name
    for number, moments in one.optimiser["state"].items():
        for name, value in moments.items():
            assert torch.equal(value, other.optimiser["state"][number][name]), (number, name)
    assert torch.equal(one.rng["cpu"], other.rng["cpu"])


def arrival(sound: NDArray[np.float32]) -> NDArray[np.float64]:
    """Unit vector (x, y, z) of the mean intensity of FOA (4, samples)."""
    w, y, z, x = sound.astype(np.float64)
    vector = np.array([(w * x).sum(), (w * y).sum(), (w * z).sum()])
    return vector / np.linalg.norm(vector)


# --- reading ---


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("workers", [1, 2, 5, 8])
def test_windows_are_the_same_for_any_number_of_workers(root: Path, workers: int) -> None:
    shards = ShardSet(root)
    clips, plan = Clips(shards, CLIP, SOUND, AugmentConfig(), seed=3), Plan(shards, 3, 4)
    alone = list(load(clips, plan, range(2), 1, workers=0, pin=False))
    helped = list(load(clips, plan, range(2), 1, workers=workers, pin=False))
    assert [(s.epoch, s.step, s.last_of_epoch) for s, _ in alone] == [
        (0, 1, False), (0, 2, True), (1, 0, False), (1, 1, False), (1, 2, True)
    ]  # fmt: skip
    for (_, one), (_, other) in zip(alone, helped, strict=True):
        assert one.faults == other.faults == ()
        for name in vars(one).keys() - {"faults"}:
            assert torch.equal(getattr(one, name), getattr(other, name)), name


@pytest.mark.parametrize("layout", ["rotated", "source"])
def test_every_view_hears_its_own_sound(tmp_path: Path, layout: str) -> None:
    """Directions of arrival under ``matrices`` and ``turned``, mirrored and not."""
    shards = ShardSet(make_set(tmp_path / "set", {"train": 2}, layout=layout))
    clips = Clips(shards, replace(CLIP, views=5), SOUND, AugmentConfig(), seed=0)
    field, stored = shards.foa(1, 0, RATE)
    source = arrival(stored.T @ field)
    mirrored = set()
    for epoch in range(8):
        draw, sample = clips.draw(epoch, 1), clips[epoch, 1]
        flip = np.array([1, -1 if draw.mirror else 1, 1])
        yawed = view_rotation(draw.yaw_deg, 0) @ source
        for number, view in enumerate(draw.views):
            place = shards.info(1).views[view]
            rotation = view_rotation(place.azimuth_deg, place.elevation_deg)
            heard = arrival(sample["matrices"][0, number] @ sample["sound"][0])
            np.testing.assert_allclose(heard, flip * (rotation @ source), atol=0.01)
            heard = arrival(sample["turned"][0, number] @ sample["sound"][0])
            np.testing.assert_allclose(heard, flip * (rotation @ yawed), atol=0.01)
        mirrored.add(draw.mirror)
    assert mirrored == {True, False}


def test_pictures_lie_inside_the_sound(root: Path) -> None:
    clips = Clips(ShardSet(root), CLIP, SOUND, AugmentConfig(), seed=0)
    read: list[tuple[int, int]] = []

    class Recorder(ShardSet):
        def frames(self, sample, view, start, count, step=1, out=None):
            read.append((start, (count - 1) * step + 1))
            return super().frames(sample, view, start, count, step, out)

    clips.shards = Recorder(root)
    for epoch in range(40):
        draw = clips.draw(epoch, 0)
        (start_s,) = clips.read_sound(0, draw)[0]
        assert 0 <= start_s <= 1
        read.clear()
        clips[epoch, 0]
        assert len(set(read)) == 1  # all views at the same time
        first, count = read[0]
        assert count == 4
        assert start_s - 1e-6 <= first / FPS
        assert (first + count) / FPS <= start_s + 1 + 1e-6


def test_fixed_windows_are_evenly_spread(root: Path) -> None:
    clips = Clips(ShardSet(root), CLIP, SOUND, NO_AUGMENTATION, seed=0, windows=3)
    starts = [clips.read_sound(4, clips.draw(window, 4))[0][0] for window in range(3)]
    np.testing.assert_allclose(starts, [1 / 6, 3 / 6, 5 / 6], atol=1e-3)
    sample = clips[1, 4]
    assert not sample["mirror"]
    assert sample["volume"] == 1
    np.testing.assert_array_equal(sample["jitter"], [1, 1, 1, 0])


# --- the loop ---


def test_two_runs_resumed_or_not_are_one(root: Path, tmp_path: Path) -> None:
    """7 steps at once, and 2 + 5: epochs have 3 steps, so the first part ends in mid-epoch."""
    at_once, in_parts = tmp_path / "a", tmp_path / "b"
    result = avtrain("pretrain", root, "--out", at_once, "--steps", 7, *SMALL)
    assert result.exit_code == 0, result.output
    avtrain("pretrain", root, "--out", in_parts, "--steps", 2, *SMALL)
    (in_parts / "log.jsonl").open("a").write('{"step": 3, "torn')  # as a kill may leave it
    result = avtrain("pretrain", root, "--out", in_parts, "--steps", 7, "--resume", *SMALL)
    assert result.exit_code == 0, result.output
    assert steps_of(at_once) == steps_of(in_parts)
    assert [line["step"] for line in steps_of(at_once)] == list(range(1, 8))
    assert_same_state(at_once, in_parts)
    for name in ("config.json", "curves.png"):
        assert (in_parts / name).stat().st_size > 0
    # Nothing is left to do the third time, and that is no error.
    result = avtrain("pretrain", root, "--out", in_parts, "--steps", 7, "--resume", *SMALL)
    assert result.exit_code == 0, result.output
    assert_same_state(at_once, in_parts)


def test_killed_run_goes_on_exactly(root: Path, tmp_path: Path) -> None:
    """Killed twice, at any moment of steps that each end with a checkpoint, and continued
    with other numbers of loader processes."""
    command = [sys.executable, "-m", "avtrain", "pretrain", str(root), "--steps", "40", *SMALL]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parent)}
    undisturbed, killed = tmp_path / "a", tmp_path / "b"
    subprocess.run([*command, "--out", undisturbed], check=True, env=environment)
    command += ["--out", str(killed), "--resume", "--checkpoint-steps", "1", "--num-workers"]
    steps, moments = 0, random.Random()
    for workers in (2, 1):
        process = subprocess.Popen([*command, str(workers)], env=environment)
        deadline = time.monotonic() + 60
        while saved_steps(killed) < steps + 3 and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(moments.uniform(0, 0.2))
        process.send_signal(signal.SIGKILL)
        process.wait()
        steps = saved_steps(killed)
        assert 3 <= steps < 40
    subprocess.run([*command, "0"], check=True, env=environment)
    assert steps_of(undisturbed) == steps_of(killed)
    assert_same_state(undisturbed, killed)


def saved_steps(run: Path) -> int:
    """Of a run's checkpoint, which is whole whenever one looks."""
    path = run / "checkpoint.pt"
    return Checkpoint.load(path).total_steps if path.exists() else 0


def test_loss_falls(root: Path, tmp_path: Path) -> None:
    arguments = [
        "--task",
        "avc",
        "--steps",
        40,
        "--batch-size",
        6,
        "--features",
        "logmel+intensity",
    ]
    result = avtrain("pretrain", root, "--out", tmp_path / "run", *arguments)
    assert result.exit_code == 0, result.output
    losses = [float(str(line["loss"])) for line in steps_of(tmp_path / "run")]
    assert np.mean(losses[-10:]) < np.mean(losses[:10]) - 0.1


def test_curriculum_takes_weights_and_statistics(root: Path, tmp_path: Path) -> None:
    avc, avsa = tmp_path / "avc", tmp_path / "avsa"
    base = ["--batch-size", 4, "--steps", 1, "--device", "cpu"]
    assert avtrain("pretrain", root, "--task", "avc", "--out", avc, *base).exit_code == 0
    start = ["--init-from", avc / "checkpoint.pt"]
    result = avtrain("pretrain", root, "--out", avsa, "--lr", 1e-12, *base, *start)
    assert result.exit_code == 0, result.output
    one, other = (Checkpoint.load(run / "checkpoint.pt") for run in (avc, avsa))
    torch.testing.assert_close(one.model["audio_head.weight"], other.model["audio_head.weight"])
    assert torch.equal(one.features["mean"], other.features["mean"])
    more = ["--features", "logmel+intensity", "--out", tmp_path / "no"]
    result = avtrain("pretrain", root, *base, *start, *more)
    assert result.exit_code == 2
    assert "sound intensity is False there and True here" in result.output


# --- mistakes ---


def refused(*arguments: object) -> str:
    result = avtrain(*arguments)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    return result.output


def test_mistakes_are_one_sentence(root: Path, tmp_path: Path) -> None:
    out = ["--out", tmp_path / "run", "--device", "cpu"]
    assert "no finished shard set" in refused("pretrain", tmp_path, *out)
    assert "no split 'valid'" in refused("pretrain", root, "--split", "valid", *out)
    for wrong, what in (
        (["--task", "avts", "--views", 2], "avts uses one view"),
        (["--task", "avts", "--moments", 1], "at least 2"),
        (["--views", 1, "--negatives", "hard"], "use at least 2"),
        (["--no-transformer", "--positions", "direction"], "add --transformer"),
        (["--audio", "mono", "--features", "logmel+intensity"], "intensity is of ambisonics"),
        (["--task", "avc", "--curriculum"], "a curriculum begins with avc"),
        (["--curriculum-steps", 3], "add --curriculum"),
        (["--task", "avts", "--moments", 3], "4 s are needed"),
        (["--sampling", "clip", "--clips-per-source", 2], "leave out --clips-per-source"),
    ):
        assert what in refused("pretrain", root, *wrong, *out)
    assert "fewer than the 6" in refused("pretrain", root, "--views", 6, *out)
    assert "no multiple of the 16" in refused("pretrain", root, "--preset", "paper", *out)
    lone = make_set(tmp_path / "lone", {"train": 1}, clips_per_source=3)
    assert "3 clips of 1 sources" in refused("pretrain", lone, *out)
    short = make_set(tmp_path / "short", {"train": 2}, duration_s=0.5)
    assert "longer --clip-duration" in refused("pretrain", short, *out)
    torn = tmp_path / "torn.pt"
    torn.write_bytes(b"PK\x03\x04 no checkpoint")
    assert "is no checkpoint" in refused("pretrain", root, "--init-from", torn, *out)
    assert not (tmp_path / "run").exists()
    if not torch.cuda.is_available():
        output = refused("pretrain", root, "--out", tmp_path / "run", "--device", "cuda")
        assert "no CUDA device" in output


def test_a_run_is_neither_overwritten_nor_continued_with_other_settings(
    root: Path, tmp_path: Path
) -> None:
    run = ["--out", tmp_path / "run", *SMALL]
    assert avtrain("pretrain", root, "--steps", 1, *run).exit_code == 0
    assert "holds a run already" in refused("pretrain", root, *run)
    output = refused("pretrain", root, "--resume", "--lr", 0.5, "--seed", 1, *run)
    assert "learning_rate was 0.001 and is 0.5; seed was 0 and is 1" in output
    other = make_set(tmp_path / "other", {"train": 6}, seed=1)
    assert "data was" in refused("pretrain", other, "--resume", *run)


def test_settings_newer_than_a_run_were_what_they_are_by_default(
    root: Path, tmp_path: Path
) -> None:
    run = ["pretrain", root, "--out", tmp_path / "run", *SMALL]
    assert avtrain(*run, "--steps", 1).exit_code == 0
    path = tmp_path / "run/checkpoint.pt"
    saved = Checkpoint.load(path)
    model = {name: value for name, value in saved.config["model"].items() if name != "norm_first"}
    replace(saved, config=saved.config | {"model": model}).save(path)
    output = refused(*run, "--steps", 2, "--resume", "--norm-first")
    assert "model.norm_first was False and is True" in output
    assert avtrain(*run, "--steps", 2, "--resume").exit_code == 0


def test_a_damaged_shard_is_named_by_a_worker(root: Path, tmp_path: Path) -> None:
    damaged = make_set(tmp_path / "set", {"train": 4})
    tar = damaged / "train" / "train-000000.tar"
    tar.write_bytes(tar.read_bytes()[: tar.stat().st_size // 2])
    out = ["--out", tmp_path / "run", "--num-workers", 1, *SMALL]
    output = refused("pretrain", damaged, *out)
    assert "train-000000.tar" in output
    assert len(output.splitlines()) == 1


def test_a_loss_that_is_not_finite_names_the_clips(root: Path, tmp_path: Path) -> None:
    output = refused("pretrain", root, "--out", tmp_path / "run", "--lr", 1e30, *SMALL)
    assert "the loss of step" in output
    assert "train0" in output


def test_too_little_memory_is_said(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def learn(*arguments: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(Trainer, "learn", learn)
    output = refused("pretrain", root, "--out", tmp_path / "run", *SMALL)
    assert "take a smaller --batch-size, or the same in more --pieces" in output


def test_compiled_or_not_a_run_is_one(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is compiled is captured as always, but run as it is: code for a processor takes
    minutes to make, and rounds otherwise."""
    avtrain("pretrain", root, "--out", tmp_path / "plain", "--steps", 4, *SMALL)
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    run = ("pretrain", root, "--out", tmp_path / "run", *SMALL)
    assert avtrain(*run, "--steps", 2, "--compile").exit_code == 0
    assert avtrain(*run, "--steps", 3, "--resume").exit_code == 0
    assert avtrain(*run, "--steps", 4, "--resume", "--compile").exit_code == 0
    assert steps_of(tmp_path / "run") == steps_of(tmp_path / "plain")
    assert_same_state(tmp_path / "run", tmp_path / "plain")
