"""Log-mels against librosa; intensities, rotations and colours against closed forms."""

from __future__ import annotations

import colorsys

import librosa
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from avtrain.data.augment import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    LUMA,
    centre_crop_box,
    colour_jitter,
    crop_and_resize,
    prepare_video,
    random_crop_box,
)
from avtrain.networks.features import FeatureConfig, Features, mel_filters
from shards.geometry import MIRROR, encode_foa, rotate_foa, unit_vector, view_foa_matrix

RATE = 24_000
VIEWS = [(40.0, 25.0), (-130.0, -60.0), (179.0, 80.0)]


def noise(seed: int = 0) -> NDArray[np.float64]:
    return np.random.default_rng(seed).normal(0, 0.1, RATE)


def scene(seed: int = 0) -> NDArray[np.float32]:
    """Three plane waves and diffuse noise, (4, RATE)."""
    rng = np.random.default_rng(seed)
    waves = [
        encode_foa(noise(n), unit_vector(a, e)) for n, (a, e) in enumerate([(35, 20), (-100, -50)])
    ]
    return sum(waves) + rng.normal(0, 0.01, (4, RATE)).astype(np.float32)


def matrices(views: list[tuple[float, float]], mirror: bool = False) -> torch.Tensor:
    stack = np.stack([view_foa_matrix(*view) for view in views])
    return torch.from_numpy((MIRROR @ stack if mirror else stack).astype(np.float32))[None]


@pytest.mark.parametrize(("rate", "n_fft", "mels"), [(24_000, 512, 128), (24_000, 512, 64)])
def test_mel_filters_equal_librosa(rate: int, n_fft: int, mels: int) -> None:
    expected = librosa.filters.mel(sr=rate, n_fft=n_fft, n_mels=mels)
    np.testing.assert_allclose(mel_filters(rate, n_fft, mels), expected, atol=1e-7)


def test_log_mels_equal_librosa() -> None:
    features = Features(FeatureConfig())
    sound = scene()
    sound[:, RATE // 2 :] *= 1e-12  # so that top_db matters
    ours = features(torch.from_numpy(sound)[None], matrices(VIEWS))
    assert ours.shape == (1, 3, 4, 100, 128)
    for view, place in enumerate(VIEWS):
        rotated = rotate_foa(sound, view_foa_matrix(*place))
        mel = librosa.feature.melspectrogram(
            y=rotated, sr=RATE, n_fft=512, hop_length=240, power=1.0, pad_mode="reflect"
        )
        expected = librosa.power_to_db(mel[..., :100], top_db=100.0).transpose(0, 2, 1)
        np.testing.assert_allclose(ours[0, view], expected, atol=1e-3)


def test_rotated_spectra_equal_those_of_rotated_audio() -> None:
    features = Features(FeatureConfig(intensity=True))
    sound = scene()
    ours = features(torch.from_numpy(sound)[None], matrices(VIEWS))
    for view, place in enumerate(VIEWS):
        rotated = torch.from_numpy(rotate_foa(sound, view_foa_matrix(*place)))[None]
        direct = features(rotated, torch.eye(4)[None, None])
        torch.testing.assert_close(ours[:, view : view + 1], direct, atol=1e-4, rtol=1e-4)


def test_intensity_of_a_plane_wave_is_its_direction() -> None:
    features = Features(FeatureConfig(intensity=True))
    for azimuth, elevation in VIEWS:
        sound = torch.from_numpy(encode_foa(noise(), unit_vector(azimuth, elevation)))[None]
        x, y, z = unit_vector(azimuth, elevation)
        seen = features(sound, torch.eye(4)[None, None])[0, 0, 4:]
        expected = torch.tensor([y, z, x]).float()[:, None, None].expand_as(seen)
        torch.testing.assert_close(seen, expected, atol=1e-3, rtol=0)
        front = features(sound, matrices([(azimuth, elevation)]))[0, 0, 4:]
        expected = torch.tensor([0.0, 0.0, 1.0])[:, None, None].expand_as(front)
        torch.testing.assert_close(front, expected, atol=1e-3, rtol=0)


def test_the_gain_scales_the_intensity_alone() -> None:
    sound = torch.from_numpy(encode_foa(noise(), unit_vector(30, 20)))[None]
    alone, scaled = (
        Features(FeatureConfig(intensity=True, intensity_gain=gain))(sound, matrices(VIEWS))
        for gain in (1.0, 10.0)
    )
    assert torch.equal(scaled[:, :, :4], alone[:, :, :4])
    assert torch.equal(scaled[:, :, 4:], 10 * alone[:, :, 4:])


def test_intensity_distinguishes_directions_that_log_mels_do_not() -> None:
    """Azimuths 40, -40, 140 and -140 have the same magnitudes (method, 7.5)."""
    features = Features(FeatureConfig(intensity=True))
    four = [
        features(
            torch.from_numpy(encode_foa(noise(), unit_vector(a, 10)))[None],
            torch.eye(4)[None, None],
        )[0, 0]
        for a in (40, -40, 140, -140)
    ]
    for other in four[1:]:
        torch.testing.assert_close(other[:4], four[0][:4], atol=1e-3, rtol=0)
        assert (other[4:] - four[0][4:]).abs().amax(dim=(1, 2)).max() > 1


def test_mirror_negates_y_alone() -> None:
    features = Features(FeatureConfig(intensity=True))
    sound = torch.from_numpy(scene())[None]
    plain, mirrored = (
        features(sound, matrices(VIEWS)),
        features(sound, matrices(VIEWS, mirror=True)),
    )
    sign = torch.tensor([1, 1, 1, 1, -1, 1, 1.0]).view(1, 1, 7, 1, 1)
    torch.testing.assert_close(mirrored, plain * sign, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16])
