"""FLAC sound as the shards hold it: a window decoded from the bytes around it alone.

A file has no table of its frames, but each frame begins with its number (RFC 9639, 9.1): where a
window's frames lie is guessed from its place in time, and corrected by the numbers found there. A
library that seeks reads little by little instead, some twenty times for a second of sound, and
decodes on the way.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import av
import numpy as np
from av.audio.codeccontext import AudioCodecContext
from numpy.typing import NDArray

from shards.errors import ShardError

Read = Callable[[int, int], bytes]
"""Bytes start … end of a file."""

_SYNC = b"\xff\xf8"  # of frames of one length
_HEAD_BYTES = 128  # what precedes the first frame in our files, and that frame's header
_MARGIN = 2  # frames read around a guess
_STREAM_INFO, _STREAM_INFO_BYTES = 0, 34
_STEREO_CHANNEL_CODES = {1, 8, 9, 10}


def _crc8_table() -> tuple[int, ...]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = (value << 1) ^ (0x107 if value & 0x80 else 0)
        table.append(value)
    return tuple(table)


_CRC8 = _crc8_table()


@dataclass(frozen=True)
class _Stream:
    """What the beginning of a file says: where frames begin, of how many samples they are, and
    the first bytes of the first one."""

    begin: int
    block: int
    samples: int
    info: bytes
    header: bytes

    @property
    def frames(self) -> int:
        return -(-self.samples // self.block)


class FlacDecoder:
    """Reused decoders, one for each kind of sound."""

    def __init__(self) -> None:
        self._codecs: dict[bytes, AudioCodecContext] = {}

    def decode(self, read: Read, size: int, start: int, count: int) -> NDArray[np.float32]:
        """Samples ``start`` to ``start + count`` of a FLAC file of ``size`` bytes, (channels,
        count), full scale 1. Raises ShardError where they are not there or do not decode."""
        stream = _stream(read, size)
        if start + count > stream.samples:
            raise ShardError(f"a sound has {stream.samples} samples where {start + count} are due")
        first, last = start // stream.block, (start + count - 1) // stream.block
        packets = _packets(read, size, stream, first, last + 1)
        codec = self._codec(stream)
        codec.flush_buffers()
        try:
            blocks = [
                frame.to_ndarray()
                for packet in packets
                for frame in codec.decode(av.Packet(packet))
            ]
        except av.FFmpegError as error:
            raise ShardError(f"a sound does not decode: {error.strerror}") from None
        if not blocks:
            raise ShardError("a sound does not decode")
        interleaved = np.concatenate(blocks, axis=1).reshape(-1, codec.channels)
        wanted = interleaved[start - first * stream.block :][:count]
        if len(wanted) != count:
            raise ShardError("a sound has frames of another length than it says")
        sound = np.ascontiguousarray(wanted.T, dtype=np.float32)
        sound /= 2.0 ** (8 * wanted.dtype.itemsize - 1)
        return sound

    def _codec(self, stream: _Stream) -> AudioCodecContext:
        if stream.info not in self._codecs:
            codec: AudioCodecContext = AudioCodecContext.create("flac", "r")
            codec.extradata = stream.info
            codec.thread_count = 1
            codec.options = {"err_detect": "crccheck+explode"}
            self._codecs[stream.info] = codec
        return self._codecs[stream.info]


def _stream(read: Read, size: int) -> _Stream:
    head = read(0, min(_HEAD_BYTES, size))
    info, at, last = b"", 4, head[:4] != b"fLaC"
    while not last:
        if len(head) < at + 4:
            head += read(len(head), min(at + _HEAD_BYTES, size))
            if len(head) < at + 4:
                break
        last, kind = head[at] >= 128, head[at] & 127
        length = int.from_bytes(head[at + 1 : at + 4], "big")
        if kind == _STREAM_INFO:
            info = head[at + 4 : at + 4 + length]
        at += 4 + length
    if len(head) < at + 4:
        head += read(len(head), min(at + 4, size))
    header = head[at : at + 4]
    shortest, block = (int.from_bytes(info[i : i + 2], "big") for i in (0, 2))
    whole = len(info) == _STREAM_INFO_BYTES and len(header) == 4
    if not whole or header[:2] != _SYNC or not 0 < shortest == block:
        raise ShardError("a sound is no FLAC with frames of one length")
    samples = int.from_bytes(info[13:18], "big") & (1 << 36) - 1
    # Without sizes, length and checksum of the file: a decoder is for all alike.
    alike = info[:4] + bytes(6) + info[10:13] + bytes([info[13] & 0xF0]) + bytes(20)
    return _Stream(at, block, samples, alike, header)


def _packets(read: Read, size: int, stream: _Stream, first: int, end: int) -> list[bytes]:
    """The frames ``first`` … ``end``, each by itself."""
    begins = {0: stream.begin, stream.frames: size}
    begin, piece = _find(read, stream, begins, first, end - first)
    if end not in begins:
        _find(read, stream, begins, end, 0)
    if begins[first] < begin or begins[end] > begin + len(piece):
        begin, piece = begins[first], read(begins[first], begins[end])
        begins |= _frames(piece, begin, stream)
    try:
        places = [begins[number] - begin for number in range(first, end + 1)]
    except KeyError as error:
        raise ShardError(f"a sound lacks its frame {error}: it is damaged") from None
    return [piece[a:b] for a, b in pairwise(places)]


def _find(
    read: Read, stream: _Stream, begins: dict[int, int], frame: int, wanted: int
) -> tuple[int, bytes]:
    """Read until it is known where a frame begins, and note that and what else was found in
    ``begins``. Returns where the last piece that was read begins, and the piece; it has about
    ``wanted`` frames, from some before that frame on."""
    margin = _MARGIN
    while True:
        known = sorted(begins)
        place = bisect_right(known, frame)
        below, above = known[place - 1], known[min(place, len(known) - 1)]
        low, high = begins[below], begins[above]
        each = (high - low) / max(1, above - below)
        guess = low + (frame - below) * each
        at = max(low, round(guess - margin * each))
        end = min(begins[stream.frames], round(guess + (wanted + margin) * each) + _HEAD_BYTES)
        piece = read(at, end)
        before = len(begins)
        begins |= _frames(piece, at, stream)
        if frame in begins:
            return at, piece
        if len(begins) == before and at == low and end >= high:
            raise ShardError(f"a sound lacks its frame {frame}: it is damaged")
        margin *= 2  # else loud parts after long silence are crept through frame by frame


def _frames(piece: bytes, begin: int, stream: _Stream) -> dict[int, int]:
    """Numbers of the frames that begin in a piece of a file, and where in the file they do."""
    found = {}
    for at in _syncs(piece):
        header = piece[at : at + 16]
        number, end = _coded_number(header)
        if number is None or not _is_alike(header, stream, number):
            continue
        end += {6: 1, 7: 2}.get(header[2] >> 4, 0) + {12: 1, 13: 2, 14: 2}.get(header[2] & 15, 0)
        if end < len(header) and _crc8(header[:end]) == header[end]:
            found[number] = begin + at
    return found


def _is_alike(header: bytes, stream: _Stream, number: int) -> bool:
    """Whether a frame of this number may have the header: all are as the first, but the last one
    may be shorter, and each of two channels their sum or difference."""
    last = number == stream.frames - 1
    size_and_rate = header[2] == stream.header[2] or (
        last and header[2] & 15 == stream.header[2] & 15
    )
    here, there = header[3] >> 4, stream.header[3] >> 4
    channels = here == there or {here, there} <= _STEREO_CHANNEL_CODES
    same_bits = header[3] & 15 == stream.header[3] & 15
    return number < stream.frames and size_and_rate and channels and same_bits


def _syncs(piece: bytes) -> list[int]:
    """Where the two bytes are that a frame begins with."""
    (word,) = np.frombuffer(_SYNC, np.uint16)
    places = []
    for odd in (0, 1):
        words = np.frombuffer(piece, np.uint16, (len(piece) - odd) // 2, odd)
        places.append(2 * np.flatnonzero(words == word) + odd)
    merged: list[int] = np.sort(np.concatenate(places)).tolist()
    return merged


def _coded_number(header: bytes) -> tuple[int | None, int]:
    """A frame's number, coded as UTF-8 codes characters, and where it ends; None: it is none."""
    lead = header[4] if len(header) > 4 else 0x80
    if lead < 0x80:
        return lead, 5
    more = 8 - (lead ^ 0xFF).bit_length() - 1  # leading ones but the first
    rest = header[5 : 5 + more]
    if not 1 <= more <= 6 or len(rest) < more or any(value >> 6 != 2 for value in rest):
        return None, 0
    number = lead & (0x3F >> more)
    for value in rest:
        number = number << 6 | value & 0x3F
    return number, 5 + more


def _crc8(header: bytes) -> int:
    value = 0
    for byte in header:
        value = _CRC8[value ^ byte]
    return value
