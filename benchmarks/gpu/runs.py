"""Whole runs of ``avtrain pretrain`` on the device: killed and continued; one process of NCCL."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from avtrain.pretrain.trainer import Trainer
from avtrain.runtime.distributed import World, joined
from benchmarks.gpu.correctness import relative_error, step_of
from benchmarks.gpu.inputs import random_batch, settings, tf32, without_dropout
from benchmarks.gpu.stages import Job, Notes

STEPS, SAVE_EVERY = 60, 2
SMALL = ["--task", "avsa", "--preset", "tiny", "--transformer", "--dropout", "0.1"]


def command(job: Job, out: Path, *options: object) -> list[str]:
    """``avtrain pretrain`` with small networks on the set of the measurement."""
    words = [sys.executable, "-m", "avtrain", "pretrain", str(job.shards), *SMALL]
    workers = 1 if job.quick else 2
    words += ["--device", job.device, "--num-workers", str(workers)]
    words += ["--checkpoint-steps", str(SAVE_EVERY)]
    return [*words, "--epochs", "1000", "--out", str(out), *map(str, options)]


def log_of(out: Path) -> list[dict[str, Any]]:
    """Lines of a run's log; the last one, if it is being written, is left out."""
    path = out / "log.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def run_killed(job: Job, notes: Notes) -> None:
    """A run that is stopped by SIGTERM, continued, killed by SIGKILL and continued takes the same
    steps as one that is not."""
    steps = ["--steps", 12 if job.quick else STEPS]
    whole, broken = job.folder / "whole", job.folder / "broken"
    subprocess.run(command(job, whole, *steps), check=True)
    status = _signalled(command(job, broken, *steps), broken, signal.SIGTERM, after=2)
    first = len(log_of(broken))
    notes.add("steps before SIGTERM ended it", first)
    notes.check("exit status after SIGTERM", abs(status), 0)
    again = command(job, broken, *steps, "--resume")
    status = _signalled(again, broken, signal.SIGKILL, after=first + SAVE_EVERY)
    notes.add("steps before SIGKILL ended it", len(log_of(broken)))
    notes.add("exit status after SIGKILL", status)
    subprocess.run(again, check=True)
    losses = [[line["loss"] for line in log_of(out)] for out in (whole, broken)]
    notes.check("missing steps", abs(len(losses[0]) - len(losses[1])), 0)
    differences = [abs(b / a - 1) for a, b in zip(*losses, strict=True)]
    notes.add("largest relative difference of all losses", max(differences))
    # On a GPU the order of sums differs from run to run, and Adam magnifies it from step to step.
    limit = 0.0 if job.device == "cpu" else 0.05
    notes.check("first losses after SIGTERM", max(differences[first : first + 4]), limit)


def _signalled(words: Sequence[str], out: Path, number: signal.Signals, after: int) -> int:
    """Exit status of a run that gets a signal once its log has ``after`` lines."""
    with subprocess.Popen(words) as process:
        while process.poll() is None and len(log_of(out)) < after:
            time.sleep(0.01)
        process.send_signal(number)
        return process.wait()


def run_group_of_one(job: Job, notes: Notes) -> None:
    """One process as torchrun starts it, alone and as a group of NCCL (gloo on a CPU)."""
    os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
    done = subprocess.run(command(job, job.folder / "alone", "--steps", 4), check=False)
    notes.check("exit status of avtrain pretrain", abs(done.returncode), 0)
    config = without_dropout(settings(job, 4))
    with joined(job.device, always=True) as world, tf32(False):
        backend = torch.distributed.get_backend()
        notes.add("backend", backend)
        plain, grouped = (Trainer(config, one) for one in (World(world.device), world))
        batch = random_batch(config).to(world.device)
        audio = batch.audio_input(plain.features, batch.matrices)
        inputs = (batch.video_input(config.clip.size), audio, batch.directions)
        loss, gradients = step_of(plain, inputs)
        same_loss, same_gradients = step_of(grouped, inputs)
        notes.check("loss, relative difference", abs(same_loss / loss - 1), 1e-4)
        error = relative_error(same_gradients, gradients)
        notes.check("gradients, relative difference", error, 1e-2)
        right = world.any([True, False]) == [True, False] and world.agree("one")
        notes.check("flags that the group loses", int(not right), 0)
        world.broadcast([*grouped.model.state_dict().values()])
        halves = Trainer(replace(config, pieces=2), world)
        for last in (False, True):
            part = halves.forward(batch, last)
            halves.backward_and_step(part, last)
        notes.check("weights after micro-batches that are not finite", _not_finite(halves), 0)


def _not_finite(trainer: Trainer) -> int:
    values = trainer.model.state_dict().values()
    return sum(int((~value.isfinite()).sum()) for value in values)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def run_small_set(job: Job, notes: Notes) -> None:
    """The set that later stages read, unless ``--set`` names one."""
    if (job.shards / "manifest.json").exists():
        notes.add("given", str(job.shards))
        return
    from benchmarks.gpu.small_set import write_set

    if importlib.util.find_spec("cv2") is None:
        raise ModuleNotFoundError("cv2 is not installed: carry a set along, and name it with --set")
    began = time.monotonic()
    write_set(job.shards)
    notes.add("made in seconds", round(time.monotonic() - began, 1))
    size = sum(path.stat().st_size for path in job.shards.rglob("*") if path.is_file())
    notes.add("megabytes", round(size / 1e6, 1))
