"""Sound events with directions: labels in time that come with recordings."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from math import ceil, isfinite
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from avprep.errors import ClipError
from shards.files import open_regular, parse_json, read_regular
from shards.geometry import direction_deg, unit_vector
from shards.schema import Event

WORLD_FORMAT = "avsa360-world"
"""Value of the first key in a truth file of the generated world, which identifies it."""
_STARSS_STEP_S = 0.1
_WORLD_STEP_S = 0.2  # half the bytes of 0.1 s; nothing in that world moves more than 8° in it
_LIMIT_BYTES = 64_000_000
_MAX_NUMBER = 1 << 31
"""Classes and sources beyond it are no numbers of either dataset."""

_Number = Annotated[int, Meta(ge=0, lt=_MAX_NUMBER)]
_Distance = Annotated[float, Meta(gt=0, le=1e6)]
_Angles = tuple[Annotated[float, Meta(ge=-360, le=360)], ...]


@dataclass(frozen=True)
class _TruthObject:
    """What is used of an object in a truth file; lists have one item for each video frame."""

    id: _Number
    kind_index: _Number
    visible: bool
    azimuth_deg: _Angles
    elevation_deg: _Angles
    active: tuple[bool, ...]
    distance_m: tuple[_Distance, ...] | None = None


@dataclass(frozen=True)
class _Truth:
    fps: Annotated[float, Meta(gt=0)]
    frames: _Number
    objects: tuple[_TruthObject, ...]
    reverberation_rt60_s: Annotated[float, Meta(ge=0, le=1000)] | None = None

    def __post_init__(self) -> None:
        for item in self.objects:
            lists = (item.azimuth_deg, item.elevation_deg, item.active, item.distance_m)
            lengths = {len(values) for values in lists if values is not None}
            if lengths != {self.frames}:
                raise ValueError(f"an object has other numbers of items than {self.frames} frames")


def is_world_truth(path: Path) -> bool:
    """Whether a file is a truth file of the generated world, by its first bytes. One that cannot
    be opened counts as one, so that `read_events` says why."""
    head = f'{{"format": "{WORLD_FORMAT}"'.encode()
    try:
        with open_regular(path) as file:
            return file.read(len(head)) == head
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True


def read_events(path: Path, start_s: float, duration_s: float) -> tuple[list[Event], float]:
    """The sound events in a window of a recording, and the time step between them in seconds.

    ``path`` is a truth file of the generated world (``.json``) or a STARSS label file. ``time_s``
    counts from the window's start; azimuth is positive to the left. Raises ClipError for other
    files.
    """
    if path.suffix == ".json":
        return read_world_events(path, start_s, duration_s), _WORLD_STEP_S
    return read_starss_events(path, start_s, duration_s), _STARSS_STEP_S


def read_world_events(path: Path, start_s: float, duration_s: float) -> list[Event]:
    """The sounding objects of a generated clip, for each time step of a window.

    Objects and their directions are those in the middle of the step; ``time_s`` is its beginning.
    ``class`` is the value of the object's kind in label maps; objects that cannot be seen have
    ``"visible": false``, and those of hard worlds ``distance_m``. Raises ClipError for a file that
    is not from this world.
    """
    truth = _read_truth(path)
    events = []
    for step in range(ceil(duration_s / _WORLD_STEP_S - 1e-6)):
        frame = (start_s + (step + 0.5) * _WORLD_STEP_S) * truth.fps
        if frame >= truth.frames:
            break
        events += [
            _world_event(item, step * _WORLD_STEP_S, frame)
            for item in truth.objects
            if item.active[int(frame)]
        ]
    return events


def read_reverberation(path: Path) -> float | None:
    """Reverberation time (RT60) in seconds that a recording's labels state; None if they do not.

    Truth files of easy worlds count as not stating it: sets of those worlds keep their bytes.
    Raises ClipError for a ``.json`` file that is not from a generated world.
    """
    if path.suffix != ".json":
        return None
    truth = _read_truth(path)
    has_distances = any(item.distance_m is not None for item in truth.objects)
    return truth.reverberation_rt60_s if has_distances else None


def _read_truth(path: Path) -> _Truth:
    try:
        return parse_json(_read(path), _Truth)
    except ValueError as error:
        raise ClipError(
            f"{path.name} is not a truth file of a generated clip ({error}); generate it again, "
            "or remove it to build without labels"
        ) from None


def _read(path: Path) -> bytes:
    try:
        return read_regular(path, _LIMIT_BYTES)
    except OSError as error:
        raise ClipError(
            f"{path.name} cannot be read: {error.strerror}; put the recording's own labels there, "
            "or remove it to build without labels"
        ) from None


def _world_event(item: _TruthObject, time_s: float, frame: float) -> Event:
    """``frame`` is the time in frames; the direction is interpolated between two frames."""
    frames = slice(int(frame), int(frame) + 2)
    directions = unit_vector(item.azimuth_deg[frames], item.elevation_deg[frames])
    weight = frame - int(frame)
    azimuth_deg, elevation_deg = direction_deg(
        (1 - weight) * directions[0] + weight * directions[-1]
    )
    event: Event = {
        "time_s": round(time_s, 3),
        "class": item.kind_index,
        "source": item.id,
        "azimuth_deg": round(float(azimuth_deg), 1),
        "elevation_deg": round(float(elevation_deg), 1),
    }
    if item.distance_m is not None:
        event["distance_m"] = round(item.distance_m[int(frame)], 2)
    return event if item.visible else event | {"visible": False}


def read_starss_events(path: Path, start_s: float, duration_s: float) -> list[Event]:
    """The sound events in a window of a STARSS22 or STARSS23 recording.

    The CSV has no header. Its columns are frame (of 100 ms), class, azimuth, elevation; or frame,
    class, source, azimuth, elevation; or these and the distance in cm. ``time_s`` counts from the
    window's start; azimuth is positive to the left. Raises ClipError for other files.
    """
    events = []
    content = _read(path)
    try:
        for row in csv.reader(io.StringIO(content.decode(), newline="")):
            if not row:
                continue
            numbers = [float(cell) for cell in row]
            if not 4 <= len(numbers) <= 6:
                raise ValueError(f"a line has {len(numbers)} columns instead of 4 to 6")
            if not all(map(isfinite, numbers)):
                raise ValueError("not all of its numbers are finite")
            if max(map(abs, numbers)) >= _MAX_NUMBER:
                raise ValueError("one of its numbers is larger than frames, classes and angles are")
            counted = numbers[: 2 if len(numbers) == 4 else 3]
            if not all(number == int(number) >= 0 for number in counted):
                raise ValueError("not all frames, classes and sources are whole numbers from 0 on")
            time_s = numbers[0] * _STARSS_STEP_S - start_s
            if -1e-6 <= time_s < duration_s - 1e-6:
                events.append(_starss_event(time_s, numbers))
    except (csv.Error, ValueError, IndexError) as error:
        raise ClipError(
            f"{path.name} is not a STARSS label file ({str(error)[:80]}); download it again, or "
            "remove it to build without labels"
        ) from None
    return events


def _starss_event(time_s: float, numbers: list[float]) -> Event:
    time_s, kind = round(time_s, 3), int(numbers[1])
    if len(numbers) == 4:
        azimuth_deg, elevation_deg = numbers[2:]
        return {
            "time_s": time_s,
            "class": kind,
            "azimuth_deg": azimuth_deg,
            "elevation_deg": elevation_deg,
        }
    event: Event = {
        "time_s": time_s,
        "class": kind,
        "source": int(numbers[2]),
        "azimuth_deg": numbers[3],
        "elevation_deg": numbers[4],
    }
    if len(numbers) > 5 and numbers[5] > 0:  # 0 where it is unknown
        event["distance_m"] = numbers[5] / 100
    return event
