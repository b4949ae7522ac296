"""Damaged and hostile sets, builds, caches, checkpoints, runs, recordings and options through the
real commands.

    python -m tests.attack --count 1000 --seed 0

Each case is a function of the seed and its number: something valid, damaged by rules, and a command
that meets it. Whatever it meets, a command

- ends within 20 s and 2 GB, with exit status 0, 1 or 2 and without a traceback;
- changes nothing but its output, and leaves no process behind;
- executes nothing, calls nobody, and listens to nobody;
- prints no control characters;
- refuses weights that are not finite, and `avprep verify` finds a flipped bit.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from tests.attack.campaign import Campaign
from tests.attack.cases import KINDS


def main() -> None:
    parser = argparse.ArgumentParser(description="Hostile files through the real commands.")
    parser.add_argument("--count", type=int, default=1000, help="number of cases")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=int, default=0, help="number of the first case")
    parser.add_argument("--only", type=int, metavar="N", help="run case N alone")
    parser.add_argument("--kind", choices=KINDS, action="append", help="only cases of these kinds")
    parser.add_argument("--spawn", action="store_true", help="each command is a program of its own")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="folder for the sandboxes kept")
    arguments = parser.parse_args()
    numbers: Iterable[int] = range(arguments.start, arguments.start + arguments.count)
    if arguments.only is not None:
        numbers = [arguments.only]
    keep = arguments.keep or Path(tempfile.gettempdir()) / f"attack-{arguments.seed}"
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # and delete the folder
    # No TemporaryDirectory: forked processes would delete it when they end.
    scratch = Path(tempfile.mkdtemp(prefix="attack-"))
    try:
        campaign = Campaign(arguments.seed, scratch, arguments.spawn)
        report = campaign.run(numbers, arguments.kind, keep)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    print(report.table())
    sys.exit(1 if report.violations else 0)


if __name__ == "__main__":
    main()
