"""Lists that come with recordings: the split of each, and the seconds at which clips begin."""

from __future__ import annotations

import csv
import errno
import math
from collections.abc import Iterator
from pathlib import Path

from avprep.errors import UserError
from shards.files import read_regular

UNLISTED = "(unlisted)"
"""Takes the place of a split: the layout has split lists, and none of them names the recording."""
LIST_BYTES = 64_000_000
"""Lists of that many bytes have millions of lines."""
_MOST_LINES = 4_000_000
_LONGEST_LINE = 1_000_000
_SPLIT_LISTS = ("train", "test", "val", "validation")
_AMBIGEN_VALID = "valid.csv"
_NO_SPLITS = ("segments",)  # YT-360's list of clip starts lies beside its split lists


def read_splits(folder: Path, names: tuple[str, ...] | None = None) -> dict[str, str]:
    """The split of each listed name.

    The lists are files ``{split}.txt`` with one name per line, or ``{split}.csv`` with a column
    ``id`` or ``file_path``; ``names`` limits which splits are read. Raises UserError if a name is
    in two lists.
    """
    splits: dict[str, str] = {}
    for path in sorted((*folder.glob("*.txt"), *folder.glob("*.csv"))):
        allowed = names is None or path.stem in names or path.name == _AMBIGEN_VALID
        if path.name.startswith(".") or path.stem in _NO_SPLITS or not allowed:
            continue
        try:
            lines = read_lines(path)
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{path} cannot be read as a list of names: {why(error)}") from None
        names_in_list = _names_in_csv(path, lines) if path.suffix == ".csv" else iter(lines)
        for name in filter(None, (name.strip() for name in names_in_list)):
            if splits.setdefault(name, path.stem) != path.stem:
                raise UserError(
                    f"{name} is listed in {splits[name]}.txt and in {path.name} of {folder}; "
                    "a recording must be in one split only"
                )
    return splits


def read_default_splits(raw: Path) -> dict[str, str]:
    """The split of each name in the lists ``train.txt``, ``test.txt``, … of an input folder."""
    return read_splits(raw, _SPLIT_LISTS)


def read_lines(path: Path) -> list[str]:
    """A text file's lines, without the byte order mark that some editors write.

    Raises OSError, also for pipes and devices and for what is too long, or UnicodeDecodeError.
    """
    content = read_regular(path, LIST_BYTES)
    if content.count(b"\n") + content.count(b"\r") > 2 * _MOST_LINES:
        raise OSError(errno.EFBIG, f"it has more than {_MOST_LINES:,} lines", str(path))
    lines = content.decode("utf-8-sig").splitlines()
    if max(map(len, lines), default=0) > _LONGEST_LINE:
        reason = f"it has a line of more than {_LONGEST_LINE:,} characters"
        raise OSError(errno.EFBIG, reason, str(path))
    return lines


def why(error: Exception) -> str:
    """What is wrong with a list, without the number and the path that Python adds."""
    return str(getattr(error, "strerror", None) or error)


def _names_in_csv(path: Path, lines: list[str]) -> Iterator[str]:
    try:
        rows = csv.DictReader(lines)
        column = next((n for n in ("id", "file_path") if n in (rows.fieldnames or ())), None)
        if column is None:
            raise UserError(f"{path} has no column id or file_path with names of recordings")
        for row in rows:
            # YT-Ambigen's own lists name the features of its clips: ID_57.npy.
            yield Path(row[column] or "").name.removesuffix(".npy")
    except csv.Error as error:
        raise UserError(f"{path} cannot be read as a list of names: {error}") from None


def read_segments(path: Path) -> dict[str, tuple[float, ...]]:
    """The seconds at which clips of each recording begin, from lines ``ID t1,t2,…``.

    Raises UserError for another kind of file.
    """
    starts: dict[str, tuple[float, ...]] = {}
    try:
        for line in filter(None, map(str.strip, read_lines(path))):
            name, times = _name_and_times(line)
            if not all(0 <= time < math.inf for time in times):
                raise ValueError(f"{line!r:.80}")
            starts[name] = tuple(sorted({*starts.get(name, ()), *times}))
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise UserError(
            f"{path} is not a list of lines `ID t1,t2,…` with seconds: {why(error)}"
        ) from None
    if not starts:
        raise UserError(f"{path} lists no recording; its lines must be `ID t1,t2,…`")
    return starts


def _name_and_times(line: str) -> tuple[str, list[float]]:
    """The name, which may hold spaces, and the times; raises ValueError if they are no numbers.

    No regular expression: one that allows spaces everywhere takes hours for a line of spaces.
    """
    parts = line.split(",")
    spaced = [number for number, part in enumerate(parts) if len(part.split(None, 1)) > 1]
    before = spaced[-1] if spaced else 0
    name_and_first = ",".join(parts[: before + 1]).rsplit(None, 1)
    try:
        name, first = name_and_first
        return name, [float(time) for time in (first, *parts[before + 1 :])]
    except ValueError:
        raise ValueError(f"{line!r:.80}") from None
