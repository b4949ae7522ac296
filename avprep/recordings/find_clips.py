"""From an input folder to its clips: each with its files, its split and its formats."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

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
from avprep.recordings.clips import Clip, clip_key, cut, split_of
from avprep.recordings.labelled import LAYOUTS_WITH_FOLDS
from avprep.recordings.layouts import find_recordings
from avprep.recordings.lists import default_splits, read_splits
from avprep.recordings.recording import Failure, Recording


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
        seen, heard = media[0].video, media[1].audio
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
