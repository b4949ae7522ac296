"""Where the frames of a crop are, and when they are shown, by its container's own tables.

Crops are read in sets of strangers, so that no library for containers sees them: those follow
references to other files, and believe tables that would fill any memory.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shards.errors import ShardError

_MOST_BOXES = 100
"""Boxes in another one; crops have ten."""
_VIDEO_FIELDS = 78
"""Size of the fields that come before the boxes in a sample entry."""

_Table = NDArray[np.int64]


@dataclass(frozen=True)
class CropTables:
    """The decoder's configuration (hex), and for each frame its begin and end in the file, in
    bytes, and the second at which it is shown."""

    configuration: str
    begins: _Table
    ends: _Table
    times_s: NDArray[np.float64]


def read_crop_tables(mp4: bytes, frames: int) -> CropTables:
    """The tables of an mp4 with one track and ``frames`` frames in the order of their coding.

    Raises ShardError for any other file, before a table is expanded.
    """
    moov = _inside(memoryview(mp4), b"moov")
    trak = _inside(moov, b"trak")
    mdia = _inside(trak, b"mdia")
    stbl = _inside(mdia, b"minf", b"stbl")
    if any(name == b"ctts" for name, _ in _boxes(stbl)):
        raise ShardError("its frames are shown in another order than they are stored")
    entry = _inside(_inside(stbl, b"stsd")[8:], b"avc1")
    sizes = _sizes(_inside(stbl, b"stsz"), frames)
    begins = _begins(_rows(_inside(stbl, b"stco"), 1)[:, 0], _inside(stbl, b"stsc"), sizes)
    ticks, scale = _ticks(_inside(stbl, b"stts"), frames), _time_scale(_inside(mdia, b"mdhd"))
    start, shown = _edit(trak)
    times_s = (ticks - start) / scale
    if shown is not None and shown / _time_scale(_inside(moov, b"mvhd")) <= times_s[-1]:
        raise ShardError("its edit list cuts frames off")
    configuration = bytes(_inside(entry[_VIDEO_FIELDS:], b"avcC")).hex()
    return CropTables(configuration, begins, begins + sizes, times_s)


def _boxes(content: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """Names and contents of the boxes that a content consists of."""
    at = 0
    for _ in range(_MOST_BOXES):
        if at == len(content):
            return
        if at + 8 > len(content):
            break
        size, name = struct.unpack_from(">I4s", content, at)
        if size < 8 or at + size > len(content):
            break
        yield name, content[at + 8 : at + size]
        at += size
    raise ShardError("it does not consist of boxes")


def _inside(content: memoryview, *path: bytes) -> memoryview:
    """The content of the one box with these names, one in another."""
    for name in path:
        found = [inner for other, inner in _boxes(content) if other == name]
        if len(found) != 1:
            raise ShardError(f"it has {len(found)} boxes {name.decode()} where one belongs")
        (content,) = found
    return content


def _rows(table: memoryview, columns: int) -> _Table:
    """The rows of a table of 32-bit numbers, whose number it begins with."""
    if len(table) < 8:
        raise ShardError("one of its tables is cut off")
    (count,) = struct.unpack_from(">I", table, 4)
    if len(table) != 8 + 4 * columns * count:
        raise ShardError(f"one of its tables has not the {count} rows that it says")
    return np.frombuffer(table, ">u4", offset=8).reshape(count, columns).astype(np.int64)


def _sizes(stsz: memoryview, frames: int) -> _Table:
    if len(stsz) < 12:
        raise ShardError("its table of sizes is cut off")
    common, count = struct.unpack_from(">II", stsz, 4)
    if count != frames:
        raise ShardError(f"its table of sizes has {count} frames instead of {frames}")
    if common:
        return np.full(frames, common, np.int64)
    return _rows(stsz[4:], 1)[:, 0]


def _begins(chunks: _Table, stsc: memoryview, sizes: _Table) -> _Table:
    """Frames lie in chunks one after another; stsc says how many, from which chunk on."""
    rows = _rows(stsc, 3)
    firsts, counts = rows[:, 0], rows[:, 1]
    spans = np.diff(np.append(firsts, len(chunks) + 1))
    is_sound = len(rows) and firsts[0] == 1 and spans.min() > 0 and counts.min() > 0
    if not is_sound or int((spans * counts).sum()) != len(sizes):
        raise ShardError(f"its table of chunks is not one of {len(sizes)} frames")
    in_chunk = np.repeat(counts, spans)
    before = np.cumsum(sizes) - sizes
    begins: _Table = np.repeat(chunks - before[np.cumsum(in_chunk) - in_chunk], in_chunk) + before
    return begins


def _ticks(stts: memoryview, frames: int) -> _Table:
    """Time stamps of the frames, in the track's own unit."""
    rows = _rows(stts, 2)
    if int(rows[:, 0].sum()) != frames:
        raise ShardError(f"its table of times is not one of {frames} frames")
    steps = np.repeat(rows[:, 1], rows[:, 0])
    ticks: _Table = np.cumsum(steps) - steps
    return ticks


def _time_scale(header: memoryview) -> int:
    """Units per second, of an mdhd or mvhd box."""
    at = 20 if bytes(header[:1]) == b"\1" else 12
    scale = int.from_bytes(header[at : at + 4], "big")
    if scale == 0:
        raise ShardError("its time stamps have no unit")
    return scale


def _edit(trak: memoryview) -> tuple[int, int | None]:
    """Time stamp that is shown first, and how long the track is shown, in the file's unit."""
    if all(name != b"edts" for name, _ in _boxes(trak)):
        return 0, None
    elst = bytes(_inside(trak, b"edts", b"elst"))
    form = ">QqI" if elst[:1] == b"\1" else ">IiI"
    if len(elst) != 8 + struct.calcsize(form) or elst[4:8] != b"\0\0\0\1":
        raise ShardError("its edit list has not one entry")
    shown, start, rate = struct.unpack_from(form, elst, 8)
    if start < 0 or rate != 1 << 16:
        raise ShardError("its edit list delays its frames, or shows them faster or slower")
    return start, shown
