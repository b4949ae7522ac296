"""The device of a run, its number of loader processes, and its random generators."""

from __future__ import annotations

import os

import torch

from avtrain.errors import TrainingError

MOST_WORKERS = 16
"""More loader processes only fill the memory with waiting batches."""


def pick_device(name: str) -> torch.device:
    """The device called ``auto``, ``cpu`` or ``cuda``; auto is the GPU if there is one."""
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise TrainingError("there is no CUDA device here; use --device cpu or auto")
    return torch.device("cuda" if available and name != "cpu" else "cpu")


def check_precision(name: str, device: torch.device) -> None:
    """Raise TrainingError for bfloat16 on a GPU that has none."""
    if name == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise TrainingError("this GPU does not support bfloat16; use --fp16, or neither")


def default_workers(device: torch.device) -> int:
    """Loader processes of this rank: with a GPU its share of the machine's cores except one, up to
    `MOST_WORKERS`; none if the CPU itself trains, since they would only take its cores away."""
    if device.type == "cpu":
        return 0
    cores = len(os.sched_getaffinity(0)) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return min(max(1, cores - 1), MOST_WORKERS)


def rng_state(device: torch.device) -> dict[str, torch.Tensor]:
    """States of the generators that a step may draw from, by device type."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def set_rng_state(states: dict[str, torch.Tensor], device: torch.device) -> None:
    """Set the generators. On a device type that ``states`` lacks, the generator stays as it is.

    Raises TrainingError for a state that the GPU refuses, which only a GPU can tell.
    """
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda" and "cuda" in states:
        try:
            torch.cuda.set_rng_state(states["cuda"], device)
        except RuntimeError as error:
            raise TrainingError(
                "the run cannot be resumed: the checkpoint's rng.cuda is no state of a generator "
                f"of this device ({str(error).splitlines()[0]:.100}); take the networks with "
                "--init-from"
            ) from None
