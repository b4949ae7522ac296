"""What a build will make: its clips, dealt to shards, before anything is decoded."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from avprep.errors import UserError
from avprep.recordings.clips import Clip
from avprep.recordings.find_clips import FoundClips
from avprep.recordings.recording import Failure
from shards.files import dump_json
from shards.manifest import shard_names, shard_number
from shards.schema import Manifest

_FEWEST_SHARDS = 8
"""A split has this many shards if it has the clips, so that small sets keep all cores busy."""


@dataclass(frozen=True)
class ShardPlan:
    """One shard to be made: its files' names relative to the output folder, and its clips."""

    split: str
    file: str
    index: str
    clips: tuple[Clip, ...]


@dataclass(frozen=True)
class BuildPlan:
    """All shards of a build. ``digest`` names clips and options: two builds with the same one
    make the same set."""

    shards: tuple[ShardPlan, ...]
    failures: tuple[Failure, ...]
    unlisted: int
    digest: str

    @property
    def clips(self) -> int:
        return sum(len(shard.clips) for shard in self.shards)


def plan_build(
    found: FoundClips,
    options: dict[str, Any],
    seed: int,
    shard_bytes: int,
    clip_bytes: int,
    base: Manifest | None = None,
) -> BuildPlan:
    """Deal clips to shards of about ``shard_bytes``: a function of clips, options and seed.

    Sources are shuffled and their clips dealt out in turn, so that those of one source lie in
    different shards. With ``base``, a finished set, only what it does not hold is planned, in
    shards after its own. Raises UserError where a source would be in two splits.
    """
    by_split: defaultdict[str, list[Clip]] = defaultdict(list)
    for clip in _not_in(base, found.clips):
        by_split[clip.split].append(clip)
    shards: list[ShardPlan] = []
    for split in sorted(by_split):
        members = sorted(by_split[split], key=lambda clip: (clip.source, clip.start_s))
        wanted = max(-(-len(members) * clip_bytes // shard_bytes), _FEWEST_SHARDS)
        count = min(wanted, len(members))
        sources = sorted({clip.source for clip in members})
        order = np.random.default_rng([seed, len(sources)]).permutation(len(sources))
        rank = {source: int(place) for source, place in zip(sources, order, strict=True)}
        dealt = sorted(members, key=lambda clip: (rank[clip.source], clip.start_s))
        for number in range(count):
            file, index = shard_names(split, _first_number(base, split) + number)
            shards.append(ShardPlan(split, file, index, tuple(dealt[number::count])))
    return BuildPlan(tuple(shards), found.failures, found.unlisted, _digest(shards, options))


def _not_in(base: Manifest | None, clips: tuple[Clip, ...]) -> tuple[Clip, ...]:
    if base is None:
        return clips
    keys: set[str] = set()
    split_of_source: dict[str, str] = {}
    for split, shards in base.splits.items():
        for shard in shards:
            keys |= set(shard.keys)
            split_of_source |= dict.fromkeys(shard.sources, split)
    new = tuple(clip for clip in clips if clip.key not in keys)
    for clip in new:
        there = split_of_source.get(clip.source, clip.split)
        if there != clip.split:
            raise UserError(
                f"clips of {clip.source} are in split {there} of the set and would now be added to "
                f"{clip.split}; a recording belongs to one split"
            )
    return new


def _first_number(base: Manifest | None, split: str) -> int:
    shards = base.splits.get(split, ()) if base is not None else ()
    return max((shard_number(shard.file) + 1 for shard in shards), default=0)


def _digest(shards: list[ShardPlan], options: dict[str, Any]) -> str:
    # Where the input folder lies does not matter, nor does anything else of this machine.
    content = [
        (
            shard.file,
            [
                {
                    **asdict(replace(clip, media=None)),
                    "video": "",
                    "audio": clip.audio.name,
                    "truth": clip.truth.name if clip.truth is not None else None,
                    "maps": clip.maps.name if clip.maps is not None else None,
                }
                for clip in shard.clips
            ],
        )
        for shard in shards
    ]
    return hashlib.sha256(dump_json([options, content])).hexdigest()
