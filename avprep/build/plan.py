"""What a build will make: its clips, dealt to shards, before anything is decoded."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from avprep.errors import ClipError, UserError, in_a_sentence
from avprep.formats.decide import (
    PictureFormat,
    SoundFormat,
    Wanted,
    doubts_of,
    flat_format,
    picture_format,
    sound_format,
)
from avprep.media.probe import Media, probe_both
from avprep.recordings.labelled import LAYOUTS_WITH_FOLDS
from avprep.recordings.layouts import find_recordings
from avprep.recordings.recording import (
    Failure,
    Recording,
    clip_key,
    cut,
    default_splits,
    read_splits,
    split_of,
)
from avprep.sample.options import Clip
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


@dataclass(frozen=True)
class Lists:
    """Lists beside the recordings, None for those that are in their folder: a folder of split
    lists, and YT-360's list of moments at which clips begin."""

    splits: Path | None = None
    segments: Path | None = None


@dataclass(frozen=True)
class FoundClips:
    """Clips with keys and splits, what cannot be one, how many clips are in no split list, the
    layout that was read, and what of it a person should check, in sentences."""

    clips: tuple[Clip, ...]
    failures: tuple[Failure, ...]
    unlisted: int
    layout: str
    doubts: tuple[str, ...]

    def without(self, keys: set[str]) -> FoundClips:
        return replace(self, clips=tuple(clip for clip in self.clips if clip.key not in keys))


def find_clips(
    raw: Path,
    layout: str,
    lists: Lists,
    clip_s: float,
    wanted: Wanted,
    ask: Callable[[Callable[[Recording], Answer | str], list[Recording]], list[Answer | str]],
) -> FoundClips:
    """The clips to make of the recordings in ``raw``; ``ask`` maps a question over files, which
    are asked for their length and formats.

    Raises UserError where there are none, or where lists or names contradict each other.
    """
    recordings, failures, layout = find_recordings(raw, layout, lists.segments, lists.splits)
    splits = _splits(raw, layout, lists)
    question = partial(answer_of, wanted=wanted)
    unknown = [r for r in recordings if not (r.formats_known and wanted.asks_of_pictures)]
    asked = dict(zip(unknown, ask(question, unknown), strict=True))
    answers = [asked.get(recording) or question(recording) for recording in recordings]
    clips: list[Clip] = []
    doubts: defaultdict[str, list[str]] = defaultdict(list)
    unlisted = 0
    for recording, answer in zip(recordings, answers, strict=True):
        if isinstance(answer, str):
            names = (recording.video.name, recording.audio.name)
            named = answer if any(n in answer for n in names) else f"{recording.file}: {answer}"
            failures.append(Failure(recording.source, "probe", named))
            continue
        for doubt in answer.doubts:
            doubts[doubt].append(recording.file)
        if recording.windows is not None:
            failures += _late(recording, answer.duration_s)
        # A labelled video is one example, however long.
        longest_s = max(clip_s, answer.duration_s) if recording.flat else clip_s
        for clip in cut(recording, answer.duration_s, longest_s):
            split = split_of(clip, splits)
            if split is None:
                unlisted += 1
            else:
                key = clip_key(clip.source, clip.start_s)
                picture, sound = answer.picture, answer.sound
                formats = replace(clip, picture=picture, sound=sound, media=answer.media)
                clips.append(replace(formats, key=key, split=split))
    clips, twice = _unique(clips)
    failures += twice
    if not clips and unlisted:
        raise UserError(
            f"none of the {unlisted} clips of {raw} is in a split list; check its names"
        )
    said = tuple(
        f"{files[0]}{f' and {len(files) - 1} more' if files[1:] else ''}: {doubt}"
        for doubt, files in doubts.items()
    )
    return FoundClips(tuple(clips), tuple(failures), unlisted, layout, said)


def _splits(raw: Path, layout: str, lists: Lists) -> dict[str, str]:
    if layout in LAYOUTS_WITH_FOLDS:
        return {}  # they have read their own lists
    if lists.splits is None:
        return default_splits(raw)
    splits = read_splits(lists.splits)
    if not splits:
        raise UserError(f"--splits {lists.splits} holds no list such as train.txt with names")
    return splits


def _late(recording: Recording, duration_s: float) -> list[Failure]:
    """Wanted windows that a file is too short for."""
    return [
        Failure(
            recording.source,
            "find",
            f"second {start_s:g} of {recording.file} is wanted, which ends at {duration_s:.1f} s; "
            "correct the list of segments",
        )
        for start_s, _ in recording.windows or ()
        if start_s >= duration_s
    ]


@dataclass(frozen=True)
class Answer:
    """What a recording says of itself, and what of it a person should check."""

    duration_s: float
    picture: PictureFormat
    sound: SoundFormat
    doubts: tuple[str, ...] = ()
    media: tuple[Media, Media] | None = None


def answer_of(recording: Recording, wanted: Wanted) -> Answer | str:
    """How long a recording is and how it will be read, or why it cannot be."""
    known = recording.formats_known and wanted.asks_of_pictures
    if known and recording.duration_s is not None:
        convention = SoundFormat(wanted.foa_convention)
        return Answer(recording.duration_s, PictureFormat(), convention)
    try:
        media = probe_both(recording.video, recording.audio)
        seen, heard = media[0].picture, media[1].sound
        if seen is None:
            raise ClipError(f"{recording.file} has no picture; it is no 360° video")
        duration = recording.duration_s or media[0].duration_s
        if recording.flat:
            return Answer(duration, flat_format(recording.video, seen), SoundFormat(), (), media)
        picture = picture_format(recording.video, seen, duration, wanted)
        sound = SoundFormat()
        if heard is not None:
            sound = sound_format(recording.audio, heard, wanted)
        doubts = doubts_of(recording.audio, duration, picture, sound)
        return Answer(duration, picture, sound, doubts, media)
    except ClipError as error:
        return in_a_sentence(error)


def _unique(clips: Iterable[Clip]) -> tuple[list[Clip], list[Failure]]:
    """The clips that have keys of their own, and those whose key an earlier one has."""
    seen: dict[str, Clip] = {}
    failures = []
    for clip in clips:
        other = seen.setdefault(clip.key, clip)
        if other is not clip:
            reason = f"{clip.file} would get the key {clip.key} as {other.file} does; take one away"
            failures.append(Failure(clip.source, "find", reason))
    return list(seen.values()), failures


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
