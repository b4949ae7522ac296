"""Describe a shard set: counts, hours, bytes, views, options and leaks between splits."""

from __future__ import annotations

from collections import Counter, defaultdict
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avprep.build.finish import missing_shards
from avprep.build.state import BuildState
from shards.errors import ShardError
from shards.folders import Folder, open_folder
from shards.manifest import read_index, read_indices, read_manifest
from shards.reader import ShardSet
from shards.schema import PANORAMA, Manifest, ShardIndex

_MAX_SAMPLES_READ = 500
_MAX_BYTES_READ = 64_000_000
_ANGLES = ("azimuth_deg", "elevation_deg", "hfov_deg", "vfov_deg")


def describe_set(location: Path | str) -> dict[str, Any]:
    """Counts, hours, bytes by part, options, views and leaks of a set in a folder or at a URL.

    Raises ShardError if there is no finished set; for an unfinished one, the message states its
    progress.
    """
    root = open_folder(location)
    try:
        manifest = read_manifest(root)
    except ShardError:
        state = BuildState.read(root)
        if state is None:
            raise
        done = len(state.shards) - len(missing_shards(root, state))
        raise ShardError(
            f"{root} is unfinished: {done} of {len(state.shards)} shards are written; run the same "
            "`avprep build-shards` command again to finish it"
        ) from None
    splits = {split: _describe_split(root, manifest, split) for split in manifest.splits}
    return {
        "root": str(root),
        "splits": splits,
        "leaks": _leaks(manifest),
        "options": manifest.options,
        "versions": manifest.versions,
    }


def _describe_split(root: Folder, manifest: Manifest, split: str) -> dict[str, Any]:
    shards = manifest.splits[split]
    clips_of_source = Counter(source for shard in shards for source in shard.sources)
    parts: defaultdict[str, int] = defaultdict(int)
    labels: Counter[str | int] = Counter()
    indices, damaged = _read_indices(root, [shard.index for shard in shards])
    for index in indices:
        for sample in index.samples:
            if sample.label is not None:
                labels[sample.label] += 1
            for suffix, (_, size) in sample.members.items():
                parts[_part_name(suffix)] += size
    records, unreadable = _read_records(ShardSet(root, split))
    damaged += [sentence for sentence in unreadable if sentence not in damaged]
    views = records[0].views if records else 0
    return {
        "clips": clips_of_source.total(),
        "sources": len(clips_of_source),
        "clips_per_source": {
            "median": float(np.median(list(clips_of_source.values()) or [0])),
            "most": max(clips_of_source.values(), default=0),
        },
        "hours": round(sum(shard.duration_s for shard in shards) / 3600, 3),
        "labels": dict(sorted(labels.items(), key=lambda item: str(item[0]))),
        "shards": len(shards),
        "bytes": sum(shard.bytes for shard in shards),
        "bytes_of": dict(sorted(parts.items())),
        "saved_by_source_layout": round(parts["sound"] * (1 - 1 / views))
        if views and records[0].is_rotated
        else 0,
        "views": views,
        "view_angles_deg": _angles(records),
        "damaged": damaged,
    }


def _read_indices(root: Folder, names: list[str]) -> tuple[list[ShardIndex], list[str]]:
    """The indices of shards, and sentences on those that are damaged."""
    with suppress(ShardError):
        return read_indices(root, names), []
    indices, damaged = [], []
    for name in names:
        try:
            indices.append(read_index(root, name))
        except ShardError as error:
            damaged.append(str(error))
    return indices, damaged


@dataclass(frozen=True)
class _Record:
    """What is used of a sample's record: its views' angles (views, 4), and whether each view has
    the audio of a field of its own."""

    angles_deg: NDArray[np.float64]
    is_rotated: bool

    @property
    def views(self) -> int:
        return len(self.angles_deg)


