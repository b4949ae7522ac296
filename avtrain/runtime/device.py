"""Where a run computes, and with how many threads and loader workers."""

from __future__ import annotations

import os

import torch

from avtrain.errors import TrainingError

MOST_WORKERS = 16
"""More only fill the memory with batches that wait."""


def pick_device(name: str) -> torch.device:
    """``auto``, ``cpu`` or ``cuda``; auto takes the GPU if there is one."""
    there = torch.cuda.is_available()
    if name == "cuda" and not there:
        raise TrainingError("there is no CUDA device here; use --device cpu or auto")
    return torch.device("cuda" if there and name != "cpu" else "cpu")


def default_workers(device: torch.device) -> int:
    """Loader processes of this one: on a GPU machine its share of the cores but one, up to
    `MOST_WORKERS`; where the CPU itself trains, none, as they would only take its cores away."""
    if device.type == "cpu":
        return 0
    cores = len(os.sched_getaffinity(0)) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return min(max(1, cores - 1), MOST_WORKERS)


def rng_state(device: torch.device) -> dict[str, torch.Tensor]:
    """States of the random generators that a step may draw from, by device type."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def set_rng_state(states: dict[str, torch.Tensor], device: torch.device) -> None:
    """A run continued on another kind of device keeps the generator it started with there."""
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)
