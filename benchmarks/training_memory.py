"""Resident memory of a pretraining and of its loader workers over the whole run.

    python -m benchmarks.training_memory [--every 10] SHARDS --out RUN [options of avtrain pretrain]

Runs `avtrain pretrain` with these arguments and watches its processes. Prints their memory at ten
moments, and its growth in the second half of the run, fitted by a straight line, in MB per hour.
Linux only. Memory that processes share counts for each of them.
"""

from __future__ import annotations

import subprocess
import sys
import time
from argparse import ArgumentParser

import numpy as np

from benchmarks.memory import family_of


def watch(command: list[str], every_s: float) -> list[tuple[float, dict[str, float]]]:
    """Moments in seconds, with the memory of each process in MB."""
    readings: list[tuple[float, dict[str, float]]] = []
    start = time.monotonic()
    with subprocess.Popen(command) as run:
        while run.poll() is None:
            memory = {
                "trainer" if pid == run.pid else f"worker {pid}": _megabytes(status)
                for pid, status in sorted(family_of(run.pid).items())
            }
            readings.append((time.monotonic() - start, memory))
            time.sleep(every_s)
        if run.returncode:
            sys.exit(f"the run failed: {' '.join(command)}")
    return readings


def _megabytes(status: dict[str, str]) -> float:
    return int(status.get("VmRSS", "0 kB").split()[0]) / 1024


def main() -> None:
    parser = ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--every", type=float, default=10, help="seconds between readings")
    own, arguments = parser.parse_known_args()
    readings = watch([sys.executable, "-m", "avtrain", "pretrain", *arguments], own.every)
    seconds = np.array([moment for moment, _ in readings])
    late = seconds > seconds[-1] / 2
    names = ["trainer", *sorted({name for _, memory in readings for name in memory} - {"trainer"})]
    moments = np.linspace(len(readings) // 10, len(readings) - 1, 10).astype(int)
    print(f"| minutes | {' | '.join(f'{seconds[at] / 60:.0f}' for at in moments)} | MB per hour |")
    print(f"| --- |{' --- |' * (len(moments) + 1)}")
    for name in names:
        megabytes = np.array([memory.get(name, np.nan) for _, memory in readings])
        fitted = late & np.isfinite(megabytes)
        cells = [f"{megabytes[at]:.0f}" for at in moments]
        if fitted.sum() > 2:
            cells.append(f"{3600 * np.polyfit(seconds[fitted], megabytes[fitted], 1)[0]:+.1f}")
        print(f"| {name}, MB | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
