"""The processes below this one, as Linux shows them."""

from __future__ import annotations

import os
import resource
import signal
import time
from contextlib import suppress
from pathlib import Path

_LEAVE_S = 3.0
_PAGE = resource.getpagesize()


def _children(process: str) -> list[str]:
    """Children of a process that have not ended."""
    found: list[str] = []
    with suppress(OSError), os.scandir(f"/proc/{process}/task") as threads:
        for thread in threads:
            with suppress(OSError):
                found += Path(thread.path, "children").read_text().split()
    return [child for child in found if _lives(child)]


def _lives(process: str) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


def descendants() -> list[str]:
    """Processes below this one, without those that have ended."""
    found, waiting = [], [str(os.getpid())]
    while waiting:
        below = _children(waiting.pop())
        found += below
        waiting += below
    return found


def resident(processes: list[str]) -> int:
    """Largest resident size of a process, bytes."""
    sizes = [0]
    for process in processes:
        with suppress(OSError, IndexError, ValueError):
            sizes.append(int(Path(f"/proc/{process}/statm").read_text().split()[1]) * _PAGE)
    return max(sizes)


def listening(processes: list[str], decoy: int) -> set[str]:
    """UDP and listening TCP sockets that processes hold, but not the decoy's:
    for a moment, a forked process has all that this one has."""
    sockets: dict[str, str] = {}
    for kind in ("udp", "udp6", "tcp", "tcp6"):
        with suppress(OSError):
            for line in Path(f"/proc/net/{kind}").read_text().splitlines()[1:]:
                fields = line.split()
                if int(fields[1].rpartition(":")[2], 16) == decoy:
                    continue
                if kind.startswith("udp") or fields[3] == "0A":
                    sockets[f"socket:[{fields[9]}]"] = f"{kind} {fields[1]}"
    found = set()
    for below in processes if sockets else ():
        with suppress(OSError), os.scandir(f"/proc/{below}/fd") as entries:
            for entry in entries:
                with suppress(OSError):
                    found.add(sockets.get(str(Path(entry.path).readlink()), ""))
    return found - {""}


def left() -> tuple[str, ...]:
    """Processes that still run some seconds after the command has ended."""
    until = time.monotonic() + _LEAVE_S
    while running := descendants():
        if time.monotonic() > until:
            break
        reap()
        time.sleep(0.02)
    found = []
    for process in running:
        with suppress(OSError):
            text = Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ")
            found.append(text.decode(errors="replace")[:200])
    return tuple(found)


def reap() -> None:
    """Forget processes that have ended."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def kill_all() -> None:
    """Kill every process below this one, and wait for their end; all were started by commands."""
    until = time.monotonic() + _LEAVE_S
    while (running := descendants()) and time.monotonic() < until:
        for process in running:
            with suppress(OSError):
                os.kill(int(process), signal.SIGKILL)
        time.sleep(0.005)
