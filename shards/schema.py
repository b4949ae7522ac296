"""The JSON records of a shard set: a sample's record, a shard's index and the manifest."""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass, field
from typing import Any

from shards.geometry import ACN_CHANNELS

FORMAT_NAME = "avsa-shards"
FORMAT_VERSION = 1
FORMAT_MINOR_VERSION = 1
"""Sets of a higher minor version hold more, and are read all the same."""
LABEL_MAP_SUFFIX = ".seg.png"
KEY_PATTERN = re.compile(r"[A-Za-z0-9_-]+")


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

    fps: float
    frames: int
    height: int
    width: int
    gop_frames: int
    avcc: str
    gops: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        numbers = (self.fps, self.frames, self.height, self.width, self.gop_frames)
        if not (all(map(math.isfinite, numbers)) and min(numbers) > 0):
            raise ValueError(
                f"fps, frames, height, width and GOP length must be positive, not {numbers}"
            )
        bytes.fromhex(self.avcc)
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

    sample_rate: int
    samples: int
    gain: float
    layout: str
    channels: tuple[str, ...] = ACN_CHANNELS
    normalization: str = "SN3D"

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
    """

    key: str
    source: str
    start_s: float
    duration_s: float
    split: str
    video: VideoInfo
    audio: AudioInfo
    views: tuple[View, ...]
    file: str | None = None
    file_start_s: float = 0.0
    source_format: dict[str, Any] | None = None
    label: str | int | None = None
    events: list[dict[str, Any]] | None = None
    event_step_s: float | None = None
    folds: tuple[str, ...] | None = None
    map_times_s: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if len(self.video.gops) != len(self.views):
            raise ValueError(f"{len(self.views)} views, but {len(self.video.gops)} crops")

    def to_json(self) -> dict[str, Any]:
        value = asdict(self)
        for name in (
            "source_format",
            "label",
            "events",
            "event_step_s",
            "folds",
            "map_times_s",
        ):
            if value[name] is None:
                del value[name]
        return value

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> SampleInfo:
        """Parse a record; raises KeyError, TypeError or ValueError if it is not one."""
        video = dict(value["video"])
        video["gops"] = tuple(tuple(offsets) for offsets in video["gops"])
        audio = dict(value["audio"])
        audio["channels"] = tuple(audio["channels"])
        rest = {name: value[name] for name in ("key", "source", "start_s", "duration_s", "split")}
        return cls(
            **rest,
            video=VideoInfo(**video),
            audio=AudioInfo(**audio),
            views=tuple(View(**view) for view in value["views"]),
            file=value.get("file"),
            file_start_s=value.get("file_start_s", 0.0),
            source_format=value.get("source_format"),
            label=value.get("label"),
            events=value.get("events"),
            event_step_s=value.get("event_step_s"),
            folds=_tuple(value.get("folds")),
            map_times_s=_tuple(value.get("map_times_s")),
        )


def _tuple(value: list[Any] | None) -> tuple[Any, ...] | None:
    return None if value is None else tuple(value)


def label_map_suffix(view: int, number: int) -> str:
    """Suffix of the member that holds a view's label map at ``map_times_s[number]``."""
    return f"view{view:02d}.t{number:03d}{LABEL_MAP_SUFFIX}"


@dataclass(frozen=True)
class SampleIndex:
    """A sample's position in its shard: ``members`` maps a suffix, e.g. ``view00.mp4``, to the
    (offset, size) in bytes of its content in the tar. ``label`` and ``folds`` are copied from its
    record."""

    key: str
    source: str
    members: dict[str, tuple[int, int]]
    label: str | int | None = None
    folds: tuple[str, ...] | None = None


@dataclass(frozen=True)
class ShardIndex:
    """``SPLIT-000000.index.json`` beside its tar; written after it, so that its presence marks a
    complete shard."""

    file: str
    bytes: int
    sha256: str
    duration_s: float
    samples: tuple[SampleIndex, ...]
    failures: tuple[dict[str, str], ...] = ()
    dropped: tuple[dict[str, Any], ...] = ()
    """Clips that a threshold excluded, with the values that were compared with it."""
    index_sha256: str | None = field(default=None, compare=False)
    """SHA-256 of the file it was read from."""

    def to_json(self) -> dict[str, Any]:
        value = asdict(self)
        del value["index_sha256"]
        for sample in value["samples"]:
            for name in ("label", "folds"):
                if sample[name] is None:
                    del sample[name]
        return value

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> ShardIndex:
        samples = tuple(
            SampleIndex(
                sample["key"],
                sample["source"],
                {name: (offset, size) for name, (offset, size) in sample["members"].items()},
                sample.get("label"),
                _tuple(sample.get("folds")),
            )
            for sample in value["samples"]
        )
        head = {name: value[name] for name in ("file", "bytes", "sha256", "duration_s")}
        failures, dropped = tuple(value["failures"]), tuple(value.get("dropped", ()))
        return cls(**head, samples=samples, failures=failures, dropped=dropped)


@dataclass(frozen=True)
class ShardEntry:
    """The manifest's entry for a shard; ``file`` and ``index`` are relative to the set's folder.

    ``keys`` and ``sources`` have one item per sample, so that sampling needs only the manifest.
    ``index_sha256`` is the SHA-256 of the index; None for a shard of a set of minor version 0.
    """

    file: str
    index: str
    bytes: int
    sha256: str
    duration_s: float
    keys: tuple[str, ...]
    sources: tuple[str, ...]
    index_sha256: str | None = None

    def __post_init__(self) -> None:
        if len(self.keys) != len(self.sources):
            raise ValueError(f"{self.file}: {len(self.keys)} keys but {len(self.sources)} sources")


@dataclass(frozen=True)
class Manifest:
    """``manifest.json``: the set's shards and how they were built. Written last."""

    options: dict[str, Any]
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
            splits[name] = {
                **asdict(totals(entries)),
                "shards": [_entry_record(e) for e in entries],
            }
        everything = tuple(entry for entries in self.splits.values() for entry in entries)
        return {
            "format": self.format,
            "version": self.version,
            "minor_version": self.minor_version,
            "options": self.options,
            "versions": self.versions,
            "plan": self.plan,
            "totals": asdict(totals(everything)),
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


def totals(entries: tuple[ShardEntry, ...]) -> Totals:
    return Totals(
        samples=sum(len(entry.keys) for entry in entries),
        sources=len({source for entry in entries for source in entry.sources}),
        bytes=sum(entry.bytes for entry in entries),
        duration_s=round(sum(entry.duration_s for entry in entries), 3),
    )
