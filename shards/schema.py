"""The JSON records of a shard set: a sample's record, a shard's index and the manifest."""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass, field
from itertools import chain
from typing import Annotated, Any, NotRequired, TypedDict

from msgspec import Meta

from shards.geometry import ACN_CHANNELS

FORMAT_NAME = "avsa-shards"
FORMAT_VERSION = 1
FORMAT_MINOR_VERSION = 1
"""Sets of a higher minor version hold more, and are read all the same."""
LABEL_MAP_SUFFIX = ".seg.png"
PANORAMA = "panorama.mp4"
"""Suffix of the member that shows the whole sphere."""
KEY_PATTERN = re.compile(r"[A-Za-z0-9_-]+")
SPLIT_PATTERN = re.compile(r"[A-Za-z0-9_-]{1,100}")

# No set that can be built comes near these limits; they bound what a file from elsewhere may cost.
MANIFEST_BYTES = 256_000_000  # about 3,000,000 clips
INDEX_BYTES = 64_000_000
SAMPLE_BYTES = 16_000_000
MAX_SIZE = 2048
"""Pixels of a crop or label map in each direction."""
MAX_VIEWS = 1000

_SUFFIX = re.compile(r"[a-z0-9]{1,16}(\.[a-z0-9]{1,16}){0,3}")
_KEY_CHARACTERS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-"
_MAX_BYTES = 1 << 50

_Scalar = None | bool | int | float | str
_Nested1 = _Scalar | list[_Scalar] | dict[str, _Scalar]
_Nested2 = _Scalar | list[_Nested1] | dict[str, _Nested1]
_Nested3 = _Scalar | list[_Nested2] | dict[str, _Nested2]
_Nested4 = _Scalar | list[_Nested3] | dict[str, _Nested3]
Options = dict[str, _Nested4]
"""JSON whose nesting ends."""
_Text = Annotated[str, Meta(max_length=4096)]
_Key = Annotated[str, Meta(max_length=100, pattern=r"^[A-Za-z0-9_-]+\Z")]
_Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
_Avcc = Annotated[
    # An H.264 decoder configuration, with lengths of 4 bytes, that begins with a parameter set.
    str, Meta(max_length=4096, pattern=r"^01[0-9a-f]{7}[37bf][0-9a-f]{6}[0-6]7([0-9a-f]{2})+\Z")
]
_Bytes = Annotated[int, Meta(ge=0, le=_MAX_BYTES)]
_Pixels = Annotated[int, Meta(ge=1, le=MAX_SIZE)]
_Seconds = Annotated[float, Meta(ge=-1e9, le=1e9)]
_Finite = Annotated[float, Meta(ge=-(1 << 31), le=1 << 31)]
_Number = Annotated[int, Meta(ge=-(1 << 31), lt=1 << 31)]

Event = TypedDict(
    "Event",
    {
        "time_s": _Seconds,
        "class": _Number,
        "source": NotRequired[_Number],
        "azimuth_deg": _Finite,
        "elevation_deg": _Finite,
        "distance_m": NotRequired[_Finite],
        "visible": NotRequired[bool],
    },
)
"""A source that sounds, at one step of ``event_step_s``; see `SampleInfo`."""


@dataclass(frozen=True)
class View:
    """A viewpoint: the direction of the crop's centre, and the angles between its outer edges."""

    azimuth_deg: float
    elevation_deg: float
    hfov_deg: float
    vfov_deg: float

    def __post_init__(self) -> None:
        if not -180.0 < self.azimuth_deg <= 180.0 or not -90.0 <= self.elevation_deg <= 90.0:
            raise ValueError(
                f"azimuth {self.azimuth_deg}, elevation {self.elevation_deg} is not a direction: "
                "the ranges are (-180, 180] and [-90, 90]"
            )
        if not (0.0 < self.hfov_deg < 180.0 and 0.0 < self.vfov_deg < 180.0):
            raise ValueError(f"fields of view {self.hfov_deg}, {self.vfov_deg} are not in (0, 180)")


