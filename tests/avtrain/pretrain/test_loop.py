"""The training loop, and resuming after a kill."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from avtrain.checkpoint import Checkpoint
from tests.support import ROOT
from tests.support.runs import SMALL, assert_same_state, avtrain, steps_of
from tests.support.tiny_set import make_set


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_set(tmp_path_factory.mktemp("set"), {"train": 6, "test": 3}, clips_per_source=2)


def test_a_resumed_run_equals_an_uninterrupted_one(root: Path, tmp_path: Path) -> None:
    """7 steps at once, and 2 + 5: epochs have 3 steps, so the first part ends within an epoch."""
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
    # The third time nothing is left to do, which is no error.
    result = avtrain("pretrain", root, "--out", in_parts, "--steps", 7, "--resume", *SMALL)
    assert result.exit_code == 0, result.output
    assert_same_state(at_once, in_parts)


def test_a_killed_run_resumes_exactly(root: Path, tmp_path: Path) -> None:
    """Killed twice, at any moment of steps that each end with a checkpoint, and resumed with other
    numbers of loader processes."""
    arguments = ["pretrain", str(root), "--steps", "40", *SMALL]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    undisturbed, killed = tmp_path / "a", tmp_path / "b"
    assert avtrain(*arguments, "--out", undisturbed).exit_code == 0
    arguments += ["--out", str(killed), "--resume", "--checkpoint-steps", "1", "--num-workers"]
    command = [sys.executable, "-m", "avtrain", *arguments]
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
    assert avtrain(*arguments, 0).exit_code == 0
    assert steps_of(undisturbed) == steps_of(killed)
    assert_same_state(undisturbed, killed)


def saved_steps(run: Path) -> int:
    """Steps of a run's checkpoint, which can be read at any time."""
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


# --- compilation ---


def test_a_compiled_run_equals_an_uncompiled_one(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Networks are captured as always, but run without generated code, which takes minutes to
    compile and rounds differently."""
    avtrain("pretrain", root, "--out", tmp_path / "plain", "--steps", 4, *SMALL)
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    run = ("pretrain", root, "--out", tmp_path / "run", *SMALL)
    assert avtrain(*run, "--steps", 2, "--compile").exit_code == 0
    assert avtrain(*run, "--steps", 3, "--resume").exit_code == 0
    assert avtrain(*run, "--steps", 4, "--resume", "--compile").exit_code == 0
    assert steps_of(tmp_path / "run") == steps_of(tmp_path / "plain")
    assert_same_state(tmp_path / "run", tmp_path / "plain")
