"""Sets that also hold the whole sphere of every clip."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from avprep.cli.main import main
from avprep.look.card import write_card
from shards.errors import ShardError
from shards.reader import ShardSet
from shards.schema import PANORAMA
from tests.support.media import DIRECTIONS, FAST, build, centroid, contents

WIDTH, HEIGHT = 128, 64
"""Not a square, and 16:9 of nothing."""


@pytest.fixture(scope="module")
def panoramas(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("panoramas") / "set"
    result = build(
        *(raw, "--out", out, *FAST, "--workers", 2, "--audio-layout", "source"),
        *("--panorama", f"{WIDTH}x{HEIGHT}"),
    )
    assert result.exit_code == 0, result.output
    return out


def test_every_clip_shows_the_whole_sphere_beside_its_views(panoramas: Path) -> None:
    shards = ShardSet(panoramas)
    for sample in range(len(shards)):
        info = shards.info(sample)
        frames = shards.panorama(sample, 3, 4, step=7)
        assert frames.shape == (4, HEIGHT, WIDTH, 3)
        azimuth, elevation = DIRECTIONS[info.source]
        turn = round(azimuth / 360 * WIDTH)
        for frame in frames:
            x, y = centroid(np.roll(frame[..., 1], turn, axis=1))
            assert x - turn == pytest.approx(WIDTH * (180 - azimuth) / 360, abs=0.4)
            assert y == pytest.approx(HEIGHT * (90 - elevation) / 180, abs=0.4)
        assert info.panorama is not None
        assert (info.panorama.frames, info.panorama.fps) == (info.video.frames, info.video.fps)


def test_all_else_of_a_set_is_the_same_to_the_byte(
    raw: Path, panoramas: Path, tmp_path: Path
) -> None:
    plain, again = tmp_path / "plain", tmp_path / "again"
    source = (*FAST, "--audio-layout", "source")
    assert build(raw, "--out", plain, *source).exit_code == 0
    with_them = ("--panorama", f"{WIDTH}x{HEIGHT}", "--workers", 1)
    assert build(raw, "--out", again, *source, *with_them).exit_code == 0
    assert contents(again) == contents(panoramas)
    ours, theirs = ShardSet(panoramas), ShardSet(plain)
    assert ours.keys == theirs.keys
    for suffix in ("view00.mp4", "view03.mp4", "flac"):
        assert ours.member(0, suffix) == theirs.member(0, suffix)
    record = json.loads(ours.member(0, "json"))
    del record["panorama"]
    assert record == json.loads(theirs.member(0, "json"))
    with pytest.raises(ShardError, match=r"panorama\.mp4: there is none; build the set with --pan"):
        theirs.panorama(0, 0, 1)


def test_a_set_with_panoramas_is_verified_and_described(panoramas: Path, tmp_path: Path) -> None:
    runner = CliRunner()
    assert runner.invoke(main, ["verify", str(panoramas)]).exit_code == 0
    assert "panoramas" in runner.invoke(main, ["info", str(panoramas)]).output
    write_card(panoramas, tmp_path / "README.md")
    assert f"name: {PANORAMA}" in (tmp_path / "README.md").read_text()


def test_a_damaged_panorama_is_found_and_costs_no_crop(panoramas: Path, tmp_path: Path) -> None:
    out = shutil.copytree(panoramas, tmp_path / "set")
    shards = ShardSet(out)
    offset, size = shards.member_range(0, PANORAMA)
    with (out / shards.shard_file(0)).open("r+b") as file:
        file.seek(offset)
        file.write(b"\xff" * size)
    said = CliRunner().invoke(main, ["verify", str(out)])
    assert said.exit_code == 1
    assert f"{shards.keys[0]} {PANORAMA}: does not decode" in said.output
    with pytest.raises(ShardError, match="damaged"):
        shards.panorama(0, 0, 8)
    assert shards.frames(0, 0, 0, 8).shape[0] == 8


@pytest.mark.parametrize("size", ["512", "513x256", "512x255", "4096x2048", "8x8", "512x256x2", ""])
def test_a_size_that_cannot_be_is_refused(raw: Path, tmp_path: Path, size: str) -> None:
    result = build(raw, "--out", tmp_path / "set", "--panorama", size)
    assert result.exit_code == 2
    assert "is not WIDTHxHEIGHT, such as 512x256" in " ".join(result.output.split())
    assert not (tmp_path / "set").exists()
