"""Decode a clip's audio: in this process where that is safe, else with ffmpeg."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import Discard
from av.video.stream import VideoStream
from numpy.typing import NDArray

from avprep.errors import ClipError
from avprep.media.ffmpeg import AudioRequest, FfmpegAudioDecoder, timeout_message
from avprep.media.probe import open_media
from avprep.media.tracks import AudioTrack

_TIME_TOLERANCE_S = 0.002
_EXCERPT_TIMEOUT_S = 60.0
_EXCERPT_SLIP_S = 0.02


@dataclass(frozen=True)
class DecodedAudio:
    """A clip's decoded channels (channels, samples), shorter than requested if the file ends
    earlier, and the decoder's last message."""

    channels: NDArray[np.float32]
    message: str = ""


def decode_audio(request: AudioRequest) -> DecodedAudio:
    """Decode a clip's audio, synchronous with its video.

    Channels stay in the decoder's order. Audio that starts late is padded with silence and gaps are
    filled. Raises ClipError if decoding exceeds the time limit.
    """
    if not request.plain_layout:
        with FfmpegAudioDecoder(request) as decoder:
            return DecodedAudio(decoder.audio(), decoder.message)
    buffer = _Buffer(request)
    if not _decode(request, buffer, seek=True):
        buffer = _Buffer(request)
        _decode(request, buffer, seek=False)
    return DecodedAudio(buffer.audio[:, : buffer.filled], buffer.message)


def read_excerpt(
    path: Path, track: AudioTrack, start_s: float, duration_s: float
) -> NDArray[np.float32]:
    """A track's audio (channels, samples) from the time stamp ``start_s``, at its own sample rate,
    in the decoder's channel order.

    Shorter at the end of the file. Raises ClipError, with the decoder's reason, if nothing can be
    decoded.
    """
    decoded = decode_audio(
        AudioRequest(
            audio=path,
            track=track.index,
            file_start_s=track.begin_s,
            start_s=max(start_s, track.begin_s),
            duration_s=duration_s,
            max_slip_s=_EXCERPT_SLIP_S,
            channels=track.channels,
            sample_rate=track.sample_rate,
            plain_layout=track.plain_layout,
            timeout_s=_EXCERPT_TIMEOUT_S,
        )
    )
    if not decoded.channels.size:
        why = f" ({decoded.message})" if decoded.message else ""
        raise ClipError(f"{path.name}: its sound does not decode{why}; download it again")
    return decoded.channels


class _Buffer:
    """Places frames by their time stamps; the first ``filled`` samples of ``audio`` are valid."""

    def __init__(self, request: AudioRequest) -> None:
        self._request = request
        total = round(request.duration_s * request.sample_rate)
        self.audio = np.zeros((request.channels, total), dtype=np.float32)
        self.filled = 0
        self.message = ""
        self._next: int | None = None

    def add(self, frame: AudioFrame) -> bool:
        """Copy a frame; whether further frames are needed."""
        request = self._request
        content = _to_float(frame, request.channels)
        if content is None or frame.sample_rate != request.sample_rate:
            self.message = "its channels or sample rate change on the way"
            return True
        at = self._next
        if frame.time is not None:
            stamped = round((frame.time - request.start_s) * request.sample_rate)
            # Rounded time stamps deviate by a few samples; time stamps after a gap by many.
            if at is None or abs(stamped - at) > request.max_slip_s * request.sample_rate:
                at = stamped
        at = 0 if at is None else at
        self._next = at + content.shape[1]
        # Samples that overlap with earlier ones are dropped.
        begin, end = max(at, self.filled), min(self._next, self.audio.shape[1])
        if begin < end:
            self.audio[:, begin:end] = content[:, begin - at : end - at]
            self.filled = end
        return at < self.audio.shape[1]


def _decode(request: AudioRequest, buffer: _Buffer, seek: bool) -> bool:
    """Decode into ``buffer``; False if a seek led past the start, so that all must be decoded."""
    deadline = time.monotonic() + request.timeout_s
    try:
        with open_media(request.audio) as container:
            stream = container.streams[request.track]
            if not isinstance(stream, AudioStream):
                return True
            stream.codec_context.thread_count = 1
            sought = seek and request.decode_from_s > request.file_start_s
            if sought:
                indexed = _stream_with_index(container, stream)
                base = indexed.time_base or 1
                container.seek(int(request.decode_from_s / base), stream=indexed, backward=True)
            for other in container.streams:
                if other is not stream:
                    other.discard = Discard.all  # its packets are not even read
            first = True
            for frame in _frames(container, stream, buffer, deadline, request):
                if first and sought and (frame.time or 0) > request.start_s + _TIME_TOLERANCE_S:
                    return False  # past the start, as in containers without an index
                first = False
                if not buffer.add(frame):
                    break
            return not (first and sought)
    except (av.FFmpegError, OSError) as error:
        buffer.message = error.strerror or str(error)
    return True


def _stream_with_index(container: InputContainer, audio: AudioStream) -> AudioStream | VideoStream:
    """The stream to seek in. Matroska indexes the video only: seeking in the audio would read
    everything before."""
    by_video = "matroska" in container.format.name and container.streams.video
    return container.streams.video[0] if by_video else audio


def _frames(
    container: InputContainer,
    stream: AudioStream,
    buffer: _Buffer,
    deadline: float,
    request: AudioRequest,
) -> Iterator[AudioFrame]:
    """The container's audio frames; packets that do not decode are skipped."""
    for packet in container.demux(stream):
        if time.monotonic() > deadline:
            raise ClipError(timeout_message(request.timeout_s))
        try:
            yield from (frame for frame in packet.decode() if isinstance(frame, AudioFrame))
        except av.FFmpegError as error:  # later packets may be intact
            buffer.message = error.strerror or str(error)


def _to_float(frame: AudioFrame, channels: int) -> NDArray[np.float32] | None:
    """A frame as float32 (channels, samples), full scale 1; None for another number of
    channels."""
    content = frame.to_ndarray()
    if not frame.format.is_planar:
        content = content.reshape(-1, content.shape[1] // max(1, frame.samples)).T
    if len(content) != channels:
        return None
    if content.dtype.kind == "f":
        return np.asarray(content, dtype=np.float32)
    full_scale = float(1 << (8 * content.dtype.itemsize - 1))
    centre = full_scale if content.dtype.kind == "u" else 0.0
    return np.asarray((content.astype(np.float64) - centre) / full_scale, dtype=np.float32)
