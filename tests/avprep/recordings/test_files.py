"""Which folders are entered, and which files are named as not read."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from avprep.cli.main import main
from avprep.recordings.lists import read_default_splits
from tests.avprep.recordings.folders import files_found, found_in, inspect, touch, write_small
from tests.support.known_truth import (
    build_and_look,
    is_right,
    run_ffmpeg,
)

# Folders


def test_hidden_folders_are_as_hidden_as_hidden_files(tmp_path: Path) -> None:
    """Trash and snapshots hold the same recording again."""
    raw = tmp_path / "raw"
    write_small(raw, "good")
    hidden = (".Trash-1000/files", ".snapshot/daily.0", "@eaDir", "day/__MACOSX", "#recycle")
    for folder in hidden:
        write_small(raw / folder, "good")
    (raw / "._good.mp4").write_bytes(b"x")
    for suffix in ("m4v", "mts"):
        run_ffmpeg("-i", raw / "good.mp4", "-c", "copy", raw / f"other.{suffix}")
    built = build_and_look(raw, tmp_path / "set")
    assert built.result.exit_code == 1, "the others are videos without sound"
    assert [(clip.file, is_right(clip)) for clip in built.clips] == [("good.mp4", True)]
    assert "other.m4v has no audio track" in built.output
    assert "other.mts has no audio track" in built.output
    names = sorted(Path(item["file"]).name for item in json.loads(inspect(raw, "--json").stdout))
    assert names == ["good.mp4", "good.wav", "other.m4v", "other.mts"]


def test_links_to_folders_are_entered_and_loops_are_not(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    touch(raw, "day1/a.mp4", "z/b.mp4")
    touch(tmp_path, "other.mp4", "disk2/day2/c.mp4", "disk2/day3/d.mp4")
    (raw / "day2").symlink_to(tmp_path / "disk2" / "day2")
    (raw / "again").symlink_to(raw / "day1")  # its own path is preferred
    (raw / "again2").symlink_to(tmp_path / "disk2" / "day2")
    (raw / "all").symlink_to(tmp_path / "disk2")  # only what is not there already
    (raw / "z" / "up").symlink_to(raw)
    (raw / "z" / "here").symlink_to(".")
    (raw / "up").symlink_to(tmp_path)
    (tmp_path / "disk2" / "back").symlink_to(raw)
    (raw / "self").symlink_to("self")
    (raw / "e.mp4").symlink_to(raw / "z" / "b.mp4")
    found = found_in(raw)
    assert [recording.file for recording in found.recordings] == [
        *("again2/c.mp4", "all/day3/d.mp4", "day1/a.mp4", "e.mp4", "z/b.mp4")
    ]
    assert [failure.source for failure in found.failures] == ["self"]


def test_the_lists_of_yt_ambigen_name_its_clips(tmp_path: Path) -> None:
    names = ("abcdefghij1_5", "abcdefghij2_10", "abcdefghij3_15")
    touch(tmp_path, *(f"video/{n}.mp4" for n in names), *(f"audio/{n}.opus" for n in names))
    for split, name in zip(("train", "valid", "test"), names, strict=True):
        (tmp_path / f"{split}.csv").write_text(f"file_path\n{name}.npy\n")
    (tmp_path / "demo.csv").write_text(f"file_path\n{names[0]}.npy\n")
    expected = dict(zip(names, ("train", "valid", "test"), strict=True))
    assert read_default_splits(tmp_path) == expected


def test_a_dataset_may_lie_on_two_disks(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    touch(tmp_path, "1/abcdefghijk-10.mp4", "2/abcdefghijk-10.m4a", "3/x.mp4", "4/x.wav")
    (raw / "video").symlink_to(tmp_path / "1")
    (raw / "audio").symlink_to(tmp_path / "2")
    assert files_found(raw) == ["video/abcdefghijk-10.mp4"]


def test_links_to_what_is_not_there_are_named(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4")
    (tmp_path / "b.mp4").symlink_to("/not/mounted/b.mp4")
    (tmp_path / "disk2").symlink_to("/not/mounted")
    (tmp_path / "notes.txt").symlink_to("/not/mounted/notes.txt")
    found = found_in(tmp_path)
    assert [failure.reason for failure in found.failures] == [
        "b.mp4 is a link to /not/mounted/b.mp4, which does not exist; mend or remove the link",
        "disk2 is a link to /not/mounted, which does not exist; mend or remove the link",
    ]


def test_folders_that_cannot_be_read_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = tmp_path / "raw"
    write_small(raw, "good")
    write_small(raw / "day 2", "lost")
    scandir = os.scandir

    def refuse(path: Path) -> object:
        if Path(path).name == "day 2":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    reason = "day 2 cannot be read (Permission denied); allow it, or move it"
    built = build_and_look(raw, tmp_path / "set")
    assert built.result.exit_code == 1
    assert f"left out: day 2: {reason}" in built.output
    assert [clip.file for clip in built.clips] == ["good.mp4"]
    (line,) = (tmp_path / "set" / "failures.jsonl").read_text().splitlines()
    assert json.loads(line) == {"source": "day 2", "stage": "find", "reason": reason}
    inspected = inspect(raw, raw / "good.mp4")
    assert inspected.exit_code == 1
    assert inspected.stderr.count(reason) == 1
    assert "good.mp4" in inspected.stdout


# Files that are not read


def test_files_of_unknown_suffix_are_counted(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    write_small(raw, "good")
    touch(raw, "a.360", "b.360", "c.INSV", "notes.txt", "good.srt", "README", "Mr. Smith")
    touch(raw, "x.webm.part", "x.f313.webm.part-Frag12.part", "x.webm.ytdl", "y.info.json")
    touch(raw, "y.temp.webm", ".hidden.360")
    built = build_and_look(raw, tmp_path / "set")
    line = (
        "not read: 2 x .360, 1 x .insv; unfinished downloads: 2 x .part, 1 x .temp.webm, 1 x .ytdl"
    )
    assert built.result.exit_code == 0, built.output
    assert built.result.stderr.splitlines().count(line) == 1
    inspected = inspect(raw)
    assert inspected.exit_code == 0
    assert line in inspected.stderr.splitlines()


def test_a_folder_without_recordings_says_what_it_holds(tmp_path: Path) -> None:
    touch(tmp_path, *(f"GS01{number}.360" for number in range(3)))
    built = CliRunner().invoke(main, ["build-shards", str(tmp_path), "--out", str(tmp_path / "s")])
    assert built.exit_code == 2
    assert (
        "of layout folder (not read: 3 x .360); export .360 files with GoPro Player as "
        "equirectangular video, or name the folder" in built.output
    )
    inspected = inspect(tmp_path)
    assert inspected.exit_code == 2
    assert "holds no video or sound (not read: 3 x .360)" in inspected.output
