"""Figure of what labels are worth: metrics over the share of recordings with labels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from avtrain.evals.results import SHARE, UNTRAINED, Result
from avtrain.evals.tables import name_network
from shards.errors import drawable
from shards.files import atomic_file

SHOWN = ("F20°", "ER20°", "LE_CD", "LR_CD")


def plot_labels(results: Sequence[Result], path: Path) -> None:
    """Draw four metrics of each network over the shares in ``test``, with their intervals."""
    from matplotlib.figure import Figure  # slow to import, and needed only here

    lines: defaultdict[str, list[Result]] = defaultdict(list)
    for result in sorted(results, key=lambda result: float(result.test[SHARE])):
        lines[name_network(result.network).title].append(result)
    figure = Figure(figsize=(14, 3.6), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(SHOWN)), SHOWN, strict=True):
        first = results[0].metrics[name]
        factor = 100 if first.unit == "%" else 1
        for number, (title, line) in enumerate(lines.items()):
            untrained = line[0].network.kind == UNTRAINED
            colour = "0.45" if untrained else f"C{number % 10}"
            shares = [100 * float(result.test[SHARE]) for result in line]
            metrics = [result.metrics[name] for result in line]
            values = [factor * metric.value for metric in metrics]
            label = "from scratch" if untrained else title
            axes.plot(
                shares, values, "s--" if untrained else "o-", color=colour, label=drawable(label)
            )
            for share, metric in zip(shares, metrics, strict=True):
                if metric.interval_95 is not None:
                    ends = factor * np.array(metric.interval_95)
                    axes.plot([share, share], ends, color=colour, linewidth=1)
        better = "" if first.better == "higher" else ", lower is better"
        axes.set(
            xscale="log",
            xlabel="recordings with labels, %",
            title=f"{name}, {first.unit}{better}",
        )
        ticks = sorted({100 * float(result.test[SHARE]) for result in results})
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    figure.axes[0].legend(fontsize=8)
    with atomic_file(path) as file:
        figure.savefig(file, format="png", dpi=110)
