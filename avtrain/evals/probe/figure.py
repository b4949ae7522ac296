"""Table and figure of the probes: what is asked, from which input."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from avtrain.evals.probe.fit import PROBES, split_name
from avtrain.evals.results import Metric, Result
from avtrain.evals.tables import format_interval, format_value, markdown, name_network
from shards.errors import drawable
from shards.files import atomic_file

_COLUMNS = 4


def probes_table(results: Sequence[Result]) -> str:
    """Markdown table with a row for each network, metric and probe, and a column for each input:
    values with their 95 % intervals."""
    inputs = list(dict.fromkeys(split_name(name)[1] for one in results for name in one.metrics))
    rows = []
    for result in results:
        for metric, by_probe in _by_metric(result).items():
            for probe, by_input in by_probe.items():
                first = next(iter(by_input.values()))
                values = {name: _cell(by_input.get(name)) for name in inputs}
                chance = "-" if first.chance is None else format_value(first.chance, first.unit)
                rows.append(
                    {
                        **name_network(result.network).cells(),
                        "asked": f"{metric} ({first.unit})",
                        "probe": probe,
                        **values,
                        "chance": chance,
                    }
                )
    return markdown(rows)


def _cell(metric: Metric | None) -> str:
    if metric is None:
        return "-"
    value = format_value(metric.value, metric.unit)
    interval = metric.interval_95
    return f"{value} ({format_interval(interval, metric.unit)})" if interval else value


def _by_metric(result: Result) -> dict[str, dict[str, dict[str, Metric]]]:
    """Metrics by what is measured, probe and input."""
    found: dict[str, dict[str, dict[str, Metric]]] = {}
    for name, metric in result.metrics.items():
        measured, features, probe = split_name(name)
        found.setdefault(measured, {}).setdefault(probe, {})[features] = metric
    return found


def plot_probes(result: Result, path: Path) -> None:
    """Draw a panel for each metric, as PNG: bars for each input and probe with their 95 %
    intervals, and chance as a dotted line."""
    from matplotlib.figure import Figure  # slow to import, and needed only here

    metrics = _by_metric(result)
    rows = -(-len(metrics) // _COLUMNS)
    figure = Figure(figsize=(3.2 * min(_COLUMNS, len(metrics)), 2.6 * rows), layout="constrained")
    panels = figure.subplots(rows, min(_COLUMNS, len(metrics)), squeeze=False).ravel()
    for panel, (measured, by_probe) in zip(panels, metrics.items(), strict=False):
        for number, probe in enumerate(PROBES):
            by_input = by_probe[probe]
            factor = 100 if next(iter(by_input.values())).unit == "%" else 1
            place = np.arange(len(by_input)) + 0.4 * (number - 0.5)
            values = [factor * metric.value for metric in by_input.values()]
            panel.bar(place, values, width=0.38, color=f"C{number}", label=probe)
            for x, metric in zip(place, by_input.values(), strict=True):
                if metric.interval_95 is not None:
                    ends = [factor * end for end in metric.interval_95]
                    panel.plot([x, x], ends, color="black", linewidth=1)
        metric = next(iter(by_input.values()))
        if metric.chance is not None:
            panel.axhline(factor * metric.chance, color="black", linestyle=":", linewidth=1)
        names = [name.replace(" ", "\n", 1) for name in by_input]
        panel.set_xticks(range(len(names)), names, fontsize=7)
        better = "" if metric.better == "higher" else ", lower is better"
        panel.set_title(drawable(f"{measured} ({metric.unit}{better})"), fontsize=8)
        panel.tick_params(labelsize=7)
        panel.grid(axis="y", color="0.9")
        panel.set_axisbelow(True)
        panel.set_ylim(bottom=0)
    for panel in panels[len(metrics) :]:
        panel.set_visible(False)
    panels[0].legend(fontsize=7)
    title = f"{name_network(result.network).title}: what its features know (dotted: chance)"
    figure.suptitle(drawable(title), fontsize=10)
    with atomic_file(path) as file:
        figure.savefig(file, format="png", dpi=120)
