"""Tables of results in Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from avtrain.evals.results import Metric, Network, Result


def as_table(results: Sequence[Result]) -> str:
    """A table in Markdown, one line for each metric of each result."""
    return markdown(
        [
            _cells(result, name, metric)
            for result in results
            for name, metric in result.metrics.items()
        ]
    )


def markdown(lines: Sequence[dict[str, str]]) -> str:
    """A table of lines that have the same columns, at least one."""
    widths = {name: max(len(name), *(len(line[name]) for line in lines)) for name in lines[0]}
    rows = [
        list(widths),
        ["-" * width for width in widths.values()],
        *(list(line.values()) for line in lines),
    ]
    return "\n".join(
        "| "
        + " | ".join(cell.ljust(width) for cell, width in zip(row, widths.values(), strict=True))
        + " |"
        for row in rows
    )


def _cells(result: Result, name: str, metric: Metric) -> dict[str, str]:
    interval = "-"
    if metric.interval_95 is not None:
        interval = " to ".join(in_words(value, metric.unit) for value in metric.interval_95)
    return {
        "task": result.task,
        **network_cells(result.network),
        "views": str(result.views),
        "metric": name if metric.unit == "" else f"{name} ({metric.unit})",
        "value": in_words(metric.value, metric.unit),
        "95 % interval": interval,
        "chance": "-" if metric.chance is None else in_words(metric.chance, metric.unit),
        "test clips": str(result.test_clips),
        "sources": str(result.test_sources),
    }


def network_cells(network: Network) -> dict[str, str]:
    """The columns that tables have of a network."""
    steps = f", {network.steps} steps" if network.steps else ""
    return {
        "pretraining": network.pretraining + steps,
        "features": network.features if network.audio == "foa" else f"{network.audio} log-mel",
        "transformer": network.kind_of_transformer,
    }


def in_words(value: float, unit: str) -> str:
    """A metric's value as tables show it."""
    return f"{100 * value:.1f}" if unit == "%" else f"{value:.1f}"
