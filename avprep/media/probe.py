"""Read a media file's description of its tracks, without decoding it."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.video.stream import VideoStream

from avprep.errors import ClipError
from avprep.media.ffmpeg import FORMATS, PROTOCOLS, describe, safe_url

Transfer = Literal["pq", "hlg"]

_FIRST_BOXES = (b"ftyp", b"moov", b"wide", b"free", b"skip", b"mdat")
_LARGEST_INDEX = 1 << 28
_LAYOUT_BOXES = (b"SA3D", b"chnl", b"chan")
_LONGEST_S = 48 * 3600.0
_MIN_BYTES_PER_S = 20
"""No real track is smaller; a stated duration that implies less is wrong."""
MAX_PIXELS = 1 << 27
_LARGEST_BLOCK = 128
_SCRATCH = (256, 280)
"""Extra columns, and rows, of the buffer that MPEG-4's decoder works in; libavcodec applies the
limit on a frame's pixels to it as well."""
_MAX_ASPECT = 16
_MAX_CHANNELS = 64
_SAMPLE_RATES = (4_000, 768_000)
_FULL_RANGE = 2
"""AVCOL_RANGE_JPEG."""
_HDR: dict[int, Transfer] = {16: "pq", 18: "hlg"}
"""Transfer characteristics (ITU-T H.273) of high dynamic range video."""
_FORMATS_WITH_TIMESTAMPS = ("mov", "matroska", "ogg", "mpegts")
_EARLY_S = 0.1
"""A file that starts later than this states its duration either from there or from zero."""

# The metadata of damaged files may not be UTF-8. PyAV before 19 then raises unless told
# otherwise; from 19 on it always replaces them, and has no such argument.
_METADATA: Any = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}


@dataclass(frozen=True)
class VideoTrack:
    """A video track. ``colorspace`` is the number of its YCbCr matrix (ITU-T H.273, 2: unknown);
    ``hdr`` is its transfer function if it has high dynamic range.

    ``index`` is its number among all of the file's tracks, as ffmpeg counts them; ``track_id`` the
    id that an mp4 or mov file gives it.
    """

    width: int
    height: int
    colorspace: int
    full_range: bool
    hdr: Transfer | None = None
    codec: str = ""
    index: int = 0
    track_id: int = 0

    @property
    def max_pixels(self) -> int:
        """Largest number of pixels of a coded frame, which has whole blocks; broken frames claim
        more."""
        coded = (self.width + _LARGEST_BLOCK) * (self.height + _LARGEST_BLOCK)
        return max(coded, (self.width + _SCRATCH[0]) * _SCRATCH[1])


@dataclass(frozen=True)
class AudioTrack:
    """An audio track. ``plain_layout`` is False if the file defines a channel layout of its own,
    for which PyAV corrupts the memory of its process. ``index`` and ``track_id`` are as in
    `VideoTrack`."""

    channels: int
    sample_rate: int
    codec: str
    extradata: bytes | None = None
    plain_layout: bool = True
    index: int = 0
    track_id: int = 0


@dataclass(frozen=True)
class Media:
    """A media file: its first video and audio tracks, None if it has none.

    ``start_s`` is the time stamp at which its first track starts, from which players count;
    ``has_timestamps`` tells whether its container stores time stamps at all; ``duration_s`` is the
    time from ``start_s`` to the end of the last track.
    """

    duration_s: float
    video: VideoTrack | None
    audio: AudioTrack | None
    start_s: float = 0.0
    has_timestamps: bool = False


def open_media(path: Path) -> InputContainer:
    """Open a media file; raises av.FFmpegError or OSError if it is not one."""
    options = {"format_whitelist": FORMATS, "protocol_whitelist": PROTOCOLS}
    container: InputContainer = av.open(safe_url(path), options=options, **_METADATA)
    return container


def probe(path: Path) -> Media:
    """Describe a media file; raises ClipError if it is missing, empty or not readable as media."""
    try:
        size = path.stat().st_size
        if size == 0:
            raise ClipError(f"{path.name} is empty (0 bytes); download it again")
        with open_media(path) as container:
            video = next(iter(container.streams.video), None)
            audio = next(iter(container.streams.audio), None)
            start_s = (container.start_time or 0) / 1_000_000
            has_timestamps = container.format.name.startswith(_FORMATS_WITH_TIMESTAMPS)
            duration_s = max(0.0, _duration(container, start_s))
            media = Media(
                duration_s, _video_track(video), _audio_track(path, audio), start_s, has_timestamps
            )
    except av.FFmpegError as error:
        raise ClipError(
            f"{path.name} cannot be read as video or audio ({error.strerror}); it is truncated or "
            "not the kind of file its name says: download it again"
        ) from None
    except OSError as error:
        raise ClipError(f"{path.name} cannot be opened: {error.strerror}") from None
    _check(path.name, size, media)
    return media


