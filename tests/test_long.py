"""Long recordings: a clip costs what it costs, wherever in the recording it is."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from avprep.decode import Decoding, PictureDecoder
from avprep.ffmpeg import ffmpeg_path
from shards.reader import ShardSet
from tests.media import build

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
    suffix: str, side: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw, logs = tmp_path / "raw", tmp_path / "logs"
    raw.mkdir()
    logs.mkdir()
    write_long(raw, suffix, side)
    # ffmpeg, saying what it does in a file.
    real = ffmpeg_path()
    shim = tmp_path / "ffmpeg"
    shim.write_text(f'#!/bin/sh\nFFREPORT="file={logs}/$$.log:level=40" exec "{real}" "$@"\n')
    shim.chmod(0o755)
    monkeypatch.setenv("AVPREP_FFMPEG", str(shim))
    options = ["--clip-duration", CLIP_S, "--views", 1, "--size", 32, "--fps", FPS, "--workers", 1]
    known = ["--projection", "equirect", "--stereo", "mono", "--foa-convention", "ambix"]
    result = build(raw, "--out", tmp_path / "set", *options, *known)
    assert result.exit_code == 0, result.output
    clips = len(ShardSet(tmp_path / "set"))
    assert clips == SECONDS / CLIP_S
    read = [
        sum(map(int, re.findall(r"Statistics: (\d+) bytes read", log.read_text(errors="replace"))))
        for log in logs.iterdir()
    ]
    assert len([count for count in read if count]) >= clips  # and where it was asked
    whole = sum(path.stat().st_size for path in raw.iterdir())
    assert max(read) < whole / 4
    # The picture, in this process.
    for start_s in range(0, SECONDS, CLIP_S):
        size = (64, 128)
        wanted = Decoding(
            raw / f"a.{suffix}", start_s, CLIP_S, FPS, size, None, 0, False, False, 1 << 20, 60.0
        )
        decoder = PictureDecoder(wanted)
        assert sum(count for _, count in decoder.frames(CLIP_S * FPS)) == CLIP_S * FPS
        assert decoder.decoded <= (CLIP_S + 2 * KEY_EVERY_S) * FPS
