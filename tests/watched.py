"""A command of ours as a user runs it, with all that it starts, watched from outside."""

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
    status: int | None
    output: str
    errors: str
    peak_bytes: int
    left: tuple[str, ...]


def watch(arguments: list[Any], limit_s: float) -> Run:
    """Run a command of ours with all its processes; status None if it takes longer."""
    with (
        tempfile.TemporaryDirectory() as folder,
        tempfile.TemporaryFile() as outputs,
        tempfile.TemporaryFile() as errors,
    ):
        process = subprocess.Popen(
            [sys.executable, "-m", "avprep", *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=outputs,
            stderr=errors,
            env={**os.environ, "TMPDIR": folder},
            start_new_session=True,
        )
        deadline = time.monotonic() + limit_s
        done, status, usage = 0, 0, None
        while not done and time.monotonic() < deadline:
            time.sleep(0.05)
            done, status, usage = os.wait4(process.pid, os.WNOHANG)
        left = [] if not done else _still_running(process.pid)
        _kill(process.pid)
        if not done:
            _, _, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status) if done else -signal.SIGKILL
        outputs.seek(0)
        errors.seek(0)
        left += [f"a temporary file {path.name}" for path in Path(folder).iterdir()]
        return Run(
            process.returncode if done else None,
            outputs.read().decode(errors="replace"),
            errors.read().decode(errors="replace"),
            0 if usage is None else usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
            tuple(left),
        )


def _still_running(group: int) -> list[str]:
    """What of a process group still runs some seconds after its leader has ended."""
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
