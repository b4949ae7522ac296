"""Training with OpenMP's threads that wait as `avtrain` sets it, without spinning, and spinning.

Short runs of both kinds take turns, so that whatever else the machine does meets both. ``--load``
starts that many processes beside them which only compute.

    python -m benchmarks.training.waiting SHARDS --steps 20 --rounds 5 --load 12
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from avtrain import WAITING

KINDS = {
    "avtrain": WAITING,
    "passive": {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"},
    "spinning": {"OMP_WAIT_POLICY": "ACTIVE"},
    "as it was": {"GOMP_SPINCOUNT": "300000"},
}
"""Variables of each kind. The last one is what GNU's OpenMP does where nothing is set."""
VARIABLES = {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("shards", type=Path)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--load", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=["avtrain", "as it was"])
    given = parser.parse_args()
    found: dict[str, list[tuple[float, float]]] = {kind: [] for kind in given.kinds}
    losses = set()
    with ExitStack() as stack:
        for _ in range(given.load):
            spinner = subprocess.Popen([sys.executable, "-c", "while True: pass"])
            stack.callback(spinner.kill)
        for _ in range(given.rounds):
            for kind in given.kinds:
                with tempfile.TemporaryDirectory() as folder:
                    clips_per_s, cpu_s, loss = _train(given.shards, Path(folder), given.steps, kind)
                found[kind].append((clips_per_s, cpu_s))
                print(f"  {kind}: {clips_per_s:.2f} clips/s, {cpu_s:.1f} s", flush=True)
                losses.add(loss)
    print(f"load {os.getloadavg()[0]:.1f}; losses {'the same' if len(losses) == 1 else 'DIFFER'}")
    for kind, runs in found.items():
        speed, cpu = (statistics.median(column) for column in zip(*runs, strict=True))
        print(f"{kind}: {speed:.2f} clips/s, {cpu:.1f} s of CPU time (medians of {len(runs)})")
    first = found[given.kinds[0]]
    for kind in given.kinds[1:]:
        pairs = [(a[0] / b[0], a[1] / b[1]) for a, b in zip(first, found[kind], strict=True)]
        speed, cpu = (statistics.median(column) for column in zip(*pairs, strict=True))
        print(f"{given.kinds[0]} / {kind}: {speed:.3f} x the speed, {cpu:.3f} x the CPU time")


def _train(shards: Path, folder: Path, steps: int, kind: str) -> tuple[float, float, str]:
    """Clips per second without the first step, seconds of CPU time, and all losses."""
    environment = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    environment |= KINDS[kind]
    command = [sys.executable, "-m", "avtrain", "pretrain", str(shards), "--steps", str(steps)]
    command += ["--out", str(folder / "run"), "--device", "cpu", "--num-workers", "0"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, env=environment, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    text = (folder / "run/log.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    seconds, clips = 0.0, 0
    for line in lines:
        clips += line["clips"]
        seconds = clips / line["clips_per_s"]
    first = lines[0]["clips"] / lines[0]["clips_per_s"]
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    speed = (clips - lines[0]["clips"]) / max(seconds - first, 1e-9)
    return speed, cpu_s, repr([line["loss"] for line in lines])


if __name__ == "__main__":
    main()
