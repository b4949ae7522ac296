"""The error raised for an unusable shard set, and the one way in which text reaches the terminal.

Names of files, keys, labels and everything else that a set holds may be a stranger's: with escape
codes or line breaks in them, they could hide or fake what a terminal shows. Everything that the
commands print goes through `show` and `show_json`; a test of the house finds what does not.
"""

from __future__ import annotations

import json
import sys
import traceback
import unicodedata
import warnings
from typing import Any


class ShardError(Exception):
    """A folder is not a finished shard set, or a file in it is missing or damaged.

    The message is one sentence for the user: which file, what is wrong, what to do.
    """


def printable(text: str) -> str:
    """One line of text for a terminal or a page: control characters, line breaks, marks that turn
    the direction of writing and halves of characters are written as escapes, such as ``\\x1b``."""
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() or unicodedata.category(letter) == "Zs" else _escape(letter)
        for letter in text
    )


def drawable(text: str) -> str:
    """A line of text for matplotlib, which would read ``$`` as the begin of a formula."""
    return printable(text).replace("$", r"\$")


def show(*lines: str, err: bool = False) -> None:
    """Print lines to standard output, or to standard error, above progress bars if there are any.

    A line break inside a line is shown as an escape: only the lines of the code are lines.
    """
    stream = sys.stderr if err else sys.stdout
    text = "".join(f"{printable(line)}\n" for line in lines)
    encoding = getattr(stream, "encoding", None) or "utf-8"
    text = text.encode(encoding, "backslashreplace").decode(encoding)
    bars = sys.modules.get("tqdm")  # without it no bar can be there
    if bars is None:
        stream.write(text)
    else:
        bars.tqdm.write(text, file=stream, end="")
    stream.flush()


def show_json(value: Any) -> None:
    """Print JSON, with escapes in its strings where `show` has them too."""
    text = json.dumps(value, ensure_ascii=False, indent=1)
    letters = {letter for letter in text if printable(letter) != letter} - {"\n"}
    show(*text.translate({ord(letter): _json_escape(letter) for letter in letters}).split("\n"))


def guard_terminal() -> None:
    """Let `show` print what Python prints by itself: tracebacks and warnings hold names too."""
    sys.excepthook = _show_traceback
    warnings.showwarning = _show_warning


def _show_traceback(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    for part in traceback.format_exception(kind, error, trace):
        show(*part.rstrip("\n").split("\n"), err=True)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: object = None,
    line: str | None = None,
) -> None:
    show(f"{filename}:{lineno}: {category.__name__}: {message}", err=True)


def _escape(letter: str) -> str:
    return letter.encode("unicode_escape").decode()


def _json_escape(letter: str) -> str:
    return json.dumps(letter)[1:-1] if ord(letter) != 0x7F else "\\u007f"
