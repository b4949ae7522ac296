"""Measure whether a frame goes on across the borders of a projection, and where it has poles.

An image of the sphere is continuous across the borders of its parts: an equirectangular frame from
its right edge to its left edge, a cubemap from face to face, two fisheye circles from rim to rim.
In the right projection what one side of a border shows is found again on its other side; in a
wrong one it is not.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from avprep.sphere.projections import Projection, Sphere

Grey = NDArray[np.float64]
Indices = NDArray[np.intp]

_SAMPLES, _SECTIONS = 128, 8
"""Samples along a border, and the parts in which they are compared."""
_SIDES_PX = (0.5, 1.5)
"""Distances from a border of the pixels that are averaged on each side of it."""
_WINDOW = 17
_NOISE = 2.0
"""Grey levels that compression changes; weaker contrast shows nothing."""
_SHOWS_SOMETHING = 0.4
_AGREES = 0.3
_SEAM_DEG, _RIM_DEG = 75.0, 140.0
_CAP_DEG = 8.0
_POLE_TEXTURE = 0.15


@dataclass(frozen=True)
class Continuity:
    """How well frames go on across the borders of a projection.

    ``alike`` is the correlation of the two sides of all borders (1: the same, 0: unrelated), free
    of slow changes and with equal weight for weak and strong contrast; ``textured`` the share of
    the borders' sections that show anything, and ``agreeing`` the share of these that are alike.
    Sections without texture on either side (black, sky) count for nothing.
    """

    alike: float
    textured: float
    agreeing: float


def continuity(frames: list[Grey], sphere: Sphere, size: tuple[int, int]) -> Continuity:
    """Compare both sides of the borders that a projection has in frames of (height, width) pixels
    which were stored with ``size``."""
    height, width = frames[0].shape
    sides = _border_pixels(sphere, height, width, size)
    a, b = (
        _contrast(np.stack([frame.ravel()[side].mean(axis=0) for frame in frames]))
        for side in sides
    )
    sections = (*a.shape[:2], _SECTIONS, _SAMPLES // _SECTIONS)
    if not a.size:
        return Continuity(0.0, 0.0, 0.0)  # a frame of a few pixels
    product = (a * b).reshape(sections).sum(axis=-1)
    power = ((a * a + b * b) / 2).reshape(sections).sum(axis=-1)
    shown = power > _SHOWS_SOMETHING * _SAMPLES / _SECTIONS
    agreeing = float((product > _AGREES * power)[shown].mean()) if shown.any() else 0.0
    alike = float(product.sum() / power.sum()) if power.sum() > 0 else 0.0
    return Continuity(alike, float(shown.mean()), agreeing)


def _contrast(profile: Grey) -> Grey:
    """Profiles (..., samples) without slow changes, and with equal contrast everywhere."""
    from scipy import ndimage  # takes a while, and most builds of clips do without

    fine = profile - ndimage.uniform_filter1d(profile, _WINDOW, axis=-1)
    power = ndimage.uniform_filter1d(fine * fine, _WINDOW, axis=-1)
    return np.asarray(fine / np.sqrt(power + _NOISE**2))


@lru_cache(maxsize=64)
def _border_pixels(
    sphere: Sphere, height: int, width: int, size: tuple[int, int]
) -> tuple[Indices, Indices]:
    """Flat indices (depth, borders, samples) of the pixels on both sides of each border."""
    points, across = _borders(sphere.projection)
    step = across / sphere.density(height, width)
    a, b = (
        np.stack(
            [_pixels(sphere, points + side * d * step, height, width, size) for d in _SIDES_PX]
        )
        for side in (-1, 1)
    )
    apart = np.hypot(*np.moveaxis(a[0] - b[0], -1, 0)) > 0.1 * min(height, width)
    kept = apart.mean(axis=-1) > 0.5  # the others are no borders: the frame goes on there
    return a[:, kept] @ (width, 1), b[:, kept] @ (width, 1)


def _borders(projection: Projection) -> tuple[Grey, Grey]:
    """Points (borders, samples, 3) on the sphere along the borders, and tangents across them."""
    along = np.linspace(-1, 1, _SAMPLES + 2)[1:-1, None]
    front, left, up = np.eye(3)
    if projection == "equirect":
        angle = np.radians(_SEAM_DEG) * along
        points = np.sin(angle) * up - np.cos(angle) * front
        return points[None], (np.cos(angle) * left)[None]
    if projection == "dual-fisheye":
        angle = np.radians(_RIM_DEG) * along  # from the right, not where the circles touch
        points = np.sin(angle) * up - np.cos(angle) * left
        return points[None], np.broadcast_to(front, points.shape)[None]
    sides = np.concatenate([np.eye(3), -np.eye(3)])
    edges = [(sides[i], sides[j]) for i in range(6) for j in range(i + 1, 6) if j != i + 3]
    tangent = np.tan(np.pi / 4 * along) if projection == "eac" else along
    points = np.stack([a + b + tangent * np.cross(a, b) for a, b in edges])
    points /= np.linalg.norm(points, axis=-1, keepdims=True)
    across = np.stack([np.broadcast_to((b - a) / 2**0.5, points.shape[1:]) for a, b in edges])
    return points, across


def _pixels(
    sphere: Sphere, directions: Grey, height: int, width: int, size: tuple[int, int]
) -> NDArray[np.intp]:
    directions = directions / np.linalg.norm(directions, axis=-1, keepdims=True)
    x, y = np.moveaxis(sphere.positions(directions, *size).xy, -1, 0)
    row = np.clip((y * height).astype(int), 0, height - 1)
    return np.stack([row, np.clip((x * width).astype(int), 0, width - 1)], axis=-1)


def pole_stretch(frames: list[Grey], top: bool) -> float | None:
    """How much a frame changes along its first rows (``top``) or last rows, relative to across
    them: near 0 at a pole of an equirectangular frame, where all columns meet, and about 1
    elsewhere. None if these rows show nothing."""
    height, width = frames[0].shape
    count = max(3, round(_CAP_DEG / 180 * height))
    along = down = 0.0
    for frame in frames:
        rows = frame[: count + 1] if top else frame[::-1][: count + 1]
        along += float(np.abs(np.diff(rows[:-1], axis=1)).mean()) / len(frames)
        centred = rows - rows.mean(axis=1, keepdims=True)  # bars and horizons are no texture
        down += float(np.abs(np.diff(centred, axis=0)).mean()) / len(frames)
    if max(down, along) < _POLE_TEXTURE:
        return None
    return float(along * width / 2 / max(down * height, 1e-9))
