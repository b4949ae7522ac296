"""Worker processes on this machine. A task that hangs or crashes loses only itself."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import pickle
import signal
import sys
import tempfile
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
from typing import Any, BinaryIO, TypeVar

from avprep.errors import UserError

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

ReportStep = Callable[[int | None], object]
"""A function in a worker calls this with the number of each step that it begins, or with None
before work that has no time limit."""
_POLL_S = 0.2
_BLAS_THREADS = "OPENBLAS_NUM_THREADS"
_TERMINATE_S = 5.0
_MAX_IDLE_DEATHS = 3
_START_S = 600.0
"""Seconds that a process has to import what it needs, on a busy machine and over a slow network."""
_MAX_SHOWN = 200
_SET_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of Linux's prctl()


@dataclass(frozen=True)
class Lost:
    """Takes the place of a result: the process crashed in this step or, if ``timed_out``, was
    stopped in it."""

    step: int
    timed_out: bool


class ProcessPool:
    """Up to ``count`` worker processes, started when they are needed."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._idle: list[_Worker] = []

    def close(self) -> None:
        _stop(self._idle)

    def run(
        self,
        function: Callable[[_Item, ReportStep], _Result],
        items: Sequence[_Item],
        limit_s: float,
        on_step: Callable[[int, int], object] = lambda number, step: None,
    ) -> Iterator[tuple[int, _Result | Lost]]:
        """Call a function with every item; yields (item number, result) in order of completion.

        An item whose step takes longer than ``limit_s`` is lost at once. An item that crashes its
        process is tried again while no other item is being processed, because memory may have been
        short. ``on_step`` is called with the item number and step. Exceptions that the function
        raises are raised here.
        """
        waiting = deque(range(len(items)))
        crashed: deque[int] = deque()
        busy: list[_Worker] = []
        idle_deaths, before_s = 0, time.monotonic()
        try:
            while waiting or crashed or busy:
                alone = not waiting and not busy
                queue = crashed if alone else waiting
                while queue and len(busy) < (1 if alone else self._count):
                    try:
                        worker = self._idle.pop() if self._idle else _Worker()
                    except OSError as error:
                        if not busy:
                            raise _cannot_start(str(error.strerror)) from None
                        self._count = len(busy)  # go on with those that there are
                        break
                    busy.append(worker)
                    number = queue.popleft()
                    worker.start(number, function, items[number], alone)
                for worker in _wait(busy):
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
                    elif isinstance(message, _Unable):
                        _stop([worker])
                        raise _cannot_start(message.reason)
                    elif worker.step is None:
                        idle_deaths += 1
                        if idle_deaths == _MAX_IDLE_DEATHS:
                            raise _cannot_start(worker.how_it_ended())
                        waiting.appendleft(worker.number)
                    elif worker.is_alone:
                        yield worker.number, Lost(worker.step, timed_out=False)
                    else:
                        crashed.append(worker.number)
                # Time in which the whole program was suspended (Ctrl-Z) does not count.
                passed_s, before_s = min(time.monotonic() - before_s, 1.0), time.monotonic()
                for worker in busy:
                    worker.spent_s += passed_s
                if any(worker.step is None and worker.spent_s > _START_S for worker in busy):
                    raise _cannot_start(f"they do not begin within {_START_S:g} s")
                for worker in [w for w in busy if w.is_limited and w.spent_s > limit_s]:
                    busy.remove(worker)
                    _stop([worker])
                    yield worker.number, Lost(worker.step or 0, timed_out=True)
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


@dataclass(frozen=True)
class _Unable:
    reason: str


def _cannot_start(reason: str) -> UserError:
    return UserError(
        f"worker processes cannot start: {reason}; if memory or the number of processes is "
        "limited, run the same command again with fewer --workers"
    )


