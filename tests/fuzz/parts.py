"""Boxes of mp4 files and elements of Matroska files, up to the first unreadable one."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from numpy.random import Generator

_CONTAINERS = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"udta", b"moof", b"traf")
_CONTAINERS += (b"mvex", b"dinf", b"sv3d", b"proj", b"vexu", b"eyes", b"pack")
_TELLING = (b"mvhd", b"tkhd", b"mdhd", b"elst", b"stts", b"ctts", b"stsc", b"stsz", b"stco")
_TELLING += (
    b"avc1",
    b"hev1",
    b"mp4a",
    b"fl32",
    b"avcC",
    b"esds",
    b"SA3D",
    b"equi",
    b"st3d",
    b"tfhd",
    b"cbmp",
    b"mshp",
    b"prhd",
    b"prji",
    b"stri",
    b"pkin",
    b"uuid",
    b"hdlr",
)
# Matroska: sizes, scales, rates, durations, times, projection.
_EBML_TELLING = (0xB0, 0xBA, 0x54B0, 0x54BA, 0x4489, 0x2AD7B1, 0xB5, 0x78B5, 0x9F, 0x6264)
_EBML_TELLING += (
    0x23E383,
    0xE7,
    0x56AA,
    0x56BB,
    0x7671,
    0x7672,
    0x7673,
    0x7675,
    0x83,
    0x86,
    0x53B8,
    0xA3,
    0x9B,
    0x63A2,
    0x55B1,
)
_EBML_MASTERS = (0x1A45DFA3, 0x18538067, 0x1549A966, 0x1654AE6B, 0xAE, 0xE0, 0xE1, 0x1F43B675)
_EBML_MASTERS += (0x114D9B74, 0x4DBB, 0x1C53BB6B, 0xBB, 0xB7, 0xA0, 0x7670, 0x1254C367)


@dataclass(frozen=True)
class Part:
    """An mp4 box or Matroska element: offsets of its start, of its content and of its end."""

    name: bytes
    start: int
    content: int
    end: int


def _boxes(data: bytes, start: int, end: int) -> list[Part]:
    found: list[Part] = []
    while start + 8 <= end:
        length, name = struct.unpack_from(">I4s", data, start)
        content = start + 8
        length = length or end - start
        if length < 8 or start + length > end:
            break
        found.append(Part(name, start, content, start + length))
        # A sample description is a box with a count; an entry of it has a fixed part first.
        skip = {b"stsd": 8, b"avc1": 78, b"hev1": 78, b"mp4a": 28, b"fl32": 28}.get(name)
        if name in _CONTAINERS or skip is not None:
            found += _boxes(data, content + (skip or 0), start + length)
        start += length
    return found


def _elements(data: bytes, start: int, end: int) -> list[Part]:
    found: list[Part] = []
    while start + 2 <= end:
        width = 9 - data[start].bit_length() if data[start] else 9
        if width > 4 or start + width >= end:
            break
        name = data[start : start + width]
        place = start + width
        size_width = 9 - data[place].bit_length() if data[place] else 9
        if size_width > 8 or place + size_width > end:
            break
        size = int.from_bytes(data[place : place + size_width], "big") & ((1 << 7 * size_width) - 1)
        content = place + size_width
        last = end if size == (1 << 7 * size_width) - 1 else min(end, content + size)
        found.append(Part(name, start, content, last))
        if int.from_bytes(name, "big") in _EBML_MASTERS:
            found += _elements(data, content, last)
        start = last
    return found


def pick(rng: Generator, data: bytearray, telling: bool = False) -> Part | None:
    """A random box or element; with ``telling``, one that describes video, audio or time."""
    if data[:4] == b"\x1a\x45\xdf\xa3":
        parts = _elements(bytes(data), 0, len(data))
        chosen = [p for p in parts if int.from_bytes(p.name, "big") in _EBML_TELLING]
    else:
        parts = _boxes(bytes(data), 0, len(data))
        chosen = [part for part in parts if part.name in _TELLING]
    if telling:
        # By name first: there are many blocks and few durations.
        names = sorted({part.name for part in chosen})
        name = names[int(rng.integers(len(names)))] if names else b""
        parts = [part for part in chosen if part.name == name]
    return parts[int(rng.integers(len(parts)))] if parts else None
