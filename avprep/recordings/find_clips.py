"""Finding the clips of an input folder, each with its files, split and formats."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from avprep.errors import ClipError, UserError, one_sentence
from avprep.formats.choose_tracks import choose_tracks, no_track
from avprep.formats.decide import (
    FormatOverrides,
    VideoFormat,
    decide_video_format,
    flat_video_format,
)
from avprep.formats.decide_audio import AudioFormat, audio_doubts, decide_audio_format
from avprep.media.probe import Media, probe_both
from avprep.media.timeline import shared_timeline
from avprep.recordings.clips import Clip, clip_key, cut_clips, find_split
from avprep.recordings.files import is_folder
from avprep.recordings.labelled import LAYOUTS_WITH_FOLDS
from avprep.recordings.layouts import find_recordings
from avprep.recordings.lists import read_default_splits, read_splits
from avprep.recordings.recording import Failure, Recording
from shards.schema import SPLIT_PATTERN

FIRST_ORDER_CHANNELS = 4
_NO_LABELS = (
    "has no labels in the folder metadata_… beside foa_…; localization, probes and SELD need them"
)


@dataclass(frozen=True)
class ListFiles:
    """Lists that the user names; None for those in the input folder.

    ``splits`` is a folder of split lists, ``segments`` a list of the seconds at which clips begin,
    as YT-360 has one.
    """

    splits: Path | None = None
    segments: Path | None = None


@dataclass(frozen=True)
class FoundClips:
    """The clips of an input folder, recordings that failed, the number of clips that no split list
    names, the layout, doubts about formats that a person should check, in sentences, and a
    sentence on the files that are not read."""

    clips: tuple[Clip, ...]
    failures: tuple[Failure, ...]
    unlisted: int
    layout: str
    doubts: tuple[str, ...]
    not_read: str | None = None

    def without(self, keys: set[str]) -> FoundClips:
        return replace(self, clips=tuple(clip for clip in self.clips if clip.key not in keys))


@dataclass(frozen=True)
class Examined:
    """Between which seconds of its files a recording can be used, its formats, doubts about them
    that a person should check, and what its files hold, if they were opened."""

    begin_s: float
    end_s: float
    video_format: VideoFormat
    audio_format: AudioFormat
    doubts: tuple[str, ...] = ()
    media: tuple[Media, Media] | None = None


_MapFiles = Callable[[Callable[[Recording], Examined | str], list[Recording]], list[Examined | str]]
"""Calls a function with all recordings and returns its results, as ``map`` does."""


def find_clips(
    raw: Path,
    layout: str,
    lists: ListFiles,
    clip_s: float,
    overrides: FormatOverrides,
    map_files: _MapFiles,
    part_s: tuple[float, float] | None = None,
) -> FoundClips:
    """The clips of all recordings in ``raw``; files are examined with ``map_files``. ``part_s``:
    begin and end of the part of each file that is used.

    Raises UserError if there are none, or if lists or names contradict each other.
    """
    found = find_recordings(raw, layout, lists.segments, lists.splits)
    recordings, failures, layout = found.recordings, found.failures, found.layout
    splits = _read_split_lists(raw, layout, lists)
    clips: list[Clip] = []
    doubtful: list[tuple[str, str]] = []
    unlisted = 0
    results = _examine_all(recordings, overrides, map_files)
    examined, replaced = _without_replaced(list(zip(recordings, results, strict=True)))
    failures += replaced
    for recording, result in examined:
        if part_s is not None and isinstance(result, Examined):
            result = _only_part(recording, result, *part_s)
        if isinstance(result, str):
            names = (recording.video.name, recording.audio.name)
            is_named = any(name in result for name in names)
            reason = result if is_named else f"{recording.file}: {result}"
            failures.append(Failure(recording.source, "probe", reason))
            continue
        doubtful += [(recording.file, doubt) for doubt in result.doubts]
        if layout == "starss" and recording.truth is None and recording.split != "eval":
            doubtful.append((recording.file, _NO_LABELS))
        if recording.windows is not None:
            failures += _windows_outside(recording, result)
        # A labelled video is one example, however long it is.
        max_clip_s = max(clip_s, result.end_s) if recording.flat else clip_s
        for clip in cut_clips(recording, result.begin_s, result.end_s, max_clip_s):
            split = find_split(clip, splits)
            if split is None:
                unlisted += 1
            elif not SPLIT_PATTERN.fullmatch(split):
                raise UserError(
                    f"{clip.source} is in the split list {split}, but names of splits have the "
                    "characters A-Z a-z 0-9 _ - only; rename the list"
                )
            else:
                clips.append(
                    replace(
                        clip,
                        key=clip_key(clip.source, clip.start_s),
                        split=split,
                        video_format=result.video_format,
                        audio_format=result.audio_format,
                        media=result.media,
                    )
                )
    clips, duplicates = _without_duplicates(clips)
    failures += duplicates
    if not clips and unlisted:
        raise UserError(
            f"none of the {unlisted} clips of {raw} is in a split list; check its names"
        )
    doubts = (*_other_folder(raw, layout), *_grouped(doubtful), *_in_two_splits(clips))
    return FoundClips(tuple(clips), tuple(failures), unlisted, layout, doubts, found.not_read)


def _other_folder(raw: Path, layout: str) -> Iterator[str]:
    """A sentence if the folder looks like one above or below that of a dataset."""
    if layout != "folder":
        return
    if raw.resolve().name == "video" and is_folder(raw.resolve().parent / "audio"):
        whole = raw.resolve().parent
        yield f"{raw} lies beside a folder audio, which is not read; name {whole} to read both"
    for part in ("foa_dev", "foa_eval"):
        for inside in sorted(raw.glob(f"*/{part}"))[:1]:
            yield f"{inside} looks like STARSS, whose sound is not read; name {inside.parent}"


def _in_two_splits(clips: Iterable[Clip]) -> Iterator[str]:
    """A sentence if lists of single clips put a recording into several splits."""
    splits: defaultdict[str, set[str]] = defaultdict(set)
    for clip in clips:
        splits[clip.source].add(clip.split)
    several = [source for source, names in splits.items() if len(names) > 1]
    if several:
        more = f" and {len(several) - 1} more" if len(several) > 1 else ""
        yield (
            f"{several[0]}{more}: clips of one recording are in several splits "
            f"({', '.join(sorted(splits[several[0]]))}), so tests meet what was trained on"
        )


def _grouped(doubtful: list[tuple[str, str]]) -> tuple[str, ...]:
    """One sentence for all files, given as (file, doubt), whose doubts differ in numbers only."""
    groups: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
    for file, doubt in doubtful:
        groups[re.sub(r"\d+([.,]\d+)*", "0", doubt)].append((file, doubt))
    sentences = []
    for files in groups.values():
        (file, doubt), more = files[0], len(files) - 1
        if all(other == doubt for _, other in files):
            sentences.append(f"{file}{f' and {more} more' if more else ''}: {doubt}")
        else:
            sentences.append(f"{file}: {doubt} (and {more} more like it, with other numbers)")
    return tuple(sentences)


def _read_split_lists(raw: Path, layout: str, lists: ListFiles) -> dict[str, str]:
    if layout in LAYOUTS_WITH_FOLDS:
        return {}  # the layout has read its official lists
    if lists.splits is None:
        return read_default_splits(raw)
    if not lists.splits.is_dir():
        raise UserError(f"--splits {lists.splits} is not a folder; name the folder of train.txt")
    splits = read_splits(lists.splits)
    if not splits:
        raise UserError(f"--splits {lists.splits} holds no list such as train.txt with names")
    return splits


def _examine_all(
    recordings: list[Recording], overrides: FormatOverrides, map_files: _MapFiles
) -> list[Examined | str]:
    """`examine` for all recordings; only those whose formats are unknown are sent to workers."""
    examine_one = partial(examine, overrides=overrides)
    unknown = [r for r in recordings if not (r.formats_known and overrides.leave_video_to_layout)]
    results = dict(zip(unknown, map_files(examine_one, unknown), strict=True))
    return [results.get(recording) or examine_one(recording) for recording in recordings]


def examine(recording: Recording, overrides: FormatOverrides) -> Examined | str:
    """A recording's duration and formats, or a sentence that says why it cannot be read."""
    known = recording.formats_known and overrides.leave_video_to_layout
    if known and recording.duration_s is not None:
        audio_format = AudioFormat(overrides.foa_convention)
        return Examined(0.0, recording.duration_s, VideoFormat(), audio_format)
    try:
        paths = (recording.video, recording.audio)
        media, doubts = choose_tracks(paths, probe_both(*paths), overrides, recording.flat)
        video, audio = media[0].video, media[1].audio
        if video is None:
            raise no_track(recording.file, "video", media[0], "it is no 360° video")
        timeline = shared_timeline(*media, paths[0] == paths[1], flat=recording.flat)
        end_s = recording.duration_s or timeline.planned_end_s
        if timeline.end_s <= timeline.begin_s and media[0].duration_s:
            raise ClipError(
                f"{recording.file} has picture and sound, but never together "
                f"({'; '.join(timeline.cuts)}); check that the files belong together"
            )
        if recording.flat:
            video_format = flat_video_format(recording.video, video)
            return Examined(timeline.begin_s, end_s, video_format, AudioFormat(), doubts, media)
        video_format, video_doubts = decide_video_format(recording.video, video, end_s, overrides)
        audio_format = AudioFormat()
        doubts += video_doubts
        if audio is not None:
            audio_format = decide_audio_format(recording.audio, audio, overrides)
            doubts += audio_doubts(recording.audio, media[1], audio_format)
            doubts += timeline.cuts
        return Examined(timeline.begin_s, end_s, video_format, audio_format, doubts, media)
    except ClipError as error:
        return one_sentence(error)