def _check(name: str, size: int, media: Media) -> None:
    """Raise ClipError if a file's own description is impossible; decoding would waste time and
    memory."""
    claim = None
    if media.video is not None and not _is_plausible(media.video):
        claim = f"its picture has {media.video.width}×{media.video.height} pixels"
    elif media.audio is not None and media.audio.channels > _MAX_CHANNELS:
        claim = f"its sound has {media.audio.channels} channels"
    elif media.audio is not None and not (
        _SAMPLE_RATES[0] <= media.audio.sample_rate <= _SAMPLE_RATES[1]
    ):
        claim = f"its sound has {media.audio.sample_rate} samples a second"
    elif media.duration_s > _LONGEST_S:
        claim = f"it lasts {media.duration_s / 3600:.0f} hours"
    elif media.duration_s * _MIN_BYTES_PER_S > size:
        claim = f"it lasts {media.duration_s:.0f} s, which {size} bytes cannot hold"
    if claim is not None:
        raise ClipError(f"{name} says that {claim}; it is damaged: download it again")


def _is_plausible(video: VideoTrack) -> bool:
    short, long = sorted((video.width, video.height))
    return short * long <= MAX_PIXELS and long <= _MAX_ASPECT * short


def _duration(container: InputContainer, start_s: float) -> float:
    duration = container.duration
    if duration is not None and (start_s < _EARLY_S or container.format.name.startswith("mov")):
        return duration / 1_000_000
    # Streamed or truncated files state no duration, and files that start late state it from there
    # or from zero: the last packets tell.
    if duration is not None:
        container.seek(duration, backward=True)
    last = 0.0
    for packet in container.demux():
        if packet.pts is not None and packet.time_base is not None:
            last = max(last, float((packet.pts + (packet.duration or 0)) * packet.time_base))
    return max(0.0, last - start_s)


def probe_both(video: Path, audio: Path) -> tuple[Media, Media]:
    """Describe a recording's video file and audio file, which may be the same. Raises ClipError."""
    video_media = probe(video)
    return video_media, video_media if audio == video else probe(audio)


def _video_track(stream: VideoStream | None) -> VideoTrack | None:
    # An unknown codec has no context, unlike PyAV's type annotations state.
    if stream is None or not getattr(stream.codec_context, "width", 0):
        return None
    context = stream.codec_context
    full_range = context.color_range == _FULL_RANGE or (context.pix_fmt or "").startswith("yuvj")
    hdr = _HDR.get(int(context.color_trc))
    return VideoTrack(
        width=context.width,
        height=context.height,
        colorspace=int(context.colorspace),
        full_range=full_range,
        hdr=hdr,
        codec=context.name,
        index=stream.index,
        track_id=stream.id,
    )


def _audio_track(path: Path, stream: AudioStream | None) -> AudioTrack | None:
    context = None if stream is None else getattr(stream, "codec_context", None)
    if stream is None or context is None:
        return None
    index = read_moov(path) or b""
    plain_layout = not any(name in index for name in _LAYOUT_BOXES)
    channels = context.channels if plain_layout else _channels_from_ffmpeg(path)
    if not channels:
        return None
    return AudioTrack(
        channels=channels,
        sample_rate=context.sample_rate,
        codec=context.name,
        extradata=context.extradata,
        plain_layout=plain_layout,
        index=stream.index,
        track_id=stream.id,
    )


def _channels_from_ffmpeg(path: Path) -> int:
    """Number of channels of a file's first audio track, as ffmpeg prints it; 0 if there is none."""
    found = re.search(r"Audio: .*? Hz, ([^,\n]+),", describe(path))
    if found is None:
        return 0
    words = found[1].strip()
    count = re.match(r"(\d+) channels", words)
    try:
        return int(count[1]) if count else int(av.AudioLayout(words.split("(")[0]).nb_channels)
    except ValueError:
        return 0


def read_moov(path: Path) -> bytes | None:
    """Content of the index (moov box) of an mp4 or mov file; None for other files."""
    try:
        with open(path, "rb") as file:
            size = path.stat().st_size
            offset = 0
            while offset + 8 <= size:
                file.seek(offset)
                length, name = struct.unpack(">I4s", file.read(8))
                header = 8
                if length == 1:
                    (length,) = struct.unpack(">Q", file.read(8))
                    header = 16
                length = length or size - offset
                if length < header or (offset == 0 and name not in _FIRST_BOXES):
                    return None
                if name == b"moov":
                    return file.read(min(length - header, _LARGEST_INDEX))
                offset += length
    except (OSError, struct.error):
        pass
    return None
