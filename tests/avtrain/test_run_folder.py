"""Logs of runs, as machines leave them that fail while writing."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from avtrain.run_folder import LONGEST_LINE, read_log


def line(number: int, **changed: object) -> bytes:
    whole = {"step": number, "loss": 1.5, "clip_accuracy": 0.5, "view_accuracy": None} | changed
    return json.dumps(whole).encode() + b"\n"


JUNK = [
    b"\n",
    b"\0\0\0\n",
    b"\xff\xfe\x80{\n",
    b'{"step": 2, "lo\n',
    b"2\n",
    b"[" * 5000 + b"\n",
    b'"' + b"x" * 3 * LONGEST_LINE + b'"\n',
    line(2, loss=float("nan")),
    line(2, loss=float("inf")),
    line(2, loss="1.5"),
    line(2, step=-2),
    line(2, step=1e300),
    line(2, step=None),
    line(2, clip_accuracy=None),
    b'{"step": 2, "loss": 1.5}\n',
]


@pytest.mark.parametrize("number", range(len(JUNK)))
def test_junk_in_a_log_costs_its_line(tmp_path: Path, number: int) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(line(1) + JUNK[number] + line(3, new="field"))
    log = read_log(path)
    assert [one["step"] for one in log.lines] == [1, 3]
    assert log.warning == f"warning: {path}: 1 damaged line left out"


def test_a_line_that_is_being_written_is_not_damaged(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    for end in (b'{"st', b"x" * (LONGEST_LINE + 9), line(2)[:-1]):
        path.write_bytes(line(1) + end)
        log = read_log(path)
        assert [one["step"] for one in log.lines] == [1]
        assert log.warning == ""


def test_a_step_cannot_come_again(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(b"".join(map(line, (1, 2, 3, 1, 2, 4))))
    log = read_log(path)
    assert [one["step"] for one in log.lines] == [1, 2, 3, 4]
    assert log.warning.endswith("2 damaged lines left out")


def test_a_pipe_is_no_log(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "log.jsonl")
    with pytest.raises(OSError, match="not a regular file"):
        read_log(tmp_path / "log.jsonl")
