"""Kills builds at every call that changes their folder, and continues them.

    python -m tests.kills              all scenarios
    python -m tests.kills --ends       those that begin when all shards are made
    python -m tests.kills --twice      what continues is killed at each of its calls as well

After each kill, the same command (and `merge`, the other tasks, …) must end in the bytes of a build
that nobody disturbed, without a file more: no state, no lock, no partial file.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.kills.scenarios import Kills


def main() -> None:
    parser = argparse.ArgumentParser(description="Kills builds at every call.")
    parser.add_argument("--ends", action="store_true", help="only when all shards are made")
    parser.add_argument("--twice", action="store_true", help="kill what continues as well")
    parser.add_argument("--only", default="", metavar="TEXT", help="those with this in their name")
    arguments = parser.parse_args()
    faults = 0
    print("| command | killed at | continued by | result |")
    print("| --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory(prefix="kills-") as scratch:
        kills = Kills(Path(scratch).resolve())
        for scenario in kills.scenarios(arguments.ends):
            if arguments.only not in scenario.name:
                continue
            outcome = kills.kill_at_each(scenario, arguments.twice)
            print(outcome.row, flush=True)
            for fault in outcome.faults[:10]:
                print(f"FAULT {scenario.name}: {fault}", flush=True)
            faults += len(outcome.faults)
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
