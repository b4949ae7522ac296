"""The page of `make study`, of one screen: five sentences, a figure and a table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from avtrain.evals.tables import format_value, markdown
from avtrain.report.lines import Line
from benchmarks.study.claims import (
    ACTIONS,
    AVSA_4,
    AZIMUTH,
    FIRST,
    HEADLINES,
    LOCALIZATION,
    LOCATE,
    RIGHT_VIEW,
    SEGMENTATION,
    SELD,
    TASKS,
    Column,
    Finding,
    Measurements,
    added_seeds_findings,
    headline_findings,
    other_findings,
)
from benchmarks.study.rows import FIRST_SEEDS, ROWS, Row
from benchmarks.study.statistics import BETTER, EQUAL, FEWEST_SEEDS, UNDECIDED, WORSE
from shards.files import atomic_file, write_atomic

ALL_PAGE, FIGURE, CURVES = "results-all.md", "study-results.png", "study-curves.png"
EARLIER_PAGE, EARLIER_ARCHIVE = "results-2026-11-22.md", "study-2026-11-22.zip"

_SHOWN = (AVSA_4, RIGHT_VIEW, LOCATE, LOCALIZATION, AZIMUTH, SELD, SEGMENTATION, ACTIONS)
"""Columns of the table."""
_DRAWN = tuple(dict.fromkeys((*TASKS, *(column for _, column in HEADLINES))))
"""Columns of the figure."""
_COLOURS = {BETTER: "C2", WORSE: "C3", EQUAL: "C0", UNDECIDED: "0.55"}
_LEGEND = (
    "Dot: mean difference over the seeds, to the right is better; ticks: each seed; line: 95 % "
    "interval; grey band: smaller than what matters.\nGreen: better; red: worse; blue: no "
    "difference that matters; grey: undecided."
)


def write_page(page: Path, measured: Measurements, facts: dict[str, str]) -> None:
    """Write the page, and its figure beside it."""
    page.parent.mkdir(parents=True, exist_ok=True)
    headlines, others = headline_findings(measured), other_findings(measured)
    findings = [*headlines, *(one for family in others.values() for one in family)]
    figure = []
    if any(finding.measured for finding in findings):
        draw_differences(findings, page.with_name(FIGURE))
        figure = [f"![Differences between networks, with intervals]({FIGURE})"]
    parts = [
        "# Results\n\n```bash\nmake study   # about 14 hours on two cores; resumable\n```",
        f"What each ingredient is worth, on generated places that were never trained on. `make "
        f"study` writes this page; [{ALL_PAGE}]({ALL_PAGE}) has the settings, the cost, the power "
        "and all numbers. An earlier study, of a fifth of the clips and three seeds, is in "
        f"[{EARLIER_PAGE}]({EARLIER_PAGE}).",
        f"{facts['command']}, {facts['written on']}; jobs: {facts['jobs']}.",
        "\n".join(
            f"{number}. {sentence(finding)}" for number, finding in enumerate(headlines, start=1)
        ),
        _undecided(headlines, others),
        _looked(headline_findings(measured, FIRST), added_seeds_findings(measured)),
        *figure,
        summary(measured),
        _HOW_TO_READ.format(margins=", ".join(_margins([column for _, column in HEADLINES]))),
    ]
    write_atomic(page, ("\n\n".join(part for part in parts if part) + "\n").encode())


_HOW_TO_READ = """\
Means over the seeds. A gain is the difference between networks of the same seed, above zero where
the first ones are better, with its 95 % interval by Student's t; p is that of a paired t-test,
corrected for the five sentences (Holm), and in the figure for the differences of a task. *No
difference that matters*: the interval lies within ± {margins}; this is not corrected for the
number of questions."""


def sentence(finding: Finding) -> str:
    """A claim, its verdict, and its number with interval."""
    claim, column = finding.claim, finding.column
    words = f"**{claim.words[0].upper()}{claim.words[1:]}: "
    if not finding.measured:
        return f"{words}not measured yet** ({column.words})."
    difference, unit = finding.difference, _unit(column)
    seeds = sorted(difference.by_seed)
    sides = " against ".join(
        f"{sum(values[seed] for seed in seeds) / len(seeds):.1f}"
        for values in (finding.values, finding.baseline)
    )
    numbers = f"{signed(difference.mean)} {unit}"
    if difference.interval is None:
        numbers += f" ({len(seeds)} seed{'s' * (len(seeds) > 1)}; {FEWEST_SEEDS} can decide)"
    else:
        low, high = map(signed, difference.interval)
        numbers += f" (95 % interval {low} to {high}; {len(seeds)} seeds; {format_p(finding.p)})"
    return f"{words}{finding.verdict}.** {column.words}: {sides}, a gain of {numbers}."


def _undecided(headlines: Sequence[Finding], others: dict[Column, list[Finding]]) -> str:
    """Which of the claims are not decided."""
    open_ones = [number for number, one in enumerate(headlines, 1) if one.verdict == UNDECIDED]
    rest = [finding for family in others.values() for finding in family]
    undecided = sum(finding.verdict == UNDECIDED for finding in rest)
    return (
        f"Not decided: {_sentences(open_ones) or 'none of the five'}; {undecided} of the "
        f"{len(rest)} other differences measured so far."
    )


def _looked(first: Sequence[Finding], further: Sequence[Finding]) -> str:
    """What a reader must know of sentences that have more seeds than the others. ``first`` and
    ``further``: the five sentences by the first seeds and by the added ones alone; ``further`` may
    be empty."""
    more = [number for number, one in enumerate(further, 1) if one.measured]
    decided = [
        number for number, one in enumerate(further, 1) if one.measured and one.verdict != UNDECIDED
    ]
    if not more:
        return ""
    open_ones = [
        number for number, one in enumerate(first, 1) if number in more and one.verdict == UNDECIDED
    ]
    return (
        f"More than {FIRST_SEEDS} seeds: {_sentences(more)}. The first {FIRST_SEEDS} alone leave "
        f"{_sentences(open_ones) or 'none of them'} undecided; the added ones alone decide "
        f"{_sentences(decided) or 'none of them'}. They were planned after a look at the "
        "first ones; neither intervals nor p are corrected for that."
    )


def _sentences(numbers: Sequence[int]) -> str:
    """``sentence 1`` or ``sentences 1, 3``; empty for none."""
    if not numbers:
        return ""
    return f"sentence{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))}"


def summary(measured: Measurements) -> str:
    """Markdown with one row per row of the study: the mean of each column over the seeds."""
    columns = [one for one in _SHOWN if any(measured.line(row.name, one) for row in ROWS)]
    rows = [_cells(row, measured, columns) for row in ROWS if measured.lines.get(row.name)]
    if not rows:
        return ""
    chance = dict.fromkeys(rows[0], "") | {"networks": "chance"}
    for column in columns:
        line = next(line for row in ROWS if (line := measured.line(row.name, column)) is not None)
        chance[column.words] = _format(line, line.chance)
    return markdown([*rows, chance])


def _cells(row: Row, measured: Measurements, columns: Sequence[Column]) -> dict[str, str]:
    lines = [measured.line(row.name, column) for column in columns]
    seeds = {len(line.by_seed) for line in lines if line is not None}
    return {
        "networks": row.words,
        "views": row.views,
        "seeds": "-" if not seeds else "–".join(map(str, sorted({min(seeds), max(seeds)}))),
        **{
            column.words: "-" if line is None else _format(line, line.mean)
            for column, line in zip(columns, lines, strict=True)
        },
    }


def _format(line: Line, value: float | None) -> str:
    return "-" if value is None else format_value(value, line.unit)


def _unit(column: Column) -> str:
    return "degrees" if column.words.endswith("°") else "points"


def _margins(columns: Sequence[Column]) -> list[str]:
    return [
        f"{column.matters:g} {_unit(column)} ({column.words.split(',')[0]})"
        for column in dict.fromkeys(columns)
    ]


def signed(value: float) -> str:
    return f"{value:+.1f}".replace("-", "−")


def format_p(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def draw_differences(findings: Sequence[Finding], path: Path) -> None:
    """Draw the measured ones of ``findings`` in `_DRAWN`; each claim is one row in all panels."""
    from matplotlib.figure import Figure

    findings = [one for one in findings if one.measured and one.column in _DRAWN]
    claims = list(dict.fromkeys(finding.claim.words for finding in findings))
    columns = [one for one in _DRAWN if any(finding.column == one for finding in findings)]
    height = 1.3 + 0.26 * len(claims)
    figure = Figure(figsize=(5 + 2.3 * max(1, len(columns)), height), layout="constrained")
    panels = figure.subplots(1, max(1, len(columns)), sharey=True, squeeze=False)[0]
    for panel, column in zip(panels, columns, strict=False):
        panel.axvspan(-column.matters, column.matters, color="0.92", zorder=0)
        panel.axvline(0, color="black", linewidth=0.8, linestyle=":")
        for finding in findings:
            if finding.column != column:
                continue
            row, colour = claims.index(finding.claim.words), _COLOURS[finding.verdict]
            if finding.difference.interval is not None:
                panel.plot(finding.difference.interval, [row, row], color=colour, linewidth=2)
            seeds = list(finding.difference.by_seed.values())
            panel.plot(seeds, [row] * len(seeds), "|", color=colour, markersize=5)
            panel.plot(finding.difference.mean, row, "o", color=colour, markersize=5)
        panel.set_title(column.words.split(",")[0], fontsize=9)
        panel.set_xlabel(_unit(column), fontsize=8)
        panel.tick_params(labelsize=8, left=False)
        panel.grid(axis="x", color="0.93")
        panel.set_axisbelow(True)
    panels[0].set_yticks(range(len(claims)), claims, fontsize=8)
    panels[0].set_ylim(len(claims) - 0.4, -0.6)
    figure.supxlabel(_LEGEND, fontsize=8, x=0.01, ha="left")
    with atomic_file(path) as file:
        figure.savefig(file, format="png", dpi=110)
