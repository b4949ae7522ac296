"""What the page shows of a sample: a record for its scripts, and the files that it loads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from avprep.foa.conventions import Matrix, rereadings
from avprep.view.panorama import panorama_from_crops
from shards.errors import ShardError, printable
from shards.geometry import ACN_CHANNELS, MIRROR, view_foa_matrix
from shards.reader import ShardSet
from shards.schema import PANORAMA, Event, SampleInfo, View, label_map_suffix

_MOST_BYTES = 1 << 30
"""Size of a sample's files; the page holds them in memory, as this program does."""
_AUDIO_BLOCK = 1 << 20
_EVENT_STEP_S = 0.1
_NAMES = {
    "ambix": "ambiX (W, Y, Z, X)",
    "fuma": "FuMa (W, X, Y, Z; W 3 dB lower)",
    "n3d": "N3D (W, Y, Z, X; Y, Z, X 4.8 dB higher)",
    "youtube": "YouTube's six channels (X, Y, W, –, Z, –)",
}
_EXCHANGED = np.eye(4)[[0, 3, 2, 1]]
_TYPES = {"mp4": "video/mp4", "flac": "audio/flac", "labels": "application/octet-stream"}


@dataclass(frozen=True)
class Origin:
    """What is known of a sample beside what its set stores: ``facts``, as (name, value), ``notes``
    in sentences, the number of the file's channels, and the indices of W, Y, Z, X if its container
    stated them."""

    facts: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    channels: int | None = None
    indices: tuple[int, int, int, int] | None = None


@dataclass(frozen=True)
class Content:
    """``record`` is JSON (`avprep/view/page/main.js` reads it); ``files`` by name."""

    record: dict[str, Any]
    files: dict[str, bytes]

    @staticmethod
    def type_of(name: str) -> str:
        """The media type of a file."""
        return _TYPES[name.rpartition(".")[2]]


def describe_sample(shards: ShardSet, sample: int, origin: Origin) -> Content:
    """What the page shows of a sample. Raises ShardError if it cannot be read, or is too large."""
    info = shards.info(sample)
    if not info.views:
        raise ShardError(f"{info.key} of {shards.root} has no views, so there is nothing to show")
    suffixes = list(_members(info))
    total = sum(shards.member_range(sample, suffix)[1] for suffix in suffixes)
    if total > _MOST_BYTES:
        raise ShardError(f"{info.key} has {total / 1e9:.1f} GB, more than a page can hold")
    _check(shards, sample)
    files = {suffix: shards.member(sample, suffix) for suffix in suffixes}
    notes = [*origin.notes, *_audio_notes(info)]
    if PANORAMA not in files:
        files[PANORAMA] = panorama_from_crops(shards, sample)
        notes.append(
            "The sample has no panorama: its picture is put together from the crops of its views, "
            "and grey elsewhere. Sets that are built with --panorama have one."
        )
    maps = _label_maps(shards, sample)
    files |= {name: content for view in maps for _, name, content in view}
    is_field = info.audio.channels == ACN_CHANNELS
    record = {
        "key": info.key,
        "facts": [*_facts(info, shards), *origin.facts],
        "notes": notes,
        "duration": info.video.frames / info.video.fps,
        "fps": info.video.fps,
        "panorama": PANORAMA,
        "crop": {"width": info.video.width, "height": info.video.height},
        "field": _audio(info, 0) if is_field else None,
        "views": [_view(info, number, maps[number]) for number in range(len(info.views))],
        "events": [_event(event) for event in info.events or ()],
        "eventStep": info.event_step_s or _EVENT_STEP_S,
        "conventions": _conventions(info, origin),
    }
    return Content(_printable(record), files)


def _members(info: SampleInfo) -> Iterator[str]:
    """The members that the page loads as they are."""
    if info.panorama is not None:
        yield PANORAMA
    for view in range(len(info.views)):
        yield f"view{view:02d}.mp4"
        if info.audio.channels and info.audio.layout == "rotated":
            yield f"view{view:02d}.flac"
    if info.audio.channels and info.audio.layout == "source":
        yield "flac"


def _check(shards: ShardSet, sample: int) -> None:
    """Raise ShardError for audio that readers refuse, and for videos of which they refuse the first
    or the last frame; a browser would show a part of it, or nothing. `avprep verify` checks all."""
    info = shards.info(sample)
    for view in range(len(info.views)):
        for frame in {0, info.video.frames - 1}:
            shards.frames(sample, view, frame, 1)
        if info.audio.channels and (info.audio.layout == "rotated" or view == 0):
            for start in range(0, info.audio.samples, _AUDIO_BLOCK):
                count = min(_AUDIO_BLOCK, info.audio.samples - start)
                shards.audio(sample, start, count, view)
    if info.panorama is not None:
        for frame in {0, info.panorama.frames - 1}:
            shards.panorama(sample, frame, 1)


