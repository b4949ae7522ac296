"""The tracks of a media file: what each holds, and from when to when."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any, Literal

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from avprep.media.ffmpeg import describe

Transfer = Literal["pq", "hlg"]
_Stream = VideoStream | AudioStream

_LARGEST_BLOCK = 128
_SCRATCH = (256, 280)
"""Extra columns, and rows, of the buffer that MPEG-4's decoder works in; libavcodec applies the
limit on a frame's pixels to it as well."""
_FULL_RANGE = 2
"""AVCOL_RANGE_JPEG."""
_HDR: dict[int, Transfer] = {16: "pq", 18: "hlg"}
"""Transfer characteristics (ITU-T H.273) of high dynamic range video."""
_STILL = 0x400 | 0x800 | 0x100000
"""AV_DISPOSITION_ATTACHED_PIC, TIMED_THUMBNAILS and STILL_IMAGE."""
_DEPENDENT = 0x80000
"""AV_DISPOSITION_DEPENDENT: a part of something that other tracks complete."""
_STILL_CODECS = ("mjpeg", "png", "bmp", "gif", "webp", "tiff")
_TRACKS_IN_HEADER = ("mov", "wav", "w64", "flac", "caf", "aiff")
"""Containers whose header states when each track begins and ends; of others, packets tell."""
_UNSAFE_PLANES = 8
"""PyAV counts a frame's planes up to an empty pointer, which is missing after the eighth."""
TRACK_TOLERANCE_S = 0.5
"""Tracks that begin or end less than this apart begin or end together."""
_MAX_FIRST_PACKETS = 50_000
_MAX_LATE_S = 600.0
_PREPARATION_S = 0.1
_TAILS_S = (0.0, 10.0, 100.0, 1000.0, inf)


@dataclass(frozen=True)
class VideoTrack:
    """A video track. ``colorspace`` is the number of its YCbCr matrix (ITU-T H.273, 2: unknown);
    ``hdr`` is its transfer function if it has high dynamic range.

    ``index`` is its number among all of the file's tracks, as ffmpeg counts them; ``track_id`` the
    id that an mp4 or mov file gives it. Its first frame that can be decoded begins at the time
    stamp ``begin_s``, and its last one ends at ``end_s`` (None: where the file ends). ``is_still``:
    a cover, thumbnail or other single picture.
    """

    width: int
    height: int
    colorspace: int
    full_range: bool
    hdr: Transfer | None = None
    codec: str = ""
    index: int = 0
    track_id: int = 0
    fps: float | None = None
    frames: int = 0
    begin_s: float = 0.0
    end_s: float | None = None
    is_still: bool = False
    is_default: bool = False

    @property
    def max_pixels(self) -> int:
        """Largest number of pixels of a coded frame, which has whole blocks; broken frames claim
        more."""
        coded = (self.width + _LARGEST_BLOCK) * (self.height + _LARGEST_BLOCK)
        return max(coded, (self.width + _SCRATCH[0]) * _SCRATCH[1])

    @property
    def description(self) -> str:
        still = ", a still" if self.is_still else ""
        return f"track {self.index} ({self.codec}, {self.width}×{self.height}{still})"


@dataclass(frozen=True)
class AudioTrack:
    """An audio track. ``plain_layout`` is False if the file defines a channel layout of its own, or
    its decoder gives 8 or more planes: with both PyAV corrupts the memory of its process.
    ``is_dependent``: a part of the audio, such as a substream of IAMF. The other fields are as in
    `VideoTrack`."""

    channels: int
    sample_rate: int
    codec: str
    extradata: bytes | None = None
    plain_layout: bool = True
    index: int = 0
    track_id: int = 0
    begin_s: float = 0.0
    end_s: float | None = None
    is_default: bool = False
    is_dependent: bool = False

    @property
    def description(self) -> str:
        channels = f"{self.channels} channel{'s' * (self.channels != 1)}"
        return f"track {self.index} ({self.codec}, {channels})"


