"""H.264 crops in shards: find their groups of pictures (GOPs), and decode runs of them.

A crop is an mp4 with one track, one slice per frame, no B-frames and a key frame every
``gop_frames`` frames. Its frames lie in ``mdat`` one after another as length-prefixed NAL units
(ISO/IEC 14496-15), so that any run of whole GOPs can be decoded without the container.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator

import av
import numpy as np
from av.video.codeccontext import VideoCodecContext
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from shards.errors import ShardError
from shards.schema import MAX_SIZE

_SLICE, _KEY_SLICE = 1, 5
_MOST_UNITS = 100  # in one frame
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_GREY = (8, 0)  # bits per sample, colour type
_PADDING = 16, 64
"""Pixels by which a decoder's frames may be higher and wider than those that are shown: H.264 codes
blocks of 16, and FFmpeg adds up to 63 to each line."""


def _nal_units(stream: bytes, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(offset, end, type) of the length-prefixed NAL units in stream[start:end]."""
    while start + 5 <= end:
        size = int.from_bytes(stream[start : start + 4], "big")
        if size == 0 or start + 4 + size > end:
            raise ShardError("a crop's H.264 data is damaged")
        yield start, start + 4 + size, stream[start + 4] & 31
        start += 4 + size


def access_units(stream: bytes, start: int, end: int) -> Iterator[tuple[int, int, bool]]:
    """(offset, end, is_key_frame) of each frame in stream[start:end]; frames have one slice."""
    unit_start, others = start, 0
    for _, nal_end, kind in _nal_units(stream, start, end):
        if kind in (_SLICE, _KEY_SLICE):
            yield unit_start, nal_end, kind == _KEY_SLICE
            unit_start, others = nal_end, 0
        elif (others := others + 1) > _MOST_UNITS:
            raise ShardError("a crop's H.264 data is damaged")


def index_mp4(mp4: bytes) -> tuple[str, tuple[int, ...], int]:
    """Decoder configuration (hex), GOP offsets (followed by the end of the last GOP) and number of
    frames.

    Raises ShardError if the file does not have the form described above.
    """
    start, end = _box(mp4, b"mdat")
    units = list(access_units(mp4, start, end))
    # Only inside moov: in one of about ten thousand crops, the coded frames hold these four bytes.
    at = mp4.find(b"avcC", *_box(mp4, b"moov"))
    if at < 4 or not units or not units[0][2]:
        raise ShardError("a crop is not an H.264 mp4 that begins with a key frame")
    configuration = mp4[at + 4 : at - 4 + struct.unpack(">I", mp4[at - 4 : at])[0]]
    gops = [unit_start for unit_start, _, is_key in units if is_key]
    return configuration.hex(), (*gops, units[-1][1]), len(units)


def _box(mp4: bytes, name: bytes) -> tuple[int, int]:
    """Start and end of a top-level box's content."""
    offset = 0
    while offset + 8 <= len(mp4):
        size, kind = struct.unpack(">I4s", mp4[offset : offset + 8])
        if size < 8:
            break
        if kind == name:
            return offset + 8, offset + size
        offset += size
    raise ShardError(f"a crop has no {name.decode()} box")


def open_h264_decoder(avcc: str, height: int, width: int, **options: str) -> VideoCodecContext:
    """A decoder of frames of this size, which refuses larger ones before it takes memory for them.

    ``avcc`` (hex) is its configuration; ``options`` are further ones of FFmpeg.
    """
    codec: VideoCodecContext = VideoCodecContext.create("h264", "r")
    codec.extradata = bytes.fromhex(avcc)
    codec.thread_count = 1
    most_pixels = (height + _PADDING[0]) * (width + _PADDING[1])
    codec.options = {"max_pixels": str(most_pixels), **options}
    return codec


