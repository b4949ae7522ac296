"""Dropping clips that are of no use for training: silent, static or not spatial."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from avprep.errors import ClipError
from avprep.foa.ambix import level_dbfs, spatiality
from avprep.sample.options import Cleaning

_PIXEL_STRIDE = 4
_REASONS = {
    "level_dbfs": "it is silent",
    "change": "its picture is static",
    "spatiality": "its sound is not spatial",
}


class DroppedError(ClipError):
    """A clip that is left out because it is below a threshold; ``numbers`` are its measurements."""

    def __init__(self, reason: str, numbers: dict[str, float]) -> None:
        super().__init__(reason)
        self.numbers = numbers


class MotionMeter:
    """Measures how much a clip's frames change within a second."""

    def __init__(self, fps: float) -> None:
        self._stride = max(1, round(fps))
        self._frames = 0
        self._previous: NDArray[np.int16] | None = None
        self._differences: list[float] = []

    def add(self, luma: NDArray[np.uint8 | np.uint16]) -> None:
        """Take in the next frame's luma (height, width), of 8 or 10 bits."""
        if self._frames % self._stride == 0:
            small = luma[::_PIXEL_STRIDE, ::_PIXEL_STRIDE].astype(np.int16)
            if luma.dtype == np.uint16:
                small //= 4
            if self._previous is not None:
                self._differences.append(float(np.abs(small - self._previous).mean()))
            self._previous = small
        self._frames += 1

    @property
    def change(self) -> float:
        """Mean absolute difference of grey levels (0 to 255) between frames a second apart;
        infinite for clips of less than a second."""
        return float(np.mean(self._differences)) if self._differences else float("inf")


def check_thresholds(cleaning: Cleaning, field: NDArray[np.float32], motion: MotionMeter) -> None:
    """Raises DroppedError if a clip's field (4, samples) or motion is below a threshold."""
    numbers = {
        "level_dbfs": round(level_dbfs(field), 1),
        "change": round(min(motion.change, 255.0), 3),
        "spatiality": round(spatiality(field), 4),
    }
    reasons = [
        f"{_REASONS[name]} ({name} {numbers[name]:g} is below {threshold:g})"
        for name, threshold in asdict(cleaning).items()
        if threshold is not None and numbers[name] < threshold
    ]
    if reasons:
        raise DroppedError(", ".join(reasons), numbers)
