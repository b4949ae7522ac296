"""What few seeds can say: paired differences, their intervals and p-values, Holm's correction,
and which differences they can decide."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

Verdict = Literal["better", "worse", "no difference that matters", "undecided"]
BETTER: Verdict = "better"
WORSE: Verdict = "worse"
EQUAL: Verdict = "no difference that matters"
UNDECIDED: Verdict = "undecided"
LEVEL = 0.05
POWER = 0.8
FEWEST_SEEDS = 3


@dataclass(frozen=True)
class Difference:
    """Differences between two networks, one per seed; above zero the first network is better.

    ``interval``: 95 % interval of their mean, by Student's t. ``p``: probability of a mean so far
    from zero, on either side, if the true one is zero (paired t-test). With fewer than three seeds
    ``interval`` is None and ``p`` is 1: they decide nothing.
    """

    by_seed: dict[int, float]
    interval: tuple[float, float] | None
    p: float

    @classmethod
    def between(cls, values: dict[int, float], baseline: dict[int, float], sign: int) -> Difference:
        """``values`` minus ``baseline`` for the seeds that both have, times ``sign``."""
        by_seed = {
            seed: sign * (values[seed] - baseline[seed])
            for seed in sorted(values.keys() & baseline.keys())
        }
        count = len(by_seed)
        if count < FEWEST_SEEDS:
            return cls(by_seed, None, 1.0)
        differences = np.array(list(by_seed.values()))
        mean, error = differences.mean(), differences.std(ddof=1) / count**0.5
        half = stats.t.ppf(1 - LEVEL / 2, count - 1) * error
        # Equal differences of all seeds: their mean is then known exactly.
        p = float(mean == 0) if error == 0 else 2 * stats.t.sf(abs(mean) / error, count - 1)
        return cls(by_seed, (float(mean - half), float(mean + half)), float(p))

    @property
    def mean(self) -> float:
        return float(np.mean(list(self.by_seed.values())))

    def verdict(self, matters: float, p: float) -> Verdict:
        """``matters``: the smallest difference that matters. ``p``: corrected for the family.

        A difference is smaller than what matters if its interval lies within ± ``matters``, even
        if it is not zero. (Two one-sided tests at 5 % need only the 90 % interval to lie there:
        Schuirmann 1987. The 95 % interval is stricter.)
        """
        if self.interval is None:
            return UNDECIDED
        if -matters < self.interval[0] and self.interval[1] < matters:
            return EQUAL
        if p < LEVEL:
            return BETTER if self.mean > 0 else WORSE
        return UNDECIDED


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values of a family of m tests, corrected (Holm 1979): the smallest is multiplied by m, the
    next one by m − 1, and so on; none becomes smaller than one before it, or larger than 1."""
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = largest
    return corrected


def power(difference: float, deviation: float, seeds: int, level: float = LEVEL) -> float:
    """Probability that a paired t-test at ``level`` (two-sided) decides a true ``difference``.

    ``deviation``: standard deviation of the differences of single seeds. With n seeds, t has a
    noncentral t distribution with n − 1 degrees of freedom and noncentrality
    difference · √n / deviation (Cohen 1988, Statistical Power Analysis, section 2.5).
    """
    critical = stats.t.ppf(1 - level / 2, seeds - 1)
    away = abs(difference) * seeds**0.5 / deviation
    above = stats.nct.sf(critical, seeds - 1, away)
    below = stats.nct.cdf(-critical, seeds - 1, away)
    return float(above + (0.0 if np.isnan(below) else below))  # it underflows far from zero


def detectable(deviation: float, seeds: int, level: float = LEVEL) -> float:
    """Smallest true difference that ``seeds`` decide with a probability of `POWER`."""
    return 0.0 if deviation == 0 else _detectable_deviations(seeds, level) * deviation


@cache
def _detectable_deviations(seeds: int, level: float) -> float:
    """`detectable` in units of the deviation; two seeds at a level of 0.01 need about 60."""
    return float(optimize.brentq(lambda d: power(d, 1.0, seeds, level) - POWER, 1e-6, 1e3))


def excludable(deviation: float, seeds: int) -> float:
    """Smallest margin within which the 95 % interval lies with a probability of `POWER` if the true
    difference is zero.

    The mean of the differences is normal with variance σ²/n, and independent of their sample
    variance s², for which (n − 1) s²/σ² has a chi-squared distribution; the probability of
    |mean| + t · s/√n < margin is integrated over s in steps of equal probability.
    """
    if deviation == 0:
        return 0.0
    shares = (np.arange(2000) + 0.5) / 2000
    sample = np.sqrt(stats.chi2.ppf(shares, seeds - 1) / (seeds - 1))
    half = stats.t.ppf(1 - LEVEL / 2, seeds - 1) * sample

    def missing(margin: float) -> float:
        """``margin`` in standard errors of the mean."""
        within = 2 * stats.norm.cdf(np.maximum(margin - half, 0)) - 1
        return float(within.mean()) - POWER

    return float(optimize.brentq(missing, 0.1, 1e3)) * deviation / seeds**0.5


def paired_deviation(values: NDArray[np.float64]) -> float:
    """Standard deviation of the difference between two networks of the same seed, from ``values``
    of k networks and n seeds (k, n).

    Without the mean of each network and of each seed, the squares of what is left have (k − 1) ·
    (n − 1) degrees of freedom and estimate the variance of one network's deviation from its seed;
    a difference has twice that (two-way analysis of variance without replication).
    """
    rest = values - values.mean(axis=0) - values.mean(axis=1, keepdims=True) + values.mean()
    degrees = (values.shape[0] - 1) * (values.shape[1] - 1)
    return float(np.sqrt(2 * np.square(rest).sum() / degrees))
