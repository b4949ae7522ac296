"""Read the tracks' descriptions of Matroska and WebM files (RFC 8794 and 9559).

Only structure: what a projection means is decided elsewhere. Every size is checked against the
element around it, and nothing is read but what describes the tracks.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_EBML, _SEGMENT, _TRACKS, _CLUSTER = 0x1A45DFA3, 0x18538067, 0x1654AE6B, 0x1F43B675
_SEEK_HEAD, _SEEK, _SEEK_ID, _SEEK_POSITION = 0x114D9B74, 0x4DBB, 0x53AB, 0x53AC
_TRACK_ENTRY, _TRACK_TYPE, _CODEC_ID, _CODEC_PRIVATE, _VIDEO = 0xAE, 0x83, 0x86, 0x63A2, 0xE0
_STEREO_MODE, _PROJECTION, _TRACK_UID = 0x53B8, 0x7670, 0x73C5
_TAGS, _TAG, _TARGETS, _TAG_TRACK_UID = 0x1254C367, 0x7373, 0x63C0, 0x63C5
_SIMPLE_TAG, _TAG_NAME, _TAG_STRING = 0x67C8, 0x45A3, 0x4487
_TYPE, _PRIVATE, _YAW, _PITCH, _ROLL = 0x7671, 0x7672, 0x7673, 0x7674, 0x7675
_KINDS = {1: b"V", 2: b"A", 0x11: b"SD", 0x21: b"SD"}
"""Types of tracks that ffmpeg counts (video, audio, subtitles, metadata), with the first letters
that their codecs may have."""
_MOST_ELEMENTS = 20_000
_LARGEST_CONTENT, _MOST_BYTES = 1 << 22, 1 << 24
"""Bytes of one element's content, and of all contents, that are read of one file."""


@dataclass(frozen=True)
class MatroskaProjection:
    """The Projection element of a video track: its type, its private content, and its pose (yaw,
    pitch, roll in degrees)."""

    kind: int = 0
    private: bytes = b""
    pose_deg: tuple[float, float, float] = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class MatroskaTrack:
    """A track: its type (1 video, 2 audio), its codec and what that stores, its stereo mode and
    projection (None: not stated), and the text of its tag for Spherical Video V1."""

    kind: int
    codec: str
    stereo_mode: int | None = None
    projection: MatroskaProjection | None = None
    private: bytes = b""
    spherical_v1: bytes = b""


def read_matroska_tracks(path: Path) -> tuple[MatroskaTrack, ...] | None:
    """The tracks of a Matroska or WebM file, as ffmpeg counts them; None for other files.

    Raises OSError.
    """
    with open(path, "rb") as file:
        return _Reader(file).tracks()


