"""The second page of `make study`: settings, world, power, every comparison and every metric."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from avtrain.evals.results import Result
from avtrain.evals.tables import format_value, markdown
from avtrain.report.figures import Training, draw_curves
from avtrain.report.page import NOTE, value_cells
from avtrain.run_folder import RESULT_ENDING
from benchmarks.study.claims import (
    COLUMNS,
    HEADLINES,
    Column,
    Finding,
    Measurements,
    added_seeds_findings,
    headline_findings,
    other_findings,
)
from benchmarks.study.page import (
    ALL_PAGE,
    CURVES,
    EARLIER_ARCHIVE,
    EARLIER_PAGE,
    format_p,
    signed,
)
from benchmarks.study.rows import (
    AVC,
    AVSA,
    CURRICULUM,
    FIRST_SEEDS,
    RELATIVE,
    ROWS,
    SAME_CLIPS,
)
from benchmarks.study.statistics import LEVEL, detectable, excludable, paired_deviation
from shards.files import parse_json, write_atomic

EARLIER = Path(__file__).parents[2] / "docs" / EARLIER_ARCHIVE
_EARLIER_ROWS = ("avc", "avts", "avsa", "curriculum", "curriculum-transformer")
_EARLIER_SEEDS = 3
_ALIKE = (AVC, AVSA, CURRICULUM, RELATIVE, SAME_CLIPS)
"""Rows of the same set and features, whose seeds' scatter is pooled."""
_HOW = """\
```bash
make study                             # about 14 hours on two cores; five to ten seeds
make study QUICK=1                     # minutes, a world too small to learn from
make study BEGIN=docs/study.zip        # continue with the results of this page
python -m benchmarks.study --plan      # list the jobs and their cost, run none
python -m benchmarks.study --pages     # write the pages from what is finished, run nothing
```

[results.md](results.md) is the summary; `make study` writes both pages.

Each row pretrains networks on the generated world; all rows of a set see the same clips for as many
steps, a curriculum half of them with AVC. A row is compared with another one of the same seed and
set. Rows come in blocks that answer the claims one after the other, and a block is run with all its
seeds before the next one begins, so that an interrupted study has decided the first claims. The
rows that are evaluated in all tasks have `MORE_SEEDS` further ones, after all blocks; their last
five seeds alone go through probes, segmentation and actions.

Jobs run side by side (`JOBS`, by default one per core), one thread each. Finished jobs stay in
`study/`: run the same command again to resume after a kill or a failure, or to add `SEEDS`. After a
change of `STEPS` or `CLIPS`, the jobs that depend on it run again. `ONLY=REGEX` selects jobs by
name. Results, settings and logs are in `study.zip`, in the study's folder (after a kill as well)
and beside this page. `BEGIN=FILE` continues from such a file on another machine: it makes the sets
again and takes over all results of the same settings and sets.
[study-notes.md](study-notes.md) says what was tried where an expected order did not come out."""


def write_all_page(
    page: Path,
    measured: Measurements,
    trainings: Mapping[str, Sequence[Training]],
    costs_s: Mapping[str, float],
    facts: dict[str, str],
    world: str,
) -> None:
    """Write `ALL_PAGE` beside ``page``, with its figure.

    ``trainings`` and ``costs_s`` (seconds on one core) are by the name of the row. ``world`` is a
    section in markdown.
    """
    parts = [
        "# All results of the study",
        _HOW,
        "## Settings",
        "\n".join(f"- {name}: {value}" for name, value in facts.items()),
        "## Rows",
        _rows_table(costs_s),
        "## The world",
        world or "It is described once it is generated.",
        "## What five seeds can decide",
        _POWER,
        power_table(measured),
        "## Comparisons",
        _COMPARISONS,
        *_comparisons(measured),
        "## All metrics",
        f"Each row is one kind of network over all its seeds. {NOTE}",
        *_metrics(measured),
    ]
    if trainings:
        draw_curves(_drawn(trainings), page.with_name(CURVES))
        parts += [
            "## Training",
            _TRAINING,
            _training_table(trainings),
            f"![Training curves]({CURVES})",
        ]
    write_atomic(page.with_name(ALL_PAGE), ("\n\n".join(parts) + "\n").encode())


