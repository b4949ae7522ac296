"""Names as a stranger gives them, and what of them may reach a terminal."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from click import Command
from click.testing import CliRunner, Result

_BAD = "\x1b\x07\x08\x7f\x85\x9b\n\r\t\u2028\u2029\u200f\u202e\u2066\ufeff"
MARK = "Ω"
HOSTILE = "".join(letter + MARK for letter in _BAD)
"""Each dangerous letter is followed by a mark, which tells it from letters of progress bars."""
UNDECODABLE = HOSTILE + "\udcff" + MARK
"""As a file's name can be on Linux."""


def shown(command: Command, *arguments: object) -> Result:
    """Run a command that shows hostile names, and assert that they arrive harmless."""
    given = [str(argument) for argument in arguments]
    result = CliRunner().invoke(command, given)
    assert_harmless(result.stdout_bytes + b"\n" + result.stderr_bytes, given)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def assert_harmless(output: bytes, given: Sequence[str]) -> None:
    """The marks are there, and what stands before them can be printed."""
    text = output.decode()
    assert MARK in text, (given, text)
    for letter in re.findall(f"(?s)(.){MARK}", text):
        assert letter.isprintable(), (given, text)
    bars = text.replace("\x1b[A", "")
    for letter in set(bars) - {"\n", "\r"}:
        assert unicodedata.category(letter)[0] != "C", (given, text)
