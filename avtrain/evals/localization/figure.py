"""Figure of the estimated directions beside the true ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from avtrain.evals.localization.metrics import Estimates
from avtrain.evals.results import Result
from avtrain.evals.tables import format_metrics, name_network
from shards.errors import drawable
from shards.files import atomic_file
from shards.geometry import direction_deg

_TICKS = np.arange(-180, 181, 60)
_MAX_SHOWN_DEG = 90.0


def plot_directions(estimates: Estimates, result: Result, path: Path) -> None:
    """Draw the true directions on the sphere, coloured by their errors, and the estimated azimuths
    over the true ones, as PNG. Left is left."""
    from matplotlib.figure import Figure  # slow to import, and needed only here

    azimuth, elevation = direction_deg(estimates.truth)
    error_deg = estimates.error_deg
    first = dict(list(result.metrics.items())[:3])
    estimated, _ = direction_deg(estimates.estimate)
    figure = Figure(figsize=(13, 4.6), layout="constrained")
    sphere, azimuths = figure.subplots(1, 2, width_ratios=(2, 1))
    colours: dict[str, Any] = {
        "c": error_deg,
        "cmap": "viridis_r",
        "vmin": 0,
        "vmax": _MAX_SHOWN_DEG,
    }
    dots = sphere.scatter(azimuth, elevation, s=16, **colours)
    figure.colorbar(dots, ax=sphere, label="error, °", extend="max")
    sphere.set(
        xlabel="true azimuth, ° (positive to the left)",
        ylabel="true elevation, ° (positive up)",
        xlim=(180, -180),
        ylim=(-90, 90),
        xticks=_TICKS,
        yticks=np.arange(-90, 91, 30),
        aspect="equal",
        title=drawable(f"{name_network(result.network).title}: {format_metrics(first)}"),
    )
    azimuths.plot([-180, 180], [-180, 180], color="0.7", zorder=0)
    azimuths.scatter(azimuth, estimated, s=10, **colours)
    azimuths.set(
        xlabel="true azimuth, °",
        ylabel="estimated azimuth, °",
        xlim=(180, -180),
        ylim=(180, -180),
        xticks=_TICKS,
        yticks=_TICKS,
        aspect="equal",
    )
    for axes in (sphere, azimuths):
        axes.grid(alpha=0.3)
        axes.set_axisbelow(True)
    with atomic_file(path) as file:
        figure.savefig(file, format="png", dpi=120)
