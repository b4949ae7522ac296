"""The report that is written: a page with a table, its numbers as JSON, and a figure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from avtrain.evals.tables import format_interval, format_value, markdown
from avtrain.report.lines import Line
from shards.files import dump_json, write_atomic

PAGE, NUMBERS, FIGURES = "report.md", "report.json", "report.png"
NOTE = """\
`over sources`: the 95 % interval by bootstrap over the test recordings, its ends averaged over the
seeds; it says how much the choice of recordings matters. `over seeds`: the 95 % interval of the
mean by Student's t from three seeds on, the range of two; it says how much the pretraining's luck
matters. Neither holds the other."""


def as_markdown(lines: Sequence[Line]) -> str:
    """The table."""
    return markdown([_cells(line) for line in lines])


def _cells(line: Line) -> dict[str, str]:
    return {
        "task": line.task + (f" ({line.variant})" if line.variant else ""),
        **line.name.cells(),
        "views": str(line.views),
        "metric": line.metric if line.unit == "" else f"{line.metric} ({line.unit})",
        **value_cells(line),
        "chance": "-" if line.chance is None else format_value(line.chance, line.unit),
        "test clips": str(line.test_clips),
        "sources": str(line.test_sources),
    }


def value_cells(line: Line) -> dict[str, str]:
    """The columns of the mean, its intervals and the number of seeds."""
    seeds = format_interval(line.over_seeds, line.unit)
    return {
        "mean": format_value(line.mean, line.unit),
        "over sources": format_interval(line.over_sources, line.unit),
        "over seeds": seeds + " (range)" * (len(line.by_seed) == 2),
        "seeds": str(len(line.by_seed)),
    }


def write_numbers(lines: Sequence[Line], path: Path) -> None:
    """The lines with all their numbers, as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, dump_json({"lines": [line.to_dict() for line in lines]}, indent=2))


def write_report(lines: Sequence[Line], runs: Sequence[Path], out: Path) -> None:
    """The table, its numbers, and a page of figures with the runs' training curves.

    Raises TrainingError for a log that cannot be read.
    """
    from avtrain.report.figures import draw_report, read_trainings  # they import matplotlib, torch

    trainings = read_trainings(runs)
    write_numbers(lines, out / NUMBERS)
    draw_report(lines, trainings, out / FIGURES)
    text = f"# Results\n\n{as_markdown(lines)}\n\n{NOTE}\n\n![Results and training]({FIGURES})\n"
    write_atomic(out / PAGE, text.encode())
