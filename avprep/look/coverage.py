"""How much of a dataset's official list is in a folder: usable, unusable and why, missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

from tqdm import tqdm

from avprep.errors import ClipError, one_sentence
from avprep.formats.choose_tracks import choose_tracks
from avprep.formats.decide import FormatOverrides
from avprep.look.official_list import Entry, OfficialList, parse_entry
from avprep.media.probe import probe_both
from avprep.media.timeline import shared_timeline
from avprep.recordings.find_clips import FIRST_ORDER_CHANNELS, examine
from avprep.recordings.layouts import FoundRecordings, find_recordings
from avprep.recordings.recording import Failure, Recording
from avprep.workers import WorkerPool

_USABLE, _MISSING = "usable", "missing"
_DOES_NOT_OPEN = "does not open"
_NO_PICTURE = "no picture"
_NO_SOUND = "no sound"
_NO_AMBISONICS = "sound without ambisonics"
_UNREADABLE_FORMAT = "cannot be read as it is"
_MISPLACED = "not as the layout has it"
_TOO_SHORT = "ends before the listed second"

_SAME_START_S = 0.5
_FILES_FOR_PROGRESS_BAR = 10
_TIMEOUT_S = 600.0


@dataclass(frozen=True)
class Held:
    """A recording in the folder, or a part of a listed one from ``start_s`` on (None: all of it):
    the second at which it ends, and why it cannot be used, in short and in a sentence, if so."""

    source: str
    start_s: float | None
    file: str
    end_s: float = inf
    reason: str = ""
    detail: str = ""


@dataclass(frozen=True)
class Counts:
    """How many are listed, and of these usable and missing; the others count by the reason for
    which they cannot be used."""

    listed: int
    usable: int
    missing: int
    unusable: dict[str, int]


@dataclass(frozen=True)
class Coverage:
    """What a folder holds of a list; ``clips`` is None if the list names whole recordings.

    ``unusable`` are the listed ones that cannot be used; ``missing`` are the ids of which
    something is not there. ``not_listed`` is the number of recordings that no list names.
    ``not_read`` and ``unreadable`` are sentences on other files, and on folders.
    """

    layout: str
    recordings: Counts
    clips: Counts | None
    unusable: tuple[Held, ...]
    missing: tuple[str, ...]
    not_listed: int
    not_read: str | None
    unreadable: tuple[str, ...]


def measure_coverage(raw: Path, layout: str, listed: OfficialList, workers: int) -> Coverage:
    """Compare the recordings in ``raw`` with a list. Raises UserError if ``raw`` is no folder."""
    found = find_recordings(raw, layout, may_be_empty=True)
    held, not_listed = _examine_listed(found, listed, workers)
    by_source: dict[str, list[Held]] = {}
    for item in held:
        by_source.setdefault(item.source, []).append(item)
    recordings, clips = Counter[str](), Counter[str]()
    missing: list[str] = []
    for source, starts in listed.starts.items():
        states = [_state(by_source.get(source, ()), start_s) for start_s in starts or (None,)]
        recordings[min(states, key=_rank)] += 1
        if starts:
            clips.update(states)
        if _MISSING in states:
            missing.append(source)
    return Coverage(
        found.layout,
        _counts(recordings),
        _counts(clips) if clips else None,
        tuple(_in_order(by_source, listed)),
        tuple(missing),
        not_listed,
        found.not_read,
        found.unreadable,
    )


def _in_order(by_source: dict[str, list[Held]], listed: OfficialList) -> Iterator[Held]:
    """What cannot be used, in the order of the list."""
    for source in listed.starts:
        held = sorted(by_source.get(source, ()), key=lambda item: item.start_s or 0.0)
        for item in held:
            if item.reason and _state(held, item.start_s) != _USABLE:
                yield item


def _state(held: Iterable[Held], start_s: float | None) -> str:
    """``usable``, ``missing``, or why what there is cannot be used."""
    states = [_MISSING]
    for item in held:
        if start_s is None or item.start_s is None:
            is_there = start_s is None or start_s < item.end_s
            states.append(item.reason or (_USABLE if is_there else _TOO_SHORT))
        elif abs(item.start_s - start_s) < _SAME_START_S:
            states.append(item.reason or _USABLE)
    return min(states, key=_rank)


def _rank(state: str) -> int:
    return {_USABLE: 0, _MISSING: 2}.get(state, 1)


def _counts(states: Counter[str]) -> Counts:
    reasons = {
        reason: count for reason, count in states.most_common() if reason not in (_USABLE, _MISSING)
    }
    return Counts(states.total(), states[_USABLE], states[_MISSING], reasons)


def _examine_listed(
    found: FoundRecordings, listed: OfficialList, workers: int
) -> tuple[list[Held], int]:
    """What is there of the listed sources, and the number of recordings that are not listed."""
    held = []
    matched: list[tuple[Recording, Entry]] = []
    not_listed = 0
    for recording in found.recordings:
        entry = _match(listed, recording.file, recording.source)
        if entry is None:
            not_listed += 1
        else:
            matched.append((recording, entry))
    for failure in found.failures:
        entry = _match(listed, *_names(failure))
        if entry is not None:
            reason = _NO_SOUND if "no audio file" in failure.reason else _MISPLACED
            held.append(Held(*entry, failure.source, inf, reason, failure.reason))
        elif failure.reason not in found.unreadable:
            not_listed += 1
    recordings = [recording for recording, _ in matched]
    with (
        WorkerPool(max(1, min(workers, len(recordings))), _TIMEOUT_S) as pool,
        tqdm(
            total=len(recordings),
            unit="recording",
            disable=len(recordings) < _FILES_FOR_PROGRESS_BAR,
        ) as bar,
    ):
        answers = pool.map(_condition, recordings, bar.update)
    for (recording, (source, start_s)), answer in zip(matched, answers, strict=True):
        end_s, reason, detail = (
            (inf, _DOES_NOT_OPEN, f"{recording.file}: {answer}")
            if isinstance(answer, str)
            else answer
        )
        held.append(Held(source, start_s, recording.file, end_s, reason, detail))
    return held, not_listed


def _match(listed: OfficialList, *names: str) -> Entry | None:
    """The first of the names' entries whose source is listed."""
    entries = (parse_entry(name) for name in names)
    return next((entry for entry in entries if entry[0] in listed.starts), None)