def _read_records(reader: ShardSet) -> tuple[list[_Record], list[str]]:
    """The records of some samples, evenly chosen, and sentences on those that are damaged."""
    count = min(_MAX_SAMPLES_READ, len(reader))
    chosen = np.unique(np.linspace(0, len(reader) - 1, count).astype(int)) if count else ()
    records: list[_Record] = []
    unreadable: list[str] = []
    left = _MAX_BYTES_READ
    for sample in map(int, chosen):
        try:
            left -= reader.member_range(sample, "json")[1]
            if left < 0 and records:
                break  # a set with records of this size is no usual one
            info = reader.info(sample)
        except ShardError as error:
            if str(error) not in unreadable:
                unreadable.append(str(error))
            continue
        angles = [[getattr(view, name) for name in _ANGLES] for view in info.views]
        audio = info.audio
        is_rotated = audio.layout == "rotated" and audio.normalization == "SN3D"
        records.append(_Record(np.array(angles).reshape(-1, len(_ANGLES)), is_rotated))
    return records, unreadable


def _part_name(suffix: str) -> str:
    if suffix == PANORAMA:
        return "panoramas"
    kind = suffix.rpartition(".")[2]
    return {"mp4": "video", "flac": "sound", "png": "maps", "json": "json"}.get(kind, "other")


def _angles(records: list[_Record]) -> dict[str, list[float]]:
    """Minimum, quartiles and maximum of each angle."""
    if not records:
        return {}
    angles = np.concatenate([record.angles_deg for record in records])
    quartiles = np.percentile(angles, [0, 25, 50, 75, 100], axis=0).round(1)
    return dict(zip(_ANGLES, quartiles.T.tolist(), strict=True))


def _leaks(manifest: Manifest) -> dict[str, list[str]]:
    """Sources that are in more than one split."""
    splits_by_source: defaultdict[str, set[str]] = defaultdict(set)
    for split, shards in manifest.splits.items():
        for shard in shards:
            for source in shard.sources:
                splits_by_source[source].add(split)
    return {
        source: sorted(splits) for source, splits in splits_by_source.items() if len(splits) > 1
    }


def as_text(value: dict[str, Any]) -> list[str]:
    """The result of `describe_set` as lines for the terminal."""
    lines = []
    for name, split in value["splits"].items():
        parts = ", ".join(
            f"{part} {size_in_words(size)}" for part, size in split["bytes_of"].items()
        )
        clips = split["clips_per_source"]
        lines += [
            f"{name}: {split['clips']} clips of {split['sources']} sources "
            f"(median {clips['median']:g} per source, at most {clips['most']}), "
            f"{split['hours']:.2f} h, {split['shards']} shards, {size_in_words(split['bytes'])}",
            f"  {parts}",
        ]
        if split["labels"]:
            counts = split["labels"].values()
            lines.append(f"  {len(counts)} labels with {min(counts)} to {max(counts)} clips")
        if split["saved_by_source_layout"]:
            saved = size_in_words(split["saved_by_source_layout"])
            lines.append(f"  --audio-layout source would save {saved}")
        lines.append(f"  {split['views']} views per clip; min, quartiles, max in degrees:")
        for angle, numbers in split["view_angles_deg"].items():
            words = " ".join(f"{number:7.1f}" for number in numbers)
            lines.append(f"    {angle.removesuffix('_deg'):<10}{words}")
        lines += [f"DAMAGED: {sentence}" for sentence in split["damaged"]]
    for source, splits in value["leaks"].items():
        lines.append(f"LEAK: {source} is in {' and '.join(splits)}")
    lines.append(f"options: {_flat(value['options'])}")
    lines.append(f"versions: {_flat(value['versions'])}")
    return lines


def _flat(options: dict[str, Any]) -> str:
    return ", ".join(
        f"({_flat(value)})" if isinstance(value, dict) else f"{name} {value}"
        for name, value in options.items()
    )


def size_in_words(count: int) -> str:
    for unit, power in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= power:
            return f"{count / power:.2f} {unit}"
    return f"{count} B"
