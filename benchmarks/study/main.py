"""Compare pretrainings on a generated world: a grid of networks, each evaluated in all tasks.

    python -m benchmarks.study [--out study] [--clips 480] [--seeds 3] [--steps 1500]

The grid is pretraining (none, AVC, AVTS, AVSA, AVSA with curriculum) x transformer x features x
seeds; every network goes through the tasks of `avtrain eval`. The results become docs/results.md.
It takes hours on a CPU. Finished jobs are kept: run the same command again to resume after a kill
or a failure; jobs whose settings have changed run again. `--plan` lists the jobs. `--quick` runs a
small grid on a small world: it shows within minutes that everything runs, and says nothing about
learning.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from importlib.metadata import version
from pathlib import Path
from zipfile import is_zipfile

from benchmarks.study.jobs import (
    AVTRAIN,
    EVALUATIONS,
    PRETRAININGS,
    Job,
    Study,
    jobs_of,
    missing_commands,
)
from benchmarks.study.run import SETS, TRAINING, Records, locked, run_jobs, select_jobs
from shards.errors import ShardError
from shards.reader import ShardSet

PAGE = Path("docs/results.md")
ARCHIVE = "study.zip"
QUICK = Study(
    clips=28,
    videos=30,
    seeds=1,
    steps=5,
    features=("logmel+intensity",),
    pretrainings=tuple(
        one for one in PRETRAININGS if one.name in ("avc", "avsa-transformer", "curriculum")
    ),
)
"""Two of its places are for the test: with one place there is no other clip to compare with."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0: all is done; 1: jobs failed; 2: the command could not be run as given."""
    options = _parse(arguments)
    study = _study(options)
    out = options.out or Path("study-quick" if options.quick else "study")
    page = options.page or (out / PAGE.name if options.quick else PAGE)
    all_jobs = jobs_of(study, out)
    names = {job.name for job in all_jobs if options.only is None or options.only.search(job.name)}
    if not names:
        print(f"no job's name matches {options.only.pattern!r}; --plan lists them", file=sys.stderr)
        return 2
    jobs = select_jobs(all_jobs, names)
    records = Records(out, all_jobs)
    missing = missing_commands()
    for name, command in missing.items():
        print(f"left out: {name} (this version has no `{command}`)", file=sys.stderr)
    if options.plan:
        _print_plan(jobs, records)
        return 0
    if options.begin_with is not None and not is_zipfile(options.begin_with):
        print(f"{options.begin_with} holds no results of a study", file=sys.stderr)
        return 2
    try:
        with locked(out) as lock:
            if options.begin_with is not None:
                # All its results are taken over, also those that this command does not ask for.
                sets = [job for job in all_jobs if job.kind.endswith(SETS)]
                if run_jobs(sets, records, options.jobs, lock):
                    return 1
                _continue_from(options.begin_with, out, all_jobs, records)
            try:
                failed = run_jobs(jobs, records, options.jobs, lock)
            finally:
                _archive(out / ARCHIVE, out, all_jobs, records)
            unfinished = [job for job in all_jobs if not records.is_finished(job)]
            unwritten = _report(study, out, page, missing, all_jobs, unfinished)
            if not unwritten:
                _archive(page.with_name(ARCHIVE), out, all_jobs, records)
            failed |= unwritten
    except KeyboardInterrupt:
        print(f"\nstopped; run the same command again to resume (finished jobs: {out / 'jobs'})")
        return 130
    for name, reason in failed.items():
        print(f"FAILED {name}: {reason}", file=sys.stderr)
    return 1 if failed else 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    summary, _, rest = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.study",
        description=summary,
        epilog=rest.split("\n\n", 2)[-1],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    defaults, add = Study(), parser.add_argument
    add("--out", type=Path, help="folder for sets, runs and results [study]")
    add(
        "--page",
        type=Path,
        help="page to write, with figures and study.zip beside it [docs/results.md]",
    )
    add("--clips", type=_positive, help=f"clips in the world [{defaults.clips}]")
    add("--videos", type=_positive, help=f"videos in the set of actions [{defaults.videos}]")
    add("--seeds", type=_positive, help=f"number of seeds, counted from 0 [{defaults.seeds}]")
    add(
        "--steps",
        type=_positive,
        help=f"training steps; a curriculum has half as many of AVC before [{defaults.steps}]",
    )
    add("--preset", choices=["tiny", "paper"], help=f"[{defaults.preset}]")
    add("--device", choices=["auto", "cpu", "cuda"], help=f"[{defaults.device}]")
    add("--bf16", action="store_true", default=None, help="pretrain in bfloat16")
    cores = len(os.sched_getaffinity(0))
    add("--jobs", type=_positive, default=cores, help="jobs that run at a time [number of cores]")
    add(
        "--only",
        type=_pattern,
        metavar="REGEX",
        help="run the jobs whose name matches, and the jobs that these need",
    )
    add(
        "--begin-with",
        type=Path,
        metavar="FILE",
        help="continue from a study.zip: take over its results of the same settings and sets",
    )
    add("--plan", action="store_true", help="list the jobs and exit")
    add("--quick", action="store_true", help="run a small grid on a small world, in study-quick")
    return parser.parse_args(arguments)


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return int(text)


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a regular expression: {error}") from None


