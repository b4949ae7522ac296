"""Whether a shard set holds what it says, to the last frame."""

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


@dataclass(frozen=True)
class Fault:
    """What is wrong in a shard, in which sample and member of it (empty: in all of it)."""

    shard: str
    what: str
    sample: str = ""
    member: str = ""

    def __str__(self) -> str:
        place = " ".join(part for part in (self.shard, self.sample, self.member) if part)
        return f"{place}: {self.what}"


def verify_shard(root: Folder, split: str, entry: ShardEntry, quick: bool = False) -> list[Fault]:
    """The faults of one shard: of its bytes, and unless ``quick`` of all that is in it."""
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
        faults.append(Fault(entry.file, "has other content than it was written with"))
    if quick:
        return faults
    try:
        index = read_index(root, entry.index)
    except ShardError as error:
        return [*faults, Fault(entry.file, str(error))]
    faults += _against_manifest(entry, index)
    try:
        faults += _content(path, split, entry, index)
    except (tarfile.TarError, EOFError, OSError) as error:
        faults.append(Fault(entry.file, f"is no whole tar ({error})"))
    return faults


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_CHUNK):
            digest.update(block)
    return digest.hexdigest()


def _against_manifest(entry: ShardEntry, index: ShardIndex) -> list[Fault]:
    pairs = {
        "hashes": (index.sha256, entry.sha256),
        "keys": (tuple(sample.key for sample in index.samples), entry.keys),
        "sources": (tuple(sample.source for sample in index.samples), entry.sources),
    }
    return [
        Fault(entry.index, f"its {name} are not those of the manifest")
        for name, (here, there) in pairs.items()
        if here != there
    ]


def _content(path: Path, split: str, entry: ShardEntry, index: ShardIndex) -> list[Fault]:
    faults: list[Fault] = []
    members: dict[str, dict[str, bytes]] = {}
    with tarfile.open(path, "r:") as tar:
        order: list[str] = []
        for header in tar:
            key, _, suffix = header.name.partition(".")
            if not KEY_PATTERN.fullmatch(key) or not header.isfile():
                faults.append(Fault(entry.file, "is no member of a sample", key, header.name))
                continue
            if (header.mtime, header.uid, header.gid) != (0, 0, 0):
                faults.append(Fault(entry.file, "has a time or an owner", key, suffix))
            if key in members and order[-1] != key:
                faults.append(Fault(entry.file, "is not beside its sample's others", key, suffix))
            if members.get(key) and suffix <= max(members[key]):
                faults.append(Fault(entry.file, "is out of order", key, suffix))
            file = tar.extractfile(header)
            members.setdefault(key, {})[suffix] = b"" if file is None else file.read()
            order.append(key)
            place = {s.key: s.members for s in index.samples}.get(key, {}).get(suffix)
            if place != (header.offset_data, header.size):
                faults.append(Fault(entry.file, "is not where its index says", key, suffix))
    if list(members) != list(entry.keys):
        faults.append(Fault(entry.file, "holds other samples than its manifest says"))
    for (key, content), source in zip(members.items(), entry.sources, strict=False):
        faults += _sample(entry.file, split, key, source, content)
    return faults


def _sample(
    shard: str, split: str, key: str, source: str, content: dict[str, bytes]
) -> list[Fault]:
    try:
        info = SampleInfo.from_json(json.loads(content["json"]))
    except (KeyError, TypeError, ValueError) as error:
        return [Fault(shard, f"is no sample ({error!r})", key, "json")]
    faults = []
    if (info.key, info.source, info.split) != (key, source, split):
        faults.append(Fault(shard, "is of another sample, source or split", key, "json"))
    videos = [f"view{number:02d}.mp4" for number in range(len(info.views))]
    sounds = [f"view{number:02d}.flac" for number in range(len(info.views))]
    if info.audio.layout == "source":
        sounds = ["flac"]
    if not info.audio.channels:
        sounds = []
    maps = [
        label_map_suffix(view, number)
        for view in range(len(info.views))
        for number in range(len(info.map_times_s or ()))
    ]
    for missing in sorted({*videos, *sounds, *maps} - content.keys()):
        faults.append(Fault(shard, "is missing", key, missing))
    for number, name in enumerate(videos):
        if name in content and (what := _video(content[name], info, number)):
            faults.append(Fault(shard, what, key, name))
    for name in sounds:
        if name in content and (what := _sound(content[name], info)):
            faults.append(Fault(shard, what, key, name))
    for name in maps:
        if name in content and (what := _map(content[name], info)):
            faults.append(Fault(shard, what, key, name))
    return faults


def _map(content: bytes, info: SampleInfo) -> str:
    """What is wrong with a label map, empty if nothing is."""
    try:
        height, width = decode_grey_png(content).shape
    except ShardError as error:
        return str(error)
    here, there = (height, width), (info.video.height, info.video.width)
    return "" if here == there else f"has (height, width) {here} instead of {there}"


def _video(content: bytes, info: SampleInfo, view: int) -> str:
    """What is wrong with a crop, empty if nothing is."""
    said = info.video
    try:
        avcc, gops, frames = index_mp4(content)
        if (avcc, tuple(gops), frames) != (said.avcc, said.gops[view], said.frames):
            return "its groups of pictures are not where its sample says"
        with av.open(io.BytesIO(content), "r") as container:
            times = []
            for frame in container.decode(video=0):
                if (frame.height, frame.width) != (said.height, said.width):
                    return f"has frames of {frame.width}×{frame.height}"
                times.append(frame.time or 0.0)
    except (ShardError, av.FFmpegError, ValueError, IndexError, KeyError) as error:
        return f"does not decode ({error})"
    if len(times) != said.frames:
        return f"has {len(times)} frames instead of {said.frames}"
    off = max(abs(time - number / said.fps) for number, time in enumerate(times))
    return f"its frames are up to {off:.3f} s off" if off > 1e-3 else ""


def _sound(content: bytes, info: SampleInfo) -> str:
    """What is wrong with a sound, empty if nothing is."""
    try:
        samples, sample_rate = soundfile.read(io.BytesIO(content), dtype="int16", always_2d=True)
    except soundfile.LibsndfileError as error:
        return f"does not decode ({error})"
    here = (sample_rate, *samples.shape)
    there = (info.audio.sample_rate, info.audio.samples, len(info.audio.channels))
    return "" if here == there else f"has (rate, samples, channels) {here} instead of {there}"
