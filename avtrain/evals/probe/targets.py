"""What is asked of a feature: values to predict, and the errors of predictions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from avtrain.evals.probe.data import Truth

MOST_SOURCES = 3
"""More sources count as this many: there are few such windows."""
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Target:
    """``values`` gives what is to be predicted of the items: unit vectors (M, 3), numbers of
    classes (M,), or quantities above 0 (M,); NaN or -1 where there is nothing to predict. ``needs``
    says which windows have it. ``balanced``: every class counts the same."""

    name: str
    kind: Literal["direction", "class", "quantity"]
    values: Callable[[Truth], NDArray[np.generic]]
    needs: str
    balanced: bool = False

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of what is measured."""
        if self.kind != "direction":
            return (self.name,)
        return tuple(self.name.replace("direction", angle) for angle in ("azimuth", "elevation"))

    def known(self, truth: Truth) -> NDArray[np.bool_]:
        """Mask (M,) of the items that have a value."""
        values = self.values(truth).astype(np.float64)
        if self.kind == "class":
            return np.asarray(values >= 0)
        finite = np.isfinite(values)
        return np.asarray(finite if self.kind == "quantity" else finite.all(axis=1))


def _seen_direction(truth: Truth) -> Floats:
    return np.where((truth.in_view == 1)[:, None], truth.direction, np.nan)


_ONE = "exactly one source that sounds"
TARGETS = (
    Target("direction", "direction", lambda truth: truth.direction, _ONE),
    Target(
        "direction in view", "direction", _seen_direction, f"{_ONE}, in sight and inside a view"
    ),
    Target("source in view", "class", lambda truth: truth.in_view, _ONE, balanced=True),
    Target("class", "class", lambda truth: truth.kind, _ONE),
    Target(
        "number of sources",
        "class",
        lambda truth: np.minimum(truth.count, MOST_SOURCES),
        "`events` in its record",
        balanced=True,
    ),
    Target(
        "distance",
        "quantity",
        lambda truth: truth.distance_m,
        f"{_ONE}, with a distance (`distance_m`)",
    ),
    Target(
        "reverberation time",
        "quantity",
        lambda truth: truth.rt60_s,
        "a reverberation time (`reverberation_rt60_s`) in its record",
    ),
)


@dataclass(frozen=True)
class Errors:
    """What is measured of each item (M,), with its unit; ``weights`` (M,) for the mean."""

    values: Floats
    unit: str
    better: str
    weights: Floats | None = None


def measure_errors(
    target: Target, outputs: Floats, truth: NDArray[np.generic]
) -> dict[str, Errors]:
    """Errors by name of metric, from a probe's outputs (M, K) and the truth of the items.

    Directions: azimuth and elevation apart, in degrees. The outputs are estimates of a unit
    vector's components: the elevation is the arcsine of the last one, so that an output of 0
    points to the horizon. Classes: whether the largest output is that of the class, numbered from
    0. Quantities: the relative error; the outputs are logarithms.
    """
    if target.kind == "direction":
        azimuths = [np.arctan2(vector[:, 1], vector[:, 0]) for vector in (outputs, truth)]
        turn = np.angle(np.exp(1j * (azimuths[0] - azimuths[1])))
        heights = [np.arcsin(np.clip(vector[:, 2], -1, 1)) for vector in (outputs, truth)]
        found = np.degrees([np.abs(turn), np.abs(heights[0] - heights[1])])
        return {
            name: Errors(values, "°", "lower")
            for name, values in zip(target.metrics, found, strict=True)
        }
    if target.kind == "quantity":
        values = np.abs(np.exp(outputs[:, 0]) / truth - 1)
        return {target.name: Errors(values, "%", "lower")}
    right = outputs.argmax(axis=1) == truth
    weights = balance(truth.astype(np.int64)) if target.balanced else None
    return {target.name: Errors(right.astype(np.float64), "%", "higher", weights)}


def balance(classes: NDArray[np.int64]) -> Floats:
    """Weights (M,) with which each of the classes (M,) that occur counts the same; mean 1."""
    _, number, count = np.unique(classes, return_inverse=True, return_counts=True)
    return np.asarray(len(classes) / (len(count) * count[number]))