def test_autocast_leaves_features_alone(precision: torch.dtype) -> None:
    """Energies of quiet sound are below what half precision can hold."""
    features = Features(FeatureConfig(intensity=True))
    quiet = torch.from_numpy(1e-3 * encode_foa(noise(), unit_vector(30, 20)))[None]
    alone = features(quiet, matrices(VIEWS))
    with torch.autocast("cpu", precision):
        assert torch.equal(features(quiet, matrices(VIEWS)), alone)


def test_silence_is_finite() -> None:
    seen = Features(FeatureConfig(intensity=True))(torch.zeros(1, 4, RATE), matrices(VIEWS))
    assert seen.isfinite().all()
    assert (seen[:, :, 4:] == 0).all()


def test_statistics_normalise_each_band() -> None:
    features = Features(FeatureConfig())
    sound = torch.from_numpy(np.stack([scene(seed) for seed in range(3)]))
    views = matrices(VIEWS).expand(3, -1, -1, -1)
    features.fit(features.log_mel(features.spectra(sound), views))
    bands = features(sound, views).flatten(0, -2)
    torch.testing.assert_close(bands.mean(dim=0), torch.zeros(128), atol=1e-3, rtol=0)
    torch.testing.assert_close(bands.std(dim=0), torch.ones(128), atol=1e-3, rtol=0)


# --- video ---


def jitter(
    brightness: float = 1.0, contrast: float = 1.0, saturation: float = 1.0, hue: float = 0.0
) -> torch.Tensor:
    return torch.tensor([[brightness, contrast, saturation, hue]])


def test_colour_jitter_closed_forms() -> None:
    pixels = 0.2 + 0.5 * torch.rand(1, 50, 3, generator=torch.Generator().manual_seed(0))
    grey = pixels @ torch.tensor(LUMA)
    close = {"atol": 1e-6, "rtol": 1e-5}
    torch.testing.assert_close(colour_jitter(pixels, jitter()), pixels, **close)
    torch.testing.assert_close(colour_jitter(pixels, jitter(1.3)), pixels * 1.3, **close)
    mean = grey.mean()
    contrasted = colour_jitter(pixels, jitter(contrast=0.6))
    torch.testing.assert_close(contrasted, 0.6 * pixels + 0.4 * mean, **close)
    saturated = colour_jitter(pixels, jitter(saturation=0.0))
    torch.testing.assert_close(saturated, grey[..., None].expand_as(pixels), **close)
    turned = colour_jitter(pixels, jitter(hue=1 / 3))
    torch.testing.assert_close(turned, pixels.roll(1, dims=-1), **close)  # R to G, G to B, B to R
    both = colour_jitter(pixels, jitter(0.8, 1.2))
    torch.testing.assert_close(both, 1.2 * 0.8 * pixels - 0.2 * 0.8 * mean, **close)


def test_hue_rotates_in_the_direction_of_hsv() -> None:
    """Not the same map, but the same direction: a hue change of 0.1 moves red towards yellow."""
    red = torch.tensor([[[0.8, 0.3, 0.3]]])
    turned = colour_jitter(red, jitter(hue=0.1))[0, 0].tolist()
    assert colorsys.rgb_to_hsv(*turned)[0] == pytest.approx(0.1, abs=0.02)


