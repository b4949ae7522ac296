"""Describe a shard set: counts, hours, bytes, views, options and leaks between splits."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from avprep.build.finish import missing_shards
from avprep.build.state import BuildState
from shards.errors import ShardError
from shards.folders import Folder, open_folder
from shards.manifest import read_indices, read_manifest
from shards.reader import ShardSet
from shards.schema import Manifest, View

_MAX_SAMPLES_READ = 500


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
    sources = [source for shard in shards for source in shard.sources]
    parts: defaultdict[str, int] = defaultdict(int)
    labels: Counter[str | int] = Counter()
    for index in read_indices(root, [shard.index for shard in shards]):
        for sample in index.samples:
            if sample.label is not None:
                labels[sample.label] += 1
            for suffix, (_, size) in sample.members.items():
                parts[_part_name(suffix)] += size
    reader = ShardSet(root, split)
    count = min(_MAX_SAMPLES_READ, len(reader))
    chosen = np.unique(np.linspace(0, len(reader) - 1, count).astype(int))
    infos = [reader.info(int(sample)) for sample in chosen]
    clips_per_source = np.unique(sources, return_counts=True)[1]
    views = len(infos[0].views)
    return {
        "clips": len(sources),
        "sources": len(clips_per_source),
        "clips_per_source": {
            "median": float(np.median(clips_per_source)),
            "most": int(clips_per_source.max()),
        },
        "hours": round(sum(shard.duration_s for shard in shards) / 3600, 3),
        "labels": dict(sorted(labels.items(), key=lambda item: str(item[0]))),
        "shards": len(shards),
        "bytes": sum(shard.bytes for shard in shards),
        "bytes_of": dict(sorted(parts.items())),
        "saved_by_source_layout": round(parts["sound"] * (1 - 1 / views))
        if infos[0].audio.layout == "rotated" and infos[0].audio.normalization == "SN3D"
        else 0,
        "views": views,
        "view_angles_deg": _angles([view for info in infos for view in info.views]),
    }


def _part_name(suffix: str) -> str:
    kind = suffix.rpartition(".")[2]
    return {"mp4": "video", "flac": "sound", "png": "maps", "json": "json"}.get(kind, kind)


def _angles(views: list[View]) -> dict[str, list[float]]:
    """Minimum, quartiles and maximum of each angle."""
    names = ("azimuth_deg", "elevation_deg", "hfov_deg", "vfov_deg")
    return {
        name: np.percentile([getattr(view, name) for view in views], [0, 25, 50, 75, 100])
        .round(1)
        .tolist()
        for name in names
    }


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
        parts = ", ".join(f"{part} {_size(size)}" for part, size in split["bytes_of"].items())
        clips = split["clips_per_source"]
        lines += [
            f"{name}: {split['clips']} clips of {split['sources']} sources "
            f"(median {clips['median']:g} per source, at most {clips['most']}), "
            f"{split['hours']:.2f} h, {split['shards']} shards, {_size(split['bytes'])}",
            f"  {parts}",
        ]
        if split["labels"]:
            counts = split["labels"].values()
            lines.append(f"  {len(counts)} labels with {min(counts)} to {max(counts)} clips")
        if split["saved_by_source_layout"]:
            saved = _size(split["saved_by_source_layout"])
            lines.append(f"  --audio-layout source would save {saved}")
        lines.append(f"  {split['views']} views per clip; min, quartiles, max in degrees:")
        for angle, numbers in split["view_angles_deg"].items():
            words = " ".join(f"{number:7.1f}" for number in numbers)
            lines.append(f"    {angle.removesuffix('_deg'):<10}{words}")
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


def _size(count: int) -> str:
    for unit, power in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= power:
            return f"{count / power:.2f} {unit}"
    return f"{count} B"
