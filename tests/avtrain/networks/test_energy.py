"""The energy map: a plane wave's direction in the frame of the view, a moving spot's place."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from avtrain.config import tiny
from avtrain.networks.energy import AUDIO_FEATURES, BANDS, PIXELS, VIDEO_FEATURES, EnergyMap
from avtrain.networks.features import Features
from avtrain.options import with_options
from shards.geometry import MIRROR, encode_foa, unit_vector, view_foa_matrix, view_rotation

CONFIG = with_options(tiny("avsa"), features="logmel+intensity", intensity_gain=1.0).sound
VIEWS = ((0, 0), (100, 50), (-140, -35))


def heard(field: np.ndarray, *, mirrored: bool = False) -> torch.Tensor:
    """Features (V, BANDS, 4) of a field (4, samples) from all views."""
    matrices = np.stack([view_foa_matrix(*view) for view in VIEWS])
    matrices = MIRROR @ matrices if mirrored else matrices
    inputs = Features(CONFIG)(
        torch.from_numpy(field)[None], torch.from_numpy(matrices[None]).float()
    )
    features = EnergyMap().embed_audio(inputs)
    assert features.shape == (1, len(VIEWS), AUDIO_FEATURES)
    return features[0].view(len(VIEWS), BANDS, 4)


def noise(seed: int, seconds: float = 1.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, round(24_000 * seconds))


@pytest.mark.parametrize("mirrored", [False, True])
def test_intensity_is_the_direction_in_every_view(mirrored: bool) -> None:
    direction = unit_vector(63, 28)
    found = heard(encode_foa(noise(0), direction), mirrored=mirrored)
    for view, features in zip(VIEWS, found, strict=True):
        x, y, z = view_rotation(*view) @ direction
        wanted = torch.tensor([-y if mirrored else y, z, x], dtype=torch.float32)
        assert torch.allclose(features[:, 1:], wanted.expand(BANDS, 3), atol=1e-3)


def test_loud_moments_decide_the_direction_and_levels_are_in_decibels() -> None:
    left, right = unit_vector(90, 0), unit_vector(-90, 0)
    loud, quiet = noise(0), 0.1 * noise(1)
    first = np.arange(24_000) < 12_000
    field = encode_foa(np.where(first, loud, quiet), np.where(first[:, None], left, right))
    one = heard(field)[0]
    assert (one[:, 1] - 99 / 101).abs().max() < 0.02  # (1 - 0.01) / (1 + 0.01) towards the left
    ten_db = heard(field * np.float32(10**0.5))[0]
    assert (ten_db[:, 0] - one[:, 0]).numpy() == pytest.approx(10 / 20, abs=1e-3)
    silent = heard(np.zeros_like(field))
    assert silent.isfinite().all()


def spot(row: int, column: int, frames: int = 4) -> torch.Tensor:
    """A video (1, 1, 3, frames, 32, 32) with a spot that blinks in one of 8 x 8 places."""
    video = torch.zeros(1, 1, 3, frames, 32, 32)
    video[..., ::2, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] = 1.0
    return video


def test_pixels_say_where_it_is_bright_and_where_it_moves() -> None:
    features = EnergyMap().embed_video(spot(2, 5))
    assert features.shape == (1, 1, VIDEO_FEATURES)
    maps = features.view(4, PIXELS, PIXELS)
    for number, value in enumerate([0.5, 0.5, 0.5, 4.0]):
        assert maps[number].nonzero().tolist() == [[2, 5]]
        assert maps[number, 2, 5] == value
    still = EnergyMap().embed_video(spot(2, 5, frames=1)).view(4, PIXELS, PIXELS)
    assert (still[0].sum(), still[3].sum()) == (1, 0)


def test_a_blinking_spot_is_matched_with_sound_from_its_place() -> None:
    """Row 0 is up, column 0 left."""
    places = [(0, 0), (0, 7), (7, 0), (7, 7)]
    directions = [unit_vector(35, 30), unit_vector(-35, 30), unit_vector(35, -30)]
    directions.append(unit_vector(-35, -30))
    network = EnergyMap()
    video = torch.cat([network.embed_video(spot(*place)) for place in places], dim=1)
    sounds = [heard(encode_foa(noise(0), direction))[0] for direction in directions]
    audio = torch.stack(sounds).flatten(1)[None]
    found = network.embeddings(video, audio, torch.zeros(1, 4, 3), True).unit()
    scores = F.normalize(found.predicted_audio, dim=-1) @ found.audio.transpose(1, 2)
    assert scores[0].argmax(dim=-1).tolist() == [0, 1, 2, 3]
    assert torch.equal(scores[0].argmax(dim=-2), torch.arange(4))
