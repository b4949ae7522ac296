"""Damaged clips, signals, kept checkpoints, half precision and micro-batches of a run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from avtrain.checkpoint import Checkpoint
from avtrain.config import AugmentConfig, ClipConfig, tiny
from avtrain.data.clips import Clips
from avtrain.data.loader import load
from avtrain.data.plan import Plan, Share
from avtrain.errors import TrainingError
from avtrain.networks.features import FeatureConfig
from avtrain.options import with_options
from avtrain.pretrain.trainer import Trainer
from avtrain.runtime.distributed import World
from avtrain.runtime.file_lock import release, try_lock
from shards.reader import ShardSet
from tests.support import ROOT
from tests.support.runs import avtrain
from tests.support.tiny_set import damage, make_set, write_over_record

SMALL = ["--batch-size", "4", "--views", "2", "--device", "cpu", "--task", "avsa"]
CLIP = ClipConfig(views=2, frames=4, fps=8.0, size=32)
SOUND = FeatureConfig(mels=64)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_set(tmp_path / "set", {"train": 9}, clips_per_source=2)


def test_a_damaged_clip_is_replaced_and_reported(root: Path, tmp_path: Path) -> None:
    key = damage(root, 3)
    out = tmp_path / "run"
    result = avtrain("pretrain", root, "--steps", 10, "--out", out, *SMALL)
    assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert {line["clips"] for line in lines} == {3, 4}  # 18 clips in 5 batches, none smaller
    faults = [json.loads(line) for line in (out / "faults.jsonl").read_text().splitlines()]
    assert len(faults) == 2  # once per epoch
    for fault in faults:
        assert f"train-000000.tar: {key}.view" in fault.pop("fault")
        assert 1 <= fault.pop("step") <= 10
        assert fault == {"shard": "train/train-000000.tar", "key": key}


@pytest.mark.parametrize(
    ("sample", "right", "wrong"),
    [(3, b'"avcc":"0', b'"avcc":"x'), (3, b'"gain":1', b'"gain":0'), (0, b'"fps":8', b'"fps":0')],
)
def test_a_damaged_record_affects_only_its_clip(
    root: Path, tmp_path: Path, sample: int, right: bytes, wrong: bytes
) -> None:
    shards = ShardSet(root)
    write_over_record(root, sample, right, wrong)
    out = tmp_path / "run"
    result = avtrain("pretrain", root, "--steps", 5, "--out", out, *SMALL)
    assert result.exit_code == 0, result.output
    (line,) = (out / "faults.jsonl").read_text().splitlines()
    assert f"{shards.keys[sample]}.json is not a sample record" in json.loads(line)["fault"]


def test_a_short_clip_affects_only_itself(root: Path, tmp_path: Path) -> None:
    """It is used neither for the statistics nor for training; when it is read by itself, its own
    error is raised."""
    shards = ShardSet(root)
    samples = f'"samples":{shards.info(3).audio.samples},'.encode()
    write_over_record(root, 3, samples, b'"samples":9,'.ljust(len(samples)))
    out = tmp_path / "run"
    result = avtrain("pretrain", root, "--steps", 5, "--out", out, *SMALL)
    assert result.exit_code == 0, result.output
    (line,) = (out / "faults.jsonl").read_text().splitlines()
    assert f"{shards.keys[3]} lasts 0.00 s" in json.loads(line)["fault"]
    clips = Clips(ShardSet(root), CLIP, SOUND, AugmentConfig(), seed=1)
    with pytest.raises(TrainingError, match=r"longer --clip-duration$"):
        clips[0, 3]


def test_replacements_do_not_depend_on_workers_or_ranks(root: Path) -> None:
    damage(root, 3)
    shards = ShardSet(root)
    clips, plan = Clips(shards, CLIP, SOUND, AugmentConfig(), seed=1), Plan(shards, 1, 4)

    def shown(workers: int, share: Share) -> list[list[int]]:
        batches = load(clips, plan, range(3), 0, workers, pin=False, share=share)
        return [batch.index.tolist() for _, batch in batches]

    alone = shown(0, Share(replace=True))
    assert alone == shown(2, Share(replace=True))
    parts = [shown(0, Share(rank, 2, replace=True)) for rank in range(2)]
    assert alone == [a + b for a, b in zip(*parts, strict=True)]
    pieces = shown(0, Share(micro_batches=2, replace=True))
    assert alone == [a + b for a, b in zip(pieces[::2], pieces[1::2], strict=True)]
    sources = np.array(shards.sources)
    for batch in alone:
        assert 3 not in batch
        assert len(set(sources[batch])) == len(batch)


@settings(max_examples=50, deadline=None)
@given(
    st.integers(2, 40), st.integers(1, 4), st.integers(2, 12), st.integers(0, 5), st.integers(0, 9)
)
def test_spares_are_of_other_sources_or_the_same_one(
    sources: int, clips: int, batch_size: int, seed: int, epoch: int
) -> None:
    """Whichever clips of a batch are replaced, no two of the result are from one source."""
    shards = Sources([f"s{number % sources}" for number in range(sources * clips)])
    plan = Plan(shards, seed, batch_size)  # type: ignore[arg-type]
    names = np.array(shards.sources)
    for step in plan.steps(range(epoch, epoch + 1)):
        spares = plan.spares(step)
        assert len(spares) == len(step.samples)
        for sample, row in zip(step.samples, spares, strict=True):
            others = set(names[step.samples]) - {names[sample]}
            there = row[row >= 0]
            assert sample not in there
            assert not others & set(names[there])
        new = [names[spare] for spare in spares.flat if spare >= 0]
        assert len(new) == len(set(new))


class Sources:
    """The part of a shard set that the plan uses."""

    def __init__(self, sources: list[str]) -> None:
        self.sources = sources
        self.shard_index = np.zeros(len(sources), dtype=np.int64)


def test_too_many_damaged_clips_end_the_run(root: Path, tmp_path: Path) -> None:
    for sample in (0, 9):  # of one source, so that neither can replace the other
        damage(root, sample)
    out = tmp_path / "run"
    result = avtrain("pretrain", root, "--epochs", 30, "--out", out, *SMALL)
    assert result.exit_code == 2
    assert "more than 1.0% of the clips cannot be read" in result.output
    assert "faults.jsonl" in result.output
    steps = Checkpoint.load(out / "checkpoint.pt").total_steps
    assert 20 < steps < 40
    result = avtrain(
        *("pretrain", root, "--steps", steps + 5, "--max-faults", 0.9, "--resume"),
        *("--out", out, *SMALL),
    )
    assert result.exit_code == 0, result.output


def test_truncated_shards_are_reported_before_training(root: Path, tmp_path: Path) -> None:
    tar = root / "train" / "train-000000.tar"
    os.truncate(tar, tar.stat().st_size - 512)
    result = avtrain("pretrain", root, "--out", tmp_path / "run", *SMALL)
    assert result.exit_code == 2
    assert "lacks shards" in result.output
    assert "train/train-000000.tar" in result.output
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1"])
def test_a_signal_saves_and_ends_the_run(root: Path, tmp_path: Path, name: str) -> None:
    command = [sys.executable, "-m", "avtrain", "pretrain", str(root), *SMALL, "--steps", "400"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = str(ROOT)
    out = tmp_path / "run"
    process = subprocess.Popen(
        [*command, "--out", str(out)], env=environment, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while not (out / "checkpoint.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(getattr(signal, name))
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0
    steps = Checkpoint.load(out / "checkpoint.pt").total_steps
    assert f"stopped by {name} after step {steps}" in errors
    assert len((out / "log.jsonl").read_text().splitlines()) == steps < 400
    assert (out / "curves.png").exists()


def test_kept_checkpoints(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    keeping = ["--checkpoint-steps", 1, "--keep-last", 2, "--keep-every", 3]
    result = avtrain("pretrain", root, "--steps", 8, "--out", out, *keeping, *SMALL)
    assert result.exit_code == 0, result.output
    names = sorted(path.name for path in (out / "checkpoints").iterdir())
    assert names == [f"step-{number:08d}.pt" for number in (3, 6, 7, 8)]
    for name in names:
        steps = Checkpoint.load(out / "checkpoints" / name).total_steps
        assert steps == int(name[5:-3])
    # --init-from starts from a kept one.
    start = ["--init-from", out / "checkpoints" / names[0], "--out", tmp_path / "other"]
    assert avtrain("pretrain", root, "--steps", 1, *start, *SMALL).exit_code == 0


def test_steps_to_keep_are_saved_whenever_they_come(root: Path, tmp_path: Path) -> None:
    options = ["--keep-every", 3, "--steps", 7, "--out", tmp_path]
    result = avtrain("pretrain", root, *options, *SMALL)
    assert result.exit_code == 0, result.output
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["step-00000003.pt", "step-00000006.pt"]


@pytest.mark.parametrize("precision", ["--bf16", "--fp16"])
def test_half_precision_resumes_exactly(root: Path, tmp_path: Path, precision: str) -> None:
    for out, parts in (("at once", [4]), ("in parts", [2, 4])):
        for steps in parts:
            options = [precision, "--steps", steps, "--out", tmp_path / out, "--resume"]
            result = avtrain("pretrain", root, *options, *SMALL)
            assert result.exit_code == 0, result.output
    one, other = (
        Checkpoint.load(tmp_path / run / "checkpoint.pt") for run in ("at once", "in parts")
    )
    assert one.weights_sha256 == other.weights_sha256
    assert one.scaler == other.scaler
    assert bool(one.scaler) == (precision == "--fp16")


def test_gradients_of_micro_batches_add_up(root: Path) -> None:
    """A batch of twice the same micro-batch gives the step of that micro-batch alone."""
    clips = Clips(ShardSet(root), CLIP, SOUND, AugmentConfig(), seed=1)
    (_, batch), *_ = load(clips, Plan(clips.shards, 1, 4), range(1), 0, 0, pin=False)
    states = []
    for pieces in (1, 2):
        trainer = Trainer(with_options(tiny("avsa"), pieces=pieces), World(torch.device("cpu")))
        for piece in range(pieces):
            trainer.backward_and_step(trainer.forward(batch), last=piece == pieces - 1)
        states.append({name: value.detach() for name, value in trainer.model.named_parameters()})
    torch.testing.assert_close(states[1], states[0])


def test_a_batch_in_micro_batches(root: Path, tmp_path: Path) -> None:
    options = ["--batch-size", 6, "--steps", 3, "--views", 2, "--device", "cpu"]
    options += ["--micro-batches", 2, "--out", tmp_path / "run"]
    result = avtrain("pretrain", root, *options)
    assert result.exit_code == 0, result.output
    result = avtrain("pretrain", root, "--out", tmp_path / "no", "--pieces", 3, *SMALL)
    assert "at least 2 for each of the 3 micro-batches" in result.output


def test_loaders_of_a_killed_run_do_not_lock_its_files(tmp_path: Path) -> None:
    """They live on for seconds, while a launcher restarts the run at once."""
    code = (
        "import os, sys, time\n"
        "from avtrain.runtime.file_lock import try_lock\n"
        "file = open(sys.argv[1], 'a')\n"
        "assert try_lock(file)\n"
        "if os.fork() == 0:\n"
        "    file.write('not of the log')\n"
        "    file.flush()\n"
        "    print(os.getpid(), flush=True)\n"
        "    time.sleep(60)\n"
        "time.sleep(60)\n"
    )
    path = tmp_path / "log.jsonl"
    trainer = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert trainer.stdout is not None
    loader = int(trainer.stdout.readline())
    with path.open("a") as file:
        assert not try_lock(file)
        trainer.kill()
        trainer.wait()
        os.kill(loader, 0)  # it lives
        assert try_lock(file)
        release(file)
    os.kill(loader, signal.SIGKILL)
    trainer.stdout.close()
    assert path.read_text() == ""