def _only_part(
    recording: Recording, examined: Examined, begin_s: float, end_s: float
) -> Examined | str:
    """``examined`` without what lies outside of a part of its file; a sentence if nothing is
    left."""
    if begin_s >= examined.end_s or end_s <= examined.begin_s:
        return (
            f"{recording.file} has picture and sound from {examined.begin_s:.1f} s to "
            f"{examined.end_s:.1f} s, and none from {begin_s:g} s to {end_s:g} s; choose seconds "
            "within it"
        )
    doubt: tuple[str, ...] = ()
    first_s, last_s = max(begin_s, examined.begin_s), min(end_s, examined.end_s)
    if end_s < examined.end_s - 0.05 or begin_s > examined.begin_s + 0.05:
        doubt = (f"of its {examined.end_s:.1f} s, only {first_s:.1f} s to {last_s:.1f} s are used",)
    return replace(
        examined,
        begin_s=first_s,
        end_s=last_s,
        doubts=(*examined.doubts, *doubt),
    )


def _without_replaced(
    examined: list[tuple[Recording, Examined | str]],
) -> tuple[list[tuple[Recording, Examined | str]], list[Failure]]:
    """The recordings without those that have no ambisonics, where another one of the same id has
    them, and failures for these."""
    able: dict[tuple[str, float], Recording] = {}
    for recording, result in examined:
        if _has_sound(recording, result):
            able.setdefault((recording.source, recording.start_s), recording)
    kept, failures = [], []
    for recording, result in examined:
        other = able.get((recording.source, recording.start_s))
        if other is None or isinstance(result, str) or _has_sound(recording, result):
            kept.append((recording, result))
        else:
            reason = (
                f"{recording.file} has no ambisonics, and {other.file} of the same id has; remove "
                "the first"
            )
            failures.append(Failure(recording.source, "find", reason))
    return kept, failures


