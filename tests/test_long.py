"""Long recordings: a clip costs what it costs, wherever in the recording it is."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from avprep.ffmpeg import ffmpeg_path
from shards.reader import ShardSet
from tests.media import build

SECONDS, CLIP_S, FPS, KEY_EVERY_S = 160, 10, 4, 2


@dataclass(frozen=True)
class Cost:
    """What ffmpeg says that it did for one clip."""

    frames: int
    bytes_read: int


def costs_of(log: Path) -> Cost:
    text = log.read_text(errors="replace")
    frames = re.findall(r"\(video\): \d+ packets read .*; (\d+) frames decoded", text)
    read = re.findall(r"Statistics: (\d+) bytes read", text)
    return Cost(sum(map(int, frames)), sum(map(int, read)))


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
    costs = [cost for log in logs.iterdir() if (cost := costs_of(log)).frames]
    assert len(costs) == clips
    whole = sum(path.stat().st_size for path in raw.iterdir())
    for cost in costs:
        assert cost.frames <= (CLIP_S + 2 * KEY_EVERY_S) * FPS
        assert cost.bytes_read < whole / 4
