"""Random viewpoints: their distribution, their separation, and that they are reproducible."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from avprep.errors import UserError
from avprep.sphere.viewpoints import RandomViews
from shards.geometry import angle_between_deg, unit_vector

PAPER = RandomViews(8, (25.5, 90.0))


@settings(max_examples=30, deadline=None)
@given(st.text(min_size=1, max_size=20), st.integers(0, 99), st.integers(1, 8))
def test_centres_are_separated_and_within_the_elevation_band(
    key: str, seed: int, count: int
) -> None:
    views = RandomViews(count, (25.5, 90.0)).draw(key, seed)
    assert len(views) == count
    assert views == RandomViews(count, (25.5, 90.0)).draw(key, seed)
    centres = np.stack([unit_vector(view.azimuth_deg, view.elevation_deg) for view in views])
    arcs = angle_between_deg(centres[:, None], centres[None])
    assert np.all(arcs[~np.eye(count, dtype=bool)] >= 36.0)
    for view in views:
        assert abs(view.elevation_deg) <= 30.6
        assert 25.5 <= view.hfov_deg <= 90.0
        tangents = np.tan(np.radians([view.hfov_deg, view.vfov_deg]) / 2)
        assert 3 / 4 - 1e-4 <= tangents[0] / tangents[1] <= 4 / 3 + 1e-4


def test_azimuths_are_uniform_and_differ_between_clips() -> None:
    drawn = [PAPER.draw(f"clip-{number}", 0) for number in range(300)]
    azimuths = [view.azimuth_deg for views in drawn for view in views]
    assert stats.kstest(azimuths, stats.uniform(-180, 360).cdf).pvalue > 0.01
    assert len(set(drawn)) == 300
    assert PAPER.draw("clip-0", 1) != drawn[0]


def test_more_views_than_fit_are_refused() -> None:
    assert len(RandomViews(12, (60, 60)).draw("clip", 0)) == 12
    with pytest.raises(UserError, match="fewer with --views or for less distance"):
        RandomViews(30, (60, 60)).draw("clip", 0)
    assert len(RandomViews(30, (60, 60), min_separation_deg=10).draw("clip", 0)) == 30