@dataclass(frozen=True)
class VideoInfo:
    """The crops of a sample: H.264 in mp4, constant frame rate, closed groups of pictures (GOPs).

    ``avcc`` (hex) is the decoder configuration of every crop. ``gops[v]`` holds the byte offsets
    in the member of view v at which its GOPs begin, followed by the end of the last one, so that
    a reader decodes a window without opening the container.
    """

    fps: Annotated[float, Meta(gt=0, le=1000)]
    frames: Annotated[int, Meta(ge=1, le=1_000_000)]
    height: _Pixels
    width: _Pixels
    gop_frames: Annotated[int, Meta(ge=1, le=256)]
    avcc: _Avcc
    gops: Annotated[tuple[tuple[_Bytes, ...], ...], Meta(max_length=MAX_VIEWS)]

    def __post_init__(self) -> None:
        numbers = (self.fps, self.frames, self.height, self.width, self.gop_frames)
        if not (all(map(math.isfinite, numbers)) and min(numbers) > 0):
            raise ValueError(
                f"fps, frames, height, width and GOP length must be positive, not {numbers}"
            )
        expected = -(-self.frames // self.gop_frames) + 1
        for offsets in self.gops:
            if (
                len(offsets) != expected
                or list(offsets) != sorted(offsets)
                or min(offsets, default=0) < 0
            ):
                raise ValueError(
                    f"its GOP offsets do not match {self.frames} frames in GOPs of "
                    f"{self.gop_frames}"
                )


@dataclass(frozen=True)
class AudioInfo:
    """The audio of a sample: FLAC, 16 bits; stored = gain * original.

    ``channels`` are W, Y, Z, X for ambisonics; M for a beam towards the view; L and R for a pair of
    beams to its left and right; empty for a video without audio.
    """

    sample_rate: Annotated[int, Meta(ge=1, le=655_350)]
    samples: Annotated[int, Meta(ge=0, lt=1 << 30)]
    gain: Annotated[float, Meta(gt=0, le=1e12)]
    layout: str
    channels: Annotated[tuple[_Text, ...], Meta(max_length=4)] = ACN_CHANNELS
    normalization: _Text = "SN3D"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.gain) and self.gain > 0 and self.sample_rate > 0):
            raise ValueError(
                f"audio gain and sample rate must be positive, not {self.gain} and "
                f"{self.sample_rate} Hz"
            )
        if self.layout not in ("rotated", "source"):
            raise ValueError(f"audio layout must be rotated or source, not {self.layout!r}")


@dataclass(frozen=True)
class SampleInfo:
    """Content of ``KEY.json``: one clip with all its views.

    Attributes
    ----------
    source, start_s
        The original recording (shared by all its clips), and the clip's start in it.
    file, file_start_s
        The video file the clip was cut from, relative to the folder given to the build, and the
        clip's start in that file.
    source_format
        How the file's video and audio were read.
    events
        Annotated sound events, if any: one entry (``time_s``, ``class``, ``source``,
        ``azimuth_deg``, ``elevation_deg``, …) per sound source and step of ``event_step_s`` in
        which it is heard; ``time_s`` is the step's start. Sources out of sight may be marked
        ``"visible": false``.
    folds
        The clip's role (train, test or unused) in each official fold of its dataset.
    map_times_s
        Times in the clip that have label maps, ``view00.t000.seg.png`` and so on.
    reverberation_rt60_s
        Time in which the room's reverberation falls by 60 dB, where the labels state it.
    panorama
        The video of the whole sphere, equirectangular, if it is stored; its frames are those of
        the crops.
    """

    key: _Key
    source: _Text
    start_s: _Seconds
    duration_s: _Seconds
    split: _Key
    video: VideoInfo
    audio: AudioInfo
    views: Annotated[tuple[View, ...], Meta(max_length=MAX_VIEWS)]
    file: _Text | None = None
    file_start_s: _Seconds = 0.0
    source_format: Options | None = None
    label: _Text | int | None = None
    events: list[Event] | None = None
    event_step_s: Annotated[float, Meta(gt=0, le=1e6)] | None = None
    folds: tuple[_Text, ...] | None = None
    map_times_s: tuple[_Seconds, ...] | None = None
    reverberation_rt60_s: Annotated[float, Meta(ge=0, le=1000)] | None = None
    panorama: VideoInfo | None = None

    def __post_init__(self) -> None:
        if len(self.video.gops) != len(self.views):
            raise ValueError(f"{len(self.views)} views, but {len(self.video.gops)} crops")
        if self.panorama is not None:
            if len(self.panorama.gops) != 1:
                raise ValueError(f"{len(self.panorama.gops)} files of one panorama")
            if (self.panorama.fps, self.panorama.frames) != (self.video.fps, self.video.frames):
                raise ValueError("the panorama has other frames than the crops")

    def to_json(self) -> dict[str, Any]:
        value = asdict(self)
        for name in (
            "source_format",
            "label",
            "events",
            "event_step_s",
            "folds",
            "map_times_s",
            "reverberation_rt60_s",
            "panorama",
        ):
            if value[name] is None:
                del value[name]
        return value


def label_map_suffix(view: int, number: int) -> str:
    """Suffix of the member that holds a view's label map at ``map_times_s[number]``."""
    return f"view{view:02d}.t{number:03d}{LABEL_MAP_SUFFIX}"


@dataclass(frozen=True)
class SampleIndex:
    """A sample's position in its shard: ``members`` maps a suffix, e.g. ``view00.mp4``, to the
    (offset, size) in bytes of its content in the tar. ``label`` and ``folds`` are copied from its
    record."""

    key: _Key
    source: _Text
    members: dict[str, tuple[_Bytes, _Bytes]]
    label: _Text | int | None = None
    folds: tuple[_Text, ...] | None = None


