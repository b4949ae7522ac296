"""Lists that come with recordings: the split of each, and the seconds at which clips begin."""

from __future__ import annotations

import csv
import math
import re
from pathlib import Path

from avprep.errors import UserError

UNLISTED = "(unlisted)"
"""Takes the place of a split: the layout has split lists, and none of them names the recording."""
_SEGMENTS = re.compile(r"(?P<name>.+?)\s+(?P<times>[^\s,]+(\s*,\s*[^\s,]+)*)")
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
            raise UserError(f"{path} cannot be read as a list of names: {error}") from None
        if path.suffix == ".csv":
            lines = _names_in_csv(path, lines)
        for name in filter(None, (line.strip() for line in lines)):
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
    """A text file's lines, without the byte order mark that some editors write."""
    return path.read_text(encoding="utf-8-sig").splitlines()


def _names_in_csv(path: Path, lines: list[str]) -> list[str]:
    try:
        rows = list(csv.DictReader(lines))
    except csv.Error as error:
        raise UserError(f"{path} cannot be read as a list of names: {error}") from None
    column = next((name for name in ("id", "file_path") if rows and name in rows[0]), None)
    if column is None:
        raise UserError(f"{path} has no column id or file_path with names of recordings")
    # YT-Ambigen's own lists name the features of its clips: ID_57.npy.
    return [Path(row[column] or "").name.removesuffix(".npy") for row in rows]


def read_segments(path: Path) -> dict[str, tuple[float, ...]]:
    """The seconds at which clips of each recording begin, from lines ``ID t1,t2,…``.

    Raises UserError for another kind of file.
    """
    starts: dict[str, tuple[float, ...]] = {}
    try:
        for line in filter(None, map(str.strip, read_lines(path))):
            match = _SEGMENTS.fullmatch(line)
            times = [float(time) for time in match["times"].split(",")] if match else []
            if match is None or not all(0 <= time < math.inf for time in times):
                raise ValueError(repr(line))
            starts[match["name"]] = tuple(sorted(set(times)))
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise UserError(
            f"{path} is not a list of lines `ID t1,t2,…` with seconds: {error}"
        ) from None
    if not starts:
        raise UserError(f"{path} lists no recording; its lines must be `ID t1,t2,…`")
    return starts
