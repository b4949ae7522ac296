"""Audio decoded in this process equals ffmpeg's, wherever a clip starts."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from avprep.media.decode_audio import decode_audio, read_excerpt
from avprep.media.ffmpeg import AudioRequest, ffmpeg_path
from avprep.media.probe import probe
from tests.support.media import noise, write_audio

RATE, SECONDS = 16000, 6
KINDS = {
    "16 bits": ("wav", ["-c:a", "pcm_s16le"]),
    "24 bits": ("wav", ["-c:a", "pcm_s24le"]),
    "float": ("wav", ["-c:a", "pcm_f32le"]),
    "8 bits": ("wav", ["-c:a", "pcm_u8"]),
    "FLAC": ("flac", []),
    "AAC": ("m4a", ["-c:a", "aac", "-b:a", "256k"]),
    "AAC in Matroska": ("mkv", ["-c:a", "aac", "-b:a", "256k"]),
    "AAC in MPEG-TS": ("ts", ["-c:a", "aac", "-b:a", "256k"]),
    "Vorbis": ("ogg", ["-c:a", "libvorbis", "-q:a", "8"]),
    "Opus, ambiX": ("opus", ["-c:a", "libopus", "-mapping_family", "2", "-b:a", "512k"]),
}


@pytest.fixture(scope="module", params=list(KINDS))
def recording(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("decode")
    ending, encode = KINDS[request.param]
    time_s = np.arange(RATE * SECONDS) / RATE
    tones = np.sin(2 * np.pi * np.array([200, 310, 470, 730])[:, None] * time_s * (1 + time_s / 50))
    soundfile.write(folder / "tones.wav", 0.2 * tones.T, RATE, subtype="FLOAT")
    path = folder / f"recording.{ending}"
    command = [ffmpeg_path(), "-v", "error", "-i", str(folder / "tones.wav"), *encode, str(path)]
    subprocess.run(command, check=True)
    return path


@pytest.mark.parametrize("start_s", [0.0, 2.345, 5.0])
def test_both_decoders_give_the_same_audio(recording: Path, start_s: float) -> None:
    media = probe(recording)
    assert media.audio is not None
    assert media.audio.plain_layout
    request = AudioRequest(
        audio=recording,
        track=media.audio.index,
        file_start_s=media.start_s,
        start_s=media.start_s + start_s,
        duration_s=2.0,
        max_slip_s=0.02,
        channels=media.audio.channels,
        sample_rate=media.audio.sample_rate,
        plain_layout=True,
        timeout_s=60.0,
    )
    in_process, by_ffmpeg = (
        decode_audio(request),
        decode_audio(replace(request, plain_layout=False)),
    )
    assert in_process.message == by_ffmpeg.message == ""
    for decoded in (in_process, by_ffmpeg):
        seconds = decoded.channels.shape[1] / request.sample_rate
        assert seconds == pytest.approx(min(2.0, SECONDS - start_s), abs=0.1)
    assert np.abs(in_process.channels).max() == pytest.approx(0.2, abs=0.05)
    # Matroska rounds time stamps to 1 ms, and at the start of a file ffmpeg drops the packet that
    # AAC needs to decode its first samples.
    max_shift, edge = request.sample_rate // 1000, request.sample_rate // 10
    length = min(in_process.channels.shape[1], by_ffmpeg.channels.shape[1]) - 2 * edge
    middle = by_ffmpeg.channels[:, edge : edge + length]
    shifted = [
        in_process.channels[:, edge + k : edge + k + length]
        for k in range(-max_shift, max_shift + 1)
    ]
    assert min(np.abs(each - middle).max() for each in shifted) < 1e-3


def test_third_order_in_opus_does_not_crash_the_process(tmp_path: Path) -> None:
    """PyAV reads past the planes of frames that have eight or more of them."""
    tones = np.stack([noise(0.5, number) for number in range(16)]).astype(np.float32)
    path = tmp_path / "a.opus"
    write_audio(path, "libopus", tones, "ambisonic 3", {"mapping_family": "2"})
    audio = probe(path).audio
    assert audio is not None
    assert (audio.channels, audio.plain_layout) == (16, False)
    excerpt = read_excerpt(path, audio, 0.0, 0.4)
    assert excerpt.shape == (16, 19200)
    levels = np.square(excerpt).mean(axis=1) ** 0.5
    assert levels == pytest.approx(np.full(16, 0.1), rel=0.1)
