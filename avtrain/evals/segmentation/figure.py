"""Figure of views with their true and predicted classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from avtrain.evals.results import Result
from avtrain.evals.segmentation.data import VOID, Classes
from avtrain.evals.tables import format_metrics, name_network
from shards.errors import drawable
from shards.files import atomic_file

ACROSS = 3
OPACITY = 0.6


@dataclass(frozen=True)
class Example:
    """A view: ``frame`` uint8 (height, width, 3), and maps of classes (height, width)."""

    title: str
    frame: NDArray[np.uint8]
    truth: NDArray[np.uint8]
    predicted: NDArray[np.uint8]


def plot_overlays(
    examples: Sequence[Example], classes: Classes, result: Result, path: Path
) -> None:
    """Draw frame, truth and prediction of each example side by side, and a legend."""
    from matplotlib.figure import Figure  # slow to import, and needed only here
    from matplotlib.patches import Patch

    palette = _palette(len(classes.ids))
    down = -(-len(examples) // ACROSS)
    figure = Figure(figsize=(4.5 * ACROSS, 1.75 * down + 1.2), layout="constrained")
    cells = np.atleast_2d(figure.subplots(down, 3 * ACROSS))
    for axes in cells.flat:
        axes.set_axis_off()
    for place, example in enumerate(examples):
        row, column = place // ACROSS, place % ACROSS * 3
        images = {
            example.title: example.frame,
            "truth": _overlay(example.frame, example.truth, palette),
            # Where the truth is unknown, no prediction is shown either.
            "prediction": _overlay(
                example.frame,
                np.where(example.truth == VOID, VOID, example.predicted),
                palette,
            ),
        }
        for axes, (title, image) in zip(cells[row, column:], images.items(), strict=False):
            axes.imshow(image, interpolation="nearest")
            axes.set_title(drawable(title), fontsize=7)
    shown = np.unique([np.stack([example.truth, example.predicted]) for example in examples])
    figure.legend(
        handles=[
            Patch(color=palette[k], label=drawable(classes.names[k])) for k in shown if k != VOID
        ],
        loc="outside lower center",
        ncols=16,
        fontsize=7,
    )
    name = name_network(result.network).title
    figure.suptitle(drawable(f"{result.task}, {name}: {format_metrics(result.metrics)}"))
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as file:
        figure.savefig(file, format="png", dpi=120)


def _palette(count: int) -> NDArray[np.float64]:
    """Colours (count, 3) in [0, 1]: distant hues in three brightnesses."""
    from matplotlib.colors import hsv_to_rgb

    number = np.arange(count)
    hue = number * 0.618034 % 1.0  # the golden ratio keeps neighbours apart
    brightness = np.array([1.0, 0.7, 0.85])[number % 3]
    return np.asarray(hsv_to_rgb(np.stack([hue, np.full(count, 0.85), brightness], axis=-1)))


def _overlay(
    frame: NDArray[np.uint8], labels: NDArray[np.uint8], palette: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The frame in grey under the colours of its classes; dark where it has no class."""
    colours = np.zeros((256, 3))
    colours[: len(palette)] = palette
    grey = frame.mean(axis=-1, keepdims=True) / 255
    return np.asarray((1 - OPACITY) * grey + OPACITY * colours[labels])