def _study(options: argparse.Namespace) -> Study:
    names = ("clips", "videos", "seeds", "steps", "preset", "bf16", "device")
    values = {name: getattr(options, name) for name in names}
    changed = {name: value for name, value in values.items() if value is not None}
    return replace(QUICK if options.quick else Study(), **changed)


def _print_plan(jobs: Sequence[Job], records: Records) -> None:
    for job in jobs:
        state = "done" if records.is_finished(job) else "to do"
        print(f"{state}  {job.name}: {' '.join([*job.command[2:], *job.machine])}")
    print(f"{len(jobs)} jobs, {sum(map(records.is_finished, jobs))} of them done")


def _continue_from(path: Path, out: Path, all_jobs: Sequence[Job], records: Records) -> None:
    from benchmarks.study.archive import read_archive

    copied, archived = read_archive(path, out, all_jobs, records)
    print(f"{copied} of {archived} jobs are taken from {path}")


def _archive(path: Path, out: Path, all_jobs: Sequence[Job], records: Records) -> None:
    from benchmarks.study.archive import write_archive

    write_archive(path, out, all_jobs, records)


def _report(
    study: Study,
    out: Path,
    page: Path,
    missing: dict[str, str],
    all_jobs: Sequence[Job],
    unfinished: Sequence[Job],
) -> dict[str, str]:
    """Write the report and the page from all finished jobs of this study. Other results in its
    folder do not count. Returns the reason if they cannot be written."""
    finished = [job for job in all_jobs if job not in unfinished]
    results = [job.output for job in finished if job.kind.startswith("eval ")]
    trained = [job.output for job in finished if job.kind.startswith(TRAINING)]
    if not results:
        return {"report": "there is no result yet"}
    command = [*AVTRAIN, "report", *map(str, results), "--out", str(out / "report")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"report": done.stderr.strip()}
    # These import torch, which takes seconds.
    from avtrain.evals.results import read_results
    from avtrain.report.figures import read_trainings
    from avtrain.report.lines import make_lines
    from benchmarks.study.page import write_page

    facts = _facts(study, out, missing, len(all_jobs), len(unfinished))
    lines = make_lines(read_results(results)[0])
    write_page(page, lines, read_trainings(trained)[0], out / "world", facts)
    print(f"{page} and {out / 'report'} are written")
    return {}


def _facts(
    study: Study, out: Path, missing: dict[str, str], jobs: int, unfinished: int
) -> dict[str, str]:
    names = ("avsa360", "torch", "numpy", "av")
    facts = {
        "written on": f"{date.today()}",
        "command": f"`python -m benchmarks.study --clips {study.clips} --seeds {study.seeds} "
        f"--steps {study.steps} --preset {study.preset}{' --bf16' * study.bf16}`",
        "clips": f"{study.clips}, in {-(-study.clips // 4)} places" + _splits(out / "shards"),
        "pretraining": f"{study.steps} steps of preset `{study.preset}`; a curriculum has "
        f"{max(1, study.steps // 2)} steps of AVC before them; a step shows as many clips as the "
        "preset says for the task",
        "seeds": f"{study.seeds}, of the networks, the order of the clips, and the evaluation; "
        "the world is the same",
        "features": " and ".join(study.features),
        "evaluations": ", ".join(
            evaluation.name for evaluation in EVALUATIONS if evaluation.name not in missing
        ),
        "versions": ", ".join(
            [f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in names)]
        ),
        "jobs": f"{jobs}, of which {unfinished} are not finished" if unfinished else f"all {jobs}",
    }
    if missing:
        facts["left out, as this version lacks it"] = ", ".join(missing)
    return facts


def _splits(root: Path) -> str:
    try:
        sets = {split: ShardSet(root, split) for split in ("train", "test")}
    except ShardError:
        return ""
    words = [
        f"{len(shards)} clips of {len(set(shards.sources))} places to "
        f"{'learn from' if split == 'train' else 'test on'}"
        for split, shards in sets.items()
    ]
    return f" ({', '.join(words)})"
