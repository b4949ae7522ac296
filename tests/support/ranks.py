"""Processes that train together, as torchrun starts them, but forked from one that has imported
PyTorch: to import it takes longer than what most tests ask of a process."""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

_FORKED = multiprocessing.get_context("forkserver")
_PRELOADED = ["torch._dynamo", "matplotlib.backends.backend_agg"]
_FORKED.set_forkserver_preload([*_PRELOADED, "avtrain.pretrain.loop", "avtrain.cli.main"])


@dataclass(frozen=True)
class Ended:
    """How the process of one rank ended: its exit status, and what it wrote to stderr."""

    status: int | None
    stderr: str


def run_ranks(
    size: int, folder: Path, function: Callable[..., None], *arguments: object
) -> list[Ended]:
    """Call ``function(*arguments)`` in ``size`` processes that meet each other, rank by rank.

    ``function`` is found by its name in its module. ``folder`` gets what the processes write to
    stderr. A process that has not ended after two minutes is killed; its status is negative.
    """
    processes = start_ranks(size, folder, function, *arguments)
    for process in processes:
        process.join(120)
        if process.is_alive():
            process.kill()
            process.join()
    return [
        Ended(process.exitcode, (folder / f"stderr-{rank}").read_text())
        for rank, process in enumerate(processes)
    ]


def start_ranks(
    size: int, folder: Path, function: Callable[..., None], *arguments: object
) -> list[BaseProcess]:
    """The processes of `run_ranks`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    processes: list[BaseProcess] = []
    files = [folder / f"stderr-{rank}" for rank in range(size)]
    for rank, file in enumerate(files):
        environment = {**meeting, "WORLD_SIZE": str(size), "RANK": str(rank)}
        begin = (environment, file, function, arguments)
        processes.append(_FORKED.Process(target=_begin, args=begin))
    for process in processes:
        process.start()
    return processes


def _begin(
    environment: dict[str, str],
    stderr: Path,
    function: Callable[..., None],
    arguments: tuple[object, ...],
) -> None:
    os.environ.update(environment)
    with stderr.open("w") as file:
        os.dup2(file.fileno(), 2)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    function(*arguments)
    # A thread that ends its work while the interpreter does aborts the process.
    left = [name for name in _threads() if "gloo" in name]
    assert not left, left


def _threads() -> list[str]:
    """Names of this process' threads, where the system tells them."""
    return [path.read_text() for path in Path("/proc/self/task").glob("*/comm")]
