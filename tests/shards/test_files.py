"""Files are opened only where they are regular, and JSON is read only into its type."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from shards.files import parse_json, read_regular


@dataclass(frozen=True)
class _Record:
    frames: tuple[tuple[int, ...], ...]
    gain: float

    def __post_init__(self) -> None:
        if self.gain <= 0:
            raise ValueError("gain must be positive")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ('{"frames": [[1, "x"]], "gain": 1}', r"its field frames\[0\]\[1\]: expected int, got str"),
        ('{"frames": [[1]], "gain": NaN}', "it is not JSON"),
        ('{"frames": [[1]], "gain": -Infinity}', "it is not JSON"),
        ('{"frames": [[1]], "gain": 1e999}', "its field gain: number out of range"),
        ('{"frames": [[1]], "gain": 0}', "gain must be positive"),
        ('{"gain": 1}', "missing required field frames"),
        ("[]", "expected object, got array"),
        ("", "it is not JSON"),
        ('{"other": ' + "[" * 100_000, "nested too deeply"),
        (b'{"frames": [], "gain": 1, "\xff": 1, \xff', "it is not JSON"),
    ],
)
def test_json_of_another_type_is_refused_in_one_sentence(
    content: str | bytes, sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence) as caught:
        parse_json(content, _Record)
    assert "\n" not in str(caught.value)


def test_json_of_the_type_is_read() -> None:
    assert parse_json('{"frames": [[1, 2]], "gain": 2, "new": {}}', _Record) == _Record(
        ((1, 2),), 2.0
    )
    with pytest.raises(ValueError, match="nested too deeply"):
        parse_json("[" * 100_000, Any)


def test_a_byte_order_mark_before_json_is_passed_over() -> None:
    assert parse_json(b'\xef\xbb\xbf{"a": 1}', dict[str, int]) == {"a": 1}


def test_only_regular_files_up_to_a_size_are_read(tmp_path: Path) -> None:
    file, pipe, link = tmp_path / "file", tmp_path / "pipe", tmp_path / "link"
    file.write_bytes(b"12345")
    link.symlink_to(file)
    os.mkfifo(pipe)
    assert read_regular(link, 5) == b"12345"
    with pytest.raises(OSError, match="larger than"):
        read_regular(file, 4)
    for endless in (pipe, Path("/dev/zero"), tmp_path):
        with pytest.raises(OSError, match=r"regular|directory"):
            read_regular(endless, 5)
