"""Maps over the sphere, against directions and energies in closed form."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avtrain.locate import draw
from avtrain.locate.grid import grid_directions
from avtrain.locate.heat_map import (
    HEIGHT,
    SphereMap,
    energy_map,
    find_peak,
    mean_angle_deg,
    pixel_directions,
)
from avtrain.locate.scores import _covariance, a_weighting
from avtrain.networks.features import FeatureConfig
from shards.geometry import (
    angle_between_deg,
    encode_foa,
    rotate_foa,
    unit_vector,
    view_foa_matrix,
)
from shards.schema import View

PIXEL_DEG = 180 / HEIGHT


def grid(spacing_deg: float, hfov_deg: float = 80.0) -> list[View]:
    return [View(*map(float, one), hfov_deg, hfov_deg) for one in grid_directions(spacing_deg)]


def directions(count: int) -> np.ndarray:
    vectors = np.random.default_rng(0).normal(size=(count, 3))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@given(st.floats(7.0, 90.0))
@settings(max_examples=15)
def test_every_direction_is_near_a_view_of_the_grid(spacing_deg: float) -> None:
    views = grid(spacing_deg)  # azimuths and elevations that a set can hold
    middles = unit_vector([v.azimuth_deg for v in views], [v.elevation_deg for v in views])
    nearest = (directions(500) @ middles.T).max(axis=1)
    assert np.degrees(np.arccos(nearest.min())) <= spacing_deg
    assert len(views) <= 1000  # as many as a set may have
    ideal = 4 * np.pi / np.radians(spacing_deg) ** 2
    assert len(views) <= 2 * ideal + 12  # and not many more than are needed


@pytest.mark.parametrize(
    ("spacing_deg", "hfov_deg", "most_deg"), [(20, 80, 1.5), (30, 80, 1.5), (30, 45, 4.5)]
)
def test_a_peak_between_views_comes_out_where_it_is(
    spacing_deg: float, hfov_deg: float, most_deg: float
) -> None:
    """A score that falls off around a direction with the width of a view of 80°."""
    views = grid(spacing_deg, hfov_deg)
    sphere = SphereMap(views)
    middles = unit_vector([v.azimuth_deg for v in views], [v.elevation_deg for v in views])
    for target in [unit_vector(67.0, 23.0), unit_vector(-179.0, -52.0), *directions(20)]:
        score = np.exp((middles @ target - 1) / np.radians(30) ** 2)
        peak = find_peak(sphere(score))
        assert angle_between_deg(peak.direction, target) <= most_deg + PIXEL_DEG / 2
        assert score.min() <= peak.value <= score.max()


def test_equal_scores_are_an_even_map() -> None:
    for views in (grid(30.0), grid(30.0)[3:8]):
        seen = SphereMap(views)(np.full(len(views), 0.37))
        np.testing.assert_allclose(seen[np.isfinite(seen)], 0.37, rtol=1e-5)
        assert np.isfinite(seen).any()


def test_nothing_is_said_of_directions_that_no_view_shows() -> None:
    seen = np.isfinite(SphereMap([View(60.0, 20.0, 80, 60), View(80.0, 20.0, 80, 60)])(np.ones(2)))
    middles = unit_vector([60.0, 80.0], [20.0, 20.0])
    away = np.degrees(np.arccos(pixel_directions() @ middles.T)).min(axis=-1)
    np.testing.assert_array_equal(seen, away <= 40.0)
    assert np.isfinite(SphereMap(grid(30.0))(np.ones(48))).all()


def test_the_energy_of_a_plane_wave_is_that_of_a_cardioid() -> None:
    wave = np.random.default_rng(0).standard_normal(2400)
    source = unit_vector(-130.0, 41.0)
    field = encode_foa(wave, source).astype(np.float64)
    found = energy_map(field @ field.T / field.shape[1])
    cosine = pixel_directions() @ source
    expected = np.mean(wave**2) * ((1 + cosine) / 2) ** 2
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    assert angle_between_deg(find_peak(found).direction, source) <= PIXEL_DEG


def test_chance_is_a_quarter_turn_from_one_source() -> None:
    assert mean_angle_deg(unit_vector([33.0], [-50.0])) == pytest.approx(90.0, abs=0.5)
    both = np.stack([unit_vector(33.0, 10.0), -unit_vector(33.0, 10.0)])
    assert mean_angle_deg(both) == pytest.approx(np.degrees(1.0), abs=0.5)


@pytest.mark.parametrize("shape", ["o", "+", "x"])
@pytest.mark.parametrize("place", [(67.0, 23.0), (-120.0, -48.0), (179.5, 5.0), (0.0, 89.0)])
def test_marks_and_maps_are_drawn_where_they_belong(shape: str, place: tuple[float, float]) -> None:
    frame = np.full((draw.HEIGHT, draw.WIDTH, 3), 90, np.uint8)
    nothing = np.zeros((HEIGHT, 2 * HEIGHT), np.float32)
    marked = draw.panel(frame, nothing, [draw.Mark(shape, *place, (9, 250, 3))], "title")
    assert marked.shape == (draw.HEAD + draw.HEIGHT, draw.WIDTH, 3)
    at = np.argwhere((marked[draw.HEAD :] == (9, 250, 3)).all(axis=-1))
    column = at[:, 1] + 0.5
    around = np.angle(np.exp(2j * np.pi * column / draw.WIDTH).mean()) / (2 * np.pi)
    assert (around - (0.5 - place[0] / 360) + 0.5) % 1 - 0.5 == pytest.approx(0, abs=1 / 512)
    if abs(place[1]) < 80:  # else it is cut
        row = (at[:, 0] + 0.5).mean() / draw.HEIGHT
        assert row == pytest.approx(0.5 - place[1] / 180, abs=1 / 256)

    hot = np.exp((pixel_directions() @ unit_vector(*place) - 1) / 0.1).astype(np.float32)
    heated = draw.panel(frame, hot, [], "title")[draw.HEAD :].astype(int)
    row, column = np.unravel_index(np.abs(heated - 90).sum(axis=-1).argmax(), heated.shape[:2])
    found = unit_vector(180 - 360 * (column + 0.5) / 512, 90 - 180 * (row + 0.5) / 256)
    assert angle_between_deg(found, unit_vector(*place)) <= 3.0  # colours have 256 steps


def test_scales_hold_for_the_lowest_and_the_highest_value() -> None:
    values = np.array([[np.nan, -1.0, 0.0, 1.0, 3.0, 9.0]], np.float32)
    shares = draw.Scale(-1.0, 3.0).shares(values)
    np.testing.assert_allclose(shares, [[0, 0, 0.25, 0.5, 1, 1]])
    assert draw.text_line("x" * 500).shape == (draw.HEAD, draw.WIDTH, 3)


def test_the_energy_is_weighted_as_hearing_is() -> None:
    """Against the table of IEC 61672-1, and for a tone of 1 kHz against its plain covariance."""
    table_db = {31.62: -39.4, 100.0: -19.1, 1000.0: 0.0, 2512.0: 1.3, 10_000.0: -2.5}
    found_db = 20 * np.log10(a_weighting(np.array([*table_db])))
    np.testing.assert_allclose(found_db, [*table_db.values()], atol=0.06)

    tone = 0.3 * np.sin(2 * np.pi * 1000 * np.arange(24_000) / 24_000)
    field = encode_foa(tone, unit_vector(-130.0, 41.0))
    turned = view_foa_matrix(70.0, -20.0)  # as it is stored for a view

    class Stored:
        def foa(self, sample: int, start: int, count: int) -> tuple[np.ndarray, np.ndarray]:
            return rotate_foa(field, turned)[:, start : start + count], turned

    found = _covariance(Stored(), 0, 0.25, FeatureConfig(duration_s=0.5))
    np.testing.assert_allclose(found, np.cov(field, bias=True), atol=1e-4)
