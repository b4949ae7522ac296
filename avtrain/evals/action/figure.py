"""Figure of the confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shards.errors import drawable
from shards.files import atomic_file


def plot_confusion(
    counts: NDArray[np.int64], classes: Sequence[str], title: str, path: Path
) -> None:
    """Draw how often each class (rows) was predicted as each (columns), in shares of the row."""
    from matplotlib.figure import Figure  # slow to import, and needed only here

    side = min(14.0, 3.5 + 0.3 * len(classes))
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.subplots()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(shares, vmin=0, vmax=1, cmap="Blues")
    classes = [drawable(name) for name in classes]
    places, small = range(len(classes)), 8 if len(classes) <= 30 else 4
    axes.set_xticks(places, classes, rotation=90, fontsize=small)
    axes.set_yticks(places, classes, fontsize=small)
    axes.set(xlabel="predicted", ylabel="class", title=drawable(title))
    figure.colorbar(image, label="share of the class's videos", shrink=0.8)
    if len(classes) <= 30:
        for row, column in zip(*np.nonzero(counts), strict=True):
            colour = "white" if shares[row, column] > 0.5 else "black"
            text = str(counts[row, column])
            axes.text(column, row, text, ha="center", va="center", fontsize=small, color=colour)
    with atomic_file(path) as file:
        figure.savefig(file, format="png", dpi=120)
