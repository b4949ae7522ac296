"""A grid of directions over the whole sphere."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


def grid_directions(spacing_deg: float) -> NDArray[np.float64]:
    """Azimuths and elevations in degrees (V, 2) of directions that are near-uniform on the sphere:
    every direction is within ``spacing_deg`` of one of them.

    Rows of equal elevation, one at the horizon and one at each pole, at most the spacing apart; in
    a row, azimuths are that far apart along the row, so their steps grow with 1/cos(elevation). The
    way to the nearest row is at most half the spacing, and so is the way along it.
    """
    found = []
    for elevation in np.linspace(90.0, -90.0, 2 * math.ceil(90.0 / spacing_deg - 1e-9) + 1):
        around = 360.0 * math.cos(math.radians(elevation)) / spacing_deg
        count = max(1, math.ceil(around - 1e-9))
        azimuths = 360.0 * np.arange(count) / count
        azimuths[azimuths > 180.0] -= 360.0
        found += [(azimuth, elevation) for azimuth in azimuths]
    return np.round(found, 4)
