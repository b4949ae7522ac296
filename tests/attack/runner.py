"""Run one command in a process of its own, with limits, and watch it from outside.

A command takes seconds to import its packages, so this process imports them once and forks. With
``spawn`` a command is a program of its own, as a user runs it.

Memory is the largest resident size of any process of the command, as the kernel reports it when it
ends and as it is seen meanwhile. Address space would say nothing: torch reserves far more than it
uses. `BRAKE_BYTES` of private memory (RLIMIT_DATA) and `BRAKE_FILE_BYTES` for a file only keep the
machine alive.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import resource
import signal
import socket
import sys
import tempfile
import threading
import time
import traceback
import types
import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import click

from tests.attack import processes

LIMIT_S, LIMIT_BYTES = 20.0, 2_000_000_000
MOST_PROCESSES = 48
BRAKE_BYTES, BRAKE_FILE_BYTES = 5_000_000_000, 500_000_000
_DEATH_SIGNAL, _SUBREAPER = 1, 36  # of prctl()


@dataclass(frozen=True)
class Outcome:
    """How a command ended. ``status`` is negative for a signal, None where it had to be killed;
    ``cpu_s`` is the time of its processor; ``left``: processes that outlived it."""

    status: int | None
    output: bytes
    errors: bytes
    seconds: float
    cpu_s: float
    peak_bytes: int
    left: tuple[str, ...] = ()
    ports: tuple[str, ...] = ()
    calls: int = 0
    processes: int = 0


class Decoy:
    """A server on this machine that nothing may call."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.setblocking(False)
        self.port: int = self._socket.getsockname()[1]

    def calls(self) -> int:
        """Number of calls since the last time."""
        count = 0
        with suppress(BlockingIOError):
            while True:
                self._socket.accept()[0].close()
                count += 1
        return count


def adopt_orphans() -> None:
    """Processes that outlive their parents become children of this process, which sees them."""
    ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)


def import_commands() -> None:
    """Import what commands need, once."""
    import av  # noqa: F401
    import matplotlib.figure
    import matplotlib.font_manager  # noqa: F401
    import torch

    import avprep.build.build_shards
    import avprep.cli.main
    import avprep.look.info
    import avprep.look.preview
    import avprep.look.verify
    import avprep.view.content
    import avprep.view.page  # noqa: F401
    import avtrain.cli.main
    import avtrain.evals.embed
    import avtrain.evals.retrieval
    import avtrain.pretrain.loop
    import avtrain.report.page  # noqa: F401

    torch.set_num_threads(1)


def group(program: str) -> click.Group:
    """All commands of ``avprep`` or ``avtrain``."""
    if program == "avprep":
        from avprep.cli.main import main

        return main
    from avtrain.cli.main import main as training

    return training


def run(
    command: list[str],
    folder: Path,
    variables: dict[str, str],
    decoy: Decoy,
    limit_s: float = LIMIT_S,
    spawn: bool = False,
) -> Outcome:
    """Run ``avprep …`` or ``avtrain …`` in a folder."""

    def body() -> None:
        if spawn:
            os.execv(sys.executable, [sys.executable, "-m", *command])
        sys.argv = list(command)
        group(command[0])(command[1:], prog_name=command[0])

    return watch(body, folder, variables, decoy, limit_s)


def watch(
    body: Callable[[], object],
    folder: Path,
    variables: dict[str, str],
    decoy: Decoy,
    limit_s: float = LIMIT_S,
) -> Outcome:
    """Call a function in a forked process, as Python would run a program, and watch it."""
    decoy.calls()
    started = time.monotonic()
    sys.stdout.flush()
    sys.stderr.flush()
    outputs = [os.memfd_create(name) for name in ("output", "errors")]
    process = os.fork()
    if process == 0:
        _become(body, folder, variables, outputs)
    peak, most, ports = 0, 0, set[str]()
    status, usage = None, None
    while usage is None:
        ended, code, used = os.wait4(process, os.WNOHANG)
        if ended:
            status, usage = os.waitstatus_to_exitcode(code), used
            break
        now = processes.descendants()
        peak, most = max(peak, processes.resident(now)), max(most, len(now))
        ports |= processes.listening(now, decoy.port)
        seconds = time.monotonic() - started
        if seconds > limit_s or peak > 1.2 * LIMIT_BYTES or most > MOST_PROCESSES:
            break
        time.sleep(min(0.2, max(0.005, 0.1 * seconds)))
    seconds = time.monotonic() - started
    left = processes.left() if usage is not None else ()
    if usage is None:
        processes.kill_all()
        _, _, usage = os.wait4(process, 0)
    processes.kill_all()
    processes.reap()
    peak = max(peak, usage.ru_maxrss * 1024)
    output, errors = map(_content, outputs)
    cpu_s = usage.ru_utime + usage.ru_stime
    return Outcome(
        status,
        output,
        errors,
        seconds=seconds,
        cpu_s=cpu_s,
        peak_bytes=peak,
        left=left,
        ports=tuple(sorted(ports)),
        calls=decoy.calls(),
        processes=most,
    )


def _content(descriptor: int) -> bytes:
    with os.fdopen(descriptor, "rb") as file:
        file.seek(0)
        return file.read()


def _become(
    body: Callable[[], object], folder: Path, variables: dict[str, str], outputs: list[int]
) -> None:
    """The forked process: calls the function and ends as a program does. Never returns."""
    code = 70
    try:
        ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.setsid()
        os.chdir(folder)
        os.environ.update(variables)
        for number, descriptor in enumerate((os.open(os.devnull, os.O_RDONLY), *outputs)):
            os.dup2(descriptor, number)
        os.closerange(3, 256)
        resource.setrlimit(resource.RLIMIT_DATA, (BRAKE_BYTES, BRAKE_BYTES))
        resource.setrlimit(resource.RLIMIT_FSIZE, (BRAKE_FILE_BYTES, BRAKE_FILE_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        main = types.ModuleType("__main__")  # what worker processes import
        sys.modules["__main__"] = main
        tempfile.tempdir = None
        weakref.finalize._registry.clear()  # type: ignore[attr-defined]  # this process's own
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
        try:
            body()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:
            traceback.print_exc()
            code = 1
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:  # of this file, not of the command
        traceback.print_exc()
    finally:
        os._exit(code)
