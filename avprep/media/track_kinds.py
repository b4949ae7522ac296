"""Which kinds of tracks a file has, from a few of its bytes, without a decoder."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from avprep.media.probe import read_moov

_HANDLERS = {b"vide": "video", b"soun": "audio"}
_EBML = b"\x1a\x45\xdf\xa3"
_SEGMENT, _TRACKS, _CLUSTER = 0x18538067, 0x1654AE6B, 0x1F43B675
_TRACK_ENTRY, _TRACK_TYPE = 0xAE, 0x83
_MATROSKA = {1: "video", 2: "audio"}
_MAX_ELEMENTS = 1000
_MAX_TRACKS_BYTES = 1 << 22


def track_kinds(path: Path) -> frozenset[str]:
    """``video`` and ``audio``, as far as an mp4, mov, Matroska or WebM file has such tracks; empty
    for other files and for damaged ones."""
    try:
        with open(path, "rb") as file:
            if file.read(4) == _EBML:
                return _in_matroska(file, path.stat().st_size)
    except OSError:
        return frozenset()
    moov = read_moov(path)
    return frozenset() if moov is None else _in_moov(moov)


def _in_moov(moov: bytes) -> frozenset[str]:
    kinds = set()
    at = moov.find(b"hdlr")
    while at >= 0:
        kinds.add(_HANDLERS.get(moov[at + 12 : at + 16], ""))
        at = moov.find(b"hdlr", at + 4)
    return frozenset(kinds - {""})


def _in_matroska(file: BinaryIO, size: int) -> frozenset[str]:
    """Kinds of the tracks of the first Tracks element, which comes before the first cluster."""
    at = 0
    for _ in range(_MAX_ELEMENTS):
        file.seek(at)
        name, length, header = _element(file.read(12))
        at += header
        if header == 0 or at >= size or name == _CLUSTER:
            break
        if name == _TRACKS:
            file.seek(at)
            return _in_tracks(file.read(min(length, _MAX_TRACKS_BYTES)))
        if name != _SEGMENT:  # whose content follows
            at += length
    return frozenset()


def _in_tracks(content: bytes) -> frozenset[str]:
    kinds = set()
    at = 0
    while at < len(content):
        name, length, header = _element(content[at : at + 12])
        if header == 0:
            break
        at += header
        if name == _TRACK_TYPE:
            kinds.add(_MATROSKA.get(int.from_bytes(content[at : at + min(length, 8)], "big"), ""))
        if name != _TRACK_ENTRY:  # whose content follows
            at += length
    return frozenset(kinds - {""})


def _element(head: bytes) -> tuple[int, int, int]:
    """An EBML element's id, the length of its content, and that of its head (0: no element)."""
    id_bytes = 9 - head[0].bit_length() if head and head[0] else 9
    if id_bytes > 4 or len(head) <= id_bytes or not head[id_bytes]:
        return 0, 0, 0
    size_bytes = 9 - head[id_bytes].bit_length()
    end = id_bytes + size_bytes
    if len(head) < end:
        return 0, 0, 0
    length = int.from_bytes(head[id_bytes:end], "big") & ((1 << 7 * size_bytes) - 1)
    return int.from_bytes(head[:id_bytes], "big"), length, end
