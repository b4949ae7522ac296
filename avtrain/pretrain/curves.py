"""Curves of a run, and confusions of classes, as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avtrain.config import Config
from shards.files import atomic_file


def plot_curves(log: list[dict[str, Any]], config: Config, path: Path) -> None:
    """Loss and accuracies over the steps: every step thin, running means thick."""
    from matplotlib.figure import Figure  # slow to import, and needed only here

    steps = np.array([line["step"] for line in log])
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    loss_axes, accuracy_axes = figure.subplots(1, 2)
    _curve(loss_axes, steps, np.array([line["loss"] for line in log]), "loss", "C0")
    curves = {"clip_accuracy": "right clip among the batch's"}
    if log[-1]["view_accuracy"] is not None:
        slots, kind = config.clip.views, "view"
        if config.task == "avts":
            slots, kind = config.clip.moments, "moment"
        curves["view_accuracy"] = f"right {kind} among the clip's {slots}"
        chance = 1 / slots
        accuracy_axes.axhline(chance, color="C2", linestyle=":", label=f"chance, {kind}")
    for colour, (name, label) in zip(("C1", "C2"), curves.items(), strict=False):
        _curve(accuracy_axes, steps, np.array([line[name] for line in log]), label, colour)
    loss_axes.set(xlabel="step", ylabel="loss", title=f"{config.task}, {config.preset}")
    accuracy_axes.set(xlabel="step", ylabel="accuracy", ylim=(0, 1))
    accuracy_axes.legend(loc="lower right")
    with atomic_file(path) as file:
        figure.savefig(file, format="png", dpi=120)


def _curve(axes: Any, steps: Any, values: Any, label: str, colour: str) -> None:
    width = max(1, len(values) // 50)
    axes.plot(steps, values, color=colour, alpha=0.25, linewidth=0.8)
    means = np.convolve(values, np.ones(width) / width, mode="valid")
    axes.plot(steps[width - 1 :], means, color=colour, label=label)


def plot_confusion(
    counts: NDArray[np.int64], classes: Sequence[str], title: str, path: Path
) -> None:
    """How often each class (rows) was named as each (columns), in shares of the row."""
    from matplotlib.figure import Figure  # slow to import, and needed only here

    side = min(14.0, 3.5 + 0.3 * len(classes))
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.subplots()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(shares, vmin=0, vmax=1, cmap="Blues")
    places, small = range(len(classes)), 8 if len(classes) <= 30 else 4
    axes.set_xticks(places, classes, rotation=90, fontsize=small)
    axes.set_yticks(places, classes, fontsize=small)
    axes.set(xlabel="named", ylabel="class", title=title)
    figure.colorbar(image, label="share of the class's videos", shrink=0.8)
    if len(classes) <= 30:
        for row, column in zip(*np.nonzero(counts), strict=True):
            colour = "white" if shares[row, column] > 0.5 else "black"
            text = str(counts[row, column])
            axes.text(column, row, text, ha="center", va="center", fontsize=small, color=colour)
    with atomic_file(path) as file:
        figure.savefig(file, format="png", dpi=120)
