"""Labels in time that come with recordings."""

from __future__ import annotations

import csv
from math import isfinite
from pathlib import Path
from typing import Any

from avprep.errors import ClipError

_FRAME_S = 0.1


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
                time_s = numbers[0] * _FRAME_S - start_s
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
