"""Resident memory of a pretraining and of its loader workers, over its whole run.

    python -m benchmarks.training_memory [--every 10] SHARDS --out RUN [options of avtrain pretrain]

Runs `avtrain pretrain` with these arguments and looks at its processes. Shows what they held at ten
moments, and how fast that grew in the second half of the run, by a straight line: MB an hour. Linux
only; what processes share counts for each.
"""

from __future__ import annotations

import subprocess
import sys
import time
from argparse import ArgumentParser

import numpy as np

from benchmarks.memory import family_of


def watch(command: list[str], every_s: float) -> list[tuple[float, dict[str, float]]]:
    """Seconds, and the megabytes of each process then."""
    seen: list[tuple[float, dict[str, float]]] = []
    began = time.monotonic()
    with subprocess.Popen(command) as run:
        while run.poll() is None:
            held = {
                "trainer" if pid == run.pid else f"worker {pid}": _megabytes(status)
                for pid, status in sorted(family_of(run.pid).items())
            }
            seen.append((time.monotonic() - began, held))
            time.sleep(every_s)
        if run.returncode:
            sys.exit(f"the run failed: {' '.join(command)}")
    return seen


def _megabytes(status: dict[str, str]) -> float:
    return int(status.get("VmRSS", "0 kB").split()[0]) / 1024


def main() -> None:
    parser = ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--every", type=float, default=10, help="seconds")
    given, arguments = parser.parse_known_args()
    seen = watch([sys.executable, "-m", "avtrain", "pretrain", *arguments], given.every)
    seconds = np.array([moment for moment, _ in seen])
    late = seconds > seconds[-1] / 2
    names = ["trainer", *sorted({name for _, held in seen for name in held} - {"trainer"})]
    moments = np.linspace(len(seen) // 10, len(seen) - 1, 10).astype(int)
    print(f"| minutes | {' | '.join(f'{seconds[at] / 60:.0f}' for at in moments)} | MB an hour |")
    print(f"| --- |{' --- |' * (len(moments) + 1)}")
    for name in names:
        held = np.array([of.get(name, np.nan) for _, of in seen])
        there = late & np.isfinite(held)
        cells = [f"{held[at]:.0f}" for at in moments]
        if there.sum() > 2:
            cells.append(f"{3600 * np.polyfit(seconds[there], held[there], 1)[0]:+.1f}")
        print(f"| {name}, MB | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
