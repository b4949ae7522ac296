"""Windows of FLAC files equal what a library decodes, from a few bytes around them."""

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


def encode_flac(audio: NDArray[np.int16], level: float = 0.0, rate: int = RATE) -> bytes:
    buffer = io.BytesIO()
    subtype = "PCM_16"
    soundfile.write(buffer, audio, rate, format="FLAC", subtype=subtype, compression_level=level)
    return buffer.getvalue()


def bursts_of_noise(samples: int, channels: int, seed: int) -> NDArray[np.int16]:
    """Noise with loud and silent parts, so that the sizes of frames differ a lot."""
    random = np.random.default_rng(seed)
    loudness = np.exp(random.uniform(-12, 0, 14)) * random.integers(0, 2, 14)
    envelope = np.interp(np.linspace(0, 13, samples), np.arange(14), loudness)
    noise = random.normal(size=(samples, channels)) * 9000 * envelope[:, None]
    return np.asarray(np.clip(noise, -32768, 32767), dtype=np.int16)


def window(content: bytes, start: int, count: int) -> tuple[NDArray[np.float32], list[int]]:
    """The decoded window, and the bytes of each read."""
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
def test_a_window_equals_that_part_of_the_file(
    samples: int, channels: int, level: float, rate: int, seed: int, data: st.DataObject
) -> None:
    audio = bursts_of_noise(samples, channels, seed)
    start = data.draw(st.integers(0, samples - 1), "start")
    count = data.draw(st.integers(1, samples - start), "count")
    found, _ = window(encode_flac(audio, level, rate), start, count)
    expected = audio[start : start + count].T / np.float32(32768)
    assert found.dtype == np.float32
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(found, expected)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 9 * RATE), st.integers(0, 20))
def test_reading_a_second_takes_few_reads_and_little_more_than_its_bytes(
    start: int, seed: int
) -> None:
    steady = np.random.default_rng(seed).normal(size=(10 * RATE, 4)) * 3000
    content = encode_flac(steady.astype(np.int16))
    _, reads = window(content, start, RATE)
    assert len(reads) <= 3
    assert sum(reads) < 1.3 * len(content) / 10
    content = encode_flac(bursts_of_noise(10 * RATE, 4, seed))
    _, reads = window(content, start, RATE)
    assert len(reads) <= 16
    assert sum(reads) < 2 * len(content)


@settings(deadline=None)
@given(st.integers(0), st.integers(1, 255), st.integers(0, 40_000))
def test_damage_raises_or_leaves_the_window_intact(position: int, change: int, start: int) -> None:
    """Checksums in the file detect changed frames; other frames decode as before."""
    audio = bursts_of_noise(60_000, 4, 3)
    content = bytearray(encode_flac(audio))
    content[position % len(content)] ^= change
    try:
        found, _ = window(bytes(content), start, 20_000)
    except ShardError:
        return
    np.testing.assert_array_equal(found * 32768, audio[start : start + 20_000].T)


@pytest.mark.parametrize("end", [0, 3, 60, 90, 5_000, 30_000])
def test_a_truncated_file_raises_shard_error(end: int) -> None:
    content = encode_flac(bursts_of_noise(60_000, 4, 3))[:end]
    with pytest.raises(ShardError, match="its audio "):
        window(content, 30_000, 20_000)
