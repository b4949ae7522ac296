"""Long recordings: a clip costs what it costs, wherever in the recording it is."""

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
    """A changing picture with a key frame every two seconds, and four channels of noise."""
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
def test_only_what_a_clip_needs_is_read_and_decoded(
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
    # The same clips, and what is read and decoded for them.
    video = raw / f"a.{suffix}"
    audio = raw / f"a.{side or suffix}"
    track = probe(audio).audio
    assert track is not None
    for start_s in range(0, SECONDS, CLIP_S):
        sound = AudioRequest(
            *(audio, 0.0, start_s, CLIP_S, 0.02, track.channels, track.sample_rate),
            *(track.plain_layout, 60.0),
        )
        before = bytes_read()
        assert decode_audio(sound).channels.shape[1] == CLIP_S * track.sample_rate
        assert bytes_read() - before < audio.stat().st_size / 4
        picture = VideoRequest(
            video, start_s, CLIP_S, FPS, (64, 128), None, 0, False, False, 1 << 20, 60.0
        )
        before, decoder = bytes_read(), VideoDecoder(picture)
        assert sum(count for _, count in decoder.frames(CLIP_S * FPS)) == CLIP_S * FPS
        assert bytes_read() - before < video.stat().st_size / 4
        assert decoder.decoded <= (CLIP_S + 2 * KEY_EVERY_S) * FPS


def bytes_read() -> int:
    """By this process so far."""
    found = re.search(r"rchar: (\d+)", Path("/proc/self/io").read_text())
    assert found is not None
    return int(found[1])
