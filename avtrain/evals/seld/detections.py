"""Which sources sound when and where in a recording, and DCASE's files of it."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from avtrain.errors import TrainingError
from shards.files import read_regular, write_atomic
from shards.geometry import unit_vector

FRAME_S = 0.1
"""Length of a frame, in all of DCASE's files of sounds with directions."""
_LARGEST_FILE = 64_000_000
_MOST = 1 << 31


@dataclass(frozen=True)
class Detection:
    """A source that sounds in one frame. ``azimuth_deg`` is positive to the left, ``distance_m``
    NaN where it is unknown. ``source`` tells apart sources of one class."""

    frame: int
    kind: int
    source: int
    azimuth_deg: float
    elevation_deg: float
    distance_m: float = float("nan")


@dataclass(frozen=True)
class Detections:
    """Sources that sound in a recording: R rows, one for each frame of 100 ms in which a source is
    heard, in the order of a file. Frames are counted from the recording's begin."""

    frame: NDArray[np.int64]
    kind: NDArray[np.int64]
    source: NDArray[np.int64]
    azimuth_deg: NDArray[np.float64]
    elevation_deg: NDArray[np.float64]
    distance_m: NDArray[np.float64]

    @classmethod
    def from_rows(cls, rows: Iterable[Detection]) -> Detections:
        """The rows sorted by frame; those of one frame keep their order."""
        ordered = sorted(rows, key=lambda row: row.frame)
        return cls(
            np.array([row.frame for row in ordered], np.int64),
            np.array([row.kind for row in ordered], np.int64),
            np.array([row.source for row in ordered], np.int64),
            np.array([row.azimuth_deg for row in ordered], np.float64),
            np.array([row.elevation_deg for row in ordered], np.float64),
            np.array([row.distance_m for row in ordered], np.float64),
        )

    def __len__(self) -> int:
        return len(self.frame)

    @property
    def has_distance(self) -> bool:
        """Whether the distance of every source is known."""
        return bool(np.isfinite(self.distance_m).all())


def write_dcase(detections: Detections, path: Path) -> None:
    """Write a file as DCASE's own system does, which the evaluation code of DCASE 2023 and 2024
    scores: frame, class, source, x, y, z, distance in metres (0 where it is unknown).

    (x, y, z) is the unit vector of the direction: x to the front, y to the left, z up. A recording
    without detections is an empty file.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    vectors = unit_vector(detections.azimuth_deg, detections.elevation_deg)
    for row, vector in enumerate(vectors.tolist()):
        distance_m = float(np.nan_to_num(detections.distance_m[row]))
        numbers = (detections.frame[row], detections.kind[row], detections.source[row])
        writer.writerow([*(int(number) for number in numbers), *vector, distance_m])
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, text.getvalue().encode())


def read_dcase(path: Path) -> Detections:
    """Read a file of labels or of a system's output.

    Its columns are, without a header: frame, class, azimuth, elevation; or frame, class, source,
    azimuth, elevation (STARSS22); or these and the distance in centimetres (STARSS23); or, of a
    system's output, frame, class, source, x, y, z, distance in metres (0: unknown). Raises
    TrainingError for other files.
    """
    try:
        text = read_regular(path, _LARGEST_FILE).decode()
        rows = csv.reader(io.StringIO(text, newline=""))
        return Detections.from_rows(
            _detection([float(cell) for cell in row]) for row in rows if row
        )
    except OSError as error:
        raise TrainingError(f"{path} cannot be read: {error.strerror}") from None
    except (csv.Error, ValueError, OverflowError) as error:
        raise TrainingError(
            f"{path} is no file of DCASE's task 3 ({str(error)[:80]}); give a file with 4 to 7 "
            "columns of numbers: frame, class, source, direction, distance"
        ) from None


def _direction_deg(x: float, y: float, z: float) -> tuple[float, float]:
    """Azimuth and elevation, rounded as DCASE's code does, see `metrics`."""
    elevation = np.arctan2(z, np.sqrt(x**2 + y**2)) * 180 / np.pi
    return float(np.arctan2(y, x) * 180 / np.pi), float(elevation)


def _detection(numbers: Sequence[float]) -> Detection:
    if not 4 <= len(numbers) <= 7:
        raise ValueError(f"a line has {len(numbers)} columns")
    if not all(abs(number) < _MOST for number in numbers):  # NaN is not
        raise ValueError("a number is larger than frames, classes and angles are")
    frame, kind, *rest = numbers
    source = 0.0 if len(numbers) == 4 else rest.pop(0)
    if not all(number == int(number) >= 0 for number in (frame, kind)) or source != int(source):
        raise ValueError("its frames, classes and sources are no whole numbers")
    distance_m = float("nan")
    if len(numbers) == 7:
        *vector, distance_m = rest
        azimuth, elevation = _direction_deg(*vector)
        distance_m = distance_m or float("nan")
    else:
        azimuth, elevation = rest[:2]
        distance_m = rest[2] / 100 if len(rest) > 2 else distance_m
    return Detection(int(frame), int(kind), int(source), azimuth, elevation, distance_m)
