"""Training on a GPU: is it right, and how fast is it? One command, for a machine without a network.

    python -m benchmarks.gpu --out gpu.json [--device cuda|cpu] [--quick] [--peer CHECKOUT]
        [--set SHARDS] [--minutes 8] [--stages NAME ...]

Each stage has a time of its own, and a process of its own: one that fails or hangs is recorded with
its error, and the rest goes on. The JSON file is written at every result, so that nothing is lost
when the command is killed. `--peer`: a checkout of the code that the paper's authors published as
AVSpatialAlignment, measured on the same card. `--set`: a shard set of at least 28 recordings in
crops of 112 pixels; without it a small one is generated. `--device cpu --quick` rehearses all
stages with small networks. The exit status is 1 where a check does not hold or a stage fails.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu.machine import missing_packages


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--quick", action="store_true", help="small networks, few steps")
    parser.add_argument("--peer", type=Path, help="checkout of the published code")
    parser.add_argument("--set", dest="shards", type=Path, help="shard set to train on")
    parser.add_argument("--minutes", type=float, default=8.0, help="for all stages together")
    parser.add_argument("--stages", nargs="+", metavar="NAME", help="only these, in their order")
    given = parser.parse_args(arguments)
    ends_at = time.monotonic() + 60 * given.minutes
    if missing := missing_packages(given.peer is not None):
        names = ", ".join(missing)
        parser.error(f"{names} is not installed; benchmarks/README.md says how to carry it along")
    if given.peer is not None and not (given.peer / "criterions").is_dir():
        parser.error(f"{given.peer} is no checkout of AVSpatialAlignment: it has no criterions/")

    from benchmarks.gpu.plan import STAGES
    from benchmarks.gpu.stages import PROCESSES, Job, Record, run_stages
    from benchmarks.gpu.tables import lines_of

    names = [stage.name for stage in STAGES]
    if unknown := set(given.stages or ()) - set(names):
        parser.error(f"there is no stage {min(unknown)}; there are {', '.join(names)}")
    stages = [stage for stage in STAGES if given.stages is None or stage.name in given.stages]
    PROCESSES.set_forkserver_preload(["benchmarks.gpu.plan"])  # PyTorch is imported once
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))

    def show(name: str, entry: dict[str, Any]) -> None:
        print(*lines_of(name, entry), sep="\n", flush=True)

    plain = {name: str(v) if isinstance(v, Path) else v for name, v in vars(given).items()}
    record = Record(given.out, plain)
    with tempfile.TemporaryDirectory(prefix="gpu-") as folder:
        shards = given.shards or Path(folder) / "set"
        peer = None if given.peer is None else given.peer.absolute()
        job = Job(given.device, given.quick, Path(folder), shards.absolute(), peer, ends_at)
        run_stages(stages, job, record, show)
    wrong = record.wrong
    print(f"\n{given.out}: " + (f"WRONG: {'; '.join(wrong)}" if wrong else "all checks hold"))
    return int(bool(wrong))