class _Reader:
    """Reads elements of a file, at most `_MOST_ELEMENTS` and `_MOST_BYTES` of their contents."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._left = _MOST_ELEMENTS
        self._bytes_left = _MOST_BYTES

    def tracks(self) -> tuple[MatroskaTrack, ...] | None:
        size = self._file.seek(0, io.SEEK_END)
        elements = self._elements(0, size)
        if next(elements, (0, 0, 0))[0] != _EBML:
            return None
        for name, start, end in elements:
            if name == _SEGMENT:
                places = self._find(start, end)
                texts = self._spherical_v1(*places[_TAGS]) if _TAGS in places else {}
                return self._all_tracks(*places[_TRACKS], texts) if _TRACKS in places else ()
        return ()

    def _elements(self, start: int, end: int) -> Iterator[tuple[int, int, int]]:
        """Ids of the elements between two offsets, and where their contents begin and end.

        An element of unknown size, as in live streams, and one that claims to be longer than the
        one around it end with that one.
        """
        while start < end and self._left > 0:
            self._left -= 1
            self._file.seek(start)
            header = self._file.read(12)
            name, width = _number(header, 0, most=4, marked=True)
            length, more = _number(header, width, most=8)
            if not width or not more:
                return
            content = start + width + more
            unknown = length == (1 << 7 * more) - 1
            last = end if unknown else min(content + length, end)
            if last < content:
                return
            yield name, content, last
            start = last

    def _find(self, start: int, end: int) -> dict[int, tuple[int, int]]:
        """Where the contents of a segment's Tracks and Tags are: before its first cluster, or where
        it says."""
        found: dict[int, tuple[int, int]] = {}
        places: list[tuple[int, int]] = []
        for name, first, last in self._elements(start, end):
            if name in (_TRACKS, _TAGS):
                found.setdefault(name, (first, last))
            elif name == _SEEK_HEAD:
                places += self._seek_head(first, last)
            elif name == _CLUSTER:
                break
        for name, place in places:
            there = next(self._elements(start + place, end), None)
            if there is not None and there[0] == name:
                found.setdefault(name, there[1:])
        return found

    def _seek_head(self, start: int, end: int) -> list[tuple[int, int]]:
        """Ids of Tracks and Tags, and their places in the segment, that a SeekHead states."""
        places = []
        for name, first, last in self._elements(start, end):
            if name == _SEEK:
                seek = self._contents(first, last)
                wanted = _unsigned(seek.get(_SEEK_ID, b""))
                if wanted in (_TRACKS, _TAGS):
                    places.append((wanted, _unsigned(seek.get(_SEEK_POSITION, b""))))
        return places

    def _spherical_v1(self, start: int, end: int) -> dict[int, bytes]:
        """Texts of the tag for Spherical Video V1, by the tracks' UIDs (0: all tracks)."""
        texts = {}
        for name, first, last in self._elements(start, end):
            uid, text = 0, None
            for inner, a, b in self._elements(first, last) if name == _TAG else ():
                if inner == _TARGETS:
                    uid = _unsigned(self._contents(a, b).get(_TAG_TRACK_UID, b""))
                elif inner == _SIMPLE_TAG:
                    tag = self._contents(a, b)
                    if tag.get(_TAG_NAME, b"").rstrip(b"\0").upper() == b"SPHERICAL-VIDEO":
                        text = tag.get(_TAG_STRING, b"")
            if text is not None:
                texts[uid] = text
        return texts

    def _all_tracks(
        self, start: int, end: int, texts: dict[int, bytes]
    ) -> tuple[MatroskaTrack, ...]:
        tracks = []
        for name, first, last in self._elements(start, end):
            if name == _TRACK_ENTRY:
                track = self._track(first, last, texts)
                letters = _KINDS.get(track.kind, b"")
                if track.codec and track.codec.encode()[0] in letters:
                    tracks.append(track)
        return tuple(tracks)

    def _track(self, start: int, end: int, texts: dict[int, bytes]) -> MatroskaTrack:
        kind, codec, private, video, projection = 0, "", b"", dict[int, bytes](), None
        text = texts.get(0, b"")
        for name, first, last in self._elements(start, end):
            if name == _TRACK_TYPE:
                kind = _unsigned(self._content(first, last))
            elif name == _CODEC_ID:
                codec = self._content(first, last).decode("ascii", "replace").rstrip("\0")
            elif name == _TRACK_UID:
                text = texts.get(_unsigned(self._content(first, last)), text)
            elif name == _CODEC_PRIVATE:
                private = self._content(first, last)
            elif name == _VIDEO:
                video = self._contents(first, last)
                for inner, a, b in self._elements(first, last):
                    if inner == _PROJECTION:
                        projection = _projection(self._contents(a, b))
        stereo_mode = _unsigned(video[_STEREO_MODE]) if _STEREO_MODE in video else None
        return MatroskaTrack(kind, codec, stereo_mode, projection, private, text)

    def _contents(self, start: int, end: int) -> dict[int, bytes]:
        """The contents of the elements between two offsets, by their ids."""
        return {name: self._content(a, b) for name, a, b in self._elements(start, end)}

    def _content(self, start: int, end: int) -> bytes:
        if end - start > min(_LARGEST_CONTENT, self._bytes_left):
            return b""
        self._bytes_left -= end - start
        self._file.seek(start)
        return self._file.read(end - start)


def _projection(contents: dict[int, bytes]) -> MatroskaProjection:
    yaw, pitch, roll = (_float(contents.get(name, b"")) for name in (_YAW, _PITCH, _ROLL))
    private = contents.get(_PRIVATE, b"")
    return MatroskaProjection(_unsigned(contents.get(_TYPE, b"")), private, (yaw, pitch, roll))


def _number(data: bytes, start: int, most: int, marked: bool = False) -> tuple[int, int]:
    """A variable-size integer and its width in bytes (RFC 8794, section 4), with or without the
    bit that marks its width; width 0 if it is none."""
    if start >= len(data) or data[start] == 0:
        return 0, 0
    width = 9 - data[start].bit_length()
    if width > most or start + width > len(data):
        return 0, 0
    value = int.from_bytes(data[start : start + width], "big")
    return value if marked else value & ((1 << 7 * width) - 1), width


def _unsigned(content: bytes) -> int:
    return int.from_bytes(content, "big") if len(content) <= 8 else 0


def _float(content: bytes) -> float:
    if len(content) not in (4, 8):
        return 0.0
    return float(struct.unpack(">f" if len(content) == 4 else ">d", content)[0])
