"""Processes as Linux shows them."""

from __future__ import annotations

from pathlib import Path


def children(process: int) -> list[str]:
    """Process ids of its children."""
    return Path(f"/proc/{process}/task/{process}/children").read_text().split()


def lives(process: str) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"
