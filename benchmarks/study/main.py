"""What each ingredient of pretraining is worth, on a generated world.

    python -m benchmarks.study [--out study] [--clips 2400] [--seeds 5] [--steps 4000]

Rows of networks (AVC, AVSA, curriculum; narrow and wide views; with and without intensity, the
transformer, and space) go through the tasks of `avtrain eval`. The results become docs/results.md.
It takes about 14 hours on two cores. Finished jobs are kept: run the same command again to
resume after a kill or a failure; jobs whose settings have changed run again. `--plan` lists the
jobs in their order, with what they cost; `--pages` writes the pages from what is finished.
`--quick` runs a few rows on a small world: it shows within minutes that everything runs, and says
nothing about learning.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shlex
import statistics
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from importlib.metadata import version
from pathlib import Path
from zipfile import is_zipfile

from benchmarks.study.archive import FACTS, WORLD, read_archive, write_archive
from benchmarks.study.jobs import Job, Study, further_options, jobs_of, row_of
from benchmarks.study.rows import (
    AVC,
    AVSA,
    CURRICULUM,
    ENERGY,
    EVALUATIONS,
    FURTHER,
    HFOV,
    UNTRAINED,
    WIDE_RELATIVE,
    difficulty_options,
    missing_evaluations,
    missing_rows,
)
from benchmarks.study.run import (
    Records,
    estimate_s,
    format_hours,
    locked,
    run_jobs,
    select_jobs,
)
from shards.errors import ShardError
from shards.files import dump_json, parse_json, write_atomic
from shards.reader import ShardSet

PAGE = Path("docs/results.md")
ARCHIVE = "study.zip"
QUICK = Study(
    clips=28,
    videos=30,
    seeds=1,
    more_seeds=0,
    steps=6,
    seld_steps=2,
    blocks=((UNTRAINED, AVC, AVSA), (ENERGY, CURRICULUM, WIDE_RELATIVE)),
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
    missing = _missing(study)
    for name, command in missing.items():
        print(f"left out: {name} (this version has no `{command}`)", file=sys.stderr)
    if options.plan:
        _print_plan(jobs, all_jobs, records)
        return 0
    if options.pages:
        with locked(out):
            _write_all(study, out, page, all_jobs, records, missing)
        return 0
    if options.begin_with is not None and not is_zipfile(options.begin_with):
        print(f"{options.begin_with} holds no results of a study", file=sys.stderr)
        return 2
    try:
        with locked(out) as lock:
            if options.begin_with is not None:
                # All its results are taken over, also those that this command does not ask for.
                sets = [job for job in all_jobs if job.makes_set]
                if run_jobs(sets, records, options.jobs, lock):
                    return 1
                copied, archived = read_archive(options.begin_with, out, all_jobs, records)
                print(f"{copied} of {archived} jobs are taken from {options.begin_with}")
            try:
                failed = run_jobs(jobs, records, options.jobs, lock)
            finally:
                write_archive(out / ARCHIVE, out, all_jobs, records)
            _write_all(study, out, page, all_jobs, records, missing)
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
        help="page to write; results-all.md, figures and study.zip are written beside it "
        "[docs/results.md]",
    )
    add("--clips", type=_positive, help=f"clips in the world [{defaults.clips}]")
    add("--videos", type=_positive, help=f"videos in the set of actions [{defaults.videos}]")
    add("--seeds", type=_positive, help=f"number of seeds, counted from 0 [{defaults.seeds}]")
    add(
        "--more-seeds",
        type=_natural,
        help=f"further seeds of the rows that are evaluated in all tasks [{defaults.more_seeds}]",
    )
    add(
        "--steps",
        type=_positive,
        help=f"training steps; half of a curriculum's are AVC's [{defaults.steps}]",
    )
    add("--preset", choices=["tiny", "paper"], help=f"[{defaults.preset}]")
    add("--device", choices=["auto", "cpu", "cuda"], help=f"[{defaults.device}]")
    add("--difficulty", choices=["easy", "hard"], help=f"of the world [{defaults.difficulty}]")
    add(
        "--train",
        type=_words,
        metavar="OPTIONS",
        help="further options of every `avtrain pretrain`, as one word, such as '--lr 0.0005'",
    )
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
    add("--plan", action="store_true", help="list the jobs and their cost, and exit")
    add("--pages", action="store_true", help="write the pages from the finished jobs, and exit")
    add("--quick", action="store_true", help="run a few rows on a small world, in study-quick")
    return parser.parse_args(arguments)


def _natural(text: str) -> int:
    return _whole(text, 0)


def _positive(text: str) -> int:
    return _whole(text, 1)


def _whole(text: str, smallest: int) -> int:
    if not text.isdecimal() or int(text) < smallest:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of {smallest} or more")
    return int(text)


def _words(text: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} cannot be split: {error}") from None


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a regular expression: {error}") from None


def _study(options: argparse.Namespace) -> Study:
    names = (
        "clips",
        "videos",
        "seeds",
        "more_seeds",
        "steps",
        "preset",
        "bf16",
        "device",
        "difficulty",
        "train",
    )
    values = {name: getattr(options, name) for name in names}
    changed = {name: value for name, value in values.items() if value is not None}
    return replace(QUICK if options.quick else Study(), **changed)


def _missing(study: Study) -> dict[str, str]:
    """Rows, evaluations and worlds that this version lacks, with the option that it lacks."""
    known = {row.name for row in study.rows}
    missing = missing_evaluations()
    missing |= {name: lacks for name, lacks in missing_rows().items() if name in known}
    return missing


def _print_plan(jobs: Sequence[Job], all_jobs: Sequence[Job], records: Records) -> None:
    costs_s = estimate_s(jobs, all_jobs, records)
    left_s = 0.0
    for job in jobs:
        state = "done" if records.is_finished(job) else "to do"
        left_s += 0 if state == "done" else costs_s[job.name]
        minutes = f"{costs_s[job.name] / 60:.0f} min"
        words = " ".join([*job.command[2:], *job.machine])
        print(f"{state}  {job.name}: {minutes:>7}  {words}")
    done = sum(map(records.is_finished, jobs))
    total = sum(costs_s.values()) / 3600
    print(
        f"{len(jobs)} jobs, {done} of them done; {total:.1f} core-hours, of which "
        f"{format_hours(left_s)} are left"
    )


def _write_all(
    study: Study,
    out: Path,
    page: Path,
    all_jobs: Sequence[Job],
    records: Records,
    missing: dict[str, str],
) -> None:
    """Write the pages from all finished jobs of this study, and the archive that they are made of.
    Other results in its folder do not count."""
    # These import torch, which takes seconds.
    from avtrain.report.figures import Training, read_trainings
    from benchmarks.study.all_page import write_all_page
    from benchmarks.study.claims import Measurements
    from benchmarks.study.page import write_page
    from benchmarks.study.world import describe_world

    finished = [job for job in all_jobs if records.has_results(job)]
    facts = _facts(study, out, missing, len(all_jobs), len(finished))
    if (out / FACTS).exists() and not (out / "narrow-shards").exists():
        # An unpacked archive: it was made elsewhere, and is only written anew.
        facts = parse_json((out / FACTS).read_bytes(), dict[str, str]) | {"jobs": facts["jobs"]}
    write_atomic(out / FACTS, dump_json(facts, indent=1))
    if (out / "world/truth").exists():
        write_atomic(out / WORLD, describe_world(out / "world").encode())
    world = (out / WORLD).read_text() if (out / WORLD).exists() else ""
    trainings: dict[str, list[Training]] = {}
    costs_s: dict[str, list[float]] = {}
    for job in finished:
        if job.trains:
            trainings.setdefault(row_of(job), []).extend(read_trainings([job.output])[0])
            costs_s.setdefault(row_of(job), []).append(records.cost_s(job))
    means_s = {row: statistics.fmean(some) for row, some in costs_s.items()}
    measured = Measurements.read(job for job in finished if job.kind.startswith("eval "))
    write_page(page, measured, facts)
    write_all_page(page, measured, trainings, means_s, facts, world)
    for folder in {out, page.parent}:
        write_archive(folder / ARCHIVE, out, all_jobs, records)
    print(f"{page} is written")


def _facts(
    study: Study, out: Path, missing: dict[str, str], jobs: int, finished: int
) -> dict[str, str]:
    names = ("avsa360", "torch", "numpy", "scipy", "av")
    difficulty = " ".join(difficulty_options(study.difficulty))
    further = f" --difficulty {study.difficulty}" * (study.difficulty != Study.difficulty)
    further += f" --videos {study.videos}" * (study.videos != Study.videos)
    further += f" --more-seeds {study.more_seeds}" * (study.more_seeds != Study.more_seeds)
    further += f" --train '{shlex.join(study.train)}'" * bool(study.train)
    further_rows = ", ".join(f"`{row.name}`" for row in FURTHER if row in study.rows)
    facts = {
        "written on": f"{date.today()}",
        "command": f"`python -m benchmarks.study --clips {study.clips} --seeds {study.seeds} "
        f"--steps {study.steps} --preset {study.preset}{' --bf16' * study.bf16}{further}`",
        "world": f"`avprep demo --clips {study.clips} {difficulty}`".replace(" `", "`")
        + f", {-(-study.clips // 4)} places"
        + _splits(out / "narrow-shards"),
        "actions": f"`avprep demo --actions --clips {study.videos} {difficulty}".rstrip() + "`",
        "views": "; ".join(f"{name}: `--hfov {hfov}`" for name, hfov in HFOV.items()),
        "pretraining": f"{study.steps} steps of preset `{study.preset}`, in a curriculum "
        f"{max(1, study.steps // 2)} of AVC and as many of AVSA",
        "seeds": f"{study.seeds}, of the networks, the order of the clips, and the evaluation; "
        "the world is the same"
        + f"; {study.more_seeds} more of {further_rows}"
        * bool(study.more_seeds and further_rows),
        "evaluations": ", ".join(
            " ".join([f"`{one.command}", *one.options, *further_options(one, study)]) + "`"
            for one in EVALUATIONS
            if one.name not in missing
        ),
        "versions": ", ".join(
            [f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in names)]
        ),
        "jobs": f"all {jobs}" if finished == jobs else f"{finished} of {jobs} are finished",
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