def _has_sound(recording: Recording, result: Examined | str) -> bool:
    """Whether a recording was read and has the channels that it needs."""
    if isinstance(result, str):
        return False
    if recording.flat or result.media is None:
        return True
    audio = result.media[1].audio
    return audio is not None and audio.channels >= FIRST_ORDER_CHANNELS


def _windows_outside(recording: Recording, examined: Examined) -> list[Failure]:
    return [
        Failure(
            recording.source,
            "find",
            f"second {start_s:g} of {recording.file} is listed, which "
            + (
                f"ends at {examined.end_s:.1f} s"
                if start_s >= examined.end_s
                else f"begins at {examined.begin_s:.1f} s"
            )
            + "; correct the list of segments",
        )
        for start_s, length_s in recording.windows or ()
        if start_s >= examined.end_s or start_s + length_s <= examined.begin_s
    ]


def _without_duplicates(clips: Iterable[Clip]) -> tuple[list[Clip], list[Failure]]:
    """The clips without those whose key an earlier one has, and failures for these."""
    by_key: dict[str, Clip] = {}
    failures = []
    for clip in clips:
        first = by_key.setdefault(clip.key, clip)
        if first is not clip:
            reason = f"{clip.file} would get the key {clip.key} of {first.file}; remove one of them"
            failures.append(Failure(clip.source, "find", reason))
    return list(by_key.values()), failures
