"""Words of results: how a network is named everywhere, how values are written, and tables."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from avtrain.evals.results import SHARE, Metric, Network, Result
from shards.errors import printable


@dataclass(frozen=True)
class NetworkName:
    """Words for a network; equal for networks that tables and figures cannot tell apart.

    ``kind`` is the pretraining, or ``untrained``. ``mark`` tells apart networks with otherwise
    equal words, see `name_network`.
    """

    pretraining: str
    steps: int
    features: str
    transformer: str
    positions: str
    kind: str
    mark: str = ""

    def cells(self, with_steps: bool = True) -> dict[str, str]:
        """Columns of a table. Untrained networks have the pretraining ``none``."""
        steps = f", {self.steps} steps" if with_steps and self.steps else ""
        return {
            "pretraining": self.pretraining + steps + self._marked,
            "features": self.features,
            "transformer": self.transformer,
        }

    @property
    def architecture(self) -> str:
        """Features and transformers, without the pretraining."""
        words = [self.features]
        if self.transformer != "no":
            words += ["transformer"] + [self.transformer] * (self.transformer != "yes")
            words += ["positions"] * (self.positions == "direction")
        return ", ".join(words)

    @property
    def title(self) -> str:
        """Pretraining and steps, for the title of a figure of one network."""
        return self.kind + (f", {self.steps} steps" if self.steps else "")

    @property
    def label(self) -> str:
        """Pretraining and architecture, for a row of a figure of many networks."""
        return f"{self.kind}: {self.architecture}{self._marked}"

    @property
    def _marked(self) -> str:
        return f" ({self.mark})" if self.mark else ""


def name_network(network: Network, mark: str = "") -> NetworkName:
    """How a network is named in every table, figure and report."""
    transformer = "no"
    if network.transformer and network.positions == "relative":
        transformer = "relative"
    elif network.transformer:
        transformer = "norm first" if network.norm_first else "yes"
    return NetworkName(
        pretraining=network.pretraining,
        steps=network.steps,
        features=network.features if network.audio == "foa" else f"{network.audio} log-mel",
        transformer=transformer,
        positions=network.positions,
        kind=network.kind,
        mark=mark,
    )


def format_value(value: float, unit: str) -> str:
    """A metric's value as tables show it, without its unit."""
    return f"{100 * value:.1f}" if unit == "%" else f"{value:.1f}"


def format_interval(interval: tuple[float, float] | None, unit: str) -> str:
    """An interval as tables show it, ``-`` for None."""
    if interval is None:
        return "-"
    return " to ".join(format_value(end, unit) for end in interval)


def format_metrics(metrics: dict[str, Metric]) -> str:
    """Names, values and units in one line, for the title of a figure."""
    return ", ".join(
        f"{name} {format_value(metric.value, metric.unit)} {metric.unit}"
        for name, metric in metrics.items()
    )


def results_table(results: Sequence[Result]) -> str:
    """Markdown table with one row per metric of each result."""
    return markdown(
        [
            _cells(result, name, metric)
            for result in results
            for name, metric in result.metrics.items()
        ]
    )


def _cells(result: Result, name: str, metric: Metric) -> dict[str, str]:
    return {
        "task": result.task,
        **name_network(result.network).cells(),
        **({"labels": f"{100 * result.test[SHARE]:g} %"} if SHARE in result.test else {}),
        "views": str(result.views),
        "metric": name if metric.unit == "" else f"{name} ({metric.unit})",
        "value": format_value(metric.value, metric.unit),
        "95 % interval": format_interval(metric.interval_95, metric.unit),
        "chance": "-" if metric.chance is None else format_value(metric.chance, metric.unit),
        "test clips": str(result.test_clips),
        "sources": str(result.test_sources),
    }


def markdown(rows: Sequence[dict[str, str]]) -> str:
    """Markdown table of rows (at least one) with the same columns.

    Names may be a stranger's: on a page they make neither cells, links, pictures nor HTML.
    """
    rows = [{name: escape(cell) for name, cell in row.items()} for row in rows]
    widths = {name: max(len(name), *(len(row[name]) for row in rows)) for name in rows[0]}
    lines = [
        list(widths),
        ["-" * width for width in widths.values()],
        *(list(row.values()) for row in rows),
    ]
    return "\n".join(
        "| "
        + " | ".join(cell.ljust(width) for cell, width in zip(line, widths.values(), strict=True))
        + " |"
        for line in lines
    )


def escape(cell: str) -> str:
    """Words that may be a stranger's, for a page of Markdown."""
    return re.sub(r"[\\`|<\[\]]", r"\\\g<0>", printable(cell))
