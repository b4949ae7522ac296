"""Which part of a frame shows the left eye's image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class EyeLayout:
    """Images of eyes in a frame: ``rows`` and ``columns`` of them, and the ``row`` and ``column``
    of the left eye's."""

    rows: int = 1
    columns: int = 1
    row: int = 0
    column: int = 0


EYE_LAYOUTS = {
    "mono": EyeLayout(),
    "top-bottom": EyeLayout(rows=2),
    "left-right": EyeLayout(columns=2),
    "bottom-top": EyeLayout(rows=2, row=1),
    "right-left": EyeLayout(columns=2, column=1),
}
"""By name, which says where the left eye's image is, then where the right eye's is."""


def left_eye(image: NDArray[Any], stereo: str) -> NDArray[Any]:
    """The part of an upright image (height, width, …) that shows the left eye's."""
    eyes = EYE_LAYOUTS[stereo]
    height, width = image.shape[0] // eyes.rows, image.shape[1] // eyes.columns
    left, top = eyes.column * width, eyes.row * height
    return np.asarray(image[top : top + height, left : left + width])
