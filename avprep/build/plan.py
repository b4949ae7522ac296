"""The plan of a build: its clips, distributed over shards before anything is decoded."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from avprep.errors import UserError
from avprep.recordings.clips import Clip
from avprep.recordings.find_clips import FoundClips
from avprep.recordings.recording import Failure
from shards.files import dump_json
from shards.manifest import shard_names, shard_number
from shards.schema import Manifest

_MIN_SHARDS = 8
"""Each split has at least this many shards if it has as many clips, so that building and reading
small sets keeps all cores busy."""


@dataclass(frozen=True)
class ShardPlan:
    """One shard to make: the names of its files, relative to the output folder, and its clips."""

    split: str
    file: str
    index: str
    clips: tuple[Clip, ...]


@dataclass(frozen=True)
class BuildPlan:
    """All shards of a build. ``digest`` identifies clips and options: builds with the same digest
    make the same set. ``unlisted`` counts the clips that no split list names."""

    shards: tuple[ShardPlan, ...]
    failures: tuple[Failure, ...]
    unlisted: int
    digest: str


def plan_build(
    found: FoundClips,
    options: dict[str, Any],
    seed: int,
    shard_bytes: int,
    clip_bytes: int,
    base: Manifest | None = None,
) -> BuildPlan:
    """Distribute clips over shards of about ``shard_bytes``, as a function of the arguments alone.

    Sources are shuffled and their clips dealt to the shards in turn, so that clips of one source
    lie in different shards. With ``base``, a finished set, only clips that it does not hold are
    planned, in shards numbered after its own. Raises UserError if a source would be in two splits.
    """
    by_split: defaultdict[str, list[Clip]] = defaultdict(list)
    for clip in _clips_not_in(base, found.clips):
        by_split[clip.split].append(clip)
    shards: list[ShardPlan] = []
    for split in sorted(by_split):
        clips = sorted(by_split[split], key=lambda clip: (clip.source, clip.start_s))
        by_size = -(-len(clips) * clip_bytes // shard_bytes)
        count = min(max(by_size, _MIN_SHARDS), len(clips))
        sources = sorted({clip.source for clip in clips})
        order = np.random.default_rng([seed, len(sources)]).permutation(len(sources))
        position = {source: int(place) for source, place in zip(sources, order, strict=True)}
        shuffled = sorted(clips, key=lambda clip: (position[clip.source], clip.start_s))
        for number in range(count):
            file, index = shard_names(split, _first_number(base, split) + number)
            shards.append(ShardPlan(split, file, index, tuple(shuffled[number::count])))
    return BuildPlan(tuple(shards), found.failures, found.unlisted, _digest(shards, options))


def _clips_not_in(base: Manifest | None, clips: tuple[Clip, ...]) -> tuple[Clip, ...]:
    if base is None:
        return clips
    keys: set[str] = set()
    splits_of: dict[str, set[str]] = {}
    for split, shards in base.splits.items():
        for shard in shards:
            keys |= set(shard.keys)
            for source in shard.sources:
                splits_of.setdefault(source, set()).add(split)
    new = tuple(clip for clip in clips if clip.key not in keys)
    for clip in new:
        there = splits_of.get(clip.source, {clip.split})
        if clip.split not in there:
            raise UserError(
                f"clips of {clip.source} are in split {', '.join(sorted(there))} of the set and "
                f"would be added to {clip.split}; a recording must be in one split only"
            )
    return new


def _first_number(base: Manifest | None, split: str) -> int:
    shards = base.splits.get(split, ()) if base is not None else ()
    return max((shard_number(shard.file) + 1 for shard in shards), default=0)


def _digest(shards: list[ShardPlan], options: dict[str, Any]) -> str:
    content = [(shard.file, [_clip_record(clip) for clip in shard.clips]) for shard in shards]
    return hashlib.sha256(dump_json([options, content])).hexdigest()


def _clip_record(clip: Clip) -> dict[str, Any]:
    """What the digest depends on: not the input folder's path, nor anything else of this machine.

    Names and their order go into the digests of existing sets: never change them.
    """
    return {
        "key": clip.key,
        "source": clip.source,
        "split": clip.split,
        "video": "",
        "audio": clip.audio.name,
        "file": clip.file,
        "start_s": clip.start_s,
        "offset_s": clip.offset_s,
        "duration_s": clip.duration_s,
        "picture": clip.video_format.record(),
        "sound": asdict(clip.audio_format),
        "label": clip.label,
        "folds": clip.folds,
        "truth": clip.truth.name if clip.truth is not None else None,
        "maps": clip.maps.name if clip.maps is not None else None,
        "maps_offset_s": clip.maps_offset_s,
        "flat": clip.flat,
        "media": None,
    }
