"""The commands that look at recordings and sets: inspect, info, verify."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from avprep.cli.main import main
from shards.folders import open_folder
from shards.geometry import encode_foa, unit_vector
from shards.manifest import read_manifest, shard_names, write_manifest
from tests.support.media import (
    FAST,
    build,
    dot_plane,
    equirectangular_texture,
    grey_frame,
    noise,
    write_dot_recording,
    write_video,
    write_wav,
)
from tests.support.tiny_set import renew_checksum


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def damage(built: Path, tmp_path: Path, member: str, hidden: bool) -> tuple[Path, str]:
    """A copy of a set with some bytes of a member changed, and its hashes adapted if ``hidden``."""
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-r", str(built), str(copy)], check=True)
    tar, index_file = copy / "train/train-000002.tar", copy / "train/train-000002.index.json"
    index = json.loads(index_file.read_bytes())
    offset, size = index["samples"][0]["members"][member]
    content = bytearray(tar.read_bytes())
    old = hashlib.sha256(content).hexdigest()
    content[offset + size // 2 : offset + size // 2 + 200] = bytes(200)
    tar.write_bytes(content)
    if hidden:
        new = hashlib.sha256(content).hexdigest()
        for path in (copy / "manifest.json", index_file):
            path.write_text(path.read_text().replace(old, new))
        manifest = copy / "manifest.json"
        entry = json.loads(manifest.read_bytes())["splits"]["train"]["shards"][2]
        new = hashlib.sha256(index_file.read_bytes()).hexdigest()
        manifest.write_text(manifest.read_text().replace(entry["index_sha256"], new))
        renew_checksum(manifest)
    return copy, index["samples"][0]["key"]


def test_verify_finds_no_faults_in_a_good_set(built: Path) -> None:
    for options in ([], ["--quick"]):
        result = run("verify", built, *options)
        assert result.exit_code == 0, result.output
        assert "8 samples, 0 faults" in result.output


@pytest.mark.parametrize("member", ["view01.flac", "view02.mp4", "json"])
def test_verify_names_shard_sample_and_member(built: Path, tmp_path: Path, member: str) -> None:
    copy, key = damage(built, tmp_path, member, hidden=True)
    assert run("verify", copy, "--quick").exit_code == 0, "its hashes agree"
    result = run("verify", copy)
    assert result.exit_code == 1
    assert f"train/train-000002.tar {key} {member}: " in result.output


def test_verify_finds_changed_missing_and_unlisted_shards(built: Path, tmp_path: Path) -> None:
    copy, _ = damage(built, tmp_path, "view00.flac", hidden=False)
    (copy / "train/train-000003.tar").unlink()
    (copy / "train/train-000009.tar").write_bytes(b"")
    tar = copy / "train/train-000004.tar"
    tar.write_bytes(tar.read_bytes()[:-512])
    result = run("verify", copy, "--quick")
    assert result.exit_code == 1
    assert "train-000002.tar: has changed since it was written" in result.output
    assert "train-000003.tar: cannot be read" in result.output
    assert "train-000004.tar: has " in result.output
    assert "train-000009.tar: is not in the manifest" in result.output
    assert "4 faults" in result.output


def test_info_describes_a_set(built: Path, raw: Path, tmp_path: Path) -> None:
    result = run("info", built, "--json")
    assert result.exit_code == 0, result.output
    value = json.loads(result.stdout)
    train = value["splits"]["train"]
    assert (train["clips"], train["sources"], train["shards"], train["views"]) == (8, 4, 8, 4)
    assert train["hours"] == pytest.approx(16 / 3600, abs=1e-3)
    parts = train["bytes_of"]
    assert train["saved_by_source_layout"] == round(parts["sound"] * 3 / 4)
    assert sum(parts.values()) < train["bytes"]
    assert max(np.abs(train["view_angles_deg"]["elevation_deg"])) <= 30.6
    words = run("info", built).output
    assert "8 clips of 4 sources" in words
    assert "would save" in words
    build(raw, "--out", tmp_path / "part", *FAST, "--task-index", 0, "--task-count", 2)
    unfinished = run("info", tmp_path / "part")
    assert unfinished.exit_code == 2
    assert "is unfinished: 4 of 8 shards are written" in unfinished.output


def test_info_reports_sources_in_two_splits(built: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-r", str(built), str(copy)], check=True)
    manifest = read_manifest(open_folder(copy))
    train = manifest.splits["train"]
    moved = next(entry for entry in train if entry.sources == ("a",))
    file, index = shard_names("test", 0)
    (copy / "test").mkdir()
    (copy / moved.file).rename(copy / file)
    (copy / moved.index).rename(copy / index)
    test = (replace(moved, file=file, index=index),)
    splits = {"test": test, "train": tuple(entry for entry in train if entry != moved)}
    write_manifest(open_folder(copy), replace(manifest, splits=splits))
    assert "LEAK: a is in test and train" in run("info", copy).output


def test_inspect_reports_suspicious_recordings(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    ground = equirectangular_texture(160, 320)
    moving = [grey_frame(np.roll(ground, 8 * n, axis=1)) for n in range(48)]
    directions = [(0, 0), (90, 10), (180, -10), (-90, 0), (30, 80), (-60, -70)]
    fields = [encode_foa(noise(0.35, s), unit_vector(*d)) for s, d in enumerate(directions)]
    field = np.concatenate(fields, axis=1)
    write_video(raw / "good.mkv", moving, audio=field)
    write_video(raw / "still.mkv", [grey_frame(ground)] * 48, audio=1e-5 * field)
    root = np.array([[1], [3**0.5], [3**0.5], [3**0.5]], dtype=np.float32)
    write_wav(raw / "n3d.wav", field * root)
    write_wav(raw / "mono.wav", np.repeat(field[:1], 4, axis=0))
    write_wav(raw / "stereo.wav", field[:2])
    (raw / "broken.mp4").write_text("sorry")
    result = run("inspect", raw, "--json")
    assert result.exit_code == 0, result.output
    found = {Path(item["file"]).name: item for item in json.loads(result.stdout)}
    good = found["good.mkv"]
    assert [what.partition(" (")[0] for what in good["suspicious"]] == [
        "its sound is taken as ambiX"
    ]
    assert (good["video"]["projection"], good["video"]["sure"]) == ("equirect", True)
    assert good["audio"]["convention"] == "ambix"
    assert good["audio"]["spatiality"] > 0.1
    assert good["duration_s"] == pytest.approx(2.1, abs=0.05)
    assert "its picture hardly changes" in found["still.mkv"]["suspicious"]
    assert any("silent" in what for what in found["still.mkv"]["suspicious"])
    assert any("sounds like N3D" in what for what in found["n3d.wav"]["suspicious"])
    assert any("mono" in what for what in found["mono.wav"]["suspicious"])
    assert any("2 channels" in what for what in found["stereo.wav"]["suspicious"])
    assert any("cannot be read" in what for what in found["broken.mp4"]["suspicious"])
    stated = run("inspect", raw / "good.mkv", "--json", "--foa-convention", "ambix")
    assert json.loads(stated.stdout)[0]["suspicious"] == []
    words = run("inspect", raw).output
    assert words.count("CHECK") >= 6
    assert run("inspect", tmp_path / "nowhere").exit_code == 2


def test_inspect_draws_the_direction_of_sound(tmp_path: Path) -> None:
    write_dot_recording(tmp_path, "a", -70, 20, seconds=4.0)
    out = tmp_path / "where.png"
    result = run("inspect", tmp_path / "a.mp4", "--picture", out, "--sound", tmp_path / "a.wav")
    assert result.exit_code == 0, result.output
    found = re.search(r"azimuth (-?[\d.]+)°, elevation (-?[\d.]+)°", result.output)
    assert found is not None
    assert [float(found[1]), float(found[2])] == pytest.approx([-70, 20], abs=1)
    assert out.stat().st_size > 10_000
    alone = run("inspect", tmp_path / "a.mp4", "--picture", out)
    assert alone.exit_code == 2
    assert "name the file with its audio with --sound" in alone.output


def test_inspect_reports_projection_stereo_and_missing_audio(tmp_path: Path) -> None:
    frame = grey_frame(dot_plane(160, 320, 40, 15, 6))
    write_video(tmp_path / "a.mkv", [frame] * 24, metadata={"stereo_mode": "top_bottom"})
    result = run("inspect", tmp_path / "a.mkv", "--json", "--projection", "equirect")
    item = json.loads(result.stdout)[0]
    assert (item["video"]["projection"], item["video"]["stereo"]) == ("equirect", "top-bottom")
    assert "it has no sound" in item["suspicious"][-1]
