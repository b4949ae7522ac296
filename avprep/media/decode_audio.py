"""The sound of a clip, decoded in this process where that is safe, else by ffmpeg."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

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

_TIME_TOLERANCE_S = 0.002


@dataclass(frozen=True)
class DecodedAudio:
    """A clip's decoded channels (channels, samples), as long as the file lasts, and what the
    decoder complained about last."""

    channels: NDArray[np.float32]
    message: str = ""


def decode_audio(request: AudioRequest) -> DecodedAudio:
    """Decode a clip's sound. Channels stay as the decoder delivers them; sound that starts late is
    padded, and gaps are filled, so that it stays with the picture.

    Raises ClipError where that takes too long.
    """
    if not request.plain_layout:
        with FfmpegAudioDecoder(request) as decoder:
            return DecodedAudio(decoder.sound(), decoder.message)
    track = _Track(request)
    if not _decode(request, track, seek=True):
        track = _Track(request)
        _decode(request, track, seek=False)
    return DecodedAudio(track.sound[:, : track.filled], track.message)


class _Track:
    """Takes frames to the places that their time stamps say; ``filled`` samples are there."""

    def __init__(self, request: AudioRequest) -> None:
        self._wanted = request
        total = round(request.duration_s * request.sample_rate)
        self.sound = np.zeros((request.channels, total), dtype=np.float32)
        self.filled = 0
        self.message = ""
        self._next: int | None = None

    def add(self, frame: AudioFrame) -> bool:
        """Whether more is request."""
        request = self._wanted
        content = _channels_of(frame, request.channels)
        if content is None or frame.sample_rate != request.sample_rate:
            self.message = "its channels or sample rate change on the way"
            return True
        at = self._next
        if frame.time is not None:
            said = round((frame.time - request.start_s) * request.sample_rate)
            # Rounded time stamps are off by a few samples; those of a gap by many.
            if at is None or abs(said - at) > request.max_slip_s * request.sample_rate:
                at = said
        at = 0 if at is None else at
        self._next = at + content.shape[1]
        # What overlaps with what is there already is dropped.
        begin, end = max(at, self.filled), min(self._next, self.sound.shape[1])
        if begin < end:
            self.sound[:, begin:end] = content[:, begin - at : end - at]
            self.filled = end
        return at < self.sound.shape[1]


def _decode(request: AudioRequest, track: _Track, seek: bool) -> bool:
    """Whether the sound was found where it was looked for."""
    deadline = time.monotonic() + request.timeout_s
    try:
        with open_media(request.audio) as container:
            stream = container.streams.audio[0]
            stream.codec_context.thread_count = 1
            sought = seek and request.from_s > request.file_start_s
            if sought:
                indexed = _indexed(container)
                base = indexed.time_base or 1
                container.seek(int(request.from_s / base), stream=indexed, backward=True)
            for other in container.streams:
                if other is not stream:
                    other.discard = Discard.all  # it need not even be read
            first = True
            for frame in _frames(container, track, deadline, request):
                if first and sought and (frame.time or 0) > request.start_s + _TIME_TOLERANCE_S:
                    return False  # beyond, as in containers without an index
                first = False
                if not track.add(frame):
                    break
            return not (first and sought)
    except (av.FFmpegError, OSError) as error:
        track.message = error.strerror or str(error)
    return True


def _indexed(container: InputContainer) -> AudioStream | VideoStream:
    """The stream to seek by. Matroska's index is of the picture: seeking by sound reads all that
    comes before."""
    by_picture = "matroska" in container.format.name and container.streams.video
    return container.streams.video[0] if by_picture else container.streams.audio[0]


def _frames(
    container: InputContainer, track: _Track, deadline: float, request: AudioRequest
) -> Iterator[AudioFrame]:
    for packet in container.demux(container.streams.audio[0]):
        if time.monotonic() > deadline:
            raise ClipError(timeout_message(request.timeout_s))
        try:
            yield from (frame for frame in packet.decode() if isinstance(frame, AudioFrame))
        except av.FFmpegError as error:  # what comes after may be whole
            track.message = error.strerror or str(error)


def _channels_of(frame: AudioFrame, channels: int) -> NDArray[np.float32] | None:
    """A frame's channels (channels, samples); integers at full scale become 1. None if it has
    another number of channels."""
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
