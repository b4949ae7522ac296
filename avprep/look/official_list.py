"""Read the official list of a dataset: ids of videos, and the seconds at which its clips begin."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from avprep.errors import UserError
from avprep.recordings.lists import read_lines
from avprep.recordings.recording import MEDIA_SUFFIXES

_ID = r"[A-Za-z0-9_-]{11}"
_CLIP = re.compile(rf"(?P<source>{_ID})[_-](?P<start>\d+(\.\d+)?)(_\d+)?")
"""A clip of YT-360 (``ID-80``), Sphere360 and YT-Ambigen (``ID_80``), or Kinetics (and its end)."""
_YOUTUBE_ID = re.compile(_ID)
_IN_BRACKETS = re.compile(rf".*\[(?P<source>{_ID})\](\.f\d[\w+-]*)?")
"""A file as yt-dlp names it."""
_URL = re.compile(rf"(?:youtu\.be/|/shorts/|/embed/|[?&]v=)(?P<source>{_ID})(?![\w-])")
_WITH_TIMES = re.compile(r"(?P<name>\S+)\s+(?P<times>\d+(\.\d+)?(\s*,\s*\d+(\.\d+)?)*)")
_COLUMNS = ("id", "file_path", "youtube_id", "video_id", "videoid", "ytid", "yt_id", "url", "name")
_START_COLUMNS = ("start", "start_s", "start_seconds", "start_time", "time_start")
_NUMBER = re.compile(r"\s*\d+(\.\d+)?\s*")

Entry = tuple[str, float | None]
"""A source, and the second at which a clip begins (None: all of it)."""


@dataclass(frozen=True)
class OfficialList:
    """The sources of one or several lists, in their order, each with the seconds at which its
    clips begin; none if the list names whole recordings."""

    starts: dict[str, tuple[float, ...]]

    @property
    def clips(self) -> int:
        return sum(map(len, self.starts.values()))


def read_official_lists(paths: Iterable[Path]) -> OfficialList:
    """Read lists of lines ``ID``, ``ID-start``, ``ID_start``, ``ID t1,t2,…`` or addresses, or CSV
    with a column of ids. Raises UserError for files that are none, or name nothing."""
    starts: dict[str, set[float]] = {}
    for path in paths:
        try:
            lines = read_lines(path)
            entries = _in_csv(path, lines) if path.suffix.lower() == ".csv" else _in_text(lines)
            before = len(starts)
            for source, start_s in entries:
                times = starts.setdefault(source, set())
                if start_s is not None:
                    times.add(start_s)
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            why = getattr(error, "strerror", None) or error
            raise UserError(f"{path} cannot be read as a list of ids: {why}") from None
        if len(starts) == before == 0:
            raise UserError(f"{path} lists no id; it must have one id on each line, or be CSV")
    return OfficialList({source: tuple(sorted(times)) for source, times in starts.items()})


def parse_entry(name: str) -> Entry:
    """The source that a line or file name states, and the second at which its clip begins."""
    url = _URL.search(name)
    if url is not None:
        return url["source"], None
    name = name.strip().rpartition("/")[2]
    stem, dot, suffix = name.rpartition(".")
    if dot and f".{suffix.lower()}" in (*MEDIA_SUFFIXES, ".npy"):
        name = stem
    if _YOUTUBE_ID.fullmatch(name):
        return name, None
    clip = _CLIP.fullmatch(name)
    if clip is not None:
        return clip["source"], float(clip["start"])
    titled = _IN_BRACKETS.fullmatch(name)
    return (name if titled is None else titled["source"]), None


def _in_text(lines: list[str]) -> Iterator[Entry]:
    for line in map(str.strip, lines):
        if not line or line.startswith("#"):
            continue
        match = _WITH_TIMES.fullmatch(line)
        if match is None:
            yield parse_entry(line)
        else:
            source, _ = parse_entry(match["name"])
            for time in match["times"].split(","):
                yield source, float(time)


def _in_csv(path: Path, lines: list[str]) -> Iterator[Entry]:
    rows = [row for row in csv.reader(lines) if row]
    header = [cell.strip().lower() for cell in rows[0]] if rows else []
    column = next((header.index(name) for name in _COLUMNS if name in header), None)
    start = next((header.index(name) for name in _START_COLUMNS if name in header), None)
    if column is not None:
        rows = rows[1:]
    elif header and _YOUTUBE_ID.fullmatch(rows[0][0].strip()):  # no header, as in VGGSound
        column, start = 0, 1
    else:
        raise UserError(f"{path} has no column of ids ({', '.join(_COLUMNS)})")
    for row in rows:
        if len(row) <= column or not row[column].strip():
            continue
        source, start_s = parse_entry(row[column])
        if start_s is None and start is not None and start < len(row):
            start_s = float(row[start]) if _NUMBER.fullmatch(row[start]) else None
        yield source, start_s
