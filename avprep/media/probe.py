"""What a media file says it holds, without decoding it."""

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
_LEAST_BYTES_PER_S = 20
"""No picture or sound is smaller; a length beyond that is none."""
MOST_PIXELS = 1 << 27
_LARGEST_BLOCK = 128
_SCRATCH = (256, 280)
"""By how much a row is longer in what MPEG-4's decoder works in, and its rows: libavcodec holds
that to the limit of a frame's pixels as well."""
_MOST_ASPECT = 16
_MOST_CHANNELS = 64
_SAMPLE_RATES = (4_000, 768_000)
_FULL_RANGE = 2
"""AVCOL_RANGE_JPEG."""
_HDR: dict[int, Transfer] = {16: "pq", 18: "hlg"}
"""Transfer characteristics of ITU-T H.273 that mean high dynamic range."""
_TIMED = ("mov", "matroska", "ogg", "mpegts")
_EARLY_S = 0.1

# Damaged files name themselves in bytes that are not UTF-8. PyAV before 19 raises unless told
# otherwise; from 19 on it always replaces them, and has no such argument.
_METADATA: Any = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}


@dataclass(frozen=True)
class VideoTrack:
    """A video track. ``colorspace`` is the number of its YCbCr matrix (ITU-T H.273, 2: unknown);
    ``hdr`` the transfer function of one of high dynamic range."""

    width: int
    height: int
    colorspace: int
    full_range: bool
    hdr: Transfer | None = None

    @property
    def max_pixels(self) -> int:
        """Of any of its frames, as it is coded: in whole blocks. Broken ones claim more."""
        coded = (self.width + _LARGEST_BLOCK) * (self.height + _LARGEST_BLOCK)
        return max(coded, (self.width + _SCRATCH[0]) * _SCRATCH[1])


@dataclass(frozen=True)
class AudioTrack:
    """An audio track. ``plain``: its channels have no layout of the file's own making, with which
    PyAV corrupts the memory of its process."""

    channels: int
    sample_rate: int
    codec: str
    extradata: bytes | None = None
    plain_layout: bool = True


@dataclass(frozen=True)
class Media:
    """A media file: its first video and audio tracks, None where it has none.

    ``begins_s`` is the time stamp at which the first of its tracks begins, and the zero from which
    players count; ``timed`` whether its container has time stamps at all; ``duration_s`` is the
    time from ``begins_s`` to the end of the last track.
    """

    duration_s: float
    video: VideoTrack | None
    audio: AudioTrack | None
    start_s: float = 0.0
    has_timestamps: bool = False


def open_media(path: Path) -> InputContainer:
    """Raises av.FFmpegError or OSError for what is no media file."""
    options = {"format_whitelist": FORMATS, "protocol_whitelist": PROTOCOLS}
    container: InputContainer = av.open(safe_url(path), options=options, **_METADATA)
    return container


def probe(path: Path) -> Media:
    """Raises ClipError for a file that is missing, empty or not readable as media."""
    try:
        size = path.stat().st_size
        if size == 0:
            raise ClipError(f"{path.name} is empty (0 bytes); download it again")
        with open_media(path) as container:
            video = next(iter(container.streams.video), None)
            audio = next(iter(container.streams.audio), None)
            begins = (container.start_time or 0) / 1_000_000
            timed = container.format.name.startswith(_TIMED)
            seconds = max(0.0, _duration(container, begins))
            media = Media(seconds, _picture(video), _sound(path, audio), begins, timed)
    except av.FFmpegError as error:
        raise ClipError(
            f"{path.name} cannot be read as video or sound ({error.strerror}); it is truncated or "
            "of another kind than its name says: download it again"
        ) from None
    except OSError as error:
        raise ClipError(f"{path.name} cannot be opened: {error.strerror}") from None
    _check(path.name, size, media)
    return media


def _check(name: str, size: int, media: Media) -> None:
    """Raises ClipError where a file says of itself what would only cost time and memory."""
    what = None
    if media.video is not None and not _is_plausible(media.video):
        what = f"its picture has {media.video.width}×{media.video.height} pixels"
    elif media.audio is not None and media.audio.channels > _MOST_CHANNELS:
        what = f"its sound has {media.audio.channels} channels"
    elif media.audio is not None and not (
        _SAMPLE_RATES[0] <= media.audio.sample_rate <= _SAMPLE_RATES[1]
    ):
        what = f"its sound has {media.audio.sample_rate} samples a second"
    elif media.duration_s > _LONGEST_S:
        what = f"it lasts {media.duration_s / 3600:.0f} hours"
    elif media.duration_s * _LEAST_BYTES_PER_S > size:
        what = f"it lasts {media.duration_s:.0f} s, which {size} bytes cannot hold"
    if what is not None:
        raise ClipError(f"{name} says that {what}; it is damaged: download it again")


def _is_plausible(picture: VideoTrack) -> bool:
    short, long = sorted((picture.width, picture.height))
    return short * long <= MOST_PIXELS and long <= _MOST_ASPECT * short


def _duration(container: InputContainer, begins_s: float) -> float:
    duration = container.duration
    if duration is not None and (begins_s < _EARLY_S or container.format.name.startswith("mov")):
        return duration / 1_000_000
    # Files that were streamed or cut off have no length: their packets have. Those that begin late
    # count their length from there, or from zero.
    if duration is not None:
        container.seek(duration, backward=True)
    last = 0.0
    for packet in container.demux():
        if packet.pts is not None and packet.time_base is not None:
            last = max(last, float((packet.pts + (packet.duration or 0)) * packet.time_base))
    return max(0.0, last - begins_s)


def probe_both(video: Path, audio: Path) -> tuple[Media, Media]:
    """Of a recording whose sound may be in the same file. Raises ClipError."""
    of_video = probe(video)
    return of_video, of_video if audio == video else probe(audio)


def _picture(stream: VideoStream | None) -> VideoTrack | None:
    # A codec that is not known has no context, whatever PyAV's types say.
    if stream is None or not getattr(stream.codec_context, "width", 0):
        return None
    context = stream.codec_context
    full_range = context.color_range == _FULL_RANGE or (context.pix_fmt or "").startswith("yuvj")
    hdr = _HDR.get(int(context.color_trc))
    return VideoTrack(context.width, context.height, int(context.colorspace), full_range, hdr)


def _sound(path: Path, stream: AudioStream | None) -> AudioTrack | None:
    context = None if stream is None else getattr(stream, "codec_context", None)
    if context is None:
        return None
    index = read_moov(path) or b""
    plain = not any(name in index for name in _LAYOUT_BOXES)
    channels = context.channels if plain else _channels_in_words(path)
    if not channels:
        return None
    return AudioTrack(channels, context.sample_rate, context.name, context.extradata, plain)


def _channels_in_words(path: Path) -> int:
    """The number of channels of a file's first sound track, as ffmpeg prints it; 0 without."""
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
    """The index of an mp4 or mov file; None for other files."""
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
