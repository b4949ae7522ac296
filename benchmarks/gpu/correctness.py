"""Whether the device computes what the CPU computes.

The reference is the CPU in float64. Limits in float32 follow the CPU's own error in float32, since
the gradients of networks with ReLU and maxima jump wherever rounding decides between two numbers.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from avtrain.checkpoint import Checkpoint
from avtrain.config import Config, tiny
from avtrain.data.batch import Batch
from avtrain.networks.models import ModelConfig
from avtrain.pretrain.trainer import Trainer
from avtrain.runtime.distributed import World
from benchmarks.gpu.inputs import Inputs, random_batch, settings, tf32, without_dropout
from benchmarks.gpu.stages import Job, Notes

CPU = torch.device("cpu")
STEPS = 12
_SCALE = 1024.0
"""Gradients in float16 are computed of a loss so much larger, or small ones would become zero."""
_LOSS_LIMITS = {"TF32": 0.01, "bf16": 0.05, "fp16": 0.01}

Gradients = dict[str, Tensor]


def run(job: Job, notes: Notes) -> None:
    device = torch.device(job.device)
    check_inputs(job, device, notes)
    check_step(job, device, notes)
    check_checkpoints(job, device, notes)
    check_precisions(job, device, notes)


def check_inputs(job: Job, device: torch.device, notes: Notes) -> None:
    """Augmented video and log-mels of a batch that the CPU and the device prepare."""
    config = settings(job, 2)
    trainers = [Trainer(config, World(where)) for where in (CPU, device)]
    size = config.clip.size
    for name, stored, limit in (("as stored", size, 1e-4), ("resized", size * 9 // 8, 0.05)):
        batch = random_batch(config, stored)
        ours, theirs = (batch.to(t.world.device).video_input(size).cpu() for t in trainers)
        notes.check(f"video {name}, largest difference", _largest(ours - theirs), limit)
    with tf32(False):
        parts = [batch.to(trainer.world.device) for trainer in trainers]
        ours, theirs = (
            part.audio_input(trainer.features, part.matrices).cpu()
            for part, trainer in zip(parts, trainers, strict=True)
        )
    notes.check("log-mels, largest difference in dB", _largest(ours - theirs), 0.05)


def check_step(job: Job, device: torch.device, notes: Notes) -> None:
    """Loss and gradients of one step."""
    config = without_dropout(settings(job, 2))
    batch = random_batch(config)
    features = Trainer(config, World(CPU)).features
    video = batch.video_input(config.clip.size)
    inputs = (video, batch.audio_input(features, batch.matrices), batch.directions)
    exact = loss_and_gradients(config, CPU, inputs, torch.float64)
    on_cpu = loss_and_gradients(config, CPU, inputs)
    own = relative_error(on_cpu[1], exact[1])
    notes.add("gradients fp32 on the CPU, relative error", own)
    with tf32(False):
        here = loss_and_gradients(config, device, inputs)
    notes.check("loss fp32, relative error", abs(here[0] / exact[0] - 1), 1e-4)
    limit = max(1e-3, 5 * own)
    notes.check("gradients fp32, relative error", relative_error(here[1], exact[1]), limit)
    notes.add("gradients fp32, worst weight", _worst(here[1], exact[1]))
    rounded = loss_and_gradients(replace(config, precision="bf16"), CPU, inputs)
    own = relative_error(rounded[1], exact[1])
    notes.add("gradients bf16 on the CPU, relative error", own)
    limit = max(0.1, 1.5 * own)  # the others round less
    for name, loss_limit in _LOSS_LIMITS.items():
        precision: Any = "fp32" if name == "TF32" else name
        with tf32(name == "TF32"):
            here = loss_and_gradients(replace(config, precision=precision), device, inputs)
        notes.check(f"loss {name}, relative error", abs(here[0] / exact[0] - 1), loss_limit)
        notes.check(f"gradients {name}, relative error", relative_error(here[1], exact[1]), limit)
        notes.add(f"gradients {name}, worst weight", _worst(here[1], exact[1]))


def loss_and_gradients(
    config: Config, device: torch.device, inputs: Inputs, dtype: torch.dtype = torch.float32
) -> tuple[float, Gradients]:
    """Those of one step of the initial networks, with ``dtype`` for weights."""
    trainer = Trainer(config, World(device))
    trainer.model.to(dtype)
    return step_of(trainer, inputs, dtype)


def step_of(
    trainer: Trainer, inputs: Inputs, dtype: torch.dtype = torch.float32
) -> tuple[float, Gradients]:
    """Loss and gradients of the trainer's networks, which do not change."""
    device = trainer.world.device
    scale = _SCALE if trainer.config.precision == "fp16" else 1.0
    video, audio, directions = (part.to(device, dtype) for part in inputs)
    loss = trainer.objective(video, audio, directions).value
    (loss * scale).backward()
    named = trainer.model.named_parameters()
    gradients = {n: p.grad.cpu().double() / scale for n, p in named if p.grad is not None}
    trainer.optimiser.zero_grad()
    return loss.item(), gradients


def relative_error(found: Gradients, exact: Gradients) -> float:
    """Length of the difference of all gradients together, divided by their length."""
    if found.keys() != exact.keys():
        return math.nan
    squares = sum(((found[name] - exact[name]) ** 2).sum() for name in exact)
    return math.sqrt(squares / sum((value**2).sum() for value in exact.values()))


