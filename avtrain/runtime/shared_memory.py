"""Shared memory, through which loader processes deliver batches; containers often have little."""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from multiprocessing.queues import Queue
from typing import Any

from torch import Tensor

from avtrain.errors import TrainingError
from shards.errors import show

FOLDER = "/dev/shm"
PAGES_PER_QUEUE = 8
"""Its semaphores lie in shared memory too."""
LONGEST_FOLDER = 60
"""A socket's path has at most 107 bytes (103 on a Mac), and multiprocessing adds up to 40."""


@dataclass(frozen=True)
class Room:
    """Shared memory for the batches of ``workers`` loader processes, ``waiting`` at a time."""

    workers: int
    waiting: int
    free_bytes: int
    all_bytes: int
    """Free before these loader processes began, and with that of other processes."""

    @classmethod
    def measure(cls, workers: int, waiting: int) -> Room | None:
        """None where shared memory is no folder, or has no limit."""
        try:
            found = os.statvfs(FOLDER)
        except OSError:
            return None
        if not found.f_blocks:
            return None
        free, size = found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize
        return cls(workers, waiting, free, size)

    def check(self, tensors: Iterable[Tensor]) -> None:
        """Raise TrainingError if these tensors of one batch, times the batches that wait, do not
        fit: into what is free, and those of this machine's ranks into what there is."""
        pages = sum(-(-tensor.nbytes // mmap.PAGESIZE) for tensor in tensors)
        pages = pages * self.waiting + PAGES_PER_QUEUE * (self.workers + 1)
        needed, ranks = pages * mmap.PAGESIZE, int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        if needed <= self.free_bytes and needed * ranks <= self.all_bytes:
            return
        of_ranks = f" each of {ranks} ranks" * (ranks > 1)
        raise TrainingError(
            f"{FOLDER} has {self.free_bytes / 1e6:.0f} MB free of {self.all_bytes / 1e6:.0f} MB, "
            f"but {self.waiting} batches of {self.workers} loader process"
            f"{'es' * (self.workers > 1)}{of_ranks} take {needed / 1e6:.0f} MB; {REMEDY}"
        )


REMEDY = (
    "give the container more (`docker run --shm-size=8g`), use fewer loader processes "
    "(--num-workers; 0 needs no shared memory), or make batches smaller"
)


def share(tensors: Iterable[Tensor]) -> None:
    """Move tensors to shared memory. Raises TrainingError if there is too little."""
    try:
        for tensor in tensors:
            if tensor.nbytes:
                tensor.share_memory_()  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        raise TrainingError(
            f"shared memory is short ({str(error).splitlines()[0]:.150}); {REMEDY}"
        ) from None


def deliver_or_end() -> None:
    """In a loader process: batches that cannot be delivered end it, where they would be lost in
    silence. PyTorch delivers them through a socket, whose path must be short."""
    if len(os.fsencode(tempfile.gettempdir())) > LONGEST_FOLDER:
        tempfile.tempdir = "/tmp"
    Queue._on_queue_feeder_error = staticmethod(_end)  # type: ignore[attr-defined]


def _end(error: Exception, batch: object) -> None:
    show(f"a loader process cannot deliver a batch: {error}", err=True)
    os._exit(1)


def tensors_of(value: Any) -> Iterator[Tensor]:
    """All tensors in a batch: in the fields of dataclasses, in tuples and in lists."""
    if isinstance(value, Tensor):
        yield value
    elif is_dataclass(value):
        for field in fields(value):
            yield from tensors_of(getattr(value, field.name))
    elif isinstance(value, tuple | list):
        for part in value:
            yield from tensors_of(part)
