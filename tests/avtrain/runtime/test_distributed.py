"""Several processes train like one: losses, gradients, batch statistics, restarts."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from avtrain.checkpoint import Checkpoint
from avtrain.cli.main import main
from avtrain.config import Config, tiny
from avtrain.data.plan import Share
from avtrain.networks.models import AudioVisual
from avtrain.options import with_options
from avtrain.pretrain.objective import Objective
from avtrain.pretrain.set_up import RunOptions, prepare
from avtrain.runtime.distributed import World, joined, make_batch_norm_global
from tests.support import ROOT
from tests.support.processes import children
from tests.support.ranks import run_ranks
from tests.support.runs import avtrain
from tests.support.tiny_set import make_set

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
SMALL = ["--task", "avsa", "--views", "2", "--batch-size", "4", "--transformer", "--device", "cpu"]
# Adam's first steps are as long for a gradient of mere rounding errors as for any other.
SMALL += ["--lr", "1e-5"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_set(tmp_path_factory.mktemp("set"), {"train": 7}, clips_per_source=2)


def torchrun(processes: int, *arguments: object) -> list[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc-per-node={processes}", "--max-restarts=0"]
    return [*command, *map(str, arguments)]


def pretrain(root: Path, out: Path, *arguments: object, processes: int = 1) -> None:
    command = ["pretrain", root, "--out", out, *SMALL, *arguments]
    if processes == 1:
        result = avtrain(*command)
        assert result.exit_code == 0, result.output
        return
    for rank in run_ranks(processes, out.parent, run_avtrain, *map(str, command)):
        assert rank.status == 0, rank.stderr[-3000:]


def run_avtrain(*arguments: str) -> None:
    """``avtrain`` in the process of one rank."""
    try:
        main(arguments)
    except SystemExit as end:
        if end.code:
            raise


def read_log(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def save_step(inputs: Path, gradients: Path, always: bool = False) -> None:
    """Save loss and gradients of one step, for a batch split among the processes."""
    with joined("cpu", always) as world:
        assert world.grouped == (always or world.size > 1)
        _save_step(world, inputs, gradients)


def _save_step(world: World, inputs: Path, gradients: Path) -> None:
    content = torch.load(inputs, weights_only=True)
    config = Config.from_dict(content["config"])
    torch.manual_seed(config.seed)
    model = AudioVisual(config.model).train()
    make_batch_norm_global(model, world)
    # In double precision, so that differences exceed rounding.
    objective = world.wrap(Objective(model, config, world).double())
    (rows,) = Share(world.rank, world.size).parts(np.arange(len(content["pictures"])))
    loss = objective(*(content[name][rows] for name in ("pictures", "sound", "directions")))
    loss.value.backward()
    if world.first:
        found = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        accuracies = {"clip": loss.clip_accuracy, "view": loss.view_accuracy}
        buffers = dict(model.named_buffers())
        torch.save(
            {"loss": loss.value.detach(), "buffers": buffers, **accuracies, "grad": found},
            gradients,
        )


@pytest.mark.parametrize("task", ["avsa", "avc"])
def test_loss_and_gradients_equal_those_of_one_process(tmp_path: Path, task: Any) -> None:
    config = with_options(tiny(task), transformer=task == "avsa", batch_size=5, seed=4)
    random = torch.Generator().manual_seed(0)
    views = config.clip.views
    inputs = {
        "config": config.to_dict(),
        "pictures": torch.randn(5, views, 3, 4, 16, 16, generator=random, dtype=torch.double),
        "sound": torch.randn(5, views, 4, 20, 24, generator=random, dtype=torch.double),
        "directions": torch.randn(5, views, 3, generator=random, dtype=torch.double),
    }
    torch.save(inputs, tmp_path / "inputs")
    results = []
    # 5 clips: parts of different sizes. One process can be a group, too.
    for processes, always in ((1, False), (1, True), (2, False), (3, False)):
        out = tmp_path / f"{processes} {always}"
        arguments = (tmp_path / "inputs", out, always)
        for rank in run_ranks(processes, tmp_path, save_step, *arguments):
            assert rank.status == 0, rank.stderr[-3000:]
        results.append(torch.load(out, weights_only=True))
    assert len(results[0]["grad"]) > 50
    for other in results[1:]:
        torch.testing.assert_close(other, results[0], rtol=1e-9, atol=1e-9)


def test_runs_do_not_depend_on_the_number_of_processes(root: Path, tmp_path: Path) -> None:
    """6 steps alone; 2 steps of two processes, then one alone, then three of three."""
    pretrain(root, tmp_path / "alone", "--steps", 6)
    pretrain(root, tmp_path / "many", "--steps", 2, processes=2)
    pretrain(root, tmp_path / "many", "--steps", 3, "--resume")
    pretrain(root, tmp_path / "many", "--steps", 6, "--resume", processes=3)
    alone, many = read_log(tmp_path / "alone"), read_log(tmp_path / "many")
    assert [line["clips"] for line in alone] == [line["clips"] for line in many]
    losses = [[line["loss"] for line in log] for log in (alone, many)]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-3)
    np.testing.assert_allclose(losses[1][0], losses[0][0], rtol=1e-5)
    states = [Checkpoint.load(tmp_path / name / "checkpoint.pt") for name in ("alone", "many")]
    assert torch.equal(states[0].rng["cpu"], states[1].rng["cpu"])


def test_micro_batches_of_several_processes_equal_those_of_one(root: Path, tmp_path: Path) -> None:
    """Each rank trains on its part of each micro-batch; Adam's moments after a step show the
    gradient of the whole batch."""
    pieces = ["--batch-size", 6, "--pieces", 2, "--steps", 1]
    pretrain(root, tmp_path / "alone", *pieces)
    pretrain(root, tmp_path / "two", *pieces, processes=2)
    alone, two = read_log(tmp_path / "alone"), read_log(tmp_path / "two")
    np.testing.assert_allclose(two[0]["loss"], alone[0]["loss"], rtol=1e-5)
    states = [Checkpoint.load(tmp_path / name / "checkpoint.pt") for name in ("alone", "two")]
    gradients = [
        torch.cat([moments["exp_avg"].flatten() for moments in state.optimiser["state"].values()])
        for state in states
    ]
    error = torch.linalg.norm(gradients[1] - gradients[0]) / torch.linalg.norm(gradients[0])
    # In double precision it is 1e-13; with batch statistics of three clips float32 adds to it.
    assert error < 0.05


def save_first_weights(root: Path, out: Path, *starts: Path) -> None:
    """Save the hash of a rank's initial weights, where each has read another file."""
    with joined("cpu") as world:
        start = starts[world.rank]
        config = Checkpoint.load(start).settings()
        options = RunOptions(out, init_from=start, device="cpu")
        trainer = prepare(root, config, options, world).trainer
        (out / str(world.rank)).write_text(trainer.checkpoint("", "", 0, 0, 0).weights_sha256)


