"""Worker processes of this machine: what hangs in one of them, or ends it, costs itself alone."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnContext
from types import FrameType
from typing import Any, TypeVar

from avprep.errors import UserError

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

Starting = Callable[[int | None], object]
"""Called by a function in a worker with the number of each step that it begins; None: with what
may take as long as it likes."""
_POLL_S = 0.2
_BLAS_THREADS = "OPENBLAS_NUM_THREADS"
_STOP_S = 5.0
_MOST_IDLE_DEATHS = 3


@dataclass(frozen=True)
class Lost:
    """Stands for a result: in this step its process ended or, if ``late``, was ended."""

    step: int
    late: bool


class Crew:
    """Up to ``count`` worker processes."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._idle: list[_Worker] = []

    def close(self) -> None:
        _stop(self._idle)

    def run(
        self,
        function: Callable[[_Item, Starting], _Result],
        items: Sequence[_Item],
        limit_s: float,
        on_step: Callable[[int, int], object] = lambda number, step: None,
    ) -> Iterator[tuple[int, _Result | Lost]]:
        """Call a function for all items; yields their numbers and results as they come.

        A step that takes longer than ``limit_s`` loses its item at once; one that ends its process
        is tried again while nothing else is done, since memory may have been short. ``on_step`` is
        told each item's number and step. What the function raises is raised here.
        """
        waiting = deque(range(len(items)))
        doubtful: deque[int] = deque()
        busy: list[_Worker] = []
        idle_deaths, before_s = 0, time.monotonic()
        try:
            while waiting or doubtful or busy:
                alone = not waiting and not busy
                queue = doubtful if alone else waiting
                while queue and len(busy) < (1 if alone else self._count):
                    worker = self._idle.pop() if self._idle else _Worker()
                    busy.append(worker)
                    number = queue.popleft()
                    worker.give(number, function, items[number], alone)
                for worker in _ready(busy):
                    message = worker.receive()
                    if isinstance(message, _Begun):
                        if message.step is not None:
                            on_step(worker.number, message.step)
                        continue
                    busy.remove(worker)
                    if isinstance(message, _Done):
                        self._idle.append(worker)
                        yield worker.number, message.result
                    elif isinstance(message, _Raised):
                        self._idle.append(worker)
                        raise message.error
                    elif worker.step is None:
                        idle_deaths += 1
                        if idle_deaths == _MOST_IDLE_DEATHS:
                            raise UserError(
                                "worker processes die before they begin, perhaps for want of "
                                "memory; run the same command again, with fewer --workers"
                            )
                        waiting.appendleft(worker.number)
                    elif worker.is_alone:
                        yield worker.number, Lost(worker.step, late=False)
                    else:
                        doubtful.append(worker.number)
                # While all of this was stopped (Ctrl-Z), nobody was at work.
                passed_s, before_s = min(time.monotonic() - before_s, 1.0), time.monotonic()
                for worker in busy:
                    worker.spent_s += passed_s
                for worker in [w for w in busy if w.is_limited and w.spent_s > limit_s]:
                    busy.remove(worker)
                    _stop([worker])
                    yield worker.number, Lost(worker.step or 0, late=True)
        finally:
            _stop(busy)


@dataclass(frozen=True)
class _Begun:
    step: int | None


@dataclass(frozen=True)
class _Done:
    result: Any


@dataclass(frozen=True)
class _Raised:
    error: Exception


class _Worker:
    """A process, and what it is doing: ``step`` is None until it has begun, and ``spent_s`` the
    time that it has taken for the step so far."""

    def __init__(self) -> None:
        # Not fork, which threads do not survive, nor a fork server, whose children's time nobody
        # can account for.
        context: SpawnContext = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs,), daemon=True)
        with _one_thread():
            self._process.start()
        theirs.close()
        self.number = 0
        self.step: int | None = None
        self.is_alone = False
        self.is_limited = False
        self.spent_s = 0.0

    def give(self, number: int, function: Any, item: Any, alone: bool) -> None:
        self.number, self.step, self.is_alone, self.is_limited = number, None, alone, False
        with suppress(BrokenPipeError, ConnectionResetError):  # `receive` will say so
            self._connection.send((function, item))

    def receive(self) -> _Begun | _Done | _Raised | None:
        """The next message, None from a process that has ended."""
        try:
            message: _Begun | _Done | _Raised = self._connection.recv()
        except (EOFError, OSError):
            self.kill()
            return None
        if isinstance(message, _Begun):
            self.spent_s, self.is_limited = 0.0, message.step is not None
            self.step = self.step if message.step is None else message.step
        return message

    @property
    def connection(self) -> Connection[Any, Any]:
        return self._connection

    def terminate(self) -> None:
        self._process.terminate()

    def kill(self, after_s: float = 0.0) -> None:
        self._process.join(after_s)
        self._process.kill()
        self._process.join()
        self._connection.close()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Processes that are begun meanwhile do linear algebra in one thread each: those that OpenBLAS
    keeps would only wait for work, which costs the others time."""
    before = os.environ.get(_BLAS_THREADS)
    os.environ[_BLAS_THREADS] = "1"
    try:
        yield
    finally:
        del os.environ[_BLAS_THREADS]
        if before is not None:
            os.environ[_BLAS_THREADS] = before


def _ready(busy: list[_Worker]) -> list[_Worker]:
    ready = connection.wait([worker.connection for worker in busy], _POLL_S)
    return [worker for worker in busy if worker.connection in ready]


def _stop(workers: list[_Worker]) -> None:
    # Asked to end, a worker ends its ffmpeg too; it cannot where a decoder hangs inside it.
    for worker in workers:
        worker.terminate()
    for worker in workers:
        worker.kill(after_s=_STOP_S)
    workers.clear()


def _end(_: int, frame: FrameType | None) -> None:
    if frame is not None and frame.f_globals.get("__name__") == "soundfile":
        # An exception would be lost in what a C library calls back: again, a little later.
        signal.setitimer(signal.ITIMER_REAL, 0.01)
    else:
        sys.exit(1)


def end_with_parent() -> None:
    """In a worker process: what was killed ends in all its processes, and writes nothing more."""
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(orders: Connection[Any, Any]) -> None:
    """What a worker process does."""
    # The parent tells its workers when to stop; they leave nothing half-written.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGALRM):
        signal.signal(number, _end)
    end_with_parent()

    def starting(step: int | None) -> None:
        orders.send(_Begun(step))

    with suppress(EOFError, OSError):  # the parent has ended
        while True:
            function, item = orders.recv()
            starting(0)
            try:
                message: _Done | _Raised = _Done(function(item, starting))
            except Exception as error:
                message = _Raised(error)
            orders.send(message)
