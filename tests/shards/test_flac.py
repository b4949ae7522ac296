"""Windows of FLAC files: the same samples as a library reads, from a few bytes around them."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from shards.errors import ShardError
from shards.flac import FlacDecoder

RATE = 24_000


def encoded(sound: NDArray[np.int16], level: float = 0.0, rate: int = RATE) -> bytes:
    buffer = io.BytesIO()
    subtype = "PCM_16"
    soundfile.write(buffer, sound, rate, format="FLAC", subtype=subtype, compression_level=level)
    return buffer.getvalue()


def uneven(samples: int, channels: int, seed: int) -> NDArray[np.int16]:
    """Noise that is loud here and silent there, so that frames differ in size by a lot."""
    random = np.random.default_rng(seed)
    loudness = np.exp(random.uniform(-12, 0, 14)) * random.integers(0, 2, 14)
    envelope = np.interp(np.linspace(0, 13, samples), np.arange(14), loudness)
    noise = random.normal(size=(samples, channels)) * 9000 * envelope[:, None]
    return np.asarray(np.clip(noise, -32768, 32767), dtype=np.int16)


def window(content: bytes, start: int, count: int) -> tuple[NDArray[np.float32], list[int]]:
    """The window, and how many bytes each read took."""
    reads: list[int] = []

    def read(begin: int, end: int) -> bytes:
        assert 0 <= begin <= end <= len(content)
        reads.append(end - begin)
        return content[begin:end]

    return FlacDecoder().decode(read, len(content), start, count), reads


@settings(deadline=None)
@given(
    st.integers(1, 60_000),
    st.sampled_from([1, 2, 4, 8]),
    st.sampled_from([0.0, 0.5, 1.0]),
    st.sampled_from([24_000, 22_050, 16_000, 12_345, 47_990]),
    st.integers(0, 99),
    st.data(),
)
def test_a_window_is_the_part_of_the_whole(
    samples: int, channels: int, level: float, rate: int, seed: int, data: st.DataObject
) -> None:
    sound = uneven(samples, channels, seed)
    start = data.draw(st.integers(0, samples - 1), "start")
    count = data.draw(st.integers(1, samples - start), "count")
    found, _ = window(encoded(sound, level, rate), start, count)
    expected = sound[start : start + count].T / np.float32(32768)
    assert found.dtype == np.float32
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(found, expected)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 9 * RATE), st.integers(0, 20))
def test_a_second_costs_little_more_than_its_bytes(start: int, seed: int) -> None:
    steady = np.random.default_rng(seed).normal(size=(10 * RATE, 4)) * 3000
    content = encoded(steady.astype(np.int16))
    _, reads = window(content, start, RATE)
    assert len(reads) <= 3
    assert sum(reads) < 1.3 * len(content) / 10
    content = encoded(uneven(10 * RATE, 4, seed))
    _, reads = window(content, start, RATE)
    assert len(reads) <= 16
    assert sum(reads) < 2 * len(content)


@settings(deadline=None)
@given(st.integers(0), st.integers(1, 255), st.integers(0, 40_000))
def test_damage_is_never_heard(place: int, change: int, start: int) -> None:
    """Checksums in the file tell: what was changed fails, and the rest is as it was."""
    sound = uneven(60_000, 4, 3)
    content = bytearray(encoded(sound))
    content[place % len(content)] ^= change
    try:
        found, _ = window(bytes(content), start, 20_000)
    except ShardError:
        return
    np.testing.assert_array_equal(found * 32768, sound[start : start + 20_000].T)


@pytest.mark.parametrize("end", [0, 3, 60, 90, 5_000, 30_000])
def test_half_a_file_is_said_to_be_damaged(end: int) -> None:
    content = encoded(uneven(60_000, 4, 3))[:end]
    with pytest.raises(ShardError, match="a sound "):
        window(content, 30_000, 20_000)
