"""What a media file says it holds, without decoding it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.video.stream import VideoStream

from avprep.errors import ClipError
from avprep.ffmpeg import FORMATS, PROTOCOLS, safe_url

_FULL_RANGE = 2
"""AVCOL_RANGE_JPEG."""


@dataclass(frozen=True)
class Picture:
    """A video track. ``colorspace`` is the number of its YCbCr matrix (ITU-T H.273, 2: unknown)."""

    width: int
    height: int
    colorspace: int
    full_range: bool


@dataclass(frozen=True)
class Sound:
    """An audio track."""

    channels: int
    sample_rate: int
    codec: str
    layout: str


@dataclass(frozen=True)
class Media:
    """A media file: its first video and audio tracks, None where it has none."""

    duration_s: float
    picture: Picture | None
    sound: Sound | None


def probe(path: Path) -> Media:
    """Raises ClipError for a file that is missing, empty or not readable as media."""
    try:
        if path.stat().st_size == 0:
            raise ClipError(f"{path.name} is empty (0 bytes); download it again")
        with av.open(
            safe_url(path),
            options={"format_whitelist": FORMATS, "protocol_whitelist": PROTOCOLS},
            metadata_errors="replace",
        ) as container:
            video = next(iter(container.streams.video), None)
            audio = next(iter(container.streams.audio), None)
            duration = container.duration
            # Files that were streamed or cut off have no length: their packets have.
            seconds = _last_time(container) if duration is None else duration / 1_000_000
            return Media(seconds, _picture(video), _sound(audio))
    except av.FFmpegError as error:
        raise ClipError(
            f"{path.name} cannot be read as video or sound ({error.strerror}); it is truncated or "
            "of another kind than its name says: download it again"
        ) from None
    except OSError as error:
        raise ClipError(f"{path.name} cannot be opened: {error.strerror}") from None


def _last_time(container: InputContainer) -> float:
    start = (container.start_time or 0) / 1_000_000
    last = 0.0
    for packet in container.demux():
        if packet.pts is not None and packet.time_base is not None:
            last = max(last, float((packet.pts + (packet.duration or 0)) * packet.time_base))
    return max(0.0, last - start)


def _picture(stream: VideoStream | None) -> Picture | None:
    if stream is None or not stream.codec_context.width:
        return None
    context = stream.codec_context
    full_range = context.color_range == _FULL_RANGE or (context.pix_fmt or "").startswith("yuvj")
    return Picture(context.width, context.height, int(context.colorspace), full_range)


def _sound(stream: AudioStream | None) -> Sound | None:
    if stream is None or not stream.codec_context.channels:
        return None
    context = stream.codec_context
    return Sound(context.channels, context.sample_rate, context.name, context.layout.name)