def test_all_views_of_a_clip_share_jitter_and_mirror() -> None:
    rng = np.random.default_rng(0)
    frames = torch.from_numpy(rng.integers(60, 180, (2, 3, 4, 16, 16, 3), dtype=np.uint8))
    parameters = torch.tensor([[1.2, 0.9, 1.1, 0.05], [1.0, 1.0, 1.0, 0.0]])
    pictures = prepare_video(frames, 16, parameters, torch.tensor([True, False]))
    assert pictures.shape == (2, 3, 3, 4, 16, 16)
    plain = frames[1].permute(0, 4, 1, 2, 3) / 255.0
    mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
    expected = (plain - mean.view(3, 1, 1, 1)) / std.view(3, 1, 1, 1)
    torch.testing.assert_close(pictures[1], expected, atol=1e-5, rtol=1e-5)
    colours = colour_jitter(frames[:1].reshape(1, -1, 3) / 255.0, parameters[:1])
    expected = ((colours - mean) / std).view(3, 4, 16, 16, 3).flip(3).permute(0, 4, 1, 2, 3)
    torch.testing.assert_close(pictures[0], expected, atol=1e-5, rtol=1e-5)


def test_resizing_averages_and_keeps_positions() -> None:
    frames = torch.full((1, 1, 1, 32, 32, 3), 40, dtype=torch.uint8)
    frames[..., 8:16, 24:, :] = 200  # rows 8 to 15, the rightmost quarter
    pictures = prepare_video(frames, 8, jitter(), torch.tensor([False]))[0, 0, 0, 0]
    bright = pictures > pictures.mean() + pictures.std()
    assert bright.nonzero().tolist() == [[2, 6], [2, 7], [3, 6], [3, 7]]


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 10**6), st.integers(8, 200), st.integers(8, 200), st.floats(0.05, 1.0))
def test_random_crops_lie_inside_the_frame(
    seed: int, height: int, width: int, smallest: float
) -> None:
    top, left, high, wide = random_crop_box(np.random.default_rng(seed), height, width, smallest)
    assert 0 <= top <= top + high <= height
    assert 0 <= left <= left + wide <= width
    if (top, left, high, wide) == centre_crop_box(height, width, 1.0):
        return
    rounding = 0.5 * (high + wide) + 0.25
    assert smallest * height * width - rounding <= high * wide
    assert (wide - 0.5) / (high + 0.5) <= 4 / 3
    assert (wide + 0.5) / (high - 0.5) >= 3 / 4


def test_random_crops_are_spread_evenly() -> None:
    rng = np.random.default_rng(0)
    boxes = np.array([random_crop_box(rng, 128, 128, 0.08) for _ in range(4000)])
    area = boxes[:, 2] * boxes[:, 3] / 128**2
    # Few aspect ratios fit the largest crops.
    assert np.histogram(area, 4, (0.08, 0.72))[0] == pytest.approx(len(area) / 5.2, rel=0.15)
    middle = boxes[:, :2] + boxes[:, 2:] / 2
    assert middle.mean(axis=0) == pytest.approx(64, abs=1.5)
    assert centre_crop_box(120, 160, 0.875) == (7, 27, 105, 105)


def test_a_crop_is_taken_from_its_box_and_resized() -> None:
    rows, columns = np.mgrid[0:64, 0:96]
    ramp = np.stack([rows * 2, columns * 2, 0 * rows], axis=-1).astype(np.uint8)
    frames = torch.from_numpy(np.stack([ramp, ramp[::-1].copy()]))[:, None, None]
    boxes = torch.tensor([[16, 32, 32, 48], [0, 0, 64, 96]])
    part, whole = crop_and_resize(frames, boxes, 16)[:, 0, 0].numpy().astype(int)
    places = (np.arange(16) + 0.5) / 16
    # Away from the edges, where an antialiased ramp is bent.
    np.testing.assert_allclose(part[2:-2, 8, 0], (2 * (15.5 + 32 * places))[2:-2], atol=1)
    np.testing.assert_allclose(part[8, 2:-2, 1], (2 * (31.5 + 48 * places))[2:-2], atol=1)
    np.testing.assert_allclose(whole[2:-2, 8, 0], (126 - 2 * (64 * places - 0.5))[2:-2], atol=1)