def _names(failure: Failure) -> tuple[str, ...]:
    """The file that a failure is about, with which its sentence begins, and its source."""
    return failure.reason.partition(" has ")[0], failure.source


def _condition(recording: Recording) -> tuple[float, str, str]:
    """The second at which a recording ends; and why a build could not use it, in short and in a
    sentence, both empty if it can."""
    overrides = FormatOverrides()
    paths = (recording.video, recording.audio)
    try:
        media = probe_both(*paths)
    except ClipError as error:
        return inf, _DOES_NOT_OPEN, one_sentence(error)
    if not any(not track.is_still for track in media[0].tracks.videos):
        return inf, _NO_PICTURE, f"{recording.file} has no video track"
    audios = media[1].tracks.audios
    channels = [track.channels for track in audios]
    if not recording.flat and max(channels, default=0) < FIRST_ORDER_CHANNELS:
        if not channels:
            return inf, _NO_SOUND, f"{recording.file} has no audio track, nor a file beside it"
        described = " and ".join(track.description for track in audios)
        return inf, _NO_AMBISONICS, f"{recording.audio.name} has {described} only"
    try:
        if recording.formats_known:
            media, _ = choose_tracks(paths, media, overrides, recording.flat)
            timeline = shared_timeline(*media, paths[0] == paths[1], flat=recording.flat)
            return timeline.planned_end_s, "", ""
        examined = examine(recording, overrides)
    except ClipError as error:
        examined = one_sentence(error)
    if isinstance(examined, str):
        return inf, _UNREADABLE_FORMAT, examined
    return examined.end_s, "", ""


def as_table(coverage: Coverage) -> list[str]:
    """Lines of a table for the terminal: recordings, and clips if the list names them."""
    kinds = [("recordings", coverage.recordings)]
    if coverage.clips is not None:
        kinds.append(("clips", coverage.clips))
    reasons = list(dict.fromkeys(reason for _, counts in kinds for reason in counts.unusable))
    rows = [("listed", [counts.listed for _, counts in kinds])]
    rows.append((_USABLE, [counts.usable for _, counts in kinds]))
    for reason in reasons:
        rows.append((reason, [counts.unusable.get(reason, 0) for _, counts in kinds]))
    rows.append((_MISSING, [counts.missing for _, counts in kinds]))
    width = max(len(name) for name, _ in rows)
    lines = [" " * width + "".join(name.rjust(12) for name, _ in kinds)]
    lines += [name.ljust(width) + "".join(str(n).rjust(12) for n in row) for name, row in rows]
    if coverage.not_listed:
        lines.append(f"in the folder, but not listed: {coverage.not_listed}")
    return lines


def as_json(coverage: Coverage) -> dict[str, Any]:
    def record(counts: Counts | None) -> dict[str, Any] | None:
        return None if counts is None else vars(counts)

    return {
        "layout": coverage.layout,
        "recordings": record(coverage.recordings),
        "clips": record(coverage.clips),
        "not_listed": coverage.not_listed,
        "unusable": [
            {
                "id": item.source,
                "start_s": item.start_s,
                "file": item.file,
                "reason": item.reason,
                "detail": item.detail,
            }
            for item in coverage.unusable
        ],
        "missing": list(coverage.missing),
    }
