"""Files that one process writes alone, as long as it lives."""

from __future__ import annotations

import fcntl
import os
from typing import IO, Any

_HELD: set[int] = set()
"""File descriptors."""


def hold(file: IO[Any]) -> bool:
    """Whether no other process holds the file; if so, this one does until it closes it, after
    `let_go`, or ends."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # storage that has no locks
    _HELD.add(file.fileno())
    return True


def let_go(file: IO[Any]) -> None:
    """Before the file is closed."""
    _HELD.discard(file.fileno())


def _let_go_of_all() -> None:
    """In a forked child, which would hold its parent's files even after the parent's death: its
    descriptors of them become those of nothing."""
    for held in _HELD:
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, held)
        os.close(nothing)
    _HELD.clear()


os.register_at_fork(after_in_child=_let_go_of_all)
