"""Clips that are worth nothing to training: silent, static or not spatial."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from avprep.errors import ClipError
from avprep.foa.ambix import level_dbfs, spatiality
from avprep.sample.options import Cleaning

_STRIDE = 4
_WHY = {
    "level_dbfs": "it is silent",
    "change": "its picture is static",
    "spatiality": "its sound is not spatial",
}


class DroppedError(ClipError):
    """A clip that is left out because a threshold asks for it; ``numbers`` are what it has."""

    def __init__(self, reason: str, numbers: dict[str, float]) -> None:
        super().__init__(reason)
        self.numbers = numbers


class MotionMeter:
    """Small pictures of a clip's frames, a second apart."""

    def __init__(self, fps: float) -> None:
        self._every = max(1, round(fps))
        self._count = 0
        self._last: NDArray[np.int16] | None = None
        self._differences: list[float] = []

    def see(self, luma: NDArray[np.uint8 | np.uint16]) -> None:
        """Take in the next frame (height, width), of 8 bits or of 10."""
        if self._count % self._every == 0:
            still = luma[::_STRIDE, ::_STRIDE].astype(np.int16)
            if luma.dtype == np.uint16:
                still //= 4
            if self._last is not None:
                self._differences.append(float(np.abs(still - self._last).mean()))
            self._last = still
        self._count += 1

    @property
    def change(self) -> float:
        """Mean difference of grey levels between the pictures; infinite if there is only one."""
        return float(np.mean(self._differences)) if self._differences else float("inf")


def check_worth(cleaning: Cleaning, field: NDArray[np.float32], stills: MotionMeter) -> None:
    """Raises DroppedError where a clip's field (4, samples) or pictures are below a threshold."""
    numbers = {
        "level_dbfs": round(level_dbfs(field), 1),
        "change": round(min(stills.change, 255.0), 3),
        "spatiality": round(spatiality(field), 4),
    }
    reasons = [
        f"{_WHY[name]} ({name} {numbers[name]:g} is below {least:g})"
        for name, least in asdict(cleaning).items()
        if least is not None and numbers[name] < least
    ]
    if reasons:
        raise DroppedError(", ".join(reasons), numbers)
