"""Figure of a run: loss and accuracies over the steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from avtrain.config import Config
from shards.files import atomic_file


def plot_curves(log: Sequence[Mapping[str, Any]], config: Config, path: Path) -> None:
    """Plot loss and accuracies over the steps: single steps thin, running means thick."""
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
