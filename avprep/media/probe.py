"""Read a media file's description of its tracks, without decoding it."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer

from avprep.errors import ClipError
from avprep.media.ffmpeg import FORMATS, PROTOCOLS, safe_url
from avprep.media.tracks import NO_TRACKS, AudioTrack, Tracks, VideoTrack, list_tracks, read_spans

_FIRST_BOXES = (b"ftyp", b"moov", b"wide", b"free", b"skip", b"mdat")
_MOST_BOXES = 100_000
"""Boxes that are passed over to find the index; films in fragments have some thousands."""
_LARGEST_INDEX = 1 << 28
_LONGEST_S = 48 * 3600.0
_MIN_BYTES_PER_S = 20
"""No real track is smaller; a stated duration that implies less is wrong."""
MAX_PIXELS = 1 << 27
_MAX_ASPECT = 16
_MAX_CHANNELS = 64
_SAMPLE_RATES = (4_000, 768_000)
_FORMATS_WITH_TIMESTAMPS = ("mov", "matroska", "ogg", "mpegts")
_LAYOUT_ANYWHERE = ("caf", "aiff")
"""Containers that may define a channel layout of their own in a chunk anywhere."""
_EARLY_S = 0.1
"""A file that starts later than this states its duration either from there or from zero."""

# The metadata of damaged files may not be UTF-8. PyAV before 19 then raises unless told
# otherwise; from 19 on it always replaces them, and has no such argument.
_METADATA: Any = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}


@dataclass(frozen=True)
class Media:
    """A media file. ``video`` and ``audio`` are the tracks to read, None if there is none: the
    first ones, unless others were chosen. ``tracks`` are all; ``container`` is the name of its
    format.

    ``start_s`` is the time stamp at which its first track starts, from which players count;
    ``has_timestamps`` tells whether its container stores time stamps at all; ``duration_s`` is the
    time from ``start_s`` to the end of the last track.
    """

    duration_s: float
    video: VideoTrack | None
    audio: AudioTrack | None
    start_s: float = 0.0
    has_timestamps: bool = False
    tracks: Tracks = NO_TRACKS
    container: str = ""


def open_media(path: Path) -> InputContainer:
    """Open a media file; raises av.FFmpegError or OSError if it is not one."""
    options = {"format_whitelist": FORMATS, "protocol_whitelist": PROTOCOLS}
    container: InputContainer = av.open(safe_url(path), options=options, **_METADATA)
    return container


def probe(path: Path) -> Media:
    """Describe a media file; raises ClipError if it is missing, empty or not readable as media."""
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise ClipError(f"{path.name} is not a regular file; put the recording itself there")
        if size == 0:
            raise ClipError(f"{path.name} is empty (0 bytes); download it again")
        index = read_moov(path) or b""
        with open_media(path) as container:
            start_s = (container.start_time or 0) / 1_000_000
            name = container.format.name.split(",")[0]
            if name in _LAYOUT_ANYWHERE:
                index = b"chan"
            has_timestamps = container.format.name.startswith(_FORMATS_WITH_TIMESTAMPS)
            stated_s = _stated_duration(container, start_s)
            if stated_s is not None:
                duration_s = stated_s
                tracks = list_tracks(
                    path, container, read_spans(container, start_s + duration_s), index
                )
            else:
                duration_s = _measured_duration(container, start_s)
        if stated_s is None:
            with open_media(path) as container:  # from its beginning again
                tracks = list_tracks(
                    path, container, read_spans(container, start_s + duration_s), index
                )
        video = next((track for track in tracks.videos if not track.is_still), None)
        audio = next(iter(tracks.audios), None)
        media = Media(duration_s, video, audio, start_s, has_timestamps, tracks, name)
    except av.FFmpegError as error:
        raise ClipError(
            f"{path.name} cannot be read as video or audio ({error.strerror}); it is truncated or "
            "not the kind of file its name says: download it again"
        ) from None
    except OSError as error:
        raise ClipError(f"{path.name} cannot be opened: {error.strerror}") from None
    if len(tracks.videos) < 2 and len(tracks.audios) < 2:
        check_tracks(path.name, media)  # of several tracks, those that will be read are checked
    _check(path.name, size, media)
    return media


def _check(name: str, size: int, media: Media) -> None:
    """Raise ClipError if a file's own description is impossible; decoding would waste time and
    memory."""
    claim = None
    if media.duration_s > _LONGEST_S:
        claim = f"it lasts {media.duration_s / 3600:.0f} hours"
    elif media.duration_s * _MIN_BYTES_PER_S > size:
        claim = f"it lasts {media.duration_s:.0f} s, which {size} bytes cannot hold"
    if claim is not None:
        raise ClipError(f"{name} says that {claim}; it is damaged: download it again")


def check_tracks(name: str, media: Media) -> None:
    """Raise ClipError if the description of a track to read is impossible; decoding would waste
    time and memory."""
    video, audio = media.video, media.audio
    claim = None
    if video is not None and not _is_plausible(video):
        claim = f"its picture has {video.width}×{video.height} pixels"
    elif audio is not None and audio.channels > _MAX_CHANNELS:
        claim = f"its sound has {audio.channels} channels"
    elif audio is not None and not _SAMPLE_RATES[0] <= audio.sample_rate <= _SAMPLE_RATES[1]:
        claim = f"its sound has {audio.sample_rate} samples a second"
    if claim is not None:
        raise ClipError(f"{name} says that {claim}; it is damaged: download it again")


def _is_plausible(video: VideoTrack) -> bool:
    short, long = sorted((video.width, video.height))
    return short * long <= MAX_PIXELS and long <= _MAX_ASPECT * short


def _stated_duration(container: InputContainer, start_s: float) -> float | None:
    """The duration that a file states; None if it states none, or if it is not clear from where:
    files that start late state it from there or from zero."""
    if container.duration is None:
        return None
    if start_s < _EARLY_S or container.format.name.startswith("mov"):
        return max(0.0, container.duration / 1_000_000)
    return None


def _measured_duration(container: InputContainer, start_s: float) -> float:
    """The duration by the last packets; streamed or truncated files state none."""
    if container.duration is not None:
        container.seek(container.duration, backward=True)
    last = 0.0
    for packet in container.demux():
        if packet.pts is not None and packet.time_base is not None:
            last = max(last, float((packet.pts + (packet.duration or 0)) * packet.time_base))
    return max(0.0, last - start_s)


def probe_both(video: Path, audio: Path) -> tuple[Media, Media]:
    """Describe a recording's video file and audio file, which may be the same. Raises ClipError."""
    video_media = probe(video)
    return video_media, video_media if audio == video else probe(audio)


def read_moov(path: Path) -> bytes | None:
    """Content of the index (moov box) of an mp4 or mov file; None for other files."""
    try:
        with open(path, "rb") as file:
            size = path.stat().st_size
            offset = 0
            for _ in range(_MOST_BOXES):
                if offset + 8 > size:
                    return None
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
