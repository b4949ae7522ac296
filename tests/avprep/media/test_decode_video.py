"""The right frames from any container, wherever a clip starts; damaged clips are refused."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from avprep.media.decode_video import VideoDecoder, VideoRequest
from avprep.media.probe import probe
from shards.geometry import encode_foa, unit_vector
from tests.support.media import build, noise, write_wav

HEIGHT, WIDTH, FPS, SECONDS = 64, 128, 25, 12
KINDS = {
    "mp4": ("mp4", "libx264", {"bf": "2", "g": "300", "x264-params": "scenecut=0"}),
    "mkv": ("matroska", "libx264", {"bf": "2", "g": "60", "x264-params": "scenecut=0"}),
    "avi": ("avi", "mpeg4", {"bf": "2", "g": "50", "qscale": "2"}),
    "avi, H.264": ("avi", "libx264", {"bf": "2", "g": "50", "x264-params": "scenecut=0"}),
    "MPEG-TS": ("mpegts", "libx264", {"bf": "2", "g": "300", "x264-params": "scenecut=0"}),
    "AVI without B-frames": ("avi", "mpeg4", {"bf": "0", "g": "12", "qscale": "2"}),
}


def write_numbered(path: Path, kind: str) -> None:
    """Frames whose left half encodes their number // 16, and the right half their number % 16."""
    form, codec, options = KINDS[kind]
    with av.open(str(path), "w", format=form) as container:
        stream = container.add_stream(codec, rate=FPS, options=options)
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        stream.bit_rate = 2_000_000
        for number in range(FPS * SECONDS):
            frame = np.full((HEIGHT * 3 // 2, WIDTH), 128, dtype=np.uint8)
            frame[:HEIGHT, : WIDTH // 2] = 20 + 10 * (number // 16)
            frame[:HEIGHT, WIDTH // 2 :] = 20 + 12 * (number % 16)
            picture = av.VideoFrame.from_ndarray(frame, format="yuv420p")
            picture.pts, picture.time_base = number, Fraction(1, FPS)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))


def read_number(luma: np.ndarray) -> int:
    left, right = luma[8:-8, 8:56].mean(), luma[8:-8, 72:-8].mean()
    return round((left - 20) / 10) * 16 + round((right - 20) / 12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("start_s", [0.0, 4.0, 9.0])
def test_decoded_frames_are_those_on_screen(kind: str, start_s: float, tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"  # the content decides, not the suffix
    write_numbered(path, kind)
    request = VideoRequest(
        *(path, 0, probe(path).start_s + start_s, 3.0, 5.0, (HEIGHT, WIDTH)),
        *(None, 0, False, False, 1 << 20, 60.0),
    )
    decoder = VideoDecoder(request)
    seen = [(read_number(planes[0]), count) for planes, count in decoder.frames(15)]
    assert seen == [(round((start_s + k / 5) * FPS), 1) for k in range(15)]


def write_wave(raw: Path) -> None:
    write_wav(raw / "a.wav", encode_foa(noise(SECONDS), unit_vector(0, 0)))


def test_a_clip_whose_middle_is_damaged_is_refused(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    write_numbered(tmp_path / "whole.mkv", "mkv")
    with (
        av.open(str(tmp_path / "whole.mkv")) as whole,
        av.open(str(raw / "a.mkv"), "w") as damaged,
    ):
        stream = damaged.add_stream_from_template(whole.streams.video[0])
        for packet in whole.demux(video=0):
            if packet.pts is None:
                continue
            copied = packet
            if 2 < float(packet.pts * packet.time_base) < 7:
                copied = av.Packet(bytes(packet.size))
                copied.pts, copied.dts, copied.time_base = packet.pts, packet.dts, packet.time_base
            copied.stream = stream
            damaged.mux(copied)
    write_wave(raw)
    result = build(raw, "--out", tmp_path / "set", "--projection", "equirect", "--workers", 1)
    assert result.exit_code == 2, result.output
    assert "s of video after second 0" in result.output
    assert "it is damaged" in result.output


def test_a_mirrored_video_is_refused(tmp_path: Path) -> None:
    """Its left would not match the audio's left."""
    raw = tmp_path / "raw"
    raw.mkdir()
    write_numbered(raw / "a.mp4", "mp4")
    content = bytearray((raw / "a.mp4").read_bytes())
    struct.pack_into(">i", content, content.index(b"tkhd") + 44, -(1 << 16))
    (raw / "a.mp4").write_bytes(content)
    write_wave(raw)
    result = build(raw, "--out", tmp_path / "set", "--workers", 1)
    assert result.exit_code == 2
    assert "its frames are to be shown mirrored" in result.output