@dataclass(frozen=True)
class ShardIndex:
    """``SPLIT-000000.index.json`` beside its tar; written after it, so that its presence marks a
    complete shard."""

    file: _Text
    bytes: _Bytes
    sha256: _Sha256
    duration_s: _Seconds
    samples: tuple[SampleIndex, ...]
    failures: tuple[dict[str, str], ...] = ()
    dropped: tuple[dict[str, _Scalar], ...] = ()
    """Clips that a threshold excluded, with the values that were compared with it."""
    index_sha256: str | None = field(default=None, compare=False)
    """SHA-256 of the file it was read from."""

    def __post_init__(self) -> None:
        for suffix in set[str]().union(*(sample.members for sample in self.samples)):
            if not _SUFFIX.fullmatch(suffix):
                raise ValueError(f"{suffix!r:.80} is not the suffix of a member")
        ranges = chain.from_iterable(sample.members.values() for sample in self.samples)
        if max(map(sum, ranges), default=0) > self.bytes:
            raise ValueError("a member lies outside of its tar")
        if len({sample.key for sample in self.samples}) != len(self.samples):
            raise ValueError("it names a key twice")

    def to_json(self) -> dict[str, Any]:
        value = asdict(self)
        del value["index_sha256"]
        for sample in value["samples"]:
            for name in ("label", "folds"):
                if sample[name] is None:
                    del sample[name]
        return value


def check_shard_names(split: str, file: str, index: str) -> None:
    """Raises ValueError unless a shard's files are ``SPLIT/SPLIT-000000.tar`` and its index: names
    in a set from elsewhere could lead out of its folder."""
    if not SPLIT_PATTERN.fullmatch(split):
        raise ValueError(f"the split {split!r:.80} has characters other than A-Z a-z 0-9 _ -")
    stem = file.removesuffix(".tar")
    number = stem.removeprefix(f"{split}/{split}-")
    is_number = len(number) == 6 and number.isascii() and number.isdigit()
    if not is_number or (file, index) != (f"{stem}.tar", f"{stem}.index.json"):
        raise ValueError(f"{file!r:.80} and {index!r:.80} are not the names of a shard of {split}")


@dataclass(frozen=True)
class ShardEntry:
    """The manifest's entry for a shard; ``file`` and ``index`` are relative to the set's folder.

    ``keys`` and ``sources`` have one item per sample, so that sampling needs only the manifest.
    ``index_sha256`` is the SHA-256 of the index; None for a shard of a set of minor version 0.
    """

    file: _Text
    index: _Text
    bytes: _Bytes
    sha256: _Sha256
    duration_s: _Seconds
    keys: tuple[Annotated[str, Meta(max_length=100)], ...]
    sources: tuple[_Text, ...]
    index_sha256: _Sha256 | None = None

    def __post_init__(self) -> None:
        check_shard_names(self.file.partition("/")[0], self.file, self.index)
        # All keys at once: a pattern would take as long as reading the manifest.
        characters = "".join(self.keys).encode(errors="replace")
        if "" in self.keys or characters.translate(None, _KEY_CHARACTERS):
            raise ValueError(f"keys of {self.file} have characters other than A-Z a-z 0-9 _ -")
        if len(self.keys) != len(self.sources):
            raise ValueError(f"{self.file}: {len(self.keys)} keys but {len(self.sources)} sources")


@dataclass(frozen=True)
class Manifest:
    """``manifest.json``: the set's shards and how they were built. Written last."""

    options: Options
    versions: dict[str, str]
    splits: dict[str, tuple[ShardEntry, ...]]
    plan: str
    """Digest of the build's clips and options; the same command on the same files repeats it."""
    format: str = FORMAT_NAME
    version: int = FORMAT_VERSION
    minor_version: int = FORMAT_MINOR_VERSION
    sha256: str = field(default="", compare=False)
    """SHA-256 of the file it was read from; identifies the set."""

    def to_json(self) -> dict[str, Any]:
        """All but the file's last member, ``checksum``."""
        splits: dict[str, Any] = {}
        for name, entries in self.splits.items():
            own_totals = totals(entries, distinct_sources(entries))
            shards = [_entry_record(entry) for entry in entries]
            splits[name] = {**asdict(own_totals), "shards": shards}
        everything = tuple(entry for entries in self.splits.values() for entry in entries)
        return {
            "format": self.format,
            "version": self.version,
            "minor_version": FORMAT_MINOR_VERSION,
            "options": self.options,
            "versions": self.versions,
            "plan": self.plan,
            "totals": asdict(totals(everything, distinct_sources(everything))),
            "splits": splits,
        }


def _entry_record(entry: ShardEntry) -> dict[str, Any]:
    record = {"samples": len(entry.keys), **asdict(entry)}
    if entry.index_sha256 is None:
        del record["index_sha256"]
    return record


@dataclass(frozen=True)
class Totals:
    """The sums of a manifest or of one of its splits."""

    samples: int
    sources: int
    bytes: int
    duration_s: float


def distinct_sources(entries: tuple[ShardEntry, ...]) -> set[str]:
    return set().union(*(entry.sources for entry in entries))


def totals(entries: tuple[ShardEntry, ...], sources: set[str]) -> Totals:
    """The sums of shards that have these `distinct_sources`."""
    return Totals(
        samples=sum(len(entry.keys) for entry in entries),
        sources=len(sources),
        bytes=sum(entry.bytes for entry in entries),
        duration_s=round(sum(entry.duration_s for entry in entries), 3),
    )