def _facts(info: SampleInfo, shards: ShardSet) -> list[tuple[str, str]]:
    video, audio, read = info.video, info.audio, info.source_format or {}
    stored = "none"
    if audio.channels:
        stored = f"{', '.join(audio.channels)}, {audio.sample_rate} Hz, {audio.layout}"
    facts = [
        ("source", info.source),
        ("file", info.file or "not stated"),
        ("from", f"{info.start_s:g} s on, {info.duration_s:g} s"),
        ("split", shards.split),
        ("crops", f"{len(info.views)} of {video.width}×{video.height}, {video.fps:g} fps"),
        ("audio", stored),
        ("read as", f"{read.get('projection', '?')}, {read.get('foa_convention', '?')}"),
    ]
    if info.label is not None:
        facts.append(("label", str(info.label)))
    return facts


def _audio_notes(info: SampleInfo) -> Iterator[str]:
    channels = info.audio.channels
    if not channels:
        yield "The sample has no audio."
    elif channels != ACN_CHANNELS:
        kind = "a beam towards each view" if channels == ("M",) else "a pair of beams for each view"
        yield (
            f"The audio is {kind} ({', '.join(channels)}), not ambisonics: it is played as it is, "
            "that of view 0 until another view is opened. It does not turn, and has no energy map."
        )


def _view(info: SampleInfo, number: int, maps: list[tuple[float, str, bytes]]) -> dict[str, Any]:
    return {
        **_directions(info.views[number]),
        "video": f"view{number:02d}.mp4",
        "audio": _audio(info, number),
        "maps": [{"time": time_s, "file": name} for time_s, name, _ in maps],
    }


def _directions(view: View) -> dict[str, float]:
    return {
        "azimuth": view.azimuth_deg,
        "elevation": view.elevation_deg,
        "hfov": view.hfov_deg,
        "vfov": view.vfov_deg,
    }


def _audio(info: SampleInfo, view: int) -> dict[str, Any] | None:
    """A view's stored audio, and the matrix from its channels to the recording's field (None: it is
    no field)."""
    if not info.audio.channels:
        return None
    is_rotated = info.audio.layout == "rotated"
    matrix = np.eye(4)
    if is_rotated:
        matrix = view_foa_matrix(info.views[view].azimuth_deg, info.views[view].elevation_deg).T
    return {
        "file": f"view{view:02d}.flac" if is_rotated else "flac",
        "matrix": matrix.tolist() if info.audio.channels == ACN_CHANNELS else None,
    }


def _label_maps(shards: ShardSet, sample: int) -> list[list[tuple[float, str, bytes]]]:
    """For each view the times of its label maps, with names of files and their contents: one class
    number per pixel."""
    info = shards.info(sample)
    return [
        [
            (
                time_s,
                label_map_suffix(view, number).replace(".seg.png", ".labels"),
                shards.label_map(sample, view, number).tobytes(),
            )
            for number, time_s in enumerate(info.map_times_s or ())
        ]
        for view in range(len(info.views))
    ]


def _event(event: Event) -> dict[str, Any]:
    return {
        "time": event["time_s"],
        "class": event["class"],
        "source": event.get("source"),
        "azimuth": event["azimuth_deg"],
        "elevation": event["elevation_deg"],
        "distance": event.get("distance_m"),
        "visible": event.get("visible"),
    }


def _conventions(info: SampleInfo, origin: Origin) -> dict[str, Any]:
    """The ways in which the page reads the channels: how they were read, and what else there is."""
    decided = str((info.source_format or {}).get("foa_convention", "auto"))
    choices = [(f"as decided: {_NAMES.get(decided, 'not stated')}", np.eye(4))]
    note = (
        "What the file's channels would be, had they been read so. Which one is right? Sounds come "
        "from where their sources are seen, and stay there when you turn."
    )
    if decided == "auto":
        # So are files read whose layout states their format: six channels as YouTube's, else ambiX.
        choices[0] = ("as decided: ambiX, or YouTube's six channels", np.eye(4))
        choices += _others("ambix", None, ", if the file has four channels", ("fuma", "n3d"))
        choices += _others("youtube", None, ", if it has six", ("ambix", "fuma", "n3d"))
        note += " The sample does not say how many channels its file has."
    else:
        choices += _others(decided, origin.indices, "", ("ambix", "fuma", "n3d"))
        if decided != "youtube" and origin.channels in (None, 6):
            choices += _others(decided, origin.indices, ", without height", ("youtube",))
            note += " A sample that was read otherwise lacks the height of YouTube's six channels."
    choices += [("X and Y exchanged", _EXCHANGED), ("left and right exchanged", MIRROR)]
    return {
        "choices": [{"title": title, "matrix": matrix.tolist()} for title, matrix in choices],
        "note": note,
    }


def _others(
    decided: str,
    indices: tuple[int, int, int, int] | None,
    condition: str,
    names: tuple[str, ...],
) -> list[tuple[str, Matrix]]:
    """Titles and matrices of conventions that differ from the decided one."""
    found = rereadings(decided, indices)
    return [
        (_NAMES[name] + condition, found[name])
        for name in names
        if name in found and not np.allclose(found[name], np.eye(4))
    ]


def _printable(value: Any) -> Any:
    """JSON whose texts hold no control characters and no marks that turn the way of writing."""
    if isinstance(value, dict):
        return {key: _printable(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_printable(one) for one in value]
    return printable(value) if isinstance(value, str) else value
