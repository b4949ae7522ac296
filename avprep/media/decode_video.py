"""Decode a clip's frames in this process, at a constant frame rate."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import av
import numpy as np
from av.container import Container, InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray

from avprep.errors import ClipError
from avprep.media.ffmpeg import timeout_message
from avprep.media.probe import open_media

Planes = tuple[NDArray[np.uint8 | np.uint16], ...]
"""Planes of YUV 4:2:0: Y (height, width), U and V (height/2, width/2)."""

_TIME_TOLERANCE_S = 0.002
_SEEK_EARLIER_S = 0.2
"""Some containers index key frames by decoding time, which precedes presentation time."""
_LONG_HOLD_S = 0.25
"""Shorter gaps are ignored: decoders conceal a damaged frame or two."""
_LOOKAHEAD_PACKETS = 16
_MAX_DELAY_PACKETS = 16
"""Packets that a decoder may hold before it delivers its first frame."""
_LIMITED = 1
"""AVCOL_RANGE_MPEG."""
_YUV420 = {False: ("yuv420p", "yuvj420p"), True: ("yuv420p10le",)}
"""Pixel formats whose planes are used as they are, for 8 bits (False) and 10 bits (True)."""


@dataclass(frozen=True)
class VideoRequest:
    """The part of a video to decode, from the track number ``track`` of the file, and the form of
    its frames.

    ``duration_s`` seconds are decoded from time stamp ``start_s``. Frames are resized to
    ``frame_size`` (height, width) in limited range, rotated by ``rotation_deg`` as players do, and
    cut to ``crop`` (left, top, width, height; None: uncut); all sizes are even. They have 10 bits
    if ``ten_bit``, else 8. Frames of more than ``max_pixels`` are skipped.
    """

    video: Path
    track: int
    start_s: float
    duration_s: float
    fps: float
    frame_size: tuple[int, int]
    crop: tuple[int, int, int, int] | None
    rotation_deg: int
    full_range: bool
    ten_bit: bool
    max_pixels: int
    timeout_s: float


class VideoDecoder:
    """Decodes a `VideoRequest`.

    ``decoded`` counts the file's frames decoded so far, ``message`` is the decoder's last message,
    ``lost_s`` the time for which a frame was repeated in place of damaged ones, and ``late_s`` the
    time after the start at which the first frame begins. The time limit
    starts at construction, and is checked between packets.
    """

    def __init__(self, request: VideoRequest) -> None:
        self._request = request
        self._reformatter = VideoReformatter()
        self._deadline = time.monotonic() + request.timeout_s
        self.decoded = 0
        self.message = ""
        self.lost_s = self.late_s = 0.0
        self._damaged = self._sought = False
        self._first_dts: list[int] = []  # of packets before the first frame, from a key frame on

    def frames(self, count: int) -> Iterator[tuple[Planes, int]]:
        """Up to ``count`` frames of the constant rate, as pairs (planes, repeats).

        Frame n is the one on screen at n/fps: the file's last frame at or before that time, or its
        first frame if there is none. Planes are the decoder's memory, valid as long as they are
        referenced. Raises ClipError if decoding exceeds the time limit.
        """
        fps, shown = self._request.fps, 0
        last: VideoFrame | None = None
        last_begin_s = last_end_s = 0.0
        long_hold_s = max(_LONG_HOLD_S, 2 / fps)  # frames in between are skipped on purpose
        for frame, begin_s, end_s in self._timed():
            if self._damaged and last is not None and begin_s - last_begin_s > long_hold_s:
                # Only now: the decoder still delivers frames from before the damage after it.
                self.lost_s += begin_s - last_begin_s
                self._damaged = False
            # Containers round time stamps (Matroska to 1 ms), hence the tolerance.
            until = min(count, math.ceil((begin_s - _TIME_TOLERANCE_S) * fps))
            if last is not None and until > shown:
                yield self._planes(last), until - shown
                shown = until
            if shown == count:
                return
            if last is None:
                self.late_s = max(0.0, begin_s)
            last, last_begin_s, last_end_s = frame, begin_s, end_s
        until = min(count, math.ceil((last_end_s - _TIME_TOLERANCE_S) * fps))
        if last is not None and until > shown:
            yield self._planes(last), until - shown

    def _timed(self) -> Iterator[tuple[VideoFrame, float, float]]:
        """The file's frames from the last key frame before the start, with the times (begin, end)
        at which they are on screen, in seconds after the start."""
        first = True
        for timed in self._timed_from(seek=True):
            if first and timed[1] > _TIME_TOLERANCE_S and self._sought:
                break  # the seek led past the key frame, as in MPEG-TS, which has no index
            first = False
            yield timed
        if first and self._sought:
            self.message = ""  # seeking fails in mp4 files without a key frame before the start
            yield from self._timed_from(seek=False)

    def _timed_from(self, seek: bool) -> Iterator[tuple[VideoFrame, float, float]]:
        request = self._request
        try:
            with open_media(request.video) as container:
                stream = container.streams[request.track]
                if not isinstance(stream, VideoStream):
                    return
                # One thread: a build decodes one clip per core, which scales better.
                stream.thread_type = "NONE"
                stream.codec_context.thread_count = 1
                stream.codec_context.options = {"max_pixels": str(request.max_pixels)}
                rate = stream.average_rate or stream.guessed_rate or request.fps
                unordered = _is_unordered(container)
                zero: int | None = None
                self._sought = (
                    seek and not unordered and _starts_earlier(container, request.start_s)
                )
                if self._sought:
                    target = (request.start_s - _SEEK_EARLIER_S) / (stream.time_base or 1)
                    container.seek(int(target), stream=stream, backward=True)
                end_s = 0.0
                for frame in self._decoded(container, stream):
                    begin_s = end_s
                    if unordered and frame.dts is not None and frame.time_base is not None:
                        if zero is None:
                            zero = frame.dts - self._key_dts(float(1 / rate / frame.time_base))
                        begin_s = float((frame.dts - zero) * frame.time_base) - request.start_s
                    elif not unordered and frame.time is not None:
                        begin_s = frame.time - request.start_s
                    length = frame.duration * (frame.time_base or 0) if frame.duration else 1 / rate
                    end_s = begin_s + float(length)
                    yield frame, begin_s, end_s
        except (av.FFmpegError, OSError) as error:
            self.message = error.strerror or str(error)

    def _decoded(self, container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
        last: VideoFrame | None = None
        for packet, is_shown in self._mark_shown(container.demux(stream)):
            if time.monotonic() > self._deadline:
                raise ClipError(timeout_message(self._request.timeout_s))
            if not self.decoded and packet.dts is not None:
                begins = not self._first_dts or len(self._first_dts) > _MAX_DELAY_PACKETS
                if packet.is_keyframe and begins:  # no frame came from the key frame before
                    self._first_dts = [packet.dts]
                elif self._first_dts:
                    self._first_dts.append(packet.dts)
            if stream.codec_context.name == "theora" and packet.pts is not None and not packet.size:
                if last is not None:  # an empty packet shows the frame before it again
                    last.pts = packet.pts
                    yield last
                continue
            # For packets that are not shown, the decoder may skip frames that no other refers to.
            stream.codec_context.skip_frame = "DEFAULT" if is_shown else "NONREF"
            try:
                frames = packet.decode()
            except av.FFmpegError as error:  # later packets may be intact
                self.message = error.strerror or str(error)
                self._damaged = True
                continue
            for frame in frames:
                if isinstance(frame, VideoFrame):
                    self.decoded += 1
                    last = frame
                    yield frame

    def _key_dts(self, frame_dts: float) -> int:
        """When the first key frame that could be decoded is decoded; ``frame_dts`` is the time from
        one frame to the next. Empty packets before the next one may hold its place."""
        if len(self._first_dts) < 2:
            return self._first_dts[0] if self._first_dts else 0
        key, following = self._first_dts[:2]
        return max(key, following - round(frame_dts))

    def _mark_shown(
        self, packets: Iterator[Packet[VideoStream]]
    ) -> Iterator[tuple[Packet[VideoStream], bool]]:
        """Packets, and whether their frames may be output: not if a nearby packet's frame replaces
        it on screen before the next frame of the constant rate."""
        ahead: deque[Packet[VideoStream]] = deque()
        latest: dict[int, int] = {}
        for packet in chain(packets, [None] * _LOOKAHEAD_PACKETS):
            if packet is not None:
                ahead.append(packet)
                number = self._output_frame(packet)
                if number is not None and packet.pts is not None:
                    latest[number] = max(latest.get(number, packet.pts), packet.pts)
            if ahead and (packet is None or len(ahead) > _LOOKAHEAD_PACKETS):
                packet = ahead.popleft()
                number = self._output_frame(packet)
                yield packet, number is None or latest[number] == packet.pts

    def _output_frame(self, packet: Packet[VideoStream]) -> int | None:
        """Number of the first frame of the constant rate that a packet's frame can be."""
        if packet.pts is None or packet.time_base is None or _is_unordered(packet.stream.container):
            return None
        begin_s = float(packet.pts * packet.time_base) - self._request.start_s
        return max(0, math.ceil((begin_s - _TIME_TOLERANCE_S) * self._request.fps))

    def _planes(self, frame: VideoFrame) -> Planes:
        request = self._request
        height, width = request.frame_size
        plain = frame.format.name in _YUV420[request.ten_bit] and not request.full_range
        if not plain or (frame.height, frame.width) != (height, width):
            frame = self._reformatter.reformat(
                frame,
                width,
                height,
                _YUV420[request.ten_bit][0],
                interpolation=Interpolation.BICUBIC,
                dst_color_range=_LIMITED,
            )
        depth = np.uint16 if request.ten_bit else np.uint8
        planes: list[NDArray[np.uint8 | np.uint16]] = []
        for number, plane in enumerate(frame.planes[:3]):
            scale = 1 if number == 0 else 2
            line = plane.line_size // depth().itemsize
            rows = np.frombuffer(memoryview(plane), depth).reshape(-1, line)
            part = np.rot90(rows[: height // scale, : width // scale], request.rotation_deg // 90)
            if request.crop is not None:
                left, top, across, down = (edge // scale for edge in request.crop)
                part = part[top : top + down, left : left + across]
            planes.append(np.ascontiguousarray(part) if request.rotation_deg else part)
        return tuple(planes)


def _is_unordered(container: Container) -> bool:
    """Whether the container lacks presentation times. AVI has decoding times only, from which the
    decoder's delay is subtracted."""
    return container.format.name == "avi"


def _starts_earlier(container: InputContainer, start_s: float) -> bool:
    """Whether a file starts clearly before a time, so that seeking saves reading."""
    return start_s - _SEEK_EARLIER_S > (container.start_time or 0) / 1_000_000
