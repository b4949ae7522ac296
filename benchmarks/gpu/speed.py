"""Steps per second of the networks alone, on inputs that lie on the device already, and memory.

Ours and the published ones take turns on the same card, with the same batch.
"""

from __future__ import annotations

import gc
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from avtrain.config import Config, Precision
from avtrain.pretrain.trainer import Trainer
from avtrain.runtime.distributed import World
from benchmarks.gpu.inputs import Inputs, random_batch, seconds_of, settings, tf32
from benchmarks.gpu.stages import Job, Notes

Step = Callable[[], object]
COMPILING_S = 60.0
"""Compiling is not begun with less time left."""


@dataclass(frozen=True)
class Variant:
    """How our step runs: ``contiguous`` weights and inputs instead of channels last; ``tries``: of
    cuDNN, which takes the fastest algorithm of those that it has tried."""

    name: str
    precision: Precision = "fp32"
    tf32: bool = False
    contiguous: bool = False
    tries: bool = False
    compiled: bool = False


VARIANTS = (
    Variant("ours, fp32"),
    Variant("ours, fp32, contiguous", contiguous=True),
    Variant("ours, TF32", tf32=True),
    Variant("ours, TF32, cuDNN tries algorithms", tf32=True, tries=True),
    Variant("ours, bf16", "bf16", tf32=True),
    Variant("ours, bf16, contiguous", "bf16", tf32=True, contiguous=True),
    Variant("ours, bf16, cuDNN tries algorithms", "bf16", tf32=True, tries=True),
    Variant("ours, fp16", "fp16", tf32=True),
    Variant("ours, bf16, compiled", "bf16", tf32=True, compiled=True),
)


PUBLISHED = (
    ("published, fp32", False, False),
    ("published, TF32", True, False),
    ("published, as its loop sets it", True, True),
)
"""Names; whether TF32 is allowed; whether cuDNN tries algorithms and anomalies are searched for."""


def run(job: Job, notes: Notes) -> None:
    """Clips per second of each kind of step, those that fail with their error."""
    device = torch.device(job.device)
    config = settings(job)
    inputs = inputs_on(config, device)
    notes.add("clips x views a step", f"{config.batch_size} x {config.clip.views}")
    rows: list[dict[str, Any]] = []
    for name, allowed, as_its_loop in PUBLISHED[:1] if job.quick else PUBLISHED:
        if job.peer is None:
            break
        with tf32(allowed), _tries(as_its_loop):
            make = partial(published_step, job.peer, inputs, as_its_loop)
            # Its networks have one width.
            rows.append(measure(name + " (full width)" * job.quick, make, config, job))
        notes.add("speed", rows)
    for variant in VARIANTS:
        if job.quick and job.device == "cpu" and (variant.compiled or variant.tries):
            continue
        if variant.compiled and notes.left_s < COMPILING_S:
            rows.append({"step": variant.name, "error": f"{notes.left_s:.0f} s were left"})
        else:
            with tf32(variant.tf32), _tries(variant.tries):
                make = partial(our_step, config, variant, inputs)
                rows.append(measure(variant.name, make, config, job))
        notes.add("speed", rows)


def inputs_on(config: Config, device: torch.device) -> Inputs:
    """Inputs of the networks on the device, made by it."""
    trainer = Trainer(config, World(device))
    batch = random_batch(config).to(device)
    audio = batch.audio_input(trainer.features, batch.matrices)
    return batch.video_input(config.clip.size), audio, batch.directions


def our_step(config: Config, variant: Variant, inputs: Inputs) -> Step:
    config = replace(config, precision=variant.precision)
    trainer = Trainer(config, World(inputs[0].device), variant.compiled)
    if variant.contiguous:
        trainer.model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        inputs = (inputs[0].contiguous(), inputs[1].contiguous(), inputs[2])
    return lambda: trainer.backward_and_step(trainer.objective(*inputs), last=True)


def published_step(checkout: Path, inputs: Inputs, strict: bool) -> Step:
    """The loop of the published code, without reading: networks, loss, gradients, Adam, and a look
    at the loss. ``strict``: with the search for anomalies that it switches on."""
    if str(checkout) not in sys.path:
        sys.path.insert(0, str(checkout))
        sys.dont_write_bytecode = True
    from benchmarks.published_outputs import _theirs

    model, criterion = (part.to(inputs[0].device).train() for part in _theirs(checkout, "avsa"))
    optimiser = torch.optim.Adam(
        [*model.parameters(), *criterion.parameters()], 1e-4, weight_decay=1e-5
    )
    video, audio = (part.contiguous().flatten(0, 1) for part in inputs[:2])
    clips, views = inputs[0].shape[:2]

    def step() -> float:
        with torch.autograd.set_detect_anomaly(strict):
            features = model(video, audio)
            loss, _ = criterion(*(part.view(clips, views, -1) for part in features), inputs[2])
            value: float = loss.item()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        return value

    return step


def measure(name: str, make: Callable[[], Step], config: Config, job: Job) -> dict[str, Any]:
    """Speed and memory of the step that ``make`` makes; its error where it has one."""
    device = torch.device(job.device)
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    try:
        step = make()
        began = time.perf_counter()
        step()
        first_s = time.perf_counter() - began
        seconds = seconds_of(step, job)
    except Exception as error:
        return {"step": name, "error": f"{type(error).__name__}: {str(error).splitlines()[0]:.200}"}
    row = {"step": name, "clips per s": round(config.batch_size / seconds, 2)}
    row |= {"s per step": round(seconds, 5), "first step, s": round(first_s, 2)}
    return row | {"peak GB": round(peak_bytes(device) / 1e9, 3)}


def peak_bytes(device: torch.device) -> int:
    """Peak memory of the GPU since its last reset; on a CPU, of the process since its start."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@contextmanager
def _tries(allowed: bool) -> Iterator[None]:
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = allowed
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def run_memory(job: Job, notes: Notes) -> None:
    """Peak memory of a step for growing batches, until one does not fit."""
    device = torch.device(job.device)
    rows: list[dict[str, Any]] = []
    batches = (2, 4) if job.quick else (4, 8, 16, 28, 56, 112)
    variants = (Variant("fp32", tf32=True), Variant("bf16", "bf16", tf32=True))
    for variant in variants:
        for clips in batches:
            config = settings(job, clips)
            with tf32(variant.tf32):
                make = partial(_step_with_inputs, config, variant, device)
                row = measure(variant.name, make, config, job)
            rows.append({"clips": clips, **row})
            notes.add("memory", rows)
            if "error" in row:
                break


def _step_with_inputs(config: Config, variant: Variant, device: torch.device) -> Step:
    return our_step(config, variant, inputs_on(config, device))