def _drawn(trainings: Mapping[str, Sequence[Training]]) -> list[Training]:
    """The trainings, named so that those of one row alone share a line: rows that differ in their
    views have equal settings."""
    return [
        replace(one, name=f"{one.name}, {row.views}", digest=f"{one.digest} {row.views}")
        for row in ROWS
        for one in trainings.get(row.name, ())
    ]


def _rows_table(costs_s: Mapping[str, float]) -> str:
    return markdown(
        [
            {
                "row": row.name,
                "networks": row.words,
                "views": row.views,
                "options": " ".join(row.options),
                "core-minutes per pretraining": (
                    f"{costs_s[row.name] / 60:.0f}" if row.name in costs_s else "-"
                ),
            }
            for row in ROWS
        ]
    )


_POWER = f"""\
Said before the study, from the scatter over seeds in [an earlier one]({EARLIER_PAGE}) (standard
deviation of a difference between two networks of the same seed, pooled over five pretrainings with
intensity and three seeds by a two-way analysis of variance; without AVSA with the paper's
transformer, one seed of which did not learn). *Detectable*: the true difference that five seeds
decide with a probability of 80 %, by a paired t-test at 5 %, and at 1 %, which is Holm's level for
the smallest p of five (noncentral t: Cohen 1988, section 2.5). *Excludable*: the margin that the
95 % interval stays within with a probability of 80 % if there is no difference. *Matters*: the
smallest difference that matters, chosen beforehand. Where *detectable* is larger, only larger
differences will be found; where *excludable* is larger, no difference can be shown to be too small
to matter. The earlier study did not measure what has no numbers. The last columns are measured in
this study (two seeds or more of narrow views with intensity)."""


def power_table(measured: Measurements) -> str:
    """Markdown: one row per column that was measured before, or is now."""
    rows = []
    for column in COLUMNS:
        earlier = earlier_deviation(column)
        values = [measured.values(row.name, column) for row in _ALIKE]
        now = _deviation([one for one in values if one])
        rows.append(
            {
                "metric": column.words,
                "matters": f"{column.matters:g}",
                **_power_cells(earlier, "earlier deviation"),
                **_power_cells(now, "deviation here"),
            }
        )
    return markdown(rows)


def _power_cells(deviation: float | None, title: str) -> dict[str, str]:
    first = "" if title.startswith("earlier") else ", here"
    names = [title, f"detectable at 5 %{first}", f"at 1 %{first}", f"excludable{first}"]
    if deviation is None:
        return dict.fromkeys(names, "-")
    numbers = [
        deviation,
        detectable(deviation, 5),
        detectable(deviation, 5, LEVEL / len(HEADLINES)),
        excludable(deviation, 5),
    ]
    return {name: f"{number:.1f}" for name, number in zip(names, numbers, strict=True)}


def _deviation(by_row: Sequence[dict[int, float]]) -> float | None:
    """Deviation of rows by seed; None with fewer than two rows, or seeds that all of them have."""
    seeds = sorted(set.intersection(*map(set, by_row))) if by_row else []
    if len(by_row) < 2 or len(seeds) < 2:
        return None
    return paired_deviation(np.array([[one[seed] for seed in seeds] for one in by_row]))


def earlier_deviation(column: Column, archive: Path = EARLIER) -> float | None:
    """Deviation in the study of 2026-11-22; None for what it did not measure."""
    values: list[dict[int, float]] = []
    with zipfile.ZipFile(archive) as file:
        names = file.namelist()
        for row in _EARLIER_ROWS:
            of_row: dict[int, float] = {}
            for seed in range(_EARLIER_SEEDS):
                folder = f"results/{row}/logmel+intensity/seed{seed}/{column.evaluation}/"
                for name in names:
                    if name.startswith(folder) and name.endswith(RESULT_ENDING):
                        metrics = parse_json(file.read(name), Result).metrics
                        metric = metrics.get(column.metric or next(iter(metrics)))
                        if metric is None:  # newer than that study
                            continue
                        of_row[seed] = metric.value * (100 if metric.unit == "%" else 1)
            values += [of_row] if of_row else []
    return _deviation(values)


