"""Means and medians with 95 % intervals, by bootstrap over sources.

Items of one source are not independent, so that whole sources are drawn, with replacement.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from avtrain.evals.results import Metric

MAX_ROUNDS = 10_000
MAX_DRAWS = 20_000_000
"""Limit on rounds x sources, the number of entries of the drawn array: 160 MB."""
MEDIAN_ROUNDS = 1000
"""A median takes longer per round than a mean."""


def count_rounds(sources: int) -> int:
    """Number of bootstrap rounds for this number of sources: `MAX_ROUNDS`, fewer for thousands."""
    return min(MAX_ROUNDS, max(1000, MAX_DRAWS // sources))


def draw_sources(sources: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64] | None]:
    """Number each item's source (items,), and count how often each round draws each source,
    (rounds, sources); None for a single source."""
    names, number = np.unique(np.asarray(sources, dtype=str), return_inverse=True)
    if len(names) < 2:
        return number, None
    equal = np.full(len(names), 1 / len(names))
    counts = np.random.default_rng(0).multinomial(len(names), equal, size=count_rounds(len(names)))
    return number, counts


def middle_95(values: NDArray[np.float64]) -> tuple[float, float]:
    """Ends of the middle 95 % of a statistic's values in all rounds (rounds,)."""
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return float(low), float(high)


def mean_metric(
    values: ArrayLike,
    sources: ArrayLike,
    chance: float | None,
    weights: ArrayLike | None = None,
    unit: str = "%",
    better: str = "higher",
) -> Metric:
    """Mean of ``values`` (items,), weighted if ``weights`` (items,) are given."""
    values = np.asarray(values, dtype=np.float64)
    weight = np.ones(len(values)) if weights is None else np.asarray(weights, dtype=np.float64)
    number, counts = draw_sources(sources)
    mean = float((weight @ values) / weight.sum())
    if counts is None:
        return Metric(mean, None, chance, unit, better)
    above, below = np.bincount(number, weight * values), np.bincount(number, weight)
    return Metric(mean, middle_95((counts @ above) / (counts @ below)), chance, unit, better)


def median_metric(
    values: ArrayLike, sources: ArrayLike, chance: float | None, unit: str, better: str = "lower"
) -> Metric:
    """Median of ``values`` (items,)."""
    values = np.asarray(values, dtype=np.float64)
    number, counts = draw_sources(sources)
    median = float(np.median(values))
    if counts is None:
        return Metric(median, None, chance, unit, better)
    order = np.argsort(values, kind="stable")
    ordered, ordered_source = values[order], number[order]
    medians = []
    for drawn in counts[:: len(counts) // MEDIAN_ROUNDS]:
        reached = np.cumsum(drawn[ordered_source])
        medians.append(ordered[np.searchsorted(reached, reached[-1] / 2)])
    return Metric(median, middle_95(np.array(medians)), chance, unit, better)
