"""What few seeds can say: against values worked out by hand, tables, and simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.study.all_page import earlier_deviation
from benchmarks.study.claims import ACTIONS, AVSA_4, LOCALIZATION, SELD
from benchmarks.study.statistics import (
    BETTER,
    EQUAL,
    UNDECIDED,
    WORSE,
    Difference,
    detectable,
    excludable,
    holm,
    paired_deviation,
    power,
)


def difference(*values: float) -> Difference:
    return Difference.between(dict(enumerate(values)), dict.fromkeys(range(len(values)), 0.0), 1)


def test_holm_by_hand() -> None:
    # Sorted: 0.005 × 4, 0.01 × 3, 0.03 × 2, then 0.04 × 1, which may not become smaller than 0.06.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
    assert holm([0.5, 0.6]) == [1.0, 1.0]


@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_keeps_the_order_and_makes_nothing_smaller(p_values: list[float]) -> None:
    corrected = holm(p_values)
    assert all(after >= before for before, after in zip(p_values, corrected, strict=True))
    assert all(p <= 1 for p in corrected)
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    assert [corrected[index] for index in order] == sorted(corrected)
    # A test that is not measured (p = 1) makes no other one look better, and none less than alone.
    more = holm([*p_values, 1.0])
    assert all(after >= before for before, after in zip(corrected, more, strict=False))


def test_the_interval_is_students() -> None:
    one = difference(1, 2, 3, 4, 5)
    # Mean 3, standard deviation √2.5, t(0.975, 4) = 2.776, t = 3 / √0.5 = 4.243: p = 0.0132.
    assert one.mean == 3
    assert one.interval == pytest.approx((3 - 2.7764 * 0.5**0.5, 3 + 2.7764 * 0.5**0.5), abs=1e-3)
    assert one.p == pytest.approx(0.0132, abs=5e-5)
    assert Difference.between({0: 1.0, 1: 2.0, 7: 9.0}, {0: 3.0, 1: 3.0, 2: 0.0}, -1).by_seed == {
        0: 2.0,
        1: 1.0,
    }


@pytest.mark.parametrize(
    ("values", "matters", "p", "verdict"),
    [
        ((4, 5, 6), 2, 0.01, BETTER),
        ((-4, -5, -6), 2, 0.01, WORSE),
        ((4, 5, 6), 2, 0.06, UNDECIDED),  # the family's correction decides
        ((0.1, -0.1, 0), 2, 1.0, EQUAL),
        ((0.4, 0.5, 0.6), 2, 0.01, EQUAL),  # above zero, and too small to matter
        ((0.1, -0.1, 0), 0.2, 1.0, UNDECIDED),  # the interval reaches 0.25
        ((9, -9, 0), 2, 1.0, UNDECIDED),
        ((5, 5), 2, 0.0, UNDECIDED),  # two seeds decide nothing, however far they are
        ((0, 0), 2, 1.0, UNDECIDED),
        ((3, 3, 3), 2, 0.0, BETTER),
    ],
)
def test_verdicts(values: tuple[float, ...], matters: float, p: float, verdict: str) -> None:
    assert difference(*values).verdict(matters, p) == verdict


def test_equal_differences_of_all_seeds_are_known_exactly() -> None:
    assert difference(3, 3, 3).p == 0
    assert difference(0, 0, 0).p == 1
    assert difference(5, 5).p == 1


def test_power_agrees_with_a_known_case() -> None:
    """G*Power 3.1, paired t-test, two-sided, 5 %: dz = 0.5 needs n = 34, with a power of 0.8078."""
    assert power(0.5, 1, 34) == pytest.approx(0.8078, abs=2e-4)
    assert power(2, 2, 5) == pytest.approx(power(-1, 1, 5))
    assert power(0, 1, 5) == pytest.approx(0.05)
    assert power(50, 1, 5) == pytest.approx(1)


@pytest.mark.parametrize("seeds", [3, 5])
def test_what_is_detectable_and_excludable_is_so_in_simulation(seeds: int) -> None:
    rng = np.random.default_rng(seeds)
    deviation, trials = 1.7, 4000
    for true, matters, verdict in (
        (detectable(deviation, seeds), 1e-9, BETTER),
        (0.0, excludable(deviation, seeds), EQUAL),
    ):
        drawn = rng.normal(true, deviation, (trials, seeds))
        found = [difference(*values) for values in drawn.tolist()]
        share = np.mean([one.verdict(matters, one.p) == verdict for one in found])
        assert share == pytest.approx(0.8, abs=0.03)
    assert detectable(0, seeds) == excludable(0, seeds) == 0
    assert detectable(deviation, seeds, 0.01) > detectable(deviation, seeds)


def test_the_deviation_of_a_difference_without_effects_of_networks_and_seeds() -> None:
    rng = np.random.default_rng(0)
    networks, seeds = np.arange(300)[:, None] * 5.0, rng.normal(0, 9, 40)
    values = networks + seeds + rng.normal(0, 1.5, (300, 40))
    assert paired_deviation(values) == pytest.approx(1.5 * 2**0.5, rel=0.03)
    # Two networks: the standard deviation of their differences.
    assert paired_deviation(values[:2]) == pytest.approx(np.std(values[0] - values[1], ddof=1))


def test_the_scatter_of_the_earlier_study_is_known() -> None:
    for column in (AVSA_4, LOCALIZATION, ACTIONS):
        deviation = earlier_deviation(column)
        assert deviation is not None
        assert 0.3 < deviation < 6
    assert earlier_deviation(SELD) is None
