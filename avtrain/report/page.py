"""A report: a page with a table, its numbers as JSON, and a figure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from avtrain.errors import TrainingError
from avtrain.evals.tables import format_interval, format_value, markdown
from avtrain.report.lines import Line
from shards.files import dump_json, write_atomic

MOST_NETWORKS = 500
PAGE, NUMBERS, FIGURES = "report.md", "report.json", "report.png"
NOTE = """\
`over sources`: the 95 % interval by bootstrap over the test recordings, its ends averaged over the
seeds; it shows how much the choice of recordings matters. `over seeds`: the 95 % interval of the
mean by Student's t from three seeds on, the range for two; it shows how much the random seed of the
pretraining matters. Neither includes the other."""


def report_table(lines: Sequence[Line]) -> str:
    """Markdown table with one row per line."""
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
    """Columns of the mean, its intervals and the number of seeds."""
    seeds = format_interval(line.over_seeds, line.unit)
    return {
        "mean": format_value(line.mean, line.unit),
        "over sources": format_interval(line.over_sources, line.unit),
        "over seeds": seeds + " (range)" * (len(line.by_seed) == 2),
        "seeds": str(len(line.by_seed)),
    }


def write_numbers(lines: Sequence[Line], path: Path) -> None:
    """Write the lines with all their numbers, as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, dump_json({"lines": [line.to_dict() for line in lines]}, indent=2))


def write_report(lines: Sequence[Line], runs: Sequence[Path], out: Path) -> list[str]:
    """Write table, numbers, and a figure of the results with the training curves of the runs.

    Returns a sentence about each run that is left out because it cannot be read. Raises
    TrainingError for too many networks.
    """
    from avtrain.report.figures import draw_report, read_trainings  # slow: PyTorch

    if len({(line.network, line.mark) for line in lines}) > MOST_NETWORKS:
        raise TrainingError(
            f"the figure of a report shows at most {MOST_NETWORKS} networks; name fewer RUNS, or "
            "leave out --out"
        )
    trainings, left_out = read_trainings(runs)
    write_numbers(lines, out / NUMBERS)
    draw_report(lines, trainings, out / FIGURES)
    text = f"# Results\n\n{report_table(lines)}\n\n{NOTE}\n\n![Results and training]({FIGURES})\n"
    write_atomic(out / PAGE, text.encode())
    return left_out
