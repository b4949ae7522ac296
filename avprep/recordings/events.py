"""Labels in time that come with recordings."""

from __future__ import annotations

import csv
import json
from math import ceil, isfinite
from pathlib import Path
from typing import Any

from avprep.errors import ClipError
from shards.geometry import direction_deg, unit_vector

WORLD_FORMAT = "avsa360-world"
"""First in a truth file of the generated world, so that no other file is taken for one."""
_STARSS_STEP_S = 0.1
_WORLD_STEP_S = 0.2  # half the bytes of 0.1, and nothing there moves more than 8° in it


def is_world_truth(path: Path) -> bool:
    """Whether a file says that it is the generated world's truth of a clip."""
    head = json.dumps({"format": WORLD_FORMAT})[:-1].encode()
    try:
        with open(path, "rb") as file:
            return file.read(len(head)) == head
    except OSError:
        return False


def events_of(path: Path, start_s: float, duration_s: float) -> tuple[list[dict[str, Any]], float]:
    """What sounds where within a window of a recording, and the seconds from step to step.

    ``path`` is a truth file of the generated world (``.json``), or of STARSS. ``time_s`` counts
    from the window's start; azimuth is positive to the left. Raises ClipError for another file.
    """
    if path.suffix == ".json":
        return world_events(path, start_s, duration_s), _WORLD_STEP_S
    return starss_events(path, start_s, duration_s), _STARSS_STEP_S


def world_events(path: Path, start_s: float, duration_s: float) -> list[dict[str, Any]]:
    """The objects of a generated clip that sound in the middle of each step of a window of it, and
    where they are then, with ``"visible": false`` where they cannot be seen. ``time_s`` is the
    step's begin, ``class`` the kind's value in label maps.

    Raises ClipError for a file that is no truth of that world.
    """
    events = []
    try:
        truth = json.loads(path.read_bytes())
        for step in range(ceil(duration_s / _WORLD_STEP_S - 1e-6)):
            place = (start_s + (step + 0.5) * _WORLD_STEP_S) * truth["fps"]
            if place >= truth["frames"]:
                break
            events += [
                _world_event(item, step * _WORLD_STEP_S, place)
                for item in truth["objects"]
                if item["active"][int(place)]
            ]
    except (OSError, ArithmeticError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise ClipError(
            f"{path.name} is no truth of a generated clip ({error!r:.80}); generate it again, or "
            "take it away to build without labels"
        ) from None
    return events


def _world_event(item: dict[str, Any], time_s: float, place: float) -> dict[str, Any]:
    """``place`` is the moment, in frames."""
    around = slice(int(place), int(place) + 2)
    near = unit_vector(item["azimuth_deg"][around], item["elevation_deg"][around])
    share = place - int(place)
    azimuth_deg, elevation_deg = direction_deg((1 - share) * near[0] + share * near[-1])
    if not (isfinite(azimuth_deg) and isfinite(elevation_deg)):
        raise ValueError("not all of its numbers are finite")
    event: dict[str, Any] = {
        "time_s": round(time_s, 3),
        "class": int(item["kind_index"]),
        "source": int(item["id"]),
        "azimuth_deg": round(float(azimuth_deg), 1),
        "elevation_deg": round(float(elevation_deg), 1),
    }
    return event if item["visible"] else event | {"visible": False}


def starss_events(path: Path, start_s: float, duration_s: float) -> list[dict[str, Any]]:
    """What sounds where within a window of a STARSS22 or STARSS23 recording.

    The CSV has no header: frame (of 100 ms), class, azimuth, elevation; or frame, class, source,
    azimuth, elevation; or these and the distance in cm. ``time_s`` counts from the window's start;
    azimuth is positive to the left. Raises ClipError for another file.
    """
    events = []
    try:
        with open(path, newline="") as file:
            for row in csv.reader(file):
                if not row:
                    continue
                numbers = [float(cell) for cell in row]
                if not all(map(isfinite, numbers)):
                    raise ValueError("not all of its numbers are finite")
                time_s = numbers[0] * _STARSS_STEP_S - start_s
                if -1e-6 <= time_s < duration_s - 1e-6:
                    events.append(_event(time_s, numbers))
    except (OSError, csv.Error, ValueError, IndexError) as error:
        raise ClipError(
            f"{path.name} is no STARSS label file ({str(error)[:80]}); download it again, or take "
            "it away to build without labels"
        ) from None
    return events


def _event(time_s: float, numbers: list[float]) -> dict[str, Any]:
    event: dict[str, Any] = {"time_s": round(time_s, 3), "class": int(numbers[1])}
    if len(numbers) == 4:
        event |= {"azimuth_deg": numbers[2], "elevation_deg": numbers[3]}
        return event
    event |= {"source": int(numbers[2]), "azimuth_deg": numbers[3], "elevation_deg": numbers[4]}
    if len(numbers) > 5:
        event["distance_m"] = numbers[5] / 100
    return event
