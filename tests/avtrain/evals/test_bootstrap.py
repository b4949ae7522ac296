"""Intervals by bootstrap are as wide as theory says, for independent and for equal items."""

from __future__ import annotations

import numpy as np
import pytest

from avtrain.evals.bootstrap import mean_metric, median_metric
from avtrain.evals.results import Metric


def test_intervals_resample_sources() -> None:
    rng = np.random.default_rng(0)
    sources = np.repeat(np.arange(40), 25)
    independent = rng.random(1000) < 0.7
    metric = mean_metric(independent, sources, 0.5)
    assert metric.value == independent.mean()
    assert metric.interval_95 is not None
    low, high = metric.interval_95
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(0.21 / 1000), rel=0.25)
    # All decisions of a source are equal: 40 independent ones, not 1000.
    alike = np.repeat(rng.random(40) < 0.7, 25)
    metric = mean_metric(alike, sources, 0.5)
    assert metric.interval_95 is not None
    low, high = metric.interval_95
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(0.21 / 40), rel=0.25)
    assert mean_metric(alike, sources, 0.5) == metric
    assert mean_metric([True, False], ["a", "a"], 0.5) == Metric(0.5, None, 0.5)


def test_interval_of_a_median() -> None:
    values = np.random.default_rng(0).normal(30, 10, 900)
    metric = median_metric(values, np.arange(900), 90.0, "°")
    assert metric.value == np.median(values)
    assert metric.interval_95 is not None
    low, high = metric.interval_95
    # The median of n normal numbers has a standard deviation of 1.2533 sigma / sqrt(n).
    assert high - low == pytest.approx(2 * 1.96 * 1.2533 * 10 / 30, rel=0.25)
    assert low < metric.value < high
