"""Sound decoded in this process is that which ffmpeg decodes, wherever a clip begins."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from avprep.media.decode_audio import decode_audio
from avprep.media.ffmpeg import AudioRequest, ffmpeg_path
from avprep.media.probe import probe

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
    folder = tmp_path_factory.mktemp("listen")
    ending, encode = KINDS[request.param]
    time_s = np.arange(RATE * SECONDS) / RATE
    tones = np.sin(2 * np.pi * np.array([200, 310, 470, 730])[:, None] * time_s * (1 + time_s / 50))
    soundfile.write(folder / "tones.wav", 0.2 * tones.T, RATE, subtype="FLOAT")
    path = folder / f"recording.{ending}"
    command = [ffmpeg_path(), "-v", "error", "-i", str(folder / "tones.wav"), *encode, str(path)]
    subprocess.run(command, check=True)
    return path


@pytest.mark.parametrize("start_s", [0.0, 2.345, 5.0])
def test_it_is_what_ffmpeg_decodes(recording: Path, start_s: float) -> None:
    media = probe(recording)
    assert media.audio is not None
    assert media.audio.plain_layout
    wanted = AudioRequest(
        audio=recording,
        file_start_s=media.start_s,
        start_s=media.start_s + start_s,
        duration_s=2.0,
        max_slip_s=0.02,
        channels=media.audio.channels,
        sample_rate=media.audio.sample_rate,
        plain_layout=True,
        timeout_s=60.0,
    )
    ours, theirs = decode_audio(wanted), decode_audio(replace(wanted, plain_layout=False))
    assert ours.message == theirs.message == ""
    for heard in (ours, theirs):
        seconds = heard.channels.shape[1] / wanted.sample_rate
        assert seconds == pytest.approx(min(2.0, SECONDS - start_s), abs=0.1)
    assert np.abs(ours.channels).max() == pytest.approx(0.2, abs=0.05)
    # Matroska rounds time stamps to 1 ms, and at a file's beginning ffmpeg leaves out the packet
    # that AAC needs for its first sound.
    most, edge = wanted.sample_rate // 1000, wanted.sample_rate // 10
    length = min(ours.channels.shape[1], theirs.channels.shape[1]) - 2 * edge
    middle = theirs.channels[:, edge : edge + length]
    shifted = [ours.channels[:, edge + k : edge + k + length] for k in range(-most, most + 1)]
    assert min(np.abs(each - middle).max() for each in shifted) < 1e-3
