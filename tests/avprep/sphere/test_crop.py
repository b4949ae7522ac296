"""Crops against closed-form results: positions of dots, angles, absence of aliasing."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from avprep.sphere.crop import (
    Cropper,
    view_directions,
    view_position,
)
from avprep.sphere.projections import Sphere, vertical_fov_deg
from shards.geometry import angle_between_deg, unit_vector
from shards.schema import View
from tests.support.media import centroid, dot_plane, gnomonic, grey_frame, planes_of

SIZES = [(360, 640), (960, 1920), (1920, 3840)]
DIRECTIONS = [(40, 25), (-140, -35), (180, 20), (-179.9, -30), (60, 80), (-100, -80)]
CROP = 112
# Dots span a few source pixels, so that their centre is well defined.
SIGMA_DEG = {360: 1.6, 960: 1.2, 1920: 1.2}


def pixel_deg(view: View) -> float:
    """Angle of one output pixel at the crop's centre."""
    return float(np.degrees(2 * np.tan(np.radians(view.hfov_deg) / 2) / CROP))


@dataclass(frozen=True)
class Dot:
    """A frame of this size with a dot in this direction. Not to be changed."""

    size: tuple[int, int]
    azimuth: float
    elevation: float
    frame: NDArray[np.uint8]


@pytest.fixture(scope="module", params=product(SIZES, DIRECTIONS), ids=str)
def dot(request: pytest.FixtureRequest) -> Dot:
    size, direction = request.param
    frame = grey_frame(dot_plane(*size, *direction, SIGMA_DEG[size[0]]))
    return Dot(size, *direction, frame)


def test_a_dot_in_the_views_direction_appears_at_the_centre(dot: Dot) -> None:
    for hfov in (40.0, 80.0):
        view = View(dot.azimuth, dot.elevation, hfov, hfov)
        crop = Cropper(*dot.size, (view,), CROP).crop(planes_of(dot.frame))[0][:CROP]
        x, y = centroid(crop)
        off = np.hypot(x - CROP / 2, y - CROP / 2) * pixel_deg(view)
        assert off < max(0.1, pixel_deg(view) / 4)


def test_other_dots_appear_where_the_gnomonic_formula_puts_them(dot: Dot) -> None:
    azimuth, elevation = dot.azimuth, dot.elevation
    for away in ((9, 4), (-11, -6)):
        camera = np.clip(elevation + away[1], -89, 89)
        view = View((azimuth + away[0] + 180) % 360 - 180, float(camera), 60.0, 48.0)
        crop = Cropper(*dot.size, (view,), CROP).crop(planes_of(dot.frame))[0][:CROP]
        x, y = centroid(crop)
        expected_x, expected_y = gnomonic(view, azimuth, elevation)
        # The formula gives the dot's centre. Off the axis, the image of a round dot is stretched
        # outwards, by less than the tolerance for dots this small.
        assert abs(x - expected_x * CROP) * pixel_deg(view) < max(0.1, pixel_deg(view) / 4)
        assert abs(y - expected_y * CROP) * pixel_deg(view) < max(0.1, pixel_deg(view) / 4)


