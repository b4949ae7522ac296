"""Read the boxes of mp4 and mov files that describe their tracks (ISO/IEC 14496-12).

Only structure: what the boxes inside a sample entry mean is decided elsewhere. Every size is
checked against the box around it, and as much is read as tracks describe themselves with, never
their tables of samples.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_FIRST_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"styp", b"pnot", b"uuid")
_MOST_BOXES = 100_000
"""Boxes looked at in one file: fragmented files have thousands beside their index."""
_MOST_ENTRIES = 8
_LARGEST_CONTENT = 1 << 22
"""Larger boxes do not describe a track; the mesh of a projection has some 100,000 bytes."""
_MOST_BYTES = 1 << 24
"""Bytes of contents that are read of one file."""
_VIDEO_FIELDS = 78
_AUDIO_FIELDS = 28
_AUDIO_FIELDS_OF_VERSION = {1: 44, 2: 64}
"""Sizes of the fields that come before the boxes in a sample entry (QuickTime's for audio)."""

_MVHD_MATRIX, _TKHD_MATRIX = 36, 40

Matrix = tuple[int, ...]
UPRIGHT: Matrix = (1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)


@dataclass(frozen=True)
class Box:
    """A box in memory: its name, and its content without its header."""

    name: bytes
    content: bytes


@dataclass(frozen=True)
class SampleEntry:
    """How samples of a track are coded: the codec's name, the boxes that describe it, and the
    number of channels of audio (which is true of PCM alone)."""

    name: bytes
    boxes: tuple[Box, ...]
    channels: int = 0


@dataclass(frozen=True)
class Mp4Track:
    """A track. ``kind`` is its handler's type (vide, soun), ``matrix`` its display matrix, and
    ``uuids`` its boxes with names of their own (16 bytes, then their content)."""

    track_id: int
    kind: bytes
    matrix: Matrix
    entries: tuple[SampleEntry, ...]
    uuids: tuple[bytes, ...] = ()


@dataclass(frozen=True)
class Mp4Index:
    """The tracks of a file, and the display matrix and boxes with names of their own that apply to
    all of them."""

    tracks: tuple[Mp4Track, ...]
    matrix: Matrix = UPRIGHT
    uuids: tuple[bytes, ...] = ()

    def track(self, track_id: int, kind: bytes) -> Mp4Track | None:
        """The track with an id; None if there is none of that kind."""
        found = (t for t in self.tracks if t.track_id == track_id and t.kind == kind)
        return next(found, None)


def read_mp4_index(path: Path) -> Mp4Index | None:
    """The tracks of an mp4 or mov file; None for other files. Raises OSError."""
    with open(path, "rb") as file:
        return _Reader(file).index()


def split_boxes(content: bytes) -> tuple[Box, ...]:
    """The boxes in a content, up to the first that is impossible."""
    file = io.BytesIO(content)
    walk = _Reader(file).boxes(0, len(content))
    return tuple(Box(name, content[start:end]) for name, start, end in walk)


class _Reader:
    """Reads boxes of a file, at most `_MOST_BOXES` and `_MOST_BYTES` of their contents."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._left = _MOST_BOXES
        self._bytes_left = _MOST_BYTES

    def index(self) -> Mp4Index | None:
        size = self._file.seek(0, io.SEEK_END)
        for number, (name, start, end) in enumerate(self.boxes(0, size)):
            if number == 0 and name not in _FIRST_BOXES:
                return None
            if name == b"moov":
                return self._moov(start, end)
        return None

    def boxes(self, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
        """Names of the boxes between two offsets, and where their contents begin and end.

        A box that claims to be longer than the one around it ends with that one.
        """
        while start + 8 <= end and self._left > 0:
            self._left -= 1
            self._file.seek(start)
            header = self._file.read(16)
            if len(header) < 8:
                return
            length, name = struct.unpack_from(">I4s", header)
            content = start + 8
            if length == 1 and len(header) == 16:
                (length,) = struct.unpack_from(">Q", header, 8)
                content = start + 16
            last = end if length == 0 else min(start + length, end)
            if last < content:
                return
            yield name, content, last
            start = last

    def _content(self, start: int, end: int) -> bytes:
        if end - start > min(_LARGEST_CONTENT, self._bytes_left):
            return b""
        self._bytes_left -= end - start
        self._file.seek(start)
        return self._file.read(end - start)

    def _inside(self, start: int, end: int, *path: bytes) -> tuple[int, int] | None:
        """Where the content of the first box with these names, one in another, is."""
        place: tuple[int, int] | None = (start, end)
        for name in path:
            if place is None:
                return None
            place = next((p[1:] for p in self.boxes(*place) if p[0] == name), None)
        return place

    def _moov(self, start: int, end: int) -> Mp4Index:
        matrix, tracks, uuids = UPRIGHT, [], []
        for name, first, last in self.boxes(start, end):
            if name == b"mvhd":
                matrix = _header(self._content(first, last), _MVHD_MATRIX)[1]
            elif name == b"trak":
                tracks.append(self._trak(first, last))
            elif name == b"uuid":
                uuids.append(self._content(first, last))
        return Mp4Index(tuple(tracks), matrix, tuple(uuids))

    def _trak(self, start: int, end: int) -> Mp4Track:
        track_id, matrix, uuids = 0, UPRIGHT, []
        for name, first, last in self.boxes(start, end):
            if name == b"tkhd":
                track_id, matrix = _header(self._content(first, last), _TKHD_MATRIX)
            elif name == b"uuid":
                uuids.append(self._content(first, last))
        handler = self._inside(start, end, b"mdia", b"hdlr")
        kind = self._content(*handler)[8:12] if handler is not None else b""
        place = self._inside(start, end, b"mdia", b"minf", b"stbl", b"stsd")
        entries = () if place is None else _entries(self._content(*place), kind)
        return Mp4Track(track_id, kind, matrix, entries, tuple(uuids))


def _header(content: bytes, matrix: int) -> tuple[int, Matrix]:
    """The id and the display matrix of a tkhd box (an mvhd box has no id, but another number),
    where the matrix is at an offset in version 0; in version 1 times have 4 bytes more."""
    wider = content[:1] == b"\1"
    at, matrix = (20, matrix + 12) if wider else (12, matrix)
    if len(content) < matrix + 36:
        return 0, UPRIGHT
    (number,) = struct.unpack_from(">I", content, at)
    return number, struct.unpack_from(">9i", content, matrix)


def _entries(content: bytes, kind: bytes) -> tuple[SampleEntry, ...]:
    """The sample entries in an stsd box of a track of video or audio."""
    entries = []
    for box in split_boxes(content[8:])[:_MOST_ENTRIES]:
        fields, channels = _VIDEO_FIELDS, 0
        if kind == b"soun":
            # In stsd boxes of version 1, entries of version 1 have no more fields than others.
            version = int.from_bytes(box.content[8:10], "big") if content[:1] == b"\0" else 0
            fields = _AUDIO_FIELDS_OF_VERSION.get(version, _AUDIO_FIELDS)
            place = slice(40, 44) if version == 2 else slice(16, 18)
            channels = int.from_bytes(box.content[place], "big")
        boxes = split_boxes(box.content[fields:]) if kind in (b"vide", b"soun") else ()
        # QuickTime puts some of an audio track's boxes into another one.
        inside = [split_boxes(box.content) for box in boxes if box.name == b"wave"]
        entries.append(SampleEntry(box.name, sum(inside, boxes), channels))
    return tuple(entries)
