"""Which pretraining learns what: a grid of pretrainings on a generated world, evaluated.

    python -m benchmarks.study [--out study] [--clips 480] [--seeds 3] [--steps 1500]

Pretraining (none, AVC, AVTS, AVSA, AVSA with curriculum) x transformer x features x seeds, each
evaluated in the tasks of `avtrain eval`; the results become docs/study.md. Hours on a CPU. What is
finished is kept: the same command goes on after a kill or a failure, and makes again what was made
with other settings. `--plan` shows the jobs, `--quick` is a small grid on a small world, which
shows in minutes that everything runs and says nothing about learning.
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
    available,
    jobs_of,
)
from benchmarks.study.run import SETS, TRAINING, Records, chosen, held, run_jobs
from shards.errors import ShardError
from shards.reader import ShardSet

PAGE = Path("docs/study.md")
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
"""Two of its places are for the test: with one there is no other clip to tell a clip from."""


def main(arguments: Sequence[str] | None = None) -> int:
    """0: all is there; 1: jobs failed; 2: nothing could be done as asked."""
    given = _parse(arguments)
    study = _study(given)
    out = given.out or Path("study-quick" if given.quick else "study")
    page = given.page or (out / "study.md" if given.quick else PAGE)
    every = jobs_of(study, out)
    names = {job.name for job in every if given.only is None or given.only.search(job.name)}
    if not names:
        print(f"no job's name matches {given.only.pattern!r}; --plan shows them", file=sys.stderr)
        return 2
    jobs = chosen(every, names)
    records = Records(out, every)
    lacking = {name: what for name, what in available().items() if what is not None}
    for name, what in lacking.items():
        print(f"left out: {name} (this version has no `{what}`)", file=sys.stderr)
    if given.plan:
        _print_plan(jobs, records)
        return 0
    if given.begin_with is not None and not is_zipfile(given.begin_with):
        print(f"{given.begin_with} holds no results of a study", file=sys.stderr)
        return 2
    try:
        with held(out) as lock:
            if given.begin_with is not None:
                # Whatever is asked for now, nothing that is there is to be lost.
                sets = [job for job in every if job.kind.endswith(SETS)]
                if run_jobs(sets, records, given.jobs, lock):
                    return 1
                _take(given.begin_with, out, every, records)
            try:
                failed = run_jobs(jobs, records, given.jobs, lock)
            finally:
                _archive(out / "study.zip", out, every, records)
            unfinished = [job for job in every if not records.is_finished(job)]
            unwritten = _report(study, out, page, lacking, every, unfinished)
            if not unwritten:
                _archive(page.with_suffix(".zip"), out, every, records)
            failed |= unwritten
    except KeyboardInterrupt:
        print(f"\nstopped; the same command goes on (finished jobs: {out / 'jobs'})")
        return 130
    for name, why in failed.items():
        print(f"FAILED {name}: {why}", file=sys.stderr)
    return 1 if failed else 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    summary, _, rest = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.study",
        description=summary,
        epilog=rest.split("\n\n", 2)[-1],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    whole, add = Study(), parser.add_argument
    add("--out", type=Path, help="folder of sets, runs and results [study]")
    add("--page", type=Path, help="page to write; figures lie beside it [docs/study.md]")
    add("--clips", type=_positive, help=f"clips of the world [{whole.clips}]")
    add("--videos", type=_positive, help=f"videos of the set of actions [{whole.videos}]")
    add("--seeds", type=_positive, help=f"seeds, from 0 [{whole.seeds}]")
    add("--steps", type=_positive, help=f"steps; the AVC of a curriculum half [{whole.steps}]")
    add("--preset", choices=["tiny", "paper"], help=f"[{whole.preset}]")
    add("--device", choices=["auto", "cpu", "cuda"], help=f"[{whole.device}]")
    add("--bf16", action="store_true", default=None, help="pretraining in bfloat16")
    cores = len(os.sched_getaffinity(0))
    add("--jobs", type=_positive, default=cores, help="at a time [cores]")
    add("--only", type=_pattern, metavar="REGEX", help="jobs so named, and what they need")
    add(
        "--begin-with",
        type=Path,
        metavar="FILE",
        help="take what is finished in a study.zip, of the same settings and sets, from there",
    )
    add("--plan", action="store_true", help="print the jobs, and exit")
    add("--quick", action="store_true", help="a small grid on a small world, in study-quick")
    return parser.parse_args(arguments)


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 on")
    return int(text)


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no regular expression: {error}") from None


def _study(given: argparse.Namespace) -> Study:
    names = ("clips", "videos", "seeds", "steps", "preset", "bf16", "device")
    values = {name: getattr(given, name) for name in names}
    changed = {name: value for name, value in values.items() if value is not None}
    return replace(QUICK if given.quick else Study(), **changed)


def _print_plan(jobs: Sequence[Job], records: Records) -> None:
    for job in jobs:
        state = "done" if records.is_finished(job) else "to do"
        print(f"{state}  {job.name}: {' '.join([*job.command[2:], *job.machine])}")
    print(f"{len(jobs)} jobs, {sum(map(records.is_finished, jobs))} of them done")


def _take(path: Path, out: Path, every: Sequence[Job], records: Records) -> None:
    from benchmarks.study.archive import take_archive

    taken, there = take_archive(path, out, every, records)
    print(f"{taken} of {there} jobs are taken from {path}")


def _archive(path: Path, out: Path, every: Sequence[Job], records: Records) -> None:
    from benchmarks.study.archive import write_archive

    write_archive(path, out, every, records)


def _report(
    study: Study,
    out: Path,
    page: Path,
    lacking: dict[str, str],
    every: Sequence[Job],
    unfinished: Sequence[Job],
) -> dict[str, str]:
    """The report and the page, of what is there. Results of jobs that this study does not have
    any more, or that are not finished, do not count."""
    finished = [job for job in every if job not in unfinished]
    results = [job.makes for job in finished if job.kind.startswith("eval ")]
    trained = [job.makes for job in finished if job.kind.startswith(TRAINING)]
    if not results:
        return {"report": "there is no result yet"}
    command = [*AVTRAIN, "report", *map(str, results), "--out", str(out / "report")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"report": done.stderr.strip()}
    # They import torch, which takes seconds.
    from avtrain.evals.results import read_results
    from avtrain.report.figures import read_trainings
    from avtrain.report.lines import lines_of
    from benchmarks.study.page import write_page, write_summary

    facts = _facts(study, out, lacking, len(every), len(unfinished))
    lines = lines_of(read_results(results))
    write_page(page, lines, read_trainings(trained), out / "world", facts)
    if page == PAGE:
        write_summary(Path("README.md"), lines, facts)
    print(f"{page} and {out / 'report'} are written")
    return {}


def _facts(
    study: Study, out: Path, lacking: dict[str, str], jobs: int, unfinished: int
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
            evaluation.name for evaluation in EVALUATIONS if evaluation.name not in lacking
        ),
        "versions": ", ".join(
            [f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in names)]
        ),
        "jobs": f"{jobs}, of which {unfinished} are not finished" if unfinished else f"all {jobs}",
    }
    if lacking:
        facts["left out, as this version lacks it"] = ", ".join(lacking)
    return facts


def _splits(shards: Path) -> str:
    try:
        sets = {split: ShardSet(shards, split) for split in ("train", "test")}
    except ShardError:
        return ""
    words = [
        f"{len(of)} clips of {len(set(of.sources))} places to {'learn from' * (name == 'train')}"
        f"{'test on' * (name == 'test')}"
        for name, of in sets.items()
    ]
    return f" ({', '.join(words)})"
