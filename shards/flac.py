"""Decode a window of a FLAC file from the bytes around it alone.

FLAC has no table of frames, but each frame begins with its number (RFC 9639, 9.1). The position of
a window's frames is estimated from the window's time and corrected with the numbers found there.
Seeking with a library would take about twenty small reads for one second of audio, and decode on
the way.
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
from shards.schema import AudioInfo

Read = Callable[[int, int], bytes]
"""Returns the bytes ``start`` to ``end`` (exclusive) of a file."""

_SYNC = b"\xff\xf8"  # begins each frame, in files whose frames all have the same length
_SYNC_MASK = b"\xff\xfe"  # the last bit is set where lengths vary
_HEAD_BYTES = 128  # covers the metadata of our files and the first frame's header
_MARGIN = 2  # frames read before and after an estimated position
_STREAM_INFO, _STREAM_INFO_BYTES = 0, 34
_MIN_BLOCK, _MAX_BLOCK = 16, 16_384  # what libraries write at any level
_MOST_METADATA_BYTES = 1 << 20
_MOST_SEARCHED_BYTES = 4 << 20  # beside the frames that are wanted
_MOST_CODECS = 16
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
    """The head of a file: ``begin`` is the offset of the first frame, ``block`` the number of
    samples per frame, ``info`` the decoder's STREAMINFO, ``header`` the first frame's header."""

    begin: int
    block: int
    samples: int
    sample_rate: int
    channels: int
    bits: int
    info: bytes
    header: bytes

    @property
    def frames(self) -> int:
        return -(-self.samples // self.block)

    def most_bytes(self, frames: int) -> int:
        """More than that many frames have, in any file."""
        return frames * (self.block * self.channels * self.bits // 7 + 1024)


class FlacDecoder:
    """Reusable decoders, for the last combinations of channels, sample rate and bit depth."""

    def __init__(self) -> None:
        self._codecs: dict[bytes, AudioCodecContext] = {}

    def decode(
        self, read: Read, size: int, start: int, count: int, stated: AudioInfo | None = None
    ) -> NDArray[np.float32]:
        """Samples ``start`` to ``start + count`` of a FLAC file of ``size`` bytes.

        Returns float32 (channels, count), full scale 1. Raises ShardError if the file is shorter
        or damaged, or its head differs from what is ``stated`` of it. Memory and time are bounded
        by what the window takes in a good file.
        """
        stream = _read_stream_info(read, size)
        if stated is not None:
            _compare(stream, stated)
        if start + count > stream.samples:
            raise ShardError(
                f"its audio has {stream.samples} samples, but {start + count} are needed"
            )
        first, last = start // stream.block, (start + count - 1) // stream.block
        packets = _packets(read, size, stream, first, last + 1)
        codec = self._codec(stream)
        codec.flush_buffers()
        blocks, most_samples = [], len(packets) * stream.block
        try:
            for packet in packets:
                for frame in codec.decode(av.Packet(packet)):
                    most_samples -= frame.samples
                    if most_samples < 0 or frame.layout.nb_channels != stream.channels:
                        raise ShardError("its audio frames differ from what its header states")
                    blocks.append(frame.to_ndarray())
        except (av.FFmpegError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ShardError(f"its audio does not decode: {reason}") from None
        if not blocks:
            raise ShardError("its audio does not decode")
        if any(block.dtype != blocks[0].dtype for block in blocks):
            raise ShardError("its audio frames differ from what its header states")
        interleaved = np.concatenate(blocks, axis=1).reshape(-1, stream.channels)
        window = interleaved[start - first * stream.block :][:count]
        if len(window) != count:
            raise ShardError("its audio frames have another length than its header states")
        audio = np.ascontiguousarray(window.T, dtype=np.float32)
        audio /= 2.0 ** (8 * window.dtype.itemsize - 1)
        return audio

    def _codec(self, stream: _Stream) -> AudioCodecContext:
        if stream.info not in self._codecs:
            if len(self._codecs) >= _MOST_CODECS:
                self._codecs.pop(next(iter(self._codecs)))
            codec: AudioCodecContext = AudioCodecContext.create("flac", "r")
            codec.extradata = stream.info
            codec.thread_count = 1
            codec.options = {"err_detect": "crccheck+explode"}
            self._codecs[stream.info] = codec
        return self._codecs[stream.info]


def _read_stream_info(read: Read, size: int) -> _Stream:
    head = read(0, min(_HEAD_BYTES, size))
    info, at, last = b"", 4, head[:4] != b"fLaC"
    while not last and at < _MOST_METADATA_BYTES:
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
    if not whole or header[:2] != _SYNC or not _MIN_BLOCK <= shortest == block <= _MAX_BLOCK:
        raise ShardError("its audio is not FLAC with frames of one length")
    # 20, 3, 5 and 36 bits (RFC 9639, 8.2).
    fields = int.from_bytes(info[10:18], "big")
    sample_rate, samples = fields >> 44, fields & (1 << 36) - 1
    channels, bits = (fields >> 41 & 7) + 1, (fields >> 36 & 31) + 1
    # Frame sizes, length and checksum are zeroed, so that similar files share a decoder.
    common = info[:4] + bytes(6) + info[10:13] + bytes([info[13] & 0xF0]) + bytes(20)
    return _Stream(at, block, samples, sample_rate, channels, bits, common, header)


def _compare(stream: _Stream, stated: AudioInfo) -> None:
    found = stream.samples, stream.channels, stream.sample_rate
    expected = stated.samples, len(stated.channels), stated.sample_rate
    if found != expected:
        samples, channels, sample_rate = found
        raise ShardError(
            f"its audio has {samples} samples of {channels} channels at {sample_rate} Hz, but its "
            f"JSON says {expected[0]} of {expected[1]} at {expected[2]} Hz"
        )


def _packets(read: Read, size: int, stream: _Stream, first: int, end: int) -> list[bytes]:
    """The bytes of the frames ``first`` to ``end`` (exclusive), one item per frame."""
    offsets = {0: stream.begin, stream.frames: size}
    begin, chunk = _find(read, stream, offsets, first, end - first)
    if end not in offsets:
        _find(read, stream, offsets, end, 0)
    if not 0 <= offsets[end] - offsets[first] <= stream.most_bytes(end - first):
        raise ShardError("its audio frames are larger than frames can be: it is damaged")
    if offsets[first] < begin or offsets[end] > begin + len(chunk):
        begin, chunk = offsets[first], read(offsets[first], offsets[end])
        offsets |= _frame_offsets(chunk, begin, stream)
    places = [offsets[number] for number in sorted(offsets)]
    if places != sorted(places):
        raise ShardError("its audio frames are out of order: it is damaged")
    try:
        bounds = [offsets[number] - begin for number in range(first, end + 1)]
    except KeyError as error:
        raise ShardError(f"its audio lacks frame {error}: it is damaged") from None
    return [chunk[a:b] for a, b in pairwise(bounds)]


def _find(
    read: Read, stream: _Stream, offsets: dict[int, int], frame: int, count: int
) -> tuple[int, bytes]:
    """Read until the offset of a frame is known; add all offsets found to ``offsets``.

    Returns the offset and bytes of the last read, which begins a few frames before ``frame`` and
    covers about ``count`` frames from there.
    """
    margin, most_bytes = _MARGIN, _MOST_SEARCHED_BYTES + stream.most_bytes(count + 2 * _MARGIN)
    while True:
        known = sorted(offsets)
        next_known = bisect_right(known, frame)
        below, above = known[next_known - 1], known[min(next_known, len(known) - 1)]
        low, high = offsets[below], offsets[above]
        frame_bytes = (high - low) / max(1, above - below)
        guess = low + (frame - below) * frame_bytes
        start = max(low, round(guess - margin * frame_bytes))
        end = round(guess + (count + margin) * frame_bytes) + _HEAD_BYTES
        end = min(offsets[stream.frames], end)
        if not 0 <= end - start <= most_bytes:
            raise ShardError(f"its audio lacks frame {frame}: it is damaged")
        chunk = read(start, end)
        known_before = len(offsets)
        offsets |= _frame_offsets(chunk, start, stream)
        if frame in offsets:
            return start, chunk
        if len(offsets) == known_before and start == low and end >= high:
            raise ShardError(f"its audio lacks frame {frame}: it is damaged")
        margin *= 2  # otherwise loud parts after long silence are searched frame by frame


def _frame_offsets(chunk: bytes, begin: int, stream: _Stream) -> dict[int, int]:
    """Frame number -> offset in the file, for frames beginning in the chunk read at ``begin``."""
    offsets: dict[int, int] = {}
    others, most_others = 0, 16 + len(chunk) // 256
    for at in _sync_positions(chunk):
        header = chunk[at : at + 16]
        number, end = _coded_number(header)
        if number is None:
            continue
        end += {6: 1, 7: 2}.get(header[2] >> 4, 0) + {12: 1, 13: 2, 14: 2}.get(header[2] & 15, 0)
        if end >= len(header) or _crc8(header[:end]) != header[end]:
            continue
        if number not in offsets and _is_plausible(header, stream, number):
            offsets[number] = begin + at
        elif (others := others + 1) > most_others:
            # A decoder would take them for frames, and fill memory with thousands of them.
            raise ShardError("its audio has frames that do not belong to it: it is damaged")
    return offsets


def _is_plausible(header: bytes, stream: _Stream, number: int) -> bool:
    """Whether frame ``number`` may have this header: headers equal the first frame's, except that
    the last frame may be shorter and that stereo may be coded as sum and difference."""
    last = number == stream.frames - 1
    size_and_rate = header[2] == stream.header[2] or (
        last and header[2] & 15 == stream.header[2] & 15
    )
    code, first_code = header[3] >> 4, stream.header[3] >> 4
    channels = code == first_code or {code, first_code} <= _STEREO_CHANNEL_CODES
    same_bits = header[3] & 15 == stream.header[3] & 15
    return number < stream.frames and size_and_rate and channels and same_bits


def _sync_positions(chunk: bytes) -> list[int]:
    """Positions of the two sync bytes in a chunk, sorted."""
    (word,), (mask,) = np.frombuffer(_SYNC, np.uint16), np.frombuffer(_SYNC_MASK, np.uint16)
    positions = []
    for odd in (0, 1):
        words = np.frombuffer(chunk, np.uint16, (len(chunk) - odd) // 2, odd)
        positions.append(2 * np.flatnonzero(words & mask == word) + odd)
    merged: list[int] = np.sort(np.concatenate(positions)).tolist()
    return merged


def _coded_number(header: bytes) -> tuple[int | None, int]:
    """A frame's number, in UTF-8-like coding, and its end in the header; None if it is invalid."""
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
