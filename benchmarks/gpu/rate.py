"""Which share of the device's arithmetic a step uses, and what limits it."""

from __future__ import annotations

import re
import time
from collections import defaultdict
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.gpu.inputs import seconds_of, settings, tf32, wait
from benchmarks.gpu.speed import Variant, inputs_on, our_step
from benchmarks.gpu.stages import Job, Notes

STEPS, SHOWN = 3, 15
_MATRIX = re.compile(r"gemm|conv(?!ert)|xmma|cutlass|wgrad|dgrad|fprop|winograd|mm_|matmul|fft")
_KINDS = {
    "matrix": _MATRIX,
    "batch normalisation": re.compile(r"batch_?norm|bn_"),
    "layout and copies": re.compile(r"nchw|nhwc|transpose|copy|memcpy|memset|catarray"),
    "optimiser": re.compile(r"adam|multi_tensor|foreach"),
    "reductions": re.compile(r"reduce|max_pool|amax|norm"),
}
"""Kinds of kernels by words in their names, the first that fits; all but the first are limited by
memory rather than arithmetic."""


def run(job: Job, notes: Notes) -> None:
    device = torch.device(job.device)
    size = 512 if job.quick else 8192
    for name, dtype, allowed in (
        ("bf16", torch.bfloat16, True),
        ("TF32", torch.float32, True),
        ("fp32", torch.float32, False),
    ):
        with tf32(allowed):
            rate = matrix_rate(job, size, dtype)
        notes.add(f"matrix product {name}, TFLOP/s", round(rate / 1e12, 3))
        if name == "bf16":
            bf16_rate = rate
    notes.add("copy, GB/s read and written", round(copy_rate(job) / 1e9, 2))
    config = settings(job)
    inputs = inputs_on(config, device)
    step = our_step(config, Variant("bf16", "bf16", tf32=True), inputs)
    with FlopCounterMode(display=False) as counter:
        step()
    operations = float(counter.get_total_flops())
    seconds = seconds_of(step, job)
    notes.add("a step, TFLOP", round(operations / 1e12, 4))
    notes.add("step bf16, s", round(seconds, 5))
    notes.add("step bf16, TFLOP/s", round(operations / seconds / 1e12, 3))
    notes.add("share of the bf16 matrix rate", round(operations / seconds / bf16_rate, 4))
    notes.add("kernels by kind", _kernels(step, device, notes))


def matrix_rate(job: Job, size: int, dtype: torch.dtype) -> float:
    """Operations per second of a product of two square matrices of random numbers."""
    a, b = (torch.randn(size, size, device=job.device, dtype=dtype) for _ in range(2))
    return 2 * size**3 / seconds_of(lambda: a @ b, job, 1.0)


def copy_rate(job: Job) -> float:
    """Bytes per second that a copy on the device reads and writes."""
    source = torch.empty(10**7 if job.quick else 2 * 10**9, dtype=torch.uint8, device=job.device)
    target = torch.empty_like(source)
    return 2 * source.numel() / seconds_of(lambda: target.copy_(source), job, 1.0)


def _kernels(step: Any, device: torch.device, notes: Notes) -> list[dict[str, Any]]:
    """Time of each kind of kernel in a step; adds the longest kernels, and the time in which the
    device had nothing to do."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    step()
    wait(device)
    began = time.perf_counter()
    with torch.profiler.profile(activities=activities) as profiler:
        for _ in range(STEPS):
            step()
        wait(device)
    wall_s = (time.perf_counter() - began) / STEPS
    times: dict[str, float] = {}
    for event in profiler.key_averages():
        if device.type == "cuda" and event.device_type == torch.autograd.DeviceType.CPU:
            continue
        if getattr(event, "is_user_annotation", False):  # parts of the step, not kernels
            continue
        used = event.self_device_time_total if device.type == "cuda" else event.self_cpu_time_total
        times[event.key] = times.get(event.key, 0.0) + used / 1e6 / STEPS
    total = sum(times.values())
    notes.add("profiled step, s", round(wall_s, 5))
    notes.add("kernels, s", round(total, 5))
    notes.add("share of the step without a kernel", round(max(0.0, 1 - total / wall_s), 4))
    longest = sorted(times, key=lambda name: -times[name])[:SHOWN]
    notes.add("longest kernels", [_used("kernel", name, times[name], total) for name in longest])
    kinds: defaultdict[str, float] = defaultdict(float)
    for name, used in times.items():
        words = name.lower()
        fitting = (kind for kind, pattern in _KINDS.items() if pattern.search(words))
        kinds[next(fitting, "other elementwise")] += used
    order = sorted(kinds, key=lambda kind: -kinds[kind])
    return [_used("kind", kind, kinds[kind], total) for kind in order]


def _used(what: str, name: str, seconds: float, total: float) -> dict[str, Any]:
    return {what: name[:90], "ms": round(1e3 * seconds, 3), "share": round(seconds / total, 3)}
