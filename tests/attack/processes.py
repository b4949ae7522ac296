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


def _stat(process: str) -> list[str] | None:
    """Fields of /proc/PID/stat after the name: state, parent, group, session, …"""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def descendants() -> list[str]:
    """Processes below this one, without those that have ended."""
    parents: dict[str, list[str]] = {}
    with os.scandir("/proc") as entries:
        names = [entry.name for entry in entries if entry.name.isdigit()]
    for name in names:
        fields = _stat(name)
        if fields is not None and fields[0] not in "ZX":
            parents.setdefault(fields[1], []).append(name)
    found, waiting = [], [str(os.getpid())]
    while waiting:
        below = parents.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def resident() -> int:
    """Largest resident size of a process below this one, bytes."""
    sizes = [0]
    for process in descendants():
        with suppress(OSError, IndexError, ValueError):
            sizes.append(int(Path(f"/proc/{process}/statm").read_text().split()[1]) * _PAGE)
    return max(sizes)


def listening(decoy: int) -> set[str]:
    """UDP and listening TCP sockets that the processes below this one hold, but not the decoy's:
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
    for below in descendants() if sockets else ():
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
        _reap()
        time.sleep(0.02)
    found = []
    for process in running:
        with suppress(OSError):
            text = Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ")
            found.append(text.decode(errors="replace")[:200])
    return tuple(found)


def _reap() -> None:
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def kill_all() -> None:
    """Kill every process below this one; all of them were started by commands."""
    for process in descendants():
        with suppress(OSError):
            os.kill(int(process), signal.SIGKILL)
