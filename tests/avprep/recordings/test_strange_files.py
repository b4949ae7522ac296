"""Pipes, devices, endless lines and unreadable folders: a sentence each, and never a wait."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from avprep.errors import UserError
from avprep.recordings import lists
from avprep.recordings.layouts import find_recordings
from avprep.recordings.lists import read_default_splits, read_lines, read_segments
from tests.avprep.recordings.folders import touch
from tests.support.media import FAST, build, write_dot_recording


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("put", [_pipe, _endless])
def test_lists_that_are_pipes_or_endless_are_refused(
    put: Callable[[Path], None], tmp_path: Path
) -> None:
    raw = tmp_path / "raw"
    touch(raw, "video/abcdefghijk-0.mp4", "audio/abcdefghijk-0.m4a")
    put(tmp_path / "starts.txt")
    options = ["--layout", "yt360", "--out", tmp_path / "set"]
    refused = build(raw, *options, "--segments", tmp_path / "starts.txt")
    assert refused.exit_code == 2
    assert "starts.txt is not a list of lines" in refused.output
    assert "it is not a regular file" in refused.output
    put(raw / "train.txt")
    refused = build(raw, *options)
    assert refused.exit_code == 2
    assert f"{raw / 'train.txt'} cannot be read as a list of names: it is not a regular file" in (
        refused.output
    )
    (raw / "train.txt").unlink()
    put(raw / "segments.txt")
    refused = build(raw, *options)
    assert refused.exit_code == 2
    assert f"{raw / 'segments.txt'} is not a list" in refused.output
    touch(tmp_path / "ucf", "Bowl/v_Bowl_g01_c01.avi")
    put(tmp_path / "ucf" / "trainlist01.txt")
    refused = build(tmp_path / "ucf", "--layout", "ucf101", "--out", tmp_path / "set")
    assert refused.exit_code in (1, 2)
    assert "trainlist01.txt is not a regular file" in refused.output or "no official split" in (
        refused.output
    )


def test_lists_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "train.txt"
    for name, limit, content, sentence in (
        ("LIST_BYTES", 100, "a\n" * 51, "it is larger than"),
        ("_MOST_LINES", 10, "\n" * 21, "it has more than 10 lines"),
        ("_LONGEST_LINE", 10, "a" * 11, "a line of more than 10 characters"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(lists, name, limit)
            path.write_text(content)
            with pytest.raises(OSError, match=sentence):
                read_lines(path)
            with pytest.raises(UserError, match=sentence):
                read_default_splits(tmp_path)


def test_a_line_of_spaces_takes_no_time(tmp_path: Path) -> None:
    path = tmp_path / "starts.txt"
    path.write_text(f"a{' ' * 900_000}b ,\n")
    with pytest.raises(UserError, match="not a list of lines") as refused:
        read_segments(path)
    assert len(str(refused.value)) < 400
    path.write_text("my clip 1, 2 ,3.5\nb 4\nb 3\n")
    assert read_segments(path) == {"my clip": (1.0, 2.0, 3.5), "b": (3.0, 4.0)}


def test_a_split_list_of_another_name_is_refused(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    touch(raw, "video/a-0.mp4", "audio/a-0.m4a", "lists/my list.txt")
    (raw / "lists" / "my list.txt").write_text("a\n")
    refused = build(raw, "--layout", "yt360", "--out", tmp_path / "set", "--splits", raw / "lists")
    assert refused.exit_code == 2
    assert "a is in the split list my list, but names of splits" in refused.output


def test_media_and_labels_that_are_no_files_are_named(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4")
    for name in ("pipe.mp4", "pipe.wav", "pipe.csv", "pipe.sock"):
        _pipe(tmp_path / name)
    _endless(tmp_path / "zero.mkv")
    found = find_recordings(tmp_path, "folder")
    assert [recording.file for recording in found.recordings] == ["a.mp4"]
    assert [failure.reason for failure in found.failures] == [
        f"{name} is not a regular file; remove it, or put a file there"
        for name in ("pipe.csv", "pipe.mp4", "pipe.wav", "zero.mkv")
    ]


def test_an_unreadable_folder_is_named_and_the_rest_is_built(tmp_path: Path) -> None:
    """The administrator may read everything, unless he gives that up."""
    raw, out = tmp_path / "raw", tmp_path / "set"
    write_dot_recording(raw, "a")
    write_dot_recording(raw / "secret", "b")
    os.chmod(raw / "secret", 0)  # noqa: PTH101
    command = [sys.executable, "-m", "avprep", "build-shards", str(raw), "--out", str(out), *FAST]
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("without setpriv, the administrator stays one")
        command = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", *command]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    os.chmod(raw / "secret", 0o700)  # noqa: PTH101
    assert done.returncode == 1, done.stderr
    assert "train: 1 clips of 1 recordings" in done.stdout
    assert "secret cannot be read (Permission denied); allow it, or move it" in done.stdout
    assert (out / "failures.jsonl").read_text().count("secret cannot be read") == 1