class _Worker:
    """A process and its current item. ``step`` is None until the process has begun with the item;
    ``spent_s`` is the time spent on the step."""

    def __init__(self) -> None:
        # "fork" breaks with threads; with "forkserver", the children's CPU time cannot be measured.
        context: SpawnContext = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._messages: BinaryIO | None = None
        with suppress(OSError):  # no room for temporary files: do without
            self._messages = tempfile.TemporaryFile()  # noqa: SIM115
        with theirs, _standard_error(self._messages) as stderr, _single_threaded_blas():
            self._process = context.Process(target=_work, args=(theirs, stderr), daemon=True)
            self._process.start()
        self.number = 0
        self.step: int | None = None
        self.is_alone = False
        self.is_limited = False
        self.spent_s = 0.0

    def start(self, number: int, function: Any, item: Any, alone: bool) -> None:
        self.number, self.step, self.is_alone, self.is_limited = number, None, alone, False
        self.spent_s = 0.0
        with suppress(BrokenPipeError, ConnectionResetError):  # `receive` will notice
            self._connection.send((function, item))

    def receive(self) -> _Begun | _Done | _Raised | _Unable | None:
        """The next message; None if the process has ended."""
        try:
            message: _Begun | _Done | _Raised | _Unable = self._connection.recv()
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

    def how_it_ended(self) -> str:
        """How the process ended before it could say why, with the last line that it printed."""
        status = self._process.exitcode or 0
        ended = f"they end with exit status {status}"
        if status < 0:
            ended = f"they are ended by signal {-status} ({signal.strsignal(-status)})"
        lines = []
        if self._messages is not None:
            self._messages.seek(0)
            lines = self._messages.read(1 << 20).decode(errors="replace").split("\n")
        last = next((line for line in reversed(lines) if line.strip()), "")[:_MAX_SHOWN]
        return f"{ended} ({last})" if last else ended

    def terminate(self) -> None:
        self._process.terminate()

    def kill(self, after_s: float = 0.0) -> None:
        self._process.join(after_s)
        self._process.kill()
        self._process.join()
        self._connection.close()


@contextmanager
def _standard_error(messages: BinaryIO | None) -> Iterator[Connection[Any, Any] | None]:
    """Processes started inside write their messages to a file, until they have begun: Python says
    there why it cannot. Yields the standard error for them to go back to."""
    try:
        stderr: Connection[Any, Any] = Connection(os.dup(2), readable=False)
    except OSError:  # it is closed
        yield None
        return
    with stderr:
        if messages is not None:
            os.dup2(messages.fileno(), 2)
        try:
            yield stderr
        finally:
            os.dup2(stderr.fileno(), 2)


@contextmanager
def _single_threaded_blas() -> Iterator[None]:
    """Processes started inside do linear algebra in one thread each: OpenBLAS's idle threads
    busy-wait, which slows down the other processes."""
    before = os.environ.get(_BLAS_THREADS)
    os.environ[_BLAS_THREADS] = "1"
    try:
        yield
    finally:
        del os.environ[_BLAS_THREADS]
        if before is not None:
            os.environ[_BLAS_THREADS] = before


def _wait(busy: list[_Worker]) -> list[_Worker]:
    """The workers that have sent a message, after at most ``_POLL_S``."""
    ready = connection.wait([worker.connection for worker in busy], _POLL_S)
    return [worker for worker in busy if worker.connection in ready]


def _stop(workers: list[_Worker]) -> None:
    # A worker that is terminated also ends its ffmpeg. It cannot while a decoder hangs inside it;
    # then it is killed.
    for worker in workers:
        worker.terminate()
    for worker in workers:
        worker.kill(after_s=_TERMINATE_S)
    workers.clear()


def _exit_on_signal(_: int, frame: FrameType | None) -> None:
    if frame is not None and frame.f_globals.get("__name__") == "soundfile":
        # An exception raised in a callback from C would be lost: try again a little later.
        signal.setitimer(signal.ITIMER_REAL, 0.01)
    else:
        sys.exit(1)


def exit_with_parent() -> None:
    """Call this in a worker process: it then ends at once when its parent has been killed, even
    while it is stopped or busy in C (on Linux), and writes nothing more."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, int(signal.SIGKILL))
    # It also finds a parent that was killed before this.
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(orders: Connection[Any, Any], stderr: Connection[Any, Any] | None) -> None:
    """The main function of a worker process."""
    exit_with_parent()
    # Ctrl-C reaches all processes; the parent stops its workers, which leave no half-written files.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGALRM):
        signal.signal(number, _exit_on_signal)
    if stderr is not None:
        os.dup2(stderr.fileno(), 2)
        stderr.close()

    def report_step(step: int | None) -> None:
        orders.send(_Begun(step))

    with suppress(EOFError, BrokenPipeError, ConnectionResetError):  # the parent has ended
        while True:
            try:
                function, item = orders.recv()
            except (EOFError, ConnectionResetError):
                raise
            except Exception as error:  # what the function needs cannot be imported
                orders.send(_Unable(_describe(error)))
                return
            report_step(0)
            orders.send(_result(function, item, report_step))


def _result(function: Any, item: Any, report_step: ReportStep) -> _Done | _Raised | _Unable:
    try:
        return _Done(function(item, report_step))
    except ModuleNotFoundError as error:
        return _Raised(error)  # the command says which package to install
    except ImportError as error:
        return _Unable(_describe(error))
    except Exception as error:
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:
            return _Raised(RuntimeError(_describe(error)))
        return _Raised(error)


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error!s:.{_MAX_SHOWN}}"
