"""Channel conventions, and estimates of the direction of arrival."""

from __future__ import annotations

import numpy as np
import pytest

from avprep.errors import ClipError
from avprep.foa.ambix import to_ambix
from avprep.foa.energy_map import energy_map, intensity_direction, loudest_direction
from shards.geometry import angle_between_deg, encode_foa, unit_vector
from tests.support.media import noise

DIRECTIONS = [(40, 25), (-140, -35), (180, 20), (-179, -50), (60, 80), (-100, -80)]


def plane_wave(azimuth: float, elevation: float, seed: int = 0, seconds: float = 2.0) -> np.ndarray:
    return encode_foa(noise(seconds, seed), unit_vector(azimuth, elevation))


def test_every_convention_gives_the_same_field() -> None:
    w, y, z, x = ambix = plane_wave(70, 25)
    zero = np.zeros_like(w)
    fuma = np.stack([w / np.sqrt(2), x, y, z]).astype(np.float32)
    youtube = np.stack([x, y, w, zero, z, zero])
    second_order = np.concatenate([ambix, np.ones((5, len(w)), dtype=np.float32)])
    for raw, convention in (
        (ambix, "auto"),
        (ambix, "ambix"),
        (fuma, "fuma"),
        (youtube, "auto"),
        (youtube, "youtube"),
        (second_order, "auto"),
    ):
        np.testing.assert_allclose(to_ambix(raw, convention), ambix, rtol=1e-6)
    assert to_ambix(np.zeros((6, 100), dtype=np.float32), "auto").shape == (4, 100)


@pytest.mark.parametrize("channels", [1, 2, 3, 5, 7, 8])
def test_other_numbers_of_channels_are_refused(channels: int) -> None:
    with pytest.raises(ClipError, match=f"its sound has {channels} channel"):
        to_ambix(np.ones((channels, 100), dtype=np.float32), "auto")
    with pytest.raises(ClipError, match="YouTube's ambisonics has 6"):
        to_ambix(np.ones((channels, 100), dtype=np.float32), "youtube")


@pytest.mark.parametrize(("azimuth", "elevation"), DIRECTIONS)
def test_the_direction_of_a_plane_wave_is_found(azimuth: float, elevation: float) -> None:
    foa = plane_wave(azimuth, elevation)
    direction = unit_vector(azimuth, elevation)
    assert angle_between_deg(unit_vector(*intensity_direction(foa)), direction) < 1e-3
    loudest = loudest_direction(foa, 48_000)
    assert loudest is not None
    assert angle_between_deg(unit_vector(*loudest), direction) < 1.5


def test_the_louder_of_two_sources_in_noise_is_found_and_both_appear_on_the_map() -> None:
    rng = np.random.default_rng(0)
    diffuse = rng.standard_normal((4, 96_000)) * np.array([[1], [0.58], [0.58], [0.58]]) * 0.01
    gate = np.repeat(rng.random((2, 200)) < 0.4, 480, axis=1)  # active at different times
    foa = gate[0] * plane_wave(-120, 30) + gate[1] * 0.6 * plane_wave(50, -20, seed=1)
    foa = (foa + diffuse).astype(np.float32)
    loudest = loudest_direction(foa, 48_000)
    assert loudest is not None
    assert angle_between_deg(unit_vector(*loudest), unit_vector(-120, 30)) < 3
    energy = energy_map(foa, 48_000, height=90)
    row, column = int((90 + 20) / 2), int((180 - 50) / 2)
    assert energy[row - 2 : row + 3, column - 2 : column + 3].max() > 0.05
    assert energy[20, 20] < 0.02


def test_silence_has_no_direction() -> None:
    silence = np.zeros((4, 48_000), dtype=np.float32)
    assert loudest_direction(silence, 48_000) is None
    assert not energy_map(silence, 48_000).any()
