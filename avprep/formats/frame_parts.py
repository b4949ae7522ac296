"""Tell images of two eyes, and circles of lenses, from the pixels of a frame."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from avprep.sphere.eyes import EYE_LAYOUTS

Grey = NDArray[np.float64]

_WINDOW = 9
_NOISE = 2.0
_DISPARITY = 0.04
"""Largest shift between what two eyes see, as a share of an image's width (14° of 360°)."""
_BLOCKS = 6
_FOUND = 0.6
_TEXTURED = 0.3
_FEWEST_BLOCKS = 4
_OUTSIDE, _RING = 1.12, (0.75, 0.88)
"""Where a circle's surroundings begin, and a ring inside it, in its radii; sizes differ a little
from camera to camera."""
_UNIFORM, _SHARE = 8.0, 0.8
"""Most of the surroundings have the same grey level; the rest shows flares."""
_STEP, _LIT = 12.0, 0.6
"""Difference between ring and surroundings, and the share of the ring that differs so much."""


def split_frame(frame: Grey, rows: int, columns: int) -> list[Grey]:
    """The equal parts of a frame, row by row; what remains at its end is left out."""
    height, width = frame.shape[0] // rows, frame.shape[1] // columns
    return [
        frame[row * height : (row + 1) * height, column * width : (column + 1) * width]
        for row in range(rows)
        for column in range(columns)
    ]


def split_eyes(frame: Grey, stereo: str) -> list[Grey]:
    """The images of a frame's eyes: one, or two."""
    eyes = EYE_LAYOUTS[stereo]
    return split_frame(frame, eyes.rows, eyes.columns)


def likeness_of_eyes(frame: Grey, stereo: str) -> float:
    """The share of places in one half of a frame that the other half shows as well, a little
    shifted: nearly all of two eyes' images, and next to none of the halves of one image."""
    a, b = (_contrast(half[:, ::2][::2]) for half in split_eyes(frame, stereo))
    height, width = a.shape
    block = max(6, min(height, width) // _BLOCKS)
    power = _block_sums(a * a, block)
    best = np.zeros(power.shape)
    reach = max(2, round(width * _DISPARITY))
    powers = np.pad(b * b, ((0, 0), (reach, reach)), mode="wrap")
    padded = np.pad(b, ((0, 0), (reach, reach)), mode="wrap")
    for shift in range(2 * reach + 1):
        moved, moved_power = padded[:, shift : shift + width], powers[:, shift : shift + width]
        scale = (power + _block_sums(moved_power, block)) / 2
        best = np.maximum(best, _block_sums(a * moved, block) / np.maximum(scale, 1e-9))
    textured = power > _TEXTURED * block * block
    return float((best[textured] > _FOUND).mean()) if textured.sum() >= _FEWEST_BLOCKS else 0.0


def _contrast(image: Grey) -> Grey:
    from scipy import ndimage  # takes a while, and most builds of clips do without

    fine = image - ndimage.uniform_filter(image, _WINDOW)
    return np.asarray(fine / np.sqrt(ndimage.uniform_filter(fine * fine, _WINDOW) + _NOISE**2))


def _block_sums(image: Grey, block: int) -> Grey:
    height, width = (length // block for length in image.shape)
    whole = image[: height * block, : width * block]
    return np.asarray(whole.reshape(height, block, width, block).sum(axis=(1, 3)))


def shows_circles(frame: Grey, rows: int, columns: int) -> bool:
    """Whether a frame shows as many circles on uniform ground, as lenses give them."""
    cells = split_frame(frame, rows, columns)
    height, width = cells[0].shape
    radius = min(height, width) / 2
    y, x = np.indices((height, width)) + 0.5
    x, y = x - width / 2, y - height / 2
    distance = np.hypot(x, y) / radius
    outside = np.stack([cell[distance > _OUTSIDE] for cell in cells])
    ground = float(np.median(outside))
    if np.quantile(np.abs(outside - ground), _SHARE) > _UNIFORM:
        return False
    ring = (distance > _RING[0]) & (distance < _RING[1])
    angle = ((np.arctan2(y, x)[ring] / (2 * np.pi) + 0.5) * 32).astype(int) % 32
    counts = np.maximum(np.bincount(angle, minlength=32), 1)
    means = [np.bincount(angle, np.abs(cell[ring] - ground), 32) / counts for cell in cells]
    return min(float((mean > _STEP).mean()) for mean in means) >= _LIT