def test_all_processes_start_with_the_same_networks(root: Path, tmp_path: Path) -> None:
    """Whatever each rank has read: a file may be replaced while others read it."""
    runs = [tmp_path / "one", tmp_path / "other"]
    for seed, run in enumerate(runs):
        pretrain(root, run, "--steps", 1, "--seed", seed)
    starts = [run / "checkpoint.pt" for run in runs]
    for rank in run_ranks(2, tmp_path, save_first_weights, root, tmp_path, *starts):
        assert rank.status == 0, rank.stderr[-3000:]
    first = Checkpoint.load(starts[0]).weights_sha256
    assert [(tmp_path / rank).read_text() for rank in ("0", "1")] == [first, first]


def test_the_second_stage_of_a_curriculum_waits_for_the_first(root: Path, tmp_path: Path) -> None:
    stages = ["--curriculum", "--curriculum-steps", 1, "--steps", 1]
    pretrain(root, tmp_path / "run", *stages, processes=2)
    assert len(read_log(tmp_path / "run")) == len(read_log(tmp_path / "run/avc")) == 1


def test_a_job_on_two_nodes_restarts_after_the_death_of_a_process(
    root: Path, tmp_path: Path
) -> None:
    """Two launchers that meet over the network, as on two machines, and a kill in the middle."""
    pretrain(root, tmp_path / "alone", "--steps", 12)
    out = tmp_path / "killed"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1"]
    command += ["--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{port}", "--max-restarts=2"]
    command += ["-m", "avtrain", "pretrain", str(root), "--out", str(out), *SMALL]
    command += ["--steps", "12", "--checkpoint-steps", "1"]
    nodes = [
        subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    wait_for(out / "checkpoint.pt")
    os.kill(int(children(nodes[1].pid)[-1]), signal.SIGKILL)
    said = ""
    for node in nodes:
        _, errors = node.communicate(timeout=200)
        assert node.returncode == 0, errors[-3000:]
        said += errors
    first, *later = map(int, re.findall(r"steps (\d+) to 12", said))
    assert first == 1
    assert len(later) == 1
    assert later[0] > 1
    assert [line["step"] for line in read_log(out)] == list(range(1, 13))
    losses = [[line["loss"] for line in read_log(run)] for run in (tmp_path / "alone", out)]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-2)


