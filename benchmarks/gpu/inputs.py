"""What the stages train on: settings, random batches, and how long a call takes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from avtrain.config import Config, paper, tiny
from avtrain.data.batch import Batch
from avtrain.networks.models import ModelConfig
from benchmarks.gpu.stages import Job
from shards.geometry import view_foa_matrix

Inputs = tuple[Tensor, Tensor, Tensor]
"""Video, audio and directions, as `avtrain.pretrain.objective.Objective` takes them."""


def settings(job: Job, clips: int | None = None) -> Config:
    """Preset ``paper`` for AVSA with its batch of 28 clips, or small networks for a quick try."""
    if not job.quick:
        config = paper("avsa")
        return config if clips is None else replace(config, batch_size=clips)
    config = tiny("avsa")
    small = ModelConfig(width=4, transformer=True, dropout=0.1)
    return replace(config, model=small, batch_size=min(4, clips or 4))


def without_dropout(config: Config) -> Config:
    return replace(config, model=replace(config.model, dropout=0.0))


def random_batch(config: Config, size: int | None = None, seed: int = 0) -> Batch:
    """Noise with the views of random directions; crops of ``size`` pixels (default: as the networks
    take them)."""
    clip, sound, clips = config.clip, config.sound, config.batch_size
    random, rng = torch.Generator().manual_seed(seed), np.random.default_rng(seed)
    size = clip.size if size is None else size
    turns = [
        view_foa_matrix(rng.uniform(-180, 180), rng.uniform(-30, 30))
        for _ in range(clips * clip.views)
    ]
    matrices = torch.from_numpy(np.float32(turns)).view(clips, 1, clip.views, 4, 4)
    directions = torch.randn(clips, clip.views, 3, generator=random)
    shape = (clips, clip.views, clip.frames, size, size, 3)
    return Batch(
        index=torch.arange(clips),
        frames=torch.randint(256, shape, generator=random, dtype=torch.uint8),
        audio=torch.randn(clips, 1, 4, sound.samples, generator=random) / 10,
        matrices=matrices,
        misaligned=matrices,
        directions=torch.nn.functional.normalize(directions, dim=-1),
        jitter=torch.tensor([1.1, 0.9, 1.2, 0.05]).repeat(clips, 1),
        volume=torch.ones(clips),
        mirror=torch.arange(clips) % 2 == 0,
    )


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Whether float32 products and convolutions on the GPU may round their inputs to TF32."""
    backends = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [backend.allow_tf32 for backend in backends]
    for backend in backends:
        backend.allow_tf32 = allowed
    try:
        yield
    finally:
        for backend, value in zip(backends, before, strict=True):
            backend.allow_tf32 = value


def wait(device: torch.device) -> None:
    """Until the device has done all its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of(call: Callable[[], object], job: Job, most_s: float = 3.0) -> float:
    """Median time of a call: of at least 2 and at most 20, after 2 that do not count; in a quick
    try of one, after one."""
    device, skipped = torch.device(job.device), 1 if job.quick else 2
    taken: list[float] = []
    began = time.perf_counter()
    while len(taken) < 2 * skipped or (
        not job.quick and len(taken) < 22 and time.perf_counter() - began < most_s
    ):
        start = time.perf_counter()
        call()
        wait(device)
        taken.append(time.perf_counter() - start)
    return statistics.median(taken[skipped:])
