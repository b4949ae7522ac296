"""The frames of a clip, decoded in this process, at a constant rate."""

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
"""Y of (height, width), U and V of half of both: 4:2:0."""

_TIME_TOLERANCE_S = 0.002
_SEEK_EARLIER_S = 0.2
"""Some containers look key frames up by when they are decoded, which is before they are shown."""
_LONG_HOLD_S = 0.25
"""Decoders hide a damaged frame or two."""
_PACKETS_AHEAD = 16
_LIMITED = 1
"""AVCOL_RANGE_MPEG."""
_PLAIN = {False: ("yuv420p", "yuvj420p"), True: ("yuv420p10le",)}


@dataclass(frozen=True)
class VideoRequest:
    """What of a video is decoded: ``duration_s`` from the time stamp ``start_s`` on.

    Frames of (height, width) are brought to ``stored`` (height, width) of limited range, turned by
    ``rotation_deg`` as players do, and cut to ``crop`` (left, top, width, height; None: all of
    it); all even. ``ten_bit``: they have 10 bits, else 8. Larger ones than of ``max_pixels`` are
    skipped.
    """

    video: Path
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
    """Decodes a `VideoRequest`; ``decoded`` counts the file's frames that this took, ``message`` is
    what the decoder complained about last, and ``lost_s`` for how long a frame was held in place of
    damaged ones. The time limit begins now, and is looked at between packets."""

    def __init__(self, request: VideoRequest) -> None:
        self._wanted = request
        self._reformatter = VideoReformatter()
        self._deadline = time.monotonic() + request.timeout_s
        self.decoded = 0
        self.message = ""
        self.lost_s = 0.0
        self._damaged = self._sought = False

    def frames(self, count: int) -> Iterator[tuple[Planes, int]]:
        """Up to ``count`` frames of the constant rate, as planes and for how many frames they stay.

        Frame n shows what is on screen at n/fps: the last frame at or before it, and before the
        first frame that one. Planes are the decoder's own memory, and live as long as they are
        held. Raises ClipError where decoding takes too long.
        """
        fps, shown = self._wanted.fps, 0
        last: VideoFrame | None = None
        last_begin_s = last_end_s = 0.0
        long_hold_s = max(_LONG_HOLD_S, 2 / fps)  # frames between are left out on purpose
        for frame, begin_s, end_s in self._timed():
            if self._damaged and last is not None and begin_s - last_begin_s > long_hold_s:
                # Not before: frames from before the damage come out after it.
                self.lost_s += begin_s - last_begin_s
                self._damaged = False
            # Containers round time stamps (Matroska to 1 ms), hence the tolerance.
            until = min(count, math.ceil((begin_s - _TIME_TOLERANCE_S) * fps))
            if last is not None and until > shown:
                yield self._planes(last), until - shown
                shown = until
            if shown == count:
                return
            last, last_begin_s, last_end_s = frame, begin_s, end_s
        until = min(count, math.ceil((last_end_s - _TIME_TOLERANCE_S) * fps))
        if last is not None and until > shown:
            yield self._planes(last), until - shown

    def _timed(self) -> Iterator[tuple[VideoFrame, float, float]]:
        """The file's frames from the key frame before the start on, and from when to when after
        it they are on screen."""
        first = True
        for timed in self._timed_from(seek=True):
            if first and timed[1] > _TIME_TOLERANCE_S and self._sought:
                break  # past the key frame, as in MPEG-TS, which has no index
            first = False
            yield timed
        if first and self._sought:
            yield from self._timed_from(seek=False)

    def _timed_from(self, seek: bool) -> Iterator[tuple[VideoFrame, float, float]]:
        request = self._wanted
        try:
            with open_media(request.video) as container:
                stream = container.streams.video[0]
                # One thread: a build runs one clip on each core, which scales better.
                stream.thread_type = "NONE"
                stream.codec_context.thread_count = 1
                stream.codec_context.options = {"max_pixels": str(request.max_pixels)}
                rate = stream.average_rate or stream.guessed_rate or request.fps
                unordered = _is_unordered(container)
                first_dts = None
                self._sought = seek and not unordered and _seek(container, request.start_s)
                end_s = 0.0
                for frame in self._decoded(container, stream):
                    begin_s = end_s
                    if unordered and frame.dts is not None and frame.time_base is not None:
                        first_dts = frame.dts if first_dts is None else first_dts
                        begin_s = float((frame.dts - first_dts) * frame.time_base) - request.start_s
                    elif not unordered and frame.time is not None:
                        begin_s = frame.time - request.start_s
                    length = frame.duration * (frame.time_base or 0) if frame.duration else 1 / rate
                    end_s = begin_s + float(length)
                    yield frame, begin_s, end_s
        except (av.FFmpegError, OSError) as error:
            self.message = error.strerror or str(error)

    def _decoded(self, container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
        for packet, is_shown in self._shown(container.demux(stream)):
            if time.monotonic() > self._deadline:
                raise ClipError(timeout_message(self._wanted.timeout_s))
            # Decoders may then leave out frames from which no others are predicted.
            stream.codec_context.skip_frame = "DEFAULT" if is_shown else "NONREF"
            try:
                frames = packet.decode()
            except av.FFmpegError as error:  # what comes after may be whole
                self.message = error.strerror or str(error)
                self._damaged = True
                continue
            for frame in frames:
                if isinstance(frame, VideoFrame):
                    self.decoded += 1
                    yield frame

    def _shown(
        self, packets: Iterator[Packet[VideoStream]]
    ) -> Iterator[tuple[Packet[VideoStream], bool]]:
        """Packets, and whether their frames may be on screen at one of the constant rate's
        moments: not if a packet nearby shows another one later, and before the next moment."""
        ahead: deque[Packet[VideoStream]] = deque()
        latest: dict[int, int] = {}
        for packet in chain(packets, [None] * _PACKETS_AHEAD):
            if packet is not None:
                ahead.append(packet)
                moment = self._moment(packet)
                if moment is not None and packet.pts is not None:
                    latest[moment] = max(latest.get(moment, packet.pts), packet.pts)
            if ahead and (packet is None or len(ahead) > _PACKETS_AHEAD):
                packet = ahead.popleft()
                moment = self._moment(packet)
                yield packet, moment is None or latest[moment] == packet.pts

    def _moment(self, packet: Packet[VideoStream]) -> int | None:
        """The first of the constant rate's frames that a packet's frame may be."""
        if packet.pts is None or packet.time_base is None or _is_unordered(packet.stream.container):
            return None
        begin_s = float(packet.pts * packet.time_base) - self._wanted.start_s
        return max(0, math.ceil((begin_s - _TIME_TOLERANCE_S) * self._wanted.fps))

    def _planes(self, frame: VideoFrame) -> Planes:
        request = self._wanted
        height, width = request.frame_size
        plain = frame.format.name in _PLAIN[request.ten_bit] and not request.full_range
        if not plain or (frame.height, frame.width) != (height, width):
            frame = self._reformatter.reformat(
                frame,
                width,
                height,
                _PLAIN[request.ten_bit][0],
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
    """avi says when frames are decoded alone, and so counts from its first one."""
    return container.format.name == "avi"


def _seek(container: InputContainer, start_s: float) -> bool:
    """Go to a key frame before a moment; whether that was needed."""
    begins_s = (container.start_time or 0) / 1_000_000
    if start_s - _SEEK_EARLIER_S > begins_s:
        container.seek(int((start_s - _SEEK_EARLIER_S) * 1_000_000), backward=True)
        return True
    return False
