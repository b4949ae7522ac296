"""A pipe by which child processes end with their parent, however that ends."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import threading
import weakref
from contextlib import suppress
from multiprocessing.connection import Connection


class Lifeline:
    """Child processes that hold the ``end`` exit as soon as this process cuts the line, or ends:
    by itself, by an error, or killed."""

    def __init__(self) -> None:
        self.end, self._own = multiprocessing.Pipe(duplex=False)
        _LINES.add(self)

    def cut(self) -> None:
        self._own.close()
        self.end.close()


_LINES: weakref.WeakSet[Lifeline] = weakref.WeakSet()


def hold(end: Connection) -> None:
    """End this process when the lifeline is cut, whatever it is doing then."""

    def wait() -> None:
        with suppress(EOFError, OSError):
            end.recv_bytes()
        os._exit(0)  # sys.exit would end this thread alone

    threading.Thread(target=wait, name="lifeline", daemon=True).start()


def _let_go() -> None:
    """In a forked child: it must not keep lines uncut that its parent cuts."""
    for line in list(_LINES):
        line._own.close()
    _LINES.clear()


@atexit.register  # before the function by which multiprocessing waits for children, and for ever
def _cut_all() -> None:
    for line in list(_LINES):
        line.cut()


os.register_at_fork(after_in_child=_let_go)