@dataclass(frozen=True)
class Tracks:
    """A file's tracks in the order of the file; ``others`` are the kinds of those that are neither
    video nor audio, or have an unknown codec."""

    videos: tuple[VideoTrack, ...]
    audios: tuple[AudioTrack, ...]
    others: tuple[str, ...]


NO_TRACKS = Tracks((), (), ())
Spans = dict[int, tuple[float, float | None]]
"""Begin and end of tracks by their index, as time stamps in seconds."""


def list_tracks(path: Path, container: InputContainer, spans: Spans, index: bytes) -> Tracks:
    """All tracks of an open file. ``index`` is an mp4's moov box, searched for channel layouts."""
    videos, audios, others = [], [], []
    plain_layout = not any(name in index for name in (b"SA3D", b"chnl", b"chan"))
    for stream in container.streams:
        track: VideoTrack | AudioTrack | None = None
        if isinstance(stream, VideoStream):
            track = _video_track(stream, spans)
        elif isinstance(stream, AudioStream):
            track = _audio_track(path, stream, spans, plain_layout)
        if isinstance(track, VideoTrack):
            videos.append(track)
        elif isinstance(track, AudioTrack):
            audios.append(track)
        else:
            unknown = " of an unknown codec" if stream.type in ("video", "audio") else ""
            others.append(f"track {stream.index} ({stream.type}{unknown})")
    return Tracks(tuple(videos), tuple(audios), tuple(others))


def _video_track(stream: VideoStream, spans: Spans) -> VideoTrack | None:
    # An unknown codec has no context, unlike PyAV's type annotations state.
    context = getattr(stream, "codec_context", None)
    if not getattr(context, "width", 0):
        return None
    context = stream.codec_context
    full_range = context.color_range == _FULL_RANGE or (context.pix_fmt or "").startswith("yuvj")
    begin_s, end_s = spans.get(stream.index, (0.0, None))
    return VideoTrack(
        width=context.width,
        height=context.height,
        colorspace=int(context.colorspace),
        full_range=full_range,
        hdr=_HDR.get(int(context.color_trc)),
        codec=context.name,
        index=stream.index,
        track_id=stream.id,
        fps=float(stream.average_rate) if stream.average_rate else None,
        frames=stream.frames,
        begin_s=begin_s,
        end_s=end_s,
        is_still=_is_still(stream),
        is_default=bool(int(stream.disposition) & 1),
    )


def _is_still(stream: VideoStream) -> bool:
    codec = getattr(stream.codec_context, "name", "")
    is_picture = codec in _STILL_CODECS and stream.frames == 1
    return bool(int(stream.disposition) & _STILL) or is_picture


def _audio_track(
    path: Path, stream: AudioStream, spans: Spans, plain_layout: bool
) -> AudioTrack | None:
    context = getattr(stream, "codec_context", None)
    if context is None:
        return None
    channels = context.channels if plain_layout else _channels_from_ffmpeg(path, stream.index)
    if not channels:
        return None
    if channels >= _UNSAFE_PLANES and (context.format is None or context.format.is_planar):
        plain_layout = False
    begin_s, end_s = spans.get(stream.index, (0.0, None))
    return AudioTrack(
        channels=channels,
        sample_rate=context.sample_rate,
        codec=context.name,
        extradata=context.extradata,
        plain_layout=plain_layout,
        index=stream.index,
        track_id=stream.id,
        begin_s=begin_s,
        end_s=end_s,
        is_default=bool(int(stream.disposition) & 1),
        is_dependent=bool(int(stream.disposition) & _DEPENDENT),
    )


def _channels_from_ffmpeg(path: Path, index: int) -> int:
    """Number of channels of an audio track, as ffmpeg prints it; 0 if there is none."""
    found = re.search(rf"Stream #0:{index}\b.*?: Audio: .*? Hz, ([^,\n]+),", describe(path))
    if found is None:
        return 0
    words = found[1].strip()
    count = re.match(r"(\d+) channels", words)
    try:
        return int(count[1]) if count else int(av.AudioLayout(words.split("(")[0]).nb_channels)
    except ValueError:
        return 0