def test_a_signalled_job_saves(root: Path, tmp_path: Path) -> None:
    """The launcher gets the signal, as from Slurm, and forwards it."""
    out = tmp_path / "stopped"
    command = torchrun(2, "-m", "avtrain", "pretrain", root, "--out", out, *SMALL, "--steps", 900)
    command += ["--num-workers", "1"]  # workers get the signal too
    job = subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    wait_for(out / "checkpoint.pt")
    job.send_signal(signal.SIGTERM)
    _, errors = job.communicate(timeout=60)
    assert "RuntimeError" not in errors
    steps = Checkpoint.load(out / "checkpoint.pt").total_steps
    assert f"after step {steps}, which is saved" in errors
    assert len(read_log(out)) == steps < 900


def run_avtrain_apart(out: str, *arguments: str) -> None:
    """``avtrain`` with an output folder of the rank's own."""
    run_avtrain(*arguments, "--out", out + os.environ["RANK"])


def test_processes_that_find_different_runs_are_refused(root: Path, tmp_path: Path) -> None:
    """For example with --out on each machine's own disk, and a checkpoint on the first alone."""
    pretrain(root, tmp_path / "run0", "--steps", 1)
    command = ["pretrain", str(root), *SMALL, "--steps", "3", "--resume"]
    ranks = run_ranks(2, tmp_path, run_avtrain_apart, str(tmp_path / "run"), *command)
    assert [rank.status for rank in ranks] == [2, 2]
    assert "the processes found different runs in" in ranks[0].stderr
    assert len(read_log(tmp_path / "run0")) == 1


def test_remaining_processes_report_that_others_are_lost(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = torchrun(2, "-m", "avtrain", "pretrain", root, "--out", out, *SMALL, "--steps", 900)
    job = subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    wait_for(out / "checkpoint.pt")
    os.kill(int(children(job.pid)[-1]), signal.SIGKILL)
    _, errors = job.communicate(timeout=60)
    assert job.returncode != 0
    assert "Error: process 0 of 2 has lost the others, so the job ends" in errors
    assert "avtrain/" not in errors  # no traceback of ours


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 90
    while not path.exists():
        assert time.monotonic() < deadline, "the run did not begin"
        time.sleep(0.01)


def test_more_processes_than_clips_are_refused(root: Path, tmp_path: Path) -> None:
    command = ["pretrain", str(root), "--out", str(tmp_path / "run"), *SMALL]
    ranks = run_ranks(6, tmp_path, run_avtrain, *command)
    assert [rank.status for rank in ranks] == [2] * 6
    assert "batches of 3 clips cannot be split among 6 processes" in ranks[0].stderr
