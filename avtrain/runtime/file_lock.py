"""Locks on files that only one process may write, held for as long as it lives."""

from __future__ import annotations

import fcntl
import os
from typing import IO, Any

_LOCKED: set[int] = set()
"""File descriptors."""


def try_lock(file: IO[Any]) -> bool:
    """Lock the file unless another process has locked it; returns whether it is not. The lock lasts
    until this process calls `release` and closes the file, or ends."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # storage that has no locks
    _LOCKED.add(file.fileno())
    return True


def release(file: IO[Any]) -> None:
    """Call this before the file is closed."""
    _LOCKED.discard(file.fileno())


def _release_in_child() -> None:
    """Redirect a forked child's descriptors of locked files to the null device: otherwise the child
    would keep its parent's locks even after the parent's death."""
    for locked in _LOCKED:
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, locked)
        os.close(nothing)
    _LOCKED.clear()


os.register_at_fork(after_in_child=_release_in_child)
