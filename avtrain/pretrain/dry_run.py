"""A few steps of a run that save nothing, to measure what a step costs and what it waits for."""

from __future__ import annotations

import resource
import statistics
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from avtrain.config import Config
from avtrain.data.batch import Batch
from avtrain.data.plan import Step
from avtrain.data.shard_sets import Roots, Shards, sets_in
from avtrain.errors import TrainingError
from avtrain.pretrain.set_up import Run, RunOptions, prepare
from avtrain.run_folder import TRACE
from avtrain.runtime.distributed import joined
from shards.files import atomic_file

_PARTS = {"data": "waiting for data", "features": "features and augmentation"}
_PARTS |= {"networks": "networks, forward and backward", "optimiser": "optimiser"}
WARM_UP = 3


def rehearse(
    roots: Roots, config: Config, options: RunOptions, steps: int, trace: bool
) -> list[str]:
    """Take ``steps`` steps after a warm-up, save nothing, and return lines that tell their cost.

    ``trace``: write a trace of them to ``OUT/trace.json``, for https://ui.perfetto.dev. Without it,
    data are read in this process, so that reads can be counted.
    """
    out = options.out
    if not options.resume:  # an empty place, since an existing run in OUT does not matter
        options = replace(options, out=out / "rehearsal")
    with joined(options.device) as world:
        if not trace:
            options = replace(options, workers=0)
        run = prepare(roots, config, options, world)
        left = run.plan.steps_per_epoch * (config.epochs - run.epoch) - run.step
        if left < WARM_UP + steps:
            raise TrainingError(
                f"a rehearsal takes {WARM_UP + steps} steps, but {left} are left; raise --epochs"
            )
        run.trainer.exact_times = True
        path = out / TRACE if trace and world.first else None
        with closing(run.batches()) as batches:
            for _ in range(WARM_UP):
                _step(run, batches)
            run.trainer.seconds.clear()
            before = _io_counts(run.shards)
            durations = []
            with _traced(path):
                for _ in range(steps):
                    began = time.perf_counter()
                    _step(run, batches)
                    durations.append(time.perf_counter() - began)
        shares = _time_shares(run.trainer.seconds, sum(durations), run.workers)
        if path is not None:
            return [f"{steps} steps: {shares}", f"trace: {path}"]
        read = [now - then for now, then in zip(_io_counts(run.shards), before, strict=True)]
        step_s = statistics.median(durations)
        return [*_plan_lines(run), *_cost_lines(run, step_s, shares, read, steps)]


def _io_counts(shards: Shards) -> list[int]:
    """Files opened, reads and bytes read in this process so far."""
    return [
        sum(parts) for parts in zip(*(one.root.io_counts() for one in sets_in(shards)), strict=True)
    ]


def _step(run: Run, batches: Iterator[tuple[Step, Batch]]) -> None:
    trainer = run.trainer
    for number in range(run.config.pieces):
        with trainer.timed("data"):
            _, batch = next(batches)
        last = number == run.config.pieces - 1
        trainer.backward_and_step(trainer.forward(batch, last), last)


@contextmanager
def _traced(path: Path | None) -> Iterator[None]:
    if path is None:
        yield
        return
    with torch.profiler.profile() as profiler:
        yield
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as file:  # the profiler writes by name
        profiler.export_chrome_trace(file.name)


def _time_shares(seconds: Mapping[str, float], total: float, workers: int) -> str:
    parts = [f"{seconds.get(name, 0) / total:.0%} {words}" for name, words in _PARTS.items()]
    how = f"{workers} loader processes decode" if workers else "waiting includes decoding"
    return f"{', '.join(parts)} ({how})"


def _plan_lines(run: Run) -> list[str]:
    config, shards, world = run.config, run.shards, run.trainer.world
    gigabytes = sum(entry.bytes for entry in shards.entries) / 1e9
    slots = config.clip.moments if config.task == "avts" else config.clip.views
    kind = "moments" if config.task == "avts" else "views"
    micro_batches = f" in {config.pieces} micro-batches" * (config.pieces > 1)
    ranks = f" on {world.size} processes" * (world.size > 1)
    return [
        f"data: {len(shards)} clips of {len(set(shards.sources))} sources in {len(shards.entries)} "
        f"shards, {gigabytes:.2f} GB: {shards.where}",
        *run.remarks(),
        f"plan: an epoch shows {run.plan.clips_per_epoch} clips in {run.plan.steps_per_epoch} "
        f"steps, {config.epochs} epochs; "
        f"{config.batch_size} clips x {slots} {kind} per step{micro_batches}{ranks}; "
        f"steps {run.total + 1} to {run.last_total} remain",
    ]


def _cost_lines(run: Run, step_s: float, shares: str, read: list[int], steps: int) -> list[str]:
    trainer = run.trainer
    counts = {
        name: sum(parameter.numel() for parameter in part.parameters()) / 1e6
        for name, part in (("video", trainer.model.video), ("audio", trainer.model.audio))
    }
    every = sum(parameter.numel() for parameter in trainer.model.parameters()) / 1e6
    size = len(trainer.checkpoint("", "", 0, 0, 0).to_bytes()) / 1e6
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
    memory = f"{peak:.2f} GB in this process"
    device = trainer.world.device
    if device.type == "cuda":
        memory += f", {torch.cuda.max_memory_allocated(device) / 1e9:.2f} GB on the GPU"
    left = (run.last_total - run.total) * step_s
    opens, reads, content = (value / steps for value in read)
    return [
        f"networks: {every:.2f} million parameters (video {counts['video']:.2f}, audio "
        f"{counts['audio']:.2f}); a checkpoint takes {size:.1f} MB",
        f"memory: {memory}",
        f"a step: {step_s:.3f} s: {shares}",
        f"a step reads: {content / 1e6:.2f} MB in {reads:.0f} reads, and opens {opens:.1f} files "
        "(each process opens a shard, and reads its index, once)",
        f"remaining time at this speed: {_in_words(left)}",
    ]


def _in_words(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
