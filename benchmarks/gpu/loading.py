"""The real loop with growing numbers of loader processes: speed, and the wait for data."""

from __future__ import annotations

import os
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from avtrain.pretrain.loop import pretrain
from avtrain.pretrain.set_up import RunOptions, prepare
from avtrain.runtime.device import pick_device
from avtrain.runtime.distributed import World
from benchmarks.gpu.inputs import settings
from benchmarks.gpu.runs import log_of
from benchmarks.gpu.stages import Job, Notes

WORKERS = (1, 2, 4, 8, 16)


def run(job: Job, notes: Notes) -> None:
    """Preset ``paper`` in bfloat16, on the set of the measurement."""
    cores = len(os.sched_getaffinity(0))
    notes.add("cores", cores)
    rows: list[dict[str, Any]] = []
    for workers in WORKERS[:2] if job.quick else WORKERS:
        if workers <= cores:
            rows.append(measure(job, workers))
            notes.add("loading", rows)


def measure(job: Job, workers: int) -> dict[str, Any]:
    """Speed and wait after the batches that were read ahead; and of the loader without training."""
    skipped = 2 + 2 * workers  # each process has two batches ready
    steps = skipped + (3 if job.quick else 10 + 2 * workers)
    config = replace(settings(job), precision="bf16", clips_per_source=1000, epochs=1000)
    out = job.folder / f"loading-{workers}"
    options = RunOptions(out, steps=steps, workers=workers, device=job.device)
    options = replace(options, checkpoint_steps=10**9)
    pretrain(job.shards, config, options)
    lines = log_of(out)
    ends = []
    clips = 0
    for line in lines:
        clips += line["clips"]
        ends.append(clips / line["clips_per_s"])
    took = ends[-1] - ends[skipped - 1]
    after = lines[skipped:]
    return {
        "loader processes": workers,
        "clips per s": round(sum(line["clips"] for line in after) / took, 2),
        "share of waiting": round(sum(line["data_wait_s"] for line in after) / took, 4),
        "loader alone, clips per s": round(_loader_alone(job, out, options, skipped), 2),
    }


def _loader_alone(job: Job, out: Path, options: RunOptions, skipped: int) -> float:
    config = replace(settings(job), clips_per_source=1000, epochs=1000)
    options = replace(options, out=out / "alone")
    run = prepare(job.shards, config, options, World(pick_device(job.device)))
    count = 0
    with closing(run.batches()) as batches:
        for number, (_, batch) in enumerate(batches):
            if number == skipped:
                began = time.perf_counter()
            elif number > skipped:
                count += len(batch.index)
            if number == skipped + max(4, skipped):
                break
    return count / (time.perf_counter() - began)
