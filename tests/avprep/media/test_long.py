"""Long recordings: the cost of a clip does not depend on its position in the recording."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from avprep.media.decode_audio import decode_audio
from avprep.media.decode_video import VideoDecoder, VideoRequest
from avprep.media.ffmpeg import AudioRequest, ffmpeg_path
from avprep.media.probe import probe
from shards.reader import ShardSet
from tests.support.media import build

SECONDS, CLIP_S, FPS, KEY_EVERY_S = 160, 10, 4, 2


def write_long(raw: Path, suffix: str, side: str | None) -> None:
    """A moving test pattern with a key frame every two seconds, and four channels of noise."""
    lavfi = ["-f", "lavfi", "-i"]
    picture = [*lavfi, f"testsrc2=size=128x64:rate={FPS}:duration={SECONDS}"]
    sound = [*lavfi, f"anoisesrc=r=8000:a=0.1:d={SECONDS},pan=quad|c0=c0|c1=c0|c2=c0|c3=c0"]
    x264 = ["-c:v", "libx264", "-preset", "ultrafast", "-g", f"{KEY_EVERY_S * FPS}"]
    video = ["-map", "0:v", *x264, *(["-map", "1:a"] if side is None else [])]
    arguments = [*picture, *sound, *video, str(raw / f"a.{suffix}")]
    if side is not None:
        arguments += ["-map", "1:a", str(raw / f"a.{side}")]
    subprocess.run([ffmpeg_path(), "-v", "error", *arguments], check=True)


@pytest.mark.parametrize(("suffix", "side"), [("mp4", None), ("mkv", "m4a")])
def test_a_clip_reads_and_decodes_only_what_it_needs(
    suffix: str, side: str | None, tmp_path: Path
) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    write_long(raw, suffix, side)
    options = ["--clip-duration", CLIP_S, "--views", 1, "--size", 32, "--fps", FPS, "--workers", 1]
    known = ["--projection", "equirect", "--stereo", "mono", "--foa-convention", "ambix"]
    result = build(raw, "--out", tmp_path / "set", *options, *known)
    assert result.exit_code == 0, result.output
    assert len(ShardSet(tmp_path / "set")) == SECONDS / CLIP_S
    # Decode the same clips again, counting bytes and frames.
    video = raw / f"a.{suffix}"
    audio = raw / f"a.{side or suffix}"
    track = probe(audio).audio
    assert track is not None
    for start_s in range(0, SECONDS, CLIP_S):
        audio_request = AudioRequest(
            *(audio, track.index, 0.0, start_s, CLIP_S, 0.02, track.channels, track.sample_rate),
            *(track.plain_layout, 60.0),
        )
        before = bytes_read()
        assert decode_audio(audio_request).channels.shape[1] == CLIP_S * track.sample_rate
        assert bytes_read() - before < audio.stat().st_size / 4
        video_request = VideoRequest(
            video, 0, start_s, CLIP_S, FPS, (64, 128), None, 0, False, False, 1 << 20, 60.0
        )
        before, decoder = bytes_read(), VideoDecoder(video_request)
        assert sum(count for _, count in decoder.frames(CLIP_S * FPS)) == CLIP_S * FPS
        assert bytes_read() - before < video.stat().st_size / 4
        assert decoder.decoded <= (CLIP_S + 2 * KEY_EVERY_S) * FPS


def bytes_read() -> int:
    """Bytes read by this process so far."""
    found = re.search(r"rchar: (\d+)", Path("/proc/self/io").read_text())
    assert found is not None
    return int(found[1])