def _worst(found: Gradients, exact: Gradients) -> str:
    """Gradients that are zero but for rounding, as those of the keys' biases, do not count."""
    least = 1e-3 * max(value.norm() for value in exact.values())
    errors = {n: _relative(found[n], exact[n]) for n in exact if exact[n].norm() > least}
    name = max(errors, key=lambda name: errors[name])
    return f"{errors[name]:.2g} of {name}"


def check_precisions(job: Job, device: torch.device, notes: Notes) -> None:
    """A few steps on one batch in each precision: losses are finite, fall, and begin alike."""
    config = without_dropout(settings(job, 4))
    rows, first = [], 0.0
    for precision in ("fp32", "bf16", "fp16"):
        trainer = Trainer(replace(config, precision=precision), World(device))  # type: ignore[arg-type]
        batch = random_batch(config)
        losses = []
        for _ in range(4 if job.quick else STEPS):
            loss = trainer.forward(batch)
            trainer.backward_and_step(loss, last=True)
            losses.append(loss.value.item())
        first = first or losses[0]
        row = {"precision": precision, "first loss": losses[0], "last loss": losses[-1]}
        rows.append({**row, "scale": trainer.scaler.get_scale()})
        notes.add("losses", rows)
        notes.check(f"first loss {precision}, relative to fp32", abs(losses[0] / first - 1), 0.05)
        notes.check(f"last loss {precision} / first loss", losses[-1] / losses[0], 1.0)


def check_checkpoints(job: Job, device: torch.device, notes: Notes) -> None:
    """A checkpoint written on the device is read on the CPU and the reverse, and a run that is
    continued from one takes the same steps."""
    config = settings(job, 2)
    batch = random_batch(config)
    for writer, reader in ((device, CPU), (CPU, device)):
        name = f"checkpoint from {writer.type} read on {reader.type}"
        trainer = Trainer(config, World(writer))
        with tf32(False):
            _take_steps(trainer, batch, 2)
            there = _resumed(trainer, reader, job.folder / "checkpoint.pt")
            outputs = [_outputs(one, batch) for one in (trainer, there)]
            notes.check(f"{name}, relative difference", _relative(*outputs), 1e-3)
            _take_steps(there, batch, 1)
    trainer = Trainer(config, World(device))
    _take_steps(trainer, batch, 2)
    trainer.checkpoint("", "train", 0, 0, 0).save(job.folder / "checkpoint.pt")
    losses = _take_steps(trainer, batch, 3)
    again = _read(config, device, job.folder / "checkpoint.pt")
    pairs = zip(_take_steps(again, batch, 3), losses, strict=True)
    differences = [abs(found / loss - 1) for found, loss in pairs]
    # Later losses depend on gradients, whose sums a GPU adds up in changing orders.
    notes.check("first loss after resuming, with dropout", differences[0], 1e-5)
    notes.check("third loss after resuming, with dropout", differences[2], 0.02)


def _take_steps(trainer: Trainer, batch: Batch, count: int) -> list[float]:
    losses = []
    for _ in range(count):
        loss = trainer.forward(batch)
        trainer.backward_and_step(loss, last=True)
        losses.append(loss.value.item())
    return losses


def _resumed(trainer: Trainer, device: torch.device, path: Path) -> Trainer:
    trainer.checkpoint("", "train", 0, 0, 0).save(path)
    return _read(trainer.config, device, path)


def _read(config: Config, device: torch.device, path: Path) -> Trainer:
    resumed = Trainer(config, World(device))
    resumed.resume_from(Checkpoint.load(path))
    return resumed


@contextmanager
def _frozen(trainer: Trainer) -> Iterator[None]:
    trainer.model.eval()
    with torch.no_grad():
        yield
    trainer.model.train()


def _outputs(trainer: Trainer, batch: Batch) -> Tensor:
    """Embeddings of the networks in evaluation mode, of inputs that the CPU prepared."""
    features = copy.deepcopy(trainer.features).cpu()
    video = batch.video_input(trainer.config.clip.size)
    audio = batch.audio_input(features, batch.matrices)
    inputs = (video, audio, batch.directions)
    video, audio, directions = (part.to(trainer.world.device) for part in inputs)
    with _frozen(trainer):
        found = trainer.model.embeddings(*trainer.model.embed(video, audio), directions, True)
    parts = (found.predicted_audio, found.audio, found.predicted_video, found.video)
    return torch.stack(parts).cpu()


def _relative(found: Tensor, exact: Tensor) -> float:
    return ((found - exact).norm() / exact.norm()).item()


def _largest(difference: Tensor) -> float:
    return difference.abs().max().item()


def run_compiled(job: Job, notes: Notes) -> None:
    """Whether compiled networks (``--compile``) compute what the others do: small ones, with
    batches of two sizes, of which the second may compile anew."""
    device = torch.device(job.device)
    model = ModelConfig(width=8, transformer=True, dropout=0.0)
    config = replace(tiny("avsa"), model=model)
    plain, compiled = (Trainer(config, World(device), flag) for flag in (False, True))
    for clips in (4, 3):
        batch = random_batch(replace(config, batch_size=clips), seed=clips).to(device)
        audio = batch.audio_input(plain.features, batch.matrices)
        inputs = (batch.video_input(config.clip.size), audio, batch.directions)
        with tf32(False):
            loss, gradients = step_of(plain, inputs)
            began = time.monotonic()
            same_loss, same_gradients = step_of(compiled, inputs)
        notes.add(f"{clips} clips: seconds of the first step", round(time.monotonic() - began, 1))
        notes.check(f"{clips} clips: loss, relative difference", abs(same_loss / loss - 1), 1e-4)
        error = relative_error(same_gradients, gradients)
        notes.check(f"{clips} clips: gradients, relative difference", error, 1e-2)
