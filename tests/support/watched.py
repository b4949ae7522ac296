"""A command of avprep as a user runs it, with all its processes, watched from outside."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Run:
    """How a command ended: exit status (None: killed after its time limit), what it printed, the
    largest memory of its processes, and what it left behind."""

    status: int | None
    output: str
    errors: str
    peak_bytes: int
    left: tuple[str, ...]


# A process inherits the peak memory of the process that starts it. A test runner may have held
# networks, so a small process stands between.
_BETWEEN = """
import resource, subprocess, sys
status = subprocess.call(sys.argv[2:])
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
open(sys.argv[1], "w").write(f"{status} {peak}")
"""


def watch(arguments: list[Any], limit_s: float) -> Run:
    """Run ``avprep ARGUMENTS``; kill it with all its processes after ``limit_s`` seconds."""
    with (
        tempfile.TemporaryDirectory() as folder,
        tempfile.NamedTemporaryFile("r") as said,
        tempfile.TemporaryFile() as outputs,
        tempfile.TemporaryFile() as errors,
    ):
        between = [sys.executable, "-ISc", _BETWEEN, said.name]
        process = subprocess.Popen(
            [*between, sys.executable, "-m", "avprep", *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=outputs,
            stderr=errors,
            env={**os.environ, "TMPDIR": folder},
            start_new_session=True,
        )
        with suppress(subprocess.TimeoutExpired):
            process.wait(limit_s)
        done = process.returncode is not None
        left = [] if not done else _still_running(process.pid)
        _kill(process.pid)
        process.wait()
        status, peak = None, 0
        if done:
            status, peak = map(int, said.read().split())
        outputs.seek(0)
        errors.seek(0)
        left += [f"a temporary file {path.name}" for path in Path(folder).iterdir()]
        return Run(
            status,
            outputs.read().decode(errors="replace"),
            errors.read().decode(errors="replace"),
            peak * (1 if sys.platform == "darwin" else 1024),
            tuple(left),
        )


def _still_running(group: int) -> list[str]:
    """Processes of a group that still run some seconds after its leader has ended."""
    running: list[str] = []
    for _ in range(40):
        command = ["ps", "-eo", "pgid=,stat=,args="]
        listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        rows = [line.split(maxsplit=2) for line in listing.splitlines()]
        running = [row[-1] for row in rows if row[0] == str(group) and row[1][0] != "Z"]
        if not running:
            break
        time.sleep(0.1)
    return [f"running: {what[:200]}" for what in running]


def _kill(group: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
