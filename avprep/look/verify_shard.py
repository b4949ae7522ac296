"""Verify that a shard agrees with its index, its records and the manifest, to the last frame."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path

import av
import soundfile

from shards.errors import ShardError
from shards.folders import Folder
from shards.manifest import read_index
from shards.schema import KEY_PATTERN, SampleInfo, ShardEntry, ShardIndex, label_map_suffix
from shards.video import decode_grey_png, index_mp4

_CHUNK = 1 << 20
_CLOSED: dict[str, str] = {"protocol_whitelist": "none", "enable_drefs": "0"}
"""Options of a demuxer that reads what it is given, and opens no file or connection."""


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


def verify_shard(root: Folder, split: str, entry: ShardEntry, quick: bool = False) -> list[Fault]:
    """Faults of one shard: of its size and hash and, unless ``quick``, of all its samples."""
    try:
        with root.local_file(entry.file) as path:
            return _verify(root, path, split, entry, quick)
    except OSError as error:
        return [Fault(entry.file, f"cannot be read: {error.strerror}")]


def _verify(root: Folder, path: Path, split: str, entry: ShardEntry, quick: bool) -> list[Fault]:
    size = path.stat().st_size
    if size != entry.bytes:
        return [Fault(entry.file, f"has {size} bytes instead of {entry.bytes}; copy it again")]
    faults = []
    if _sha256(path) != entry.sha256:
        faults.append(Fault(entry.file, "has changed since it was written; copy it again"))
    if quick:
        return faults
    try:
        index = read_index(root, entry.index)
    except ShardError as error:
        return [*faults, Fault(entry.file, str(error))]
    faults += _compare_with_manifest(entry, index)
    try:
        faults += _check_content(path, split, entry, index)
    except (tarfile.TarError, EOFError, OSError) as error:
        faults.append(Fault(entry.file, f"is not a complete tar ({error})"))
    return faults


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_CHUNK):
            digest.update(block)
    return digest.hexdigest()


def _compare_with_manifest(entry: ShardEntry, index: ShardIndex) -> list[Fault]:
    pairs = {
        "hashes": (index.sha256, entry.sha256),
        "keys": (tuple(sample.key for sample in index.samples), entry.keys),
        "sources": (tuple(sample.source for sample in index.samples), entry.sources),
    }
    return [
        Fault(entry.index, f"its {name} differ from the manifest's")
        for name, (found, expected) in pairs.items()
        if found != expected
    ]


def _check_content(path: Path, split: str, entry: ShardEntry, index: ShardIndex) -> list[Fault]:
    """Faults of the tar's members: their order and headers, and each sample."""
    faults: list[Fault] = []
    members: dict[str, dict[str, bytes]] = {}
    with tarfile.open(path, "r:") as tar:
        order: list[str] = []
        for header in tar:
            key, _, suffix = header.name.partition(".")
            if not KEY_PATTERN.fullmatch(key) or not header.isfile():
                faults.append(Fault(entry.file, "is not a member of a sample", key, header.name))
                continue
            if (header.mtime, header.uid, header.gid) != (0, 0, 0):
                faults.append(Fault(entry.file, "has a time or an owner", key, suffix))
            if key in members and order[-1] != key:
                faults.append(Fault(entry.file, "is apart from its sample's others", key, suffix))
            if members.get(key) and suffix <= max(members[key]):
                faults.append(Fault(entry.file, "is out of order", key, suffix))
            file = tar.extractfile(header)
            members.setdefault(key, {})[suffix] = b"" if file is None else file.read()
            order.append(key)
            indexed = {s.key: s.members for s in index.samples}.get(key, {}).get(suffix)
            if indexed != (header.offset_data, header.size):
                faults.append(Fault(entry.file, "is not where its index says", key, suffix))
    if list(members) != list(entry.keys):
        faults.append(Fault(entry.file, "holds other samples than the manifest says"))
    for (key, content), source in zip(members.items(), entry.sources, strict=False):
        faults += _check_sample(entry.file, split, key, source, content)
    return faults


def _check_sample(
    shard: str, split: str, key: str, source: str, content: dict[str, bytes]
) -> list[Fault]:
    try:
        info = SampleInfo.from_json(json.loads(content["json"]))
    except (KeyError, TypeError, ValueError) as error:
        return [Fault(shard, f"is not a sample record ({error!r})", key, "json")]
    faults = []
    if (info.key, info.source, info.split) != (key, source, split):
        faults.append(Fault(shard, "belongs to another sample, source or split", key, "json"))
    videos = [f"view{number:02d}.mp4" for number in range(len(info.views))]
    audios = [f"view{number:02d}.flac" for number in range(len(info.views))]
    if info.audio.layout == "source":
        audios = ["flac"]
    if not info.audio.channels:
        audios = []
    maps = [
        label_map_suffix(view, number)
        for view in range(len(info.views))
        for number in range(len(info.map_times_s or ()))
    ]
    for missing in sorted({*videos, *audios, *maps} - content.keys()):
        faults.append(Fault(shard, "is missing", key, missing))
    for number, name in enumerate(videos):
        if name in content and (problem := _video_problem(content[name], info, number)):
            faults.append(Fault(shard, problem, key, name))
    for name in audios:
        if name in content and (problem := _audio_problem(content[name], info)):
            faults.append(Fault(shard, problem, key, name))
    for name in maps:
        if name in content and (problem := _label_map_problem(content[name], info)):
            faults.append(Fault(shard, problem, key, name))
    return faults


def _label_map_problem(content: bytes, info: SampleInfo) -> str:
    """The first problem of a label map; empty if it has none."""
    try:
        height, width = decode_grey_png(content).shape
    except ShardError as error:
        return str(error)
    found, expected = (height, width), (info.video.height, info.video.width)
    return "" if found == expected else f"has (height, width) {found} instead of {expected}"


def _video_problem(content: bytes, info: SampleInfo, view: int) -> str:
    """The first problem of a crop; empty if it has none."""
    video = info.video
    try:
        avcc, gops, frames = index_mp4(content)
        if (avcc, tuple(gops), frames) != (video.avcc, video.gops[view], video.frames):
            return "its groups of pictures are not where its JSON says"
        # The demuxer is named: content of a set does not choose one, which could be SDP's.
        with av.open(io.BytesIO(content), "r", format="mp4", options=_CLOSED) as container:
            times = []
            for frame in container.decode(video=0):
                if (frame.height, frame.width) != (video.height, video.width):
                    return f"has frames of {frame.width}×{frame.height} pixels"
                times.append(frame.time or 0.0)
    except (ShardError, av.FFmpegError, ValueError, IndexError, KeyError) as error:
        return f"does not decode ({error})"
    if len(times) != video.frames:
        return f"has {len(times)} frames instead of {video.frames}"
    deviation_s = max(abs(time - number / video.fps) for number, time in enumerate(times))
    return f"its frames are up to {deviation_s:.3f} s off" if deviation_s > 1e-3 else ""


def _audio_problem(content: bytes, info: SampleInfo) -> str:
    """The first problem of a FLAC member; empty if it has none."""
    if not content.startswith(b"fLaC"):  # libsndfile knows twenty other formats
        return "is not FLAC"
    try:
        samples, sample_rate = soundfile.read(io.BytesIO(content), dtype="int16", always_2d=True)
    except soundfile.LibsndfileError as error:
        return f"does not decode ({error})"
    found = (sample_rate, *samples.shape)
    expected = (info.audio.sample_rate, info.audio.samples, len(info.audio.channels))
    if found == expected:
        return ""
    return f"has (rate, samples, channels) {found} instead of {expected}"