@pytest.mark.parametrize("plane", [0, 1])
def test_chroma_is_aligned_with_luma(plane: int) -> None:
    """Chroma is sited left of the middle of its two luma pixels, in the source and in the crop."""
    height, width = 360, 640
    azimuth, elevation, hfov = -50.0, 20.0, 50.0
    wide = dot_plane(height, 2 * width, azimuth, elevation, 3.0)
    # Luma-grid positions 2c + 1/2, in columns of a frame twice as wide: 4c and 4c + 1 surround
    # 2c + 1/2; rows 2r + 1 lie between luma rows 2r and 2r + 1.
    fine = wide.astype(np.float64)
    sited = (fine[0::2] + fine[1::2]) / 2
    sited = (sited[:, 0::4] + sited[:, 1::4]) / 2
    chroma = np.full((2, height // 2, width // 2), 128, dtype=np.uint8)
    chroma[plane] = np.rint(sited)
    luma = np.full((height, width), 100, dtype=np.uint8)
    frame = np.concatenate([luma.ravel(), chroma.ravel()]).reshape(-1, width)
    view = View(azimuth, elevation, hfov, hfov)
    crop = Cropper(height, width, (view,), CROP).crop(planes_of(frame))[0]
    half = crop[CROP:].reshape(2, CROP // 2, CROP // 2)[plane]
    x, y = centroid(half)
    # Column c of the chroma plane lies at 2c + 1/2 luma pixels from the left, so at x - 1/4.
    assert abs(2 * (x - 0.25) - CROP / 2) < 0.25
    assert abs(2 * y - CROP / 2) < 0.25


@given(st.floats(-179, 180), st.floats(-85, 85), st.floats(20, 120), st.floats(20, 120))
def test_fields_of_view_are_angles_between_the_edges(
    a: float, e: float, hfov: float, vfov: float
) -> None:
    view = View(a, e, hfov, vfov)
    edge, middle = np.array([0.0, 1.0]), np.array([0.5, 0.5])
    left, right = view_directions(view, edge, middle)
    top, bottom = view_directions(view, middle, edge)
    assert angle_between_deg(left, right) == pytest.approx(hfov)
    assert angle_between_deg(top, bottom) == pytest.approx(vfov)
    assert top @ unit_vector(0, 90) >= bottom @ unit_vector(0, 90)  # upright


@given(st.floats(-179, 180), st.floats(-90, 90), st.floats(0, 1), st.floats(0, 1))
def test_view_position_inverts_view_directions(a: float, e: float, x: float, y: float) -> None:
    view = View(a, e, 100.0, 70.0)
    position = view_position(view, view_directions(view, np.array(x), np.array(y)))
    np.testing.assert_allclose(position, [x, y], atol=1e-9)


def test_the_left_half_of_the_frame_is_at_positive_azimuth() -> None:
    x, y = Sphere().positions(unit_vector(90, 45), 960, 1920).xy
    assert (x, y) == (0.25, 0.25)


def test_aspect_is_measured_in_the_image_plane() -> None:
    ratio = np.tan(np.radians(80 / 2)) / np.tan(np.radians(vertical_fov_deg(80, 4 / 3) / 2))
    assert ratio == pytest.approx(4 / 3)


@pytest.fixture(scope="module")
def photograph() -> NDArray[np.uint8]:
    """A frame of 4K of random texture with the spectrum of photographs. Not to be changed."""
    height, width = 1920, 3840
    rng = np.random.default_rng(0)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None] * height, np.fft.rfftfreq(width) * width)
    frequency[0, 0] = 1
    spectrum = rng.normal(size=(*frequency.shape, 2)) @ [1, 1j] / frequency**1.3
    image = np.fft.irfft2(spectrum, s=(height, width))
    return np.clip(128 + 45 * image / image.std(), 16, 235).astype(np.uint8)


@pytest.mark.parametrize("hfov", [60.0, 75.0, 90.0])
def test_no_aliasing_at_4k(hfov: float, photograph: NDArray[np.uint8]) -> None:
    """At least 45 dB against a view sampled eight times as finely (direct sampling: 34)."""
    luma = photograph
    height, width = luma.shape
    view = View(37.0, 20.0, hfov, hfov)
    crop = Cropper(height, width, (view,), CROP).crop(planes_of(grey_frame(luma)))[0][:CROP]
    fine = (np.arange(8 * CROP) + 0.5) / (8 * CROP)
    position = (
        Sphere().positions(view_directions(view, fine[None, :], fine[:, None]), height, width).xy
    )
    index = (position * (width, height) - 0.5).astype(np.float32)
    samples = cv2.remap(luma.astype(np.float32), index[..., 0], index[..., 1], cv2.INTER_LINEAR)
    reference = samples.reshape(CROP, 8, CROP, 8).mean(axis=(1, 3))
    psnr = 10 * np.log10(255**2 / np.mean((crop - reference) ** 2))
    assert psnr > 45


@pytest.mark.parametrize("size", SIZES[:2])
@pytest.mark.parametrize(("azimuth", "elevation"), [*DIRECTIONS, (0, 0), (90, -45)])
def test_a_dot_appears_in_a_panorama_where_its_angles_say(
    size: tuple[int, int], azimuth: float, elevation: float
) -> None:
    height, width = 128, 256
    frame = grey_frame(dot_plane(*size, azimuth, elevation, 3.0))
    panorama = Cropper(*size, (None,), (height, width)).crop(planes_of(frame))[0]
    # Turned so that the dot is far from the seam, by whole pixels.
    turn = round(azimuth / 360 * width)
    x, y = centroid(np.roll(panorama[:height], turn, axis=1))
    expected_x = width * (180 - azimuth) / 360 + turn
    assert abs(x - expected_x) * np.cos(np.radians(elevation)) < 0.25
    if abs(elevation) < 50:  # the image of a round dot near a pole reaches over it
        assert abs(y - height * (90 - elevation) / 180) < 0.25
    assert np.all(panorama[height:] == 128)


def test_a_panorama_of_a_4k_frame_has_no_aliasing(photograph: NDArray[np.uint8]) -> None:
    """At least 40 dB against the mean of the pixels that each of its pixels covers."""
    luma = photograph
    panorama = Cropper(1920, 3840, (None,), (240, 480)).crop(planes_of(grey_frame(luma)))[0][:240]
    means = luma.reshape(240, 8, 480, 8).mean(axis=(1, 3))
    error = panorama.astype(np.float64) - means
    assert 10 * np.log10(255**2 / np.mean(error**2)) > 40