_COMPARISONS = """\
Each difference is between networks of the same seed, trained on clips of the same places in the
same order; above zero the first one is better. The 95 % interval is over the seeds, by Student's t:
it holds for these test recordings, and says nothing about others (`over sources` below does, for
each network by itself). *Better* and *worse*: the p-value of a paired t-test, corrected by Holm's
method, is below 0.05. *No difference that matters*: the interval lies within ± what matters.
*Undecided*: neither, or fewer than three seeds. The five sentences of the summary are one
family. The other differences in a metric are a family each; a test that is not measured yet counts
in it."""


_FURTHER = f"""\
Sentences that the first {FIRST_SEEDS} seeds left undecided have more seeds. The table above is not
corrected for having looked at the first ones before. The further seeds by themselves:"""


_TRAINING = """\
How well networks solve their own pretext task on the clips that they train on: means over a tenth
of the steps, in the middle and at the end, and over the seeds. Where the two are equal, more steps
would not have helped. Compare losses and clip accuracies only within one pretext task: their
batches differ."""


def _comparisons(measured: Measurements) -> list[str]:
    tables = ["### The five sentences", markdown(_finding_rows(headline_findings(measured)))]
    if further := [one for one in added_seeds_findings(measured) if one.measured]:
        tables += [_FURTHER, markdown(_finding_rows(further))]
    for column, findings in other_findings(measured).items():
        tables += [f"### {column.words}", markdown(_finding_rows(findings))]
    return tables


def _finding_rows(findings: Sequence[Finding]) -> list[dict[str, str]]:
    return [
        {
            "claim": one.claim.words,
            "metric": one.column.words,
            "better by": signed(one.difference.mean) if one.measured else "-",
            "95 % interval": (
                " to ".join(map(signed, one.difference.interval))
                if one.difference.interval is not None
                else "-"
            ),
            "matters": f"{one.column.matters:g}",
            "seeds": str(len(one.difference.by_seed)),
            "p": format_p(one.difference.p).removeprefix("p ").removeprefix("= "),
            "p, Holm": format_p(one.p).removeprefix("p ").removeprefix("= "),
            "": f"**{one.verdict}**",
        }
        for one in findings
    ]


def _metrics(measured: Measurements) -> list[str]:
    tasks: dict[str, list[dict[str, str]]] = {}
    for row in ROWS:
        for line in measured.all_lines(row.name):
            values = value_cells(line)
            values["mean"] += f" {line.unit}".rstrip()
            cells = {
                "networks": row.words,
                "set": row.views,
                "views": str(line.views),
                "test": line.variant or "-",
                "metric": line.metric,
                **values,
                "chance": "-" if line.chance is None else format_value(line.chance, line.unit),
            }
            tasks.setdefault(line.task, []).append(cells)
    return [f"### {task}\n\n{markdown(rows)}" for task, rows in tasks.items()]


def _training_table(trainings: Mapping[str, Sequence[Training]]) -> str:
    rows = []
    for row in ROWS:
        stages: dict[str, list[Training]] = {}
        for training in trainings.get(row.name, ()):
            stages.setdefault(training.pretraining, []).append(training)
        for stage, seeds in stages.items():
            slots = seeds[0].slots
            rows.append(
                {
                    "networks": row.words,
                    "views": row.views,
                    "stage": stage,
                    "steps": str(min(len(seed.columns["loss"]) for seed in seeds)),
                    "seeds": str(len(seeds)),
                    "loss": "{:.2f}, {:.2f}".format(*_middle_and_end(seeds, "loss")),
                    "right clip": "{:.1%}, {:.1%}".format(*_middle_and_end(seeds, "clip_accuracy")),
                    "right view": (
                        "-"
                        if slots == 1
                        else "{:.1%}, {:.1%}".format(*_middle_and_end(seeds, "view_accuracy"))
                    ),
                    "chance": "-" if slots == 1 else f"{1 / slots:.1%}",
                }
            )
    return markdown(rows)


def _middle_and_end(seeds: Sequence[Training], column: str) -> tuple[float, float]:
    def mean(values: NDArray[np.float64], end: int) -> float:
        return float(values[max(0, end - max(1, len(values) // 10)) : end].mean())

    logs = [seed.columns[column] for seed in seeds]
    middle = np.mean([mean(log, max(1, len(log) // 2)) for log in logs])
    return float(middle), float(np.mean([mean(log, len(log)) for log in logs]))