def read_spans(container: InputContainer, file_end_s: float) -> Spans:
    """When each video and audio track of a newly opened file begins and ends, as its header
    states or, where it does not, as its packets show."""
    streams = [
        stream
        for stream in container.streams
        if isinstance(stream, AudioStream)
        or (isinstance(stream, VideoStream) and not _is_still(stream))
    ]
    if container.format.name.startswith(_TRACKS_IN_HEADER):
        return {stream.index: _span_in_header(stream) for stream in streams}
    try:
        begins = _first_times(container, streams)
        # A single track ends where the file does.
        ends = {}
        if len(container.streams) > 1:
            ends = _last_times(container, set(begins), file_end_s)
    except (av.FFmpegError, OSError):
        return {}  # decoding will report the fault
    if max(ends.values(), default=inf) < file_end_s - TRACK_TOLERANCE_S:
        ends = {}  # the file is truncated: all tracks should last longer
    return {index: (begin_s, ends.get(index)) for index, begin_s in begins.items()}


def _span_in_header(stream: _Stream) -> tuple[float, float | None]:
    base = stream.time_base or 0
    start = stream.start_time or 0
    begin_s = float(start * base)
    end_s = float((start + stream.duration) * base) if stream.duration else None
    if isinstance(stream, VideoStream):
        entries = stream.index_entries
        first = next((n for n in range(len(entries)) if entries[n].is_keyframe), 0)
        if first:
            begin_s += float((entries[first].timestamp - entries[0].timestamp) * base)
    return begin_s, end_s


def _first_times(container: InputContainer, streams: list[_Stream]) -> dict[int, float]:
    """The time of each track's first packet: of a video's, the first that can be decoded."""
    # The first packets of audio may be the decoder's preparation, which is not heard.
    starts = {
        stream.index: float(stream.start_time * (stream.time_base or 0))
        for stream in streams
        if isinstance(stream, AudioStream) and stream.start_time is not None
    }
    begins: dict[int, float] = {}
    skipped: dict[int, float] = {}
    last_s = 0.0
    for number, packet in enumerate(container.demux(streams)):
        time_s = _time_s(packet)
        if time_s is None:
            continue
        last_s = max(last_s, time_s)
        index = packet.stream.index
        if packet.stream.type == "video" and not packet.is_keyframe:
            skipped.setdefault(index, time_s)
        elif index not in begins:
            start_s = starts.get(index, time_s)
            begins[index] = start_s if abs(start_s - time_s) < _PREPARATION_S else time_s
        first_s = min((*begins.values(), *skipped.values()))
        is_late = number > _MAX_FIRST_PACKETS or time_s - first_s > _MAX_LATE_S
        if len(begins) == len(streams) or is_late:
            break
    # A track that has not begun by now begins later.
    return dict.fromkeys((stream.index for stream in streams), last_s) | skipped | begins


def _last_times(container: InputContainer, wanted: set[int], file_end_s: float) -> dict[int, float]:
    """The time at which each track's last packet ends, from as few of the last packets as give the
    ``wanted`` ones."""
    ends: dict[int, float] = {}
    for tail_s in _TAILS_S:
        container.seek(int(max(0.0, file_end_s - tail_s) * 1e6), backward=True)
        for packet in container.demux():
            time_s = _time_s(packet)
            if time_s is not None:
                index = packet.stream.index
                end_s = time_s + float((packet.duration or 0) * (packet.time_base or 0))
                ends[index] = max(ends.get(index, -inf), end_s)
        if wanted <= ends.keys() or tail_s >= file_end_s:
            break
    return ends


def _time_s(packet: Packet[Any]) -> float | None:
    stamp = packet.pts if packet.pts is not None else packet.dts
    if stamp is None or packet.time_base is None:
        return None
    return float(stamp * packet.time_base)
