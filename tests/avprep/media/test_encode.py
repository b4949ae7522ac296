"""Encoding: the same frames always give the same bytes, and their index is correct."""

from __future__ import annotations

import io
from fractions import Fraction

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from avprep.media.encode import GOP_FRAMES, CropEncoder, rotation_safe_gain
from shards.errors import ShardError
from shards.geometry import encode_foa, rotate_foa, unit_vector, view_foa_matrix
from shards.video import CropDecoder, index_mp4

SIZE = 112


def moving_texture(frames: int) -> list[NDArray[np.uint8]]:
    rng = np.random.default_rng(0)
    steps = rng.integers(-3, 4, (frames, SIZE * 3 // 2, SIZE)).cumsum(axis=0)
    return list(np.clip(128 + steps, 16, 235).astype(np.uint8))


def test_encoding_is_deterministic_whatever_is_in_memory() -> None:
    still = np.full((SIZE * 3 // 2, SIZE), 90, dtype=np.uint8)
    still[30:50, 40:70] = 200
    views_frames = [[still] * 32, moving_texture(32), [still] * 32]
    first: list[bytes] = []
    for _ in range(25):
        files = encode([np.stack(frames) for frames in zip(*views_frames, strict=True)])
        first = first or files
        assert files == first


def encode(frames: list[NDArray[np.uint8]]) -> list[bytes]:
    encoder = CropEncoder(len(frames[0]), SIZE, Fraction(16), 2)
    for crops in frames:
        encoder.add(crops)
    return encoder.finish()


def test_each_view_gets_its_own_frames() -> None:
    """The length is not a multiple of the GOP, and frames are decoded as players do."""
    views_frames = np.stack([np.roll(moving_texture(30), 20 * view, axis=2) for view in range(3)])
    views_frames[:, :, 8 * 3 :] ^= 64 * (np.arange(3, dtype=np.uint8) % 2)[:, None, None, None]
    for view, mp4 in enumerate(encode(list(views_frames.transpose(1, 0, 2, 3)))):
        with av.open(io.BytesIO(mp4)) as container:
            shown = [frame.to_ndarray() for frame in container.decode(video=0)]
            assert container.streams.video[0].average_rate == 16
        assert len(shown) == 30
        np.testing.assert_allclose(
            np.stack(shown)[:, :SIZE].mean(axis=2),
            views_frames[view, :, :SIZE].mean(axis=2),
            atol=4,
        )


def test_the_index_finds_every_gop() -> None:
    frames = moving_texture(30)
    (mp4,) = encode([frame[None] for frame in frames])
    avcc, gops, count = index_mp4(mp4)
    assert count == 30
    assert len(gops) == -(-30 // GOP_FRAMES) + 1
    decoder = CropDecoder(avcc, SIZE, SIZE)
    last = decoder.decode(mp4[gops[3] : gops[4]], 2, 3)  # frames 26 to 28
    again = decoder.decode(mp4[gops[2] : gops[4]], GOP_FRAMES + 2, 3)
    np.testing.assert_array_equal(last, again)
    assert np.abs(last[0, :, :, 1].astype(int).mean() - frames[26][:SIZE].mean()) < 30


def test_the_index_ignores_avcc_bytes_outside_the_moov_box() -> None:
    (mp4,) = encode([frame[None] for frame in moving_texture(8)])
    avcc, gops, count = index_mp4(mp4)
    before = b"\x00\x00\x00\x14free" + b"xx\x00\x08avcCyyyy"
    assert index_mp4(before + mp4) == (avcc, tuple(offset + 20 for offset in gops), count)


def test_damaged_crops_raise_shard_error() -> None:
    (mp4,) = encode([frame[None] for frame in moving_texture(8)])
    avcc, gops, _ = index_mp4(mp4)
    with pytest.raises(ShardError, match="no mdat"):
        index_mp4(mp4[: gops[0] - 8])
    with pytest.raises(ShardError, match="damaged"):
        CropDecoder(avcc, SIZE, SIZE).decode(b"\xff" * 400, 0, 1)
    with pytest.raises(ShardError, match="has 8 frames, but 9"):
        CropDecoder(avcc, SIZE, SIZE).decode(mp4[gops[0] : gops[1]], 0, 9)


def test_rotation_safe_gain_keeps_every_rotation_within_full_scale() -> None:
    rng = np.random.default_rng(0)
    foa = 1.7 * encode_foa(np.sin(np.arange(4000) * 0.3), unit_vector(45, 35.26))
    gain = rotation_safe_gain(foa)
    for azimuth, elevation in rng.uniform(-90, 90, (50, 2)):
        assert np.abs(gain * rotate_foa(foa, view_foa_matrix(azimuth, elevation))).max() < 1
    assert rotation_safe_gain(foa / 2) == 1.0
    assert rotation_safe_gain(np.zeros((4, 10), dtype=np.float32)) == 1.0
