"""Maps over the sphere: scores of views interpolated between their centres, and the energy of
sound towards every direction.

Maps are equirectangular (HEIGHT, WIDTH); azimuth 0 is in the middle and grows to the left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shards.geometry import unit_vector
from shards.schema import View

HEIGHT, WIDTH = 120, 240
_OF_SPACING, _OF_VIEW = 0.6, 1 / 3
"""Shares of the angle between neighbouring views and of their field of view; the larger one is the
kernel's width. Narrower than the first, peaks stick to the grid. A view shows a source in half of
its field of view around its middle, so that nothing narrower than the second is known; what differs
from view to view within it is mostly noise (docs/locate.md)."""

Map = NDArray[np.float32]


def pixel_angles(height: int = HEIGHT) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Azimuths (2 height,) of the columns and elevations (height,) of the rows of an
    equirectangular picture, at the middles of its pixels, in degrees."""
    azimuth = 180.0 * (1 - (np.arange(2 * height) + 0.5) / height)
    return azimuth, 90.0 * (1 - 2 * (np.arange(height) + 0.5) / height)


def pixel_directions(height: int = HEIGHT) -> NDArray[np.float64]:
    """Unit vectors (height, 2 height, 3) of the pixels of an equirectangular picture."""
    azimuth, elevation = pixel_angles(height)
    return unit_vector(azimuth[None], elevation[:, None])


def centres(views: Sequence[View]) -> NDArray[np.float64]:
    """Unit vectors (V, 3) of the centres of views."""
    return unit_vector([view.azimuth_deg for view in views], [view.elevation_deg for view in views])


@dataclass(frozen=True)
class Peak:
    """The highest value of a map, and where it is."""

    azimuth_deg: float
    elevation_deg: float
    value: float

    @property
    def direction(self) -> NDArray[np.float64]:
        return unit_vector(self.azimuth_deg, self.elevation_deg)


def find_peak(values: Map) -> Peak:
    """The peak of a map (HEIGHT, WIDTH), the first of several; NaN is nowhere the highest."""
    row, column = np.unravel_index(int(np.nanargmax(values)), values.shape)
    azimuth, elevation = pixel_angles(len(values))
    return Peak(float(azimuth[column]), float(elevation[row]), float(values[row, column]))


class SphereMap:
    """Scores of views as maps.

    The value at a direction d is the mean of the scores, weighted with exp((cos a - 1) / s²) of the
    angle a from d to each view's centre: the regression of Nadaraya and Watson (1964) with the
    kernel of von Mises and Fisher (Mardia and Jupp, Directional Statistics, 2000). s is 0.6 of the
    median angle from a view to the next one, or a third of their field of view if that is more.
    Where all scores are equal, so is the map, and it is nowhere outside of their range. Directions
    that no view shows are NaN.
    """

    def __init__(self, views: Sequence[View]) -> None:
        middles = centres(views)
        between = np.clip(middles @ middles.T, -1.0, 1.0)
        np.fill_diagonal(between, -1.0)
        spacing = float(np.median(np.arccos(between.max(axis=1))))
        fields = np.radians([max(view.hfov_deg, view.vfov_deg) for view in views])
        width = max(_OF_SPACING * spacing, _OF_VIEW * float(np.median(fields)))
        self._weights = np.empty((HEIGHT, WIDTH, len(views)), np.float32)
        self._unseen = np.empty((HEIGHT, WIDTH), np.bool_)
        reach = np.cos(fields / 2)
        for row, directions in enumerate(pixel_directions()):  # row by row: there may be many views
            cosine = directions @ middles.T
            self._unseen[row] = (cosine < reach).all(axis=1)
            weight = np.exp((cosine - cosine.max(axis=1, keepdims=True)) / width**2)
            self._weights[row] = weight / weight.sum(axis=1, keepdims=True)

    def __call__(self, scores: NDArray[np.float64]) -> Map:
        """The map of scores (V,)."""
        values = self._weights @ scores.astype(np.float32)
        values[self._unseen] = np.nan
        return np.asarray(values)


_BEAMS = np.concatenate([np.ones((HEIGHT, WIDTH, 1)), pixel_directions()[..., [1, 2, 0]]], axis=-1)
_PAIRS = (_BEAMS[..., :, None] * _BEAMS[..., None, :]).reshape(HEIGHT, WIDTH, 16) / 4


def energy_map(covariance: NDArray[np.float64]) -> Map:
    """Mean energy of a cardioid beam towards every direction, from the covariance (4, 4) of
    ambisonics (ACN, SN3D): with b = (1, d_y, d_z, d_x) / 2, the quadratic form bᵀ C b."""
    return np.asarray(_PAIRS @ covariance.reshape(16), dtype=np.float32)


def mean_angle_deg(targets: NDArray[np.float64]) -> float:
    """Chance: the mean angle from any direction to the nearest of ``targets`` (N, 3)."""
    directions = pixel_directions(60)
    area = np.cos(np.radians(pixel_angles(60)[1]))
    angles = np.degrees(np.arccos(np.clip(directions @ targets.T, -1.0, 1.0))).min(axis=-1)
    return float(np.average(angles.mean(axis=1), weights=area))
