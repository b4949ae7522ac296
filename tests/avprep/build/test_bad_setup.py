"""Full and read-only disks, wrong options, other sets: one sentence, and nothing is damaged."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from avprep.cli.main import main
from shards.reader import ShardSet
from tests.support.media import (
    dot_plane,
    grey_frame,
    write_dot_recording,
)

FAST = ["--clip-duration", "2", "--views", "2", "--audio-layout", "source"]
FRAME = grey_frame(dot_plane(160, 320, 40, 15, 6))


def build(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["build-shards", *map(str, arguments), *FAST])


def test_a_file_size_limit_is_reported_and_leaves_no_partial_files(tmp_path: Path) -> None:
    """Acts like a full disk, and needs no root."""
    raw, out = tmp_path / "raw", tmp_path / "set"
    for name in "abc":
        write_dot_recording(raw, name)
    limit = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)); "
    start = f"{limit}from avprep.cli.main import main; main(sys.argv[1:])"
    arguments = ["build-shards", str(raw), "--out", str(out), *FAST]
    run = subprocess.run(
        [sys.executable, "-c", start, *arguments], capture_output=True, text=True, check=False
    )
    assert run.returncode == 2, run.stderr
    assert "cannot be written: File too large" in run.stderr
    assert "Traceback" not in run.stderr
    assert not list(out.rglob("*.partial"))
    assert not list(out.rglob("*.tar"))
    assert not (out / "manifest.json").exists()
    assert build(raw, "--out", out).exit_code == 0
    assert len(ShardSet(out)) == 3


@pytest.mark.parametrize("command", ["demo", "preview"])
def test_demo_and_preview_report_what_they_cannot_write(command: str, tmp_path: Path) -> None:
    write_dot_recording(tmp_path / "raw", "-a")
    assert build(tmp_path / "raw", "--out", tmp_path / "set").exit_code == 0
    (tmp_path / "file").write_text("")
    target = tmp_path / "file" / "x"
    arguments = {
        "demo": [str(target), "--clips", "1"],
        "preview": [str(tmp_path / "set"), "-a-0", "--out", str(target)],
    }
    result = CliRunner().invoke(main, [command, *arguments[command]])
    assert result.exit_code == 2
    assert "Not a directory" in result.output
    (tmp_path / "raw" / "-a.mp4").write_bytes(b"nothing")
    shown = ["preview", str(tmp_path / "set"), "--raw", str(tmp_path / "raw")]
    result = CliRunner().invoke(main, [*shown, "--out", str(tmp_path / "x.png")])
    assert result.exit_code == 2
    assert f"{tmp_path / 'raw' / '-a.mp4'} cannot be read as video or audio" in result.output


def test_a_missing_package_is_reported_with_the_command_that_installs_it() -> None:
    for command, package, extra in (("avprep", "ffmpeg", "prep"), ("avtrain", "torch", "train")):
        arguments = {"avprep": ["build-shards", "x", "--out", "y"], "avtrain": ["pretrain", "x"]}
        code = (
            f"import sys; sys.modules[{package!r}] = None; from {command}.cli.main import main; "
            f"main({arguments[command]})"
        )
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert run.returncode == 2, run.stderr
        assert f"{package} is not installed; `pip install 'avsa360[{extra}]'`" in run.stderr
        assert "Traceback" not in run.stderr


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_reported_and_leaves_no_partial_shards(
    small_disk: Path, tmp_path: Path
) -> None:
    raw, out = tmp_path / "raw", small_disk / "set"
    for name in "abcde":
        write_dot_recording(raw, name)
    for workers in (1, 2):
        result = build(raw, "--out", out, "--workers", workers)
        assert result.exit_code == 2
        assert f"the disk of {out} is full" in result.output
        assert not (out / "manifest.json").exists()
        finished = {path.stem for path in out.glob("train/train-*.tar")}
        assert {path.name[:12] for path in out.glob("train/*.index.json")} == finished
    subprocess.run(["mount", "-o", "remount,size=20m", str(small_disk)], check=True)
    assert build(raw, "--out", out).exit_code == 0
    assert len(ShardSet(out)) == 5


def test_a_read_only_folder_is_reported(small_disk: Path, tmp_path: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    write_dot_recording(tmp_path / "raw", "a")
    result = build(tmp_path / "raw", "--out", small_disk / "set")
    assert result.exit_code == 2
    assert "cannot be written: Read-only file system" in result.output


def test_an_output_below_a_file_is_reported(tmp_path: Path) -> None:
    write_dot_recording(tmp_path / "raw", "a")
    (tmp_path / "file").write_text("")
    result = build(tmp_path / "raw", "--out", tmp_path / "file" / "set")
    assert result.exit_code == 2
    assert f"{tmp_path / 'file'}" in result.output
    assert "cannot be written" in result.output


def test_a_folder_with_another_set_is_not_changed(tmp_path: Path) -> None:
    write_dot_recording(tmp_path / "raw", "a")
    write_dot_recording(tmp_path / "other", "b")
    assert build(tmp_path / "raw", "--out", tmp_path / "set").exit_code == 0
    before = {p: p.read_bytes() for p in (tmp_path / "set").rglob("*") if p.is_file()}
    refused = build(tmp_path / "other", "--out", tmp_path / "set")
    assert refused.exit_code == 2
    assert "holds another set (other recordings or split lists, or formats" in refused.output
    assert "or add new recordings to it with --append" in refused.output
    assert {p: p.read_bytes() for p in (tmp_path / "set").rglob("*") if p.is_file()} == before
    # With other options, recordings cannot be added either.
    refused = build(tmp_path / "raw", "--out", tmp_path / "set", "--fps", "8")
    assert "fps 16 there, 8 now); choose another --out" in refused.output
    assert "--append" not in refused.output
    # Foreign tars without a manifest are not overwritten either.
    (tmp_path / "foreign" / "train").mkdir(parents=True)
    (tmp_path / "foreign" / "train" / "train-000000.tar").write_bytes(b"precious")
    refused = build(tmp_path / "raw", "--out", tmp_path / "foreign")
    assert refused.exit_code == 2
    assert "tar files that are not part of this build" in refused.output


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--views", "40"], "40 views do not fit with their centres 36° apart"),
        (["--hfov", "90:30"], "is not an angle or MIN:MAX"),
        (["--hfov", "60:170"], "of at most 150 degrees"),
        (["--size", "111"], "--size 111 is odd"),
        (["--shard-size", "many"], "is not a size such as 256MB"),
        (["--viewpoints", "nowhere.json"], "cannot be read"),
        (["--layout", "yt360"], "holds no video"),
        (["--splits", "nowhere"], "--splits nowhere is not a folder"),
    ],
)
def test_a_wrong_option_is_reported_before_anything_is_written(
    arguments: list[str], sentence: str, tmp_path: Path
) -> None:
    write_dot_recording(tmp_path / "raw", "a")
    command = ["build-shards", str(tmp_path / "raw"), "--out", str(tmp_path / "set"), *arguments]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 2
    assert sentence in result.output
    assert not (tmp_path / "set").exists()


def test_missing_recordings_are_reported(tmp_path: Path) -> None:
    missing = build(tmp_path / "nowhere", "--out", tmp_path / "set")
    assert missing.exit_code == 2
    assert "is not a folder" in missing.output
    (tmp_path / "raw").mkdir()
    nothing = build(tmp_path / "raw", "--out", tmp_path / "set")
    assert nothing.exit_code == 2
    assert "holds no video" in nothing.output


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("[", "is not JSON"),
        ("[]", "holds 0 views"),
        ('[{"azimuth_deg": 0}]', "its field [0]: object missing required field elevation_deg"),
        (
            '[{"azimuth_deg": 0, "elevation_deg": 95, "hfov_deg": 60}]',
            "azimuth 0.0, elevation 95.0 is not a direction",
        ),
        ('[{"azimuth_deg": 0, "elevation_deg": 0, "hfov_deg": 60, "fov": 3}]', "unknown field fov"),
        ('[{"azimuth_deg": 0, "elevation_deg": 0, "hfov_deg": 160}]', "is wider than 150"),
    ],
)
def test_an_invalid_viewpoints_file_is_reported(
    content: str, sentence: str, tmp_path: Path
) -> None:
    write_dot_recording(tmp_path / "raw", "a")
    (tmp_path / "views.json").write_text(content)
    arguments = ["--out", str(tmp_path / "set"), "--viewpoints", str(tmp_path / "views.json")]
    result = CliRunner().invoke(main, ["build-shards", str(tmp_path / "raw"), *arguments])
    assert result.exit_code == 2
    assert sentence in result.output
