"""Reading sets: windows, both audio layouts, moved, read-only and damaged sets."""

from __future__ import annotations

import copy
import io
import subprocess
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from shards.errors import ShardError
from shards.geometry import (
    rotate_foa,
    view_foa_matrix,
)
from shards.reader import ShardSet
from tests.support.media import (
    FAST,
    build,
)


def test_a_window_equals_that_part_of_the_member(built: Path) -> None:
    shards = copy.copy(ShardSet(built))  # copies the state that is sent to a loader's workers
    with av.open(io.BytesIO(shards.member(3, "view01.mp4"))) as video:
        whole = np.stack([frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)])
    for start, count in ((0, 8), (5, 8), (24, 8), (7, 1), (0, 32)):
        window = shards.frames(3, 1, start, count)
        np.testing.assert_array_equal(window, whole[start : start + count])
    for start, count, step in ((5, 4, 2), (0, 3, 9), (31, 1, 5)):
        out = np.empty((count, 112, 112, 3), np.uint8)
        assert shards.frames(3, 1, start, count, step, out) is out
        np.testing.assert_array_equal(out, whole[start::step][:count])
    flac, _ = soundfile.read(io.BytesIO(shards.member(3, "view02.flac")), dtype="float32")
    foa, matrix = shards.foa(3, 12_345, 24_000, view=2)
    gain = np.float32(shards.info(3).audio.gain)
    np.testing.assert_array_equal(foa, flac.T[:, 12_345:36_345] / gain)
    view = shards.info(3).views[2]
    np.testing.assert_array_equal(matrix, view_foa_matrix(view.azimuth_deg, view.elevation_deg))
    with pytest.raises(ShardError, match="not within"):
        shards.frames(3, 1, 25, 8)
    with pytest.raises(ShardError, match="not within"):
        shards.foa(3, 40_000, 24_000)


def test_both_audio_layouts_give_the_same_audio(raw: Path, built: Path, tmp_path: Path) -> None:
    result = build(raw, "--out", tmp_path / "set", *FAST, "--audio-layout", "source")
    assert result.exit_code == 0, result.output
    rotated, source = ShardSet(built), ShardSet(tmp_path / "set")
    assert rotated.keys == source.keys
    field, identity = source.foa(2, 1000, 24_000)
    np.testing.assert_array_equal(identity, np.eye(4))
    for number, view in enumerate(rotated.info(2).views):
        stored, matrix = rotated.foa(2, 1000, 24_000, number)
        expected = rotate_foa(field, view_foa_matrix(view.azimuth_deg, view.elevation_deg))
        # Rounding to 16 bits is off by half a step per channel, at most sqrt(3) times that after
        # rotation.
        assert np.abs(stored - expected).max() < 1.5 / 32768 / rotated.info(2).audio.gain
        np.testing.assert_allclose(rotate_foa(stored, matrix.T), field, atol=2 / 32768)


def test_moved_and_read_only_sets_can_be_read(built: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    subprocess.run(["cp", "-r", str(built), str(moved)], check=True)
    before = {path: path.stat().st_mtime_ns for path in [moved, *moved.rglob("*")]}
    for path in [moved, *moved.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    assert ShardSet(moved).frames(0, 0, 0, 8).shape == (8, 112, 112, 3)
    assert ShardSet(moved).foa(0, 0, 24_000)[0].shape == (4, 24_000)
    # File modes do not restrict root, but nothing may be written by any user.
    assert {path: path.stat().st_mtime_ns for path in [moved, *moved.rglob("*")]} == before


def test_a_truncated_shard_is_reported(
    built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged = tmp_path / "copy"
    subprocess.run(["cp", "-r", str(built), str(damaged)], check=True)
    shards = ShardSet(damaged)
    tar = damaged / "train" / "train-000000.tar"
    tar.write_bytes(tar.read_bytes()[:2000])
    for read in (lambda: shards.foa(0, 0, 24_000), lambda: shards.frames(0, 0, 0, 8)):
        with pytest.raises(ShardError, match=r"train-000000.tar is truncated; copy it again"):
            read()
    assert capsys.readouterr().err == ""


def test_missing_splits_and_damaged_manifests_are_reported(built: Path, tmp_path: Path) -> None:
    with pytest.raises(ShardError, match=r"has no split 'valid'; its splits: train"):
        ShardSet(built, "valid")
    damaged = tmp_path / "copy"
    subprocess.run(["cp", "-r", str(built), str(damaged)], check=True)
    manifest = (damaged / "manifest.json").read_bytes()
    for content, sentence in (
        (manifest[: len(manifest) // 2], "is damaged"),
        (manifest.replace(b'"version": 1', b'"version": 9'), "format version is 9"),
        (b'{"format": "other"}', "its format is 'other'"),
    ):
        (damaged / "manifest.json").write_bytes(content)
        with pytest.raises(ShardError, match=sentence):
            ShardSet(damaged)
