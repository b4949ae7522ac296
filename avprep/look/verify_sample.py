"""Verify that a sample's members are what its JSON says, to the last frame.

Sizes are compared before anything is decoded, and decoded is a frame at a time, so that members
made to fill memory cost a sentence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from typing import Any

import av
import numpy as np

from avprep.look.crop_tables import read_crop_tables
from shards.errors import ShardError
from shards.files import parse_json
from shards.flac import FlacDecoder
from shards.schema import (
    PANORAMA,
    SAMPLE_BYTES,
    SampleIndex,
    SampleInfo,
    VideoInfo,
    label_map_suffix,
)
from shards.video import access_units, decode_grey_png, open_h264_decoder

_MEMBER_LIMIT_BYTES = 1_000_000_000
"""Crops of 1024 pixels have 400 MB after ten minutes."""
MOST_FAULTS = 5
"""Faults of one sample that are told apart."""
_AUDIO_WINDOW = 1 << 18
_TIME_TOLERANCE_S = 1e-3

Read = Callable[[int, int], bytes]
"""Returns bytes of a shard, from one offset to another."""
_Check = Callable[[bytes], str]
"""Returns what is wrong with a member's content; nothing if it is as its sample's JSON says."""


@dataclass(frozen=True)
class Fault:
    """A problem in a shard, and the sample and member that have it (empty: the whole shard)."""

    shard: str
    problem: str
    sample: str = ""
    member: str = ""

    def __str__(self) -> str:
        location = " ".join(part for part in (self.shard, self.sample, self.member) if part)
        return f"{location}: {self.problem}"


def verify_sample(
    shard: str, split: str, index: SampleIndex, read: Read
) -> tuple[float, list[Fault]]:
    """The duration of a sample in seconds, and its first faults: where its members differ from
    what its JSON says, and this from what the shard's index says of it."""
    try:
        info = parse_json(_content(index, "json", read, SAMPLE_BYTES), SampleInfo)
    except (ShardError, ValueError) as error:
        return 0.0, [Fault(shard, f"is not a sample record ({error})", index.key, "json")]
    problems = chain(_compare(info, split, index), _problems(info, index, read))
    faults = [
        Fault(shard, problem, index.key, member)
        for member, problem in islice(problems, MOST_FAULTS)
    ]
    return info.duration_s, faults


def _compare(info: SampleInfo, split: str, index: SampleIndex) -> Iterator[tuple[str, str]]:
    if (info.key, info.source, info.split) != (index.key, index.source, split):
        yield "json", "belongs to another sample, source or split"
    if (info.label, info.folds) != (index.label, index.folds):
        yield "json", "has another label or other folds than its index says"


def _content(index: SampleIndex, member: str, read: Read, limit_bytes: int) -> bytes:
    if member not in index.members:
        raise ShardError("is missing")
    offset, size = index.members[member]
    if size > limit_bytes:
        raise ShardError(f"is larger than {limit_bytes / 1e6:g} MB")
    return read(offset, offset + size)


def _problems(info: SampleInfo, index: SampleIndex, read: Read) -> Iterator[tuple[str, str]]:
    """Members and what is wrong with them. Those that the JSON does not speak of are ignored."""
    for member, check in _checks(info, FlacDecoder()):
        try:
            problem = check(_content(index, member, read, _MEMBER_LIMIT_BYTES))
        except ShardError as error:
            problem = str(error)
        if problem:
            yield member, problem


def _checks(info: SampleInfo, decoder: FlacDecoder) -> Iterator[tuple[str, _Check]]:
    """The members that a sample's JSON speaks of, with functions that check their contents."""
    audio, label_map = partial(_audio_problem, info, decoder), partial(_label_map_problem, info)
    for view in range(len(info.views)):
        yield f"view{view:02d}.mp4", partial(video_problem, info.video, view)
        if info.audio.channels and info.audio.layout == "rotated":
            yield f"view{view:02d}.flac", audio
        for number in range(len(info.map_times_s or ())):
            yield label_map_suffix(view, number), label_map
    if info.audio.channels and info.audio.layout == "source":
        yield "flac", audio
    if info.panorama is not None:
        yield PANORAMA, partial(video_problem, info.panorama, 0)


def video_problem(video: VideoInfo, view: int, mp4: bytes) -> str:
    """The first problem of a crop, or of a panorama; empty if it has none."""
    try:
        tables = read_crop_tables(mp4, video.frames)
    except ShardError as error:
        return f"does not decode ({error})"
    begins, ends = tables.begins, tables.ends
    gops = (*begins[:: video.gop_frames].tolist(), *ends[-1:].tolist())
    if gops != tuple(video.gops[view]) or (begins[1:] != ends[:-1]).any():
        return "its groups of pictures are not where its JSON says"
    if tables.configuration != video.avcc:
        return "its decoder's configuration is not that of its JSON"
    deviation_s = np.abs(tables.times_s - np.arange(video.frames) / video.fps).max()
    if deviation_s > _TIME_TOLERANCE_S:
        return f"its frames are up to {deviation_s:.3f} s off"
    ranges = zip(begins.tolist(), ends.tolist(), strict=True)
    return _frames_problem((mp4[begin:end] for begin, end in ranges), video)


def _frames_problem(packets: Iterator[bytes], video: VideoInfo) -> str:
    """The first problem of coded frames; empty if all of them are decoded."""
    # Damage is not to be concealed.
    codec = open_h264_decoder(video.avcc, video.height, video.width, err_detect="explode")
    count = 0
    try:
        for packet in chain(_checked(packets, video.gop_frames), [None]):
            for frame in codec.decode(packet):
                if (frame.height, frame.width) != (video.height, video.width):
                    return f"has frames of {frame.width}×{frame.height} pixels"
                count += 1
    except av.FFmpegError as error:
        return f"does not decode ({error.strerror})"
    except ShardError as error:
        return f"does not decode ({error})"
    return "" if count == video.frames else f"has {count} frames instead of {video.frames}"


def _checked(packets: Iterator[bytes], gop_frames: int) -> Iterator[av.Packet[Any]]:
    """Coded frames for the decoder. Raises ShardError for one that readers would find elsewhere."""
    for number, content in enumerate(packets):
        units = list(islice(access_units(content, 0, len(content)), 2))
        if units != [(0, len(content), number % gop_frames == 0)]:
            raise ShardError(f"its frame {number} does not begin and end as its container says")
        yield av.Packet(content)


def _audio_problem(info: SampleInfo, decoder: FlacDecoder, flac: bytes) -> str:
    """The first problem of a FLAC member; empty if it has none."""
    audio = info.audio
    for start in range(0, audio.samples, _AUDIO_WINDOW):
        count = min(_AUDIO_WINDOW, audio.samples - start)
        decoder.decode(lambda begin, end: flac[begin:end], len(flac), start, count, audio)
    return ""


def _label_map_problem(info: SampleInfo, png: bytes) -> str:
    """The first problem of a label map; empty if it has none."""
    found, expected = decode_grey_png(png).shape, (info.video.height, info.video.width)
    return "" if found == expected else f"has (height, width) {found} instead of {expected}"
