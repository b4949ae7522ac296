"""Directions and rotations of ambisonics against closed-form results."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from shards.geometry import (
    MIRROR,
    angle_between_deg,
    direction_deg,
    encode_foa,
    foa_matrix,
    rotate_foa,
    unit_vector,
    view_foa_matrix,
    view_rotation,
)

azimuths = st.floats(-180, 180, exclude_min=True)
elevations = st.floats(-90, 90)
# Yaw and pitch at once, at the seam and near the poles.
HARD_DIRECTIONS = [(40, 25), (-140, -35), (180, 20), (-179.99, -50), (179.99, 80), (75, -80)]


def plane_wave(azimuth: float, elevation: float) -> np.ndarray:
    signal = np.random.default_rng(1).standard_normal(500)
    return encode_foa(signal, unit_vector(azimuth, elevation))


@pytest.mark.parametrize(("azimuth", "elevation"), HARD_DIRECTIONS)
def test_rotating_to_a_view_brings_its_direction_to_the_front(
    azimuth: float, elevation: float
) -> None:
    w, y, z, x = rotate_foa(plane_wave(azimuth, elevation), view_foa_matrix(azimuth, elevation))
    peak = np.abs(w).max()
    assert np.abs(x - w).max() < 1e-5 * peak
    assert np.abs(y).max() < 1e-5 * peak
    assert np.abs(z).max() < 1e-5 * peak


@given(azimuths, elevations)
def test_view_rotation_takes_every_direction_to_the_front(azimuth: float, elevation: float) -> None:
    front = view_rotation(azimuth, elevation) @ unit_vector(azimuth, elevation)
    np.testing.assert_allclose(front, [1, 0, 0], atol=1e-12)


@given(azimuths, elevations, azimuths, elevations)
def test_rotation_preserves_w_and_the_directional_energy(
    a: float, e: float, b: float, f: float
) -> None:
    before = plane_wave(b, f)
    after = rotate_foa(before, view_foa_matrix(a, e))
    np.testing.assert_array_equal(after[0], before[0])
    np.testing.assert_allclose(
        np.square(after[1:]).sum(0), np.square(before[1:]).sum(0), rtol=1e-5, atol=1e-9
    )


@given(azimuths, elevations)
def test_view_rotation_agrees_with_scipy(azimuth: float, elevation: float) -> None:
    # Lower case: rotations about fixed axes, yaw first.
    expected = Rotation.from_euler("zy", [-azimuth, elevation], degrees=True).as_matrix()
    np.testing.assert_allclose(view_rotation(azimuth, elevation), expected, atol=1e-12)


@given(azimuths, st.floats(-89, 89), azimuths, elevations)
def test_rotated_foa_agrees_with_spherical_trigonometry(
    a: float, e: float, b: float, f: float
) -> None:
    """A source at (b, f) heard from a view at (a, e), by spherical cosine rules."""
    rotated = rotate_foa(plane_wave(b, f), view_foa_matrix(a, e))
    d, p, q = np.radians(b - a), np.radians(f), np.radians(e)
    front = np.sin(q) * np.sin(p) + np.cos(q) * np.cos(p) * np.cos(d)
    left = np.cos(p) * np.sin(d)
    up = np.cos(q) * np.sin(p) - np.sin(q) * np.cos(p) * np.cos(d)
    expected = np.outer([1, left, up, front], rotated[0])
    np.testing.assert_allclose(rotated, expected, atol=1e-5 * np.abs(rotated[0]).max())


@given(azimuths, elevations)
def test_view_rotation_has_no_roll(azimuth: float, elevation: float) -> None:
    """The zenith stays in the view's vertical plane."""
    zenith = view_rotation(azimuth, elevation) @ [0, 0, 1]
    assert abs(zenith[1]) < 1e-12
    assert zenith[2] >= -1e-12


def test_azimuth_is_positive_to_the_left_and_elevation_upwards() -> None:
    np.testing.assert_allclose(unit_vector(90, 0), [0, 1, 0], atol=1e-15)
    np.testing.assert_allclose(unit_vector(0, 90), [0, 0, 1], atol=1e-15)
    _, y, z, x = encode_foa(np.ones(1), unit_vector(30, 20))[:, 0]
    assert y > 0
    assert z > 0
    assert x > 0


def test_mirroring_a_source_negates_its_azimuth() -> None:
    np.testing.assert_allclose(
        rotate_foa(plane_wave(40, 25), MIRROR), plane_wave(-40, 25), atol=1e-6
    )


@given(azimuths, st.floats(-89.9, 89.9))
def test_direction_deg_inverts_unit_vector(azimuth: float, elevation: float) -> None:
    back_azimuth, back_elevation = direction_deg(3.0 * unit_vector(azimuth, elevation))
    assert -180 < back_azimuth <= 180
    assert (
        angle_between_deg(
            unit_vector(back_azimuth, back_elevation), unit_vector(azimuth, elevation)
        )
        < 1e-9
    )


def test_foa_matrix_of_a_product_is_the_product_of_foa_matrices() -> None:
    a, b = view_rotation(30, -40), view_rotation(-170, 75)
    np.testing.assert_allclose(foa_matrix(a @ b), foa_matrix(a) @ foa_matrix(b), atol=1e-12)


def test_a_moving_source_is_encoded_sample_by_sample() -> None:
    directions = unit_vector([10, 170], [5, -60])
    foa = encode_foa(np.array([2.0, 3.0]), directions)
    for sample in (0, 1):
        x, y, z = directions[sample]
        np.testing.assert_allclose(
            foa[:, sample], np.array([1, y, z, x]) * (2, 3)[sample], rtol=1e-6
        )
