"""Damaged recordings beside healthy ones through the real commands.

    python -m tests.fuzz --count 2000 --seed 0

Each mutant is a function of the seed and its number. Whatever it does to decoders, a build

- ends in time, with exit status 0 or 1 and without a traceback;
- has the mutant in the set, or names it in ``failures.jsonl`` in one sentence;
- gives its healthy neighbours the same samples, to the byte, as a build without it;
- keeps its memory bounded, and leaves no process and no temporary file behind.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.fuzz.fuzzer import Fuzzer, Report, write_files
from tests.fuzz.seeds import make_seeds, real_seeds


def main() -> None:
    parser = argparse.ArgumentParser(description="Damaged recordings through the real commands.")
    parser.add_argument("--count", type=int, default=2000, help="number of mutants")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=int, default=0, help="number of the first mutant")
    parser.add_argument("--only", type=int, metavar="N", help="run mutant N alone")
    parser.add_argument("--real", type=Path, metavar="FOLDER", help="damage these recordings too")
    parser.add_argument(
        "--keep", type=Path, metavar="FOLDER", help="folder for the files of violations"
    )
    arguments = parser.parse_args()
    seeds = make_seeds() + (real_seeds(arguments.real) if arguments.real else [])
    with tempfile.TemporaryDirectory() as scratch:
        fuzzer = Fuzzer(seeds, arguments.seed, Path(scratch))
        numbers = range(arguments.start, arguments.start + arguments.count)
        if arguments.only is not None:
            numbers = range(arguments.only, arguments.only + 1)
        report = fuzzer.run(numbers)
    keep = arguments.keep or Path(tempfile.gettempdir()) / f"fuzz-{arguments.seed}"
    for violation in report.violations:
        print(f"VIOLATION seed {arguments.seed}, {violation}")
        if violation.mutant is not None:
            write_files(keep, violation.mutant.files)
            print(f"  --seed {arguments.seed} --only {violation.mutant.number}; kept in {keep}")
    print(summary(report))
    sys.exit(1 if report.violations else 0)


def summary(report: Report) -> str:
    lines = [f"{count:6d}  {reason}" for reason, count in report.reasons.most_common()]
    return "\n".join(
        [
            f"{report.mutants} mutants, {report.went_in} of them in the set, at least in part; "
            f"at most {report.peak_bytes / 1e6:.0f} MB per process; "
            f"{len(report.violations)} violations",
            *lines,
        ]
    )


if __name__ == "__main__":
    main()