class CropDecoder:
    """A reusable H.264 decoder: bytes of GOPs in, RGB frames of a known size out."""

    def __init__(self, avcc: str, height: int, width: int) -> None:
        self._size = height, width
        self._codec = open_h264_decoder(avcc, height, width)
        # Shared by all frames: frame.to_ndarray() would create a converter for each one.
        self._converter = VideoReformatter()

    def decode(
        self,
        gops: bytes,
        skip: int,
        count: int,
        step: int = 1,
        out: NDArray[np.uint8] | None = None,
    ) -> NDArray[np.uint8]:
        """``count`` frames of the GOPs, starting at frame ``skip`` with stride ``step``.

        Returns RGB (count, height, width, 3), written to ``out`` if given. Raises ShardError.
        """
        height, width = self._size
        if out is None:
            out = np.empty((count, height, width, 3), np.uint8)
        elif out.shape != (count, height, width, 3):
            raise ShardError(f"a crop has frames of {width}×{height} pixels")
        end = skip + (count - 1) * step + 1
        decoded = 0
        for number, frame in enumerate(self._frames(gops, end)):
            if (frame.height, frame.width) != self._size:
                raise ShardError(f"a crop has frames of {frame.width}×{frame.height} pixels")
            if number >= skip and (number - skip) % step == 0:
                self._convert(frame, out[(number - skip) // step])
            decoded = number + 1
            if decoded == end:
                return out
        raise ShardError(f"a crop has {decoded} frames, but {end} are needed")

    def _convert(self, frame: av.VideoFrame, out: NDArray[np.uint8]) -> None:
        try:
            (plane,) = self._converter.reformat(frame, format="rgb24", threads=1).planes
        except (av.FFmpegError, ValueError) as error:
            raise ShardError(f"a crop does not convert to RGB ({error})") from None
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(frame.height, plane.line_size)
        out.reshape(frame.height, -1)[:] = rows[:, : 3 * frame.width]

    def _frames(self, gops: bytes, count: int) -> Iterator[av.VideoFrame]:
        """The first ``count`` frames of the GOPs; fewer if they hold fewer."""
        try:
            self._codec.flush_buffers()
            for number, (start, end, _) in enumerate(access_units(gops, 0, len(gops))):
                if number >= count:
                    break
                yield from self._codec.decode(av.Packet(gops[start:end]))
            yield from self._codec.decode(None)
        except av.FFmpegError as error:
            raise ShardError(f"a crop does not decode: {error.strerror}") from None


def decode_grey_png(content: bytes) -> NDArray[np.uint8]:
    """The grey levels (height, width) of an 8-bit grey PNG; raises ShardError for anything else."""
    try:
        with av.open(io.BytesIO(_bare_png(content)), "r", format="png_pipe") as container:
            frame = next(container.decode(video=0))
            if frame.format.name != "gray":
                raise ShardError(f"is not a grey PNG but {frame.format.name}")
            return np.asarray(frame.to_ndarray(), dtype=np.uint8)
    except (av.FFmpegError, StopIteration, IndexError, ValueError) as error:
        raise ShardError(f"does not decode as PNG ({error})") from None


def _bare_png(content: bytes) -> bytes:
    """A PNG without chunks that the pixels do not need: a decoder would unpack colour profiles and
    texts, of any size. Raises ShardError if the pixels themselves are too many."""
    if content[:16] != _PNG_SIGNATURE + b"\0\0\0\rIHDR" or len(content) < 33:
        raise ShardError("is not a PNG")
    width, height, *kind = struct.unpack(">IIBB", content[16:26])
    if not (0 < width <= MAX_SIZE and 0 < height <= MAX_SIZE):
        raise ShardError(f"is a PNG of {width}×{height} pixels")
    if tuple(kind) != _PNG_GREY:
        raise ShardError("is not a grey PNG of 8 bits")
    chunks, at = [_PNG_SIGNATURE], 8
    while at < len(content):
        end = at + 12 + int.from_bytes(content[at : at + 4], "big")
        if content[at + 4 : at + 8] in (b"IHDR", b"IDAT", b"IEND"):
            chunks.append(content[at:end])
        at = end
    return b"".join(chunks)
