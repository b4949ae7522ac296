"""The crops of a sample mapped back to the sphere."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from avprep.sphere.crop import equirectangular_directions, view_position
from shards.schema import View

UNSEEN = 60
"""Grey level of what no view shows."""

Image = NDArray[np.uint8]


class Mosaic:
    """Maps crops of fixed views and size (height, width) to an equirectangular image of
    ``height`` × 2·``height`` pixels, each the nearest of a crop. Where views overlap, the later one
    is shown; what none shows is grey."""

    def __init__(self, views: Sequence[View], crop_size: tuple[int, int], height: int) -> None:
        self._height = height
        directions = equirectangular_directions(height, 2 * height)
        self._places = []
        for view in views:
            position = view_position(view, directions)
            inside = np.all((position > 0) & (position < 1), axis=-1)
            column, row = (position[inside] * crop_size[::-1]).astype(int).T
            self._places.append((inside, row, column))

    def paint(self, crops: Sequence[Image]) -> Image:
        """The image (height, 2·height, 3) of one crop (rows, columns, 3) for each view."""
        sphere = np.full((self._height, 2 * self._height, 3), UNSEEN, dtype=np.uint8)
        for (inside, row, column), crop in zip(self._places, crops, strict=True):
            sphere[inside] = crop[row, column]
        return sphere
