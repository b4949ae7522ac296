"""What a shard set holds, in words and numbers."""

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

_LOOKED_AT = 500


def describe_set(place: Path | str) -> dict[str, Any]:
    """Counts, hours, bytes by part, options, views and leaks of a set in a folder or at a URL.

    Raises ShardError, which says how far an unfinished build is.
    """
    root = open_folder(place)
    try:
        manifest = read_manifest(root)
    except ShardError:
        state = BuildState.read(root)
        if state is None:
            raise
        done = len(state.shards) - len(missing_shards(root, state))
        raise ShardError(
            f"{root} is unfinished: {done} of {len(state.shards)} shards stand; run the same "
            "`avprep build-shards` again to finish it"
        ) from None
    splits = {split: _split(root, manifest, split) for split in manifest.splits}
    return {
        "root": str(root),
        "splits": splits,
        "leaks": _leaks(manifest),
        "options": manifest.options,
        "versions": manifest.versions,
    }


def _split(root: Folder, manifest: Manifest, split: str) -> dict[str, Any]:
    shards = manifest.splits[split]
    sources = [source for shard in shards for source in shard.sources]
    parts: defaultdict[str, int] = defaultdict(int)
    labels: Counter[str | int] = Counter()
    for index in read_indices(root, [shard.index for shard in shards]):
        for sample in index.samples:
            if sample.label is not None:
                labels[sample.label] += 1
            for suffix, (_, size) in sample.members.items():
                parts[_part_of(suffix)] += size
    reader = ShardSet(root, split)
    looked = np.unique(np.linspace(0, len(reader) - 1, min(_LOOKED_AT, len(reader))).astype(int))
    infos = [reader.info(int(sample)) for sample in looked]
    clips_of = np.unique(sources, return_counts=True)[1]
    views = len(infos[0].views)
    return {
        "clips": len(sources),
        "sources": len(clips_of),
        "clips_per_source": {"median": float(np.median(clips_of)), "most": int(clips_of.max())},
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


def _part_of(suffix: str) -> str:
    kind = suffix.rpartition(".")[2]
    return {"mp4": "video", "flac": "sound", "png": "maps", "json": "json"}.get(kind, kind)


def _angles(views: list[View]) -> dict[str, list[float]]:
    """Least, quartiles and largest of each angle."""
    names = ("azimuth_deg", "elevation_deg", "hfov_deg", "vfov_deg")
    return {
        name: np.percentile([getattr(view, name) for view in views], [0, 25, 50, 75, 100])
        .round(1)
        .tolist()
        for name in names
    }


def _leaks(manifest: Manifest) -> dict[str, list[str]]:
    """Sources that are in more than one split."""
    splits_of: defaultdict[str, set[str]] = defaultdict(set)
    for split, shards in manifest.splits.items():
        for shard in shards:
            for source in shard.sources:
                splits_of[source].add(split)
    return {source: sorted(splits) for source, splits in splits_of.items() if len(splits) > 1}


def in_words(value: dict[str, Any]) -> str:
    """What `describe_set` found, for people."""
    lines = []
    for name, split in value["splits"].items():
        parts = ", ".join(f"{part} {_size(size)}" for part, size in split["bytes_of"].items())
        clips = split["clips_per_source"]
        lines += [
            f"{name}: {split['clips']} clips of {split['sources']} sources "
            f"(median {clips['median']:g} a source, at most {clips['most']}), "
            f"{split['hours']:.2f} h, {split['shards']} shards, {_size(split['bytes'])}",
            f"  {parts}",
        ]
        if split["labels"]:
            counts = split["labels"].values()
            lines.append(f"  {len(counts)} labels with {min(counts)} to {max(counts)} clips")
        if split["saved_by_source_layout"]:
            saved = _size(split["saved_by_source_layout"])
            lines.append(f"  --audio-layout source would save {saved}")
        lines.append(f"  {split['views']} views a clip; least, quartiles, largest in degrees:")
        for angle, numbers in split["view_angles_deg"].items():
            words = " ".join(f"{number:7.1f}" for number in numbers)
            lines.append(f"    {angle.removesuffix('_deg'):<10}{words}")
    for source, splits in value["leaks"].items():
        lines.append(f"LEAK: {source} is in {' and '.join(splits)}")
    lines.append(f"options: {_flat(value['options'])}")
    lines.append(f"versions: {_flat(value['versions'])}")
    return "\n".join(lines)


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
