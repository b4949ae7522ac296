"""Rectilinear (gnomonic) crops of equirectangular video, exact and free of aliasing.

Everything is computed in *edge coordinates* of a picture: (0, 0) is its upper left corner and
the centre of the pixel in column u and row v is (u + 1/2, v + 1/2). Frames are planar YUV 4:2:0
with chroma sited to the left (MPEG-2, H.264): chroma column c lies on luma column 2c, so at
2c + 1/2; chroma row r lies between two luma rows, so at 2r + 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from shards.geometry import unit_vector, view_rotation
from shards.schema import View

_LEVEL_STEP = 2.0
"""A pyramid level is used where nearly all output pixels still span this many of its pixels."""
_SAMPLING_STEP = 1.5
"""Samples of a crop lie at most this many pixels apart, so that bilinear taps leave no gaps."""
_PAD = 1

Plane = NDArray[np.uint8]
Points = NDArray[np.float64]


def view_directions(view: View, x: Points, y: Points) -> Points:
    """Unit vectors (..., 3) seen at positions of the view's picture.

    ``x`` and ``y`` run from 0 at the left and upper edge to 1 at the right and lower edge. In the
    view's own frame the point at (x, y) lies at (1, (1-2x) tan(hfov/2), (1-2y) tan(vfov/2)).
    """
    left = (1.0 - 2.0 * x) * np.tan(np.radians(view.hfov_deg) / 2.0)
    up = (1.0 - 2.0 * y) * np.tan(np.radians(view.vfov_deg) / 2.0)
    left, up = np.broadcast_arrays(left, up)
    rays = np.stack([np.ones_like(left), left, up], axis=-1)
    # The rotation takes the view's direction to the front; its transpose takes rays back.
    world = rays @ view_rotation(view.azimuth_deg, view.elevation_deg)
    return np.asarray(world / np.linalg.norm(world, axis=-1, keepdims=True))


def view_position(view: View, directions: Points) -> Points:
    """Positions (..., 2) in the view's picture, as in `view_directions`; NaN behind the camera."""
    rotated = directions @ view_rotation(view.azimuth_deg, view.elevation_deg).T
    depth = np.where(rotated[..., 0] > 0, rotated[..., 0], np.nan)
    x = (1.0 - rotated[..., 1] / depth / np.tan(np.radians(view.hfov_deg) / 2.0)) / 2.0
    y = (1.0 - rotated[..., 2] / depth / np.tan(np.radians(view.vfov_deg) / 2.0)) / 2.0
    return np.stack([x, y], axis=-1)


def equirectangular_position(directions: Points) -> Points:
    """Positions (..., 2) in a 360°×180° picture, 0 to 1 from the upper left corner."""
    azimuth = np.arctan2(directions[..., 1], directions[..., 0])
    elevation = np.arctan2(directions[..., 2], np.hypot(directions[..., 0], directions[..., 1]))
    return np.stack([0.5 - azimuth / (2 * np.pi), 0.5 - elevation / np.pi], axis=-1)


def equirectangular_directions(height: int, width: int) -> Points:
    """Unit vectors (height, width, 3) of the pixel centres of an equirectangular picture."""
    azimuth = 180.0 * (1.0 - 2.0 * (np.arange(width) + 0.5) / width)
    elevation = 90.0 * (1.0 - 2.0 * (np.arange(height) + 0.5) / height)
    return unit_vector(azimuth[None, :], elevation[:, None])


def vfov_of(hfov_deg: float, aspect: float) -> float:
    """Vertical field of view of a picture plane ``aspect`` times as wide as high."""
    return float(2 * np.degrees(np.arctan(np.tan(np.radians(hfov_deg) / 2) / aspect)))


@dataclass(frozen=True)
class _PlaneMap:
    """Where the samples of one plane of one crop lie, as cv2's fixed-point maps (1/32 pixel)."""

    whole: NDArray[np.int16]
    fraction: NDArray[np.uint16]

    def sample(self, padded: Plane, size: int) -> Plane:
        samples = cv2.remap(padded, self.whole, self.fraction, cv2.INTER_LINEAR)
        if len(samples) != size:
            samples = cv2.resize(samples, (size, size), interpolation=cv2.INTER_AREA)
        return np.asarray(samples)


@dataclass(frozen=True)
class _ViewMap:
    level: int
    luma: _PlaneMap
    chroma: _PlaneMap


class Cropper:
    """Crops of fixed size for fixed views from equirectangular YUV 4:2:0 frames of fixed size.

    The source is taken as 360°×180° whatever its aspect. Where a crop is coarser than the source,
    it is sampled from a 2×2-averaged pyramid, with several samples for each output pixel.
    """

    def __init__(
        self, source_height: int, source_width: int, views: tuple[View, ...], size: int
    ) -> None:
        if source_height % 2 or source_width % 2 or size % 2:
            raise ValueError("YUV 4:2:0 needs even picture sizes")
        self._source = (source_height, source_width)
        self._size = size
        self._views = [self._view_map(view) for view in views]
        self._levels = {view.level for view in self._views}

    def crop(self, frame: Plane) -> list[Plane]:
        """Crops (3/2·size, size), planar YUV 4:2:0, of a frame (3/2·height, width) of that kind."""
        height, width = self._source
        luma, *chroma = split_yuv420(frame, height, width)
        # Both chroma planes are sampled at the same places, so in one go.
        planes = [luma, np.asarray(cv2.merge(chroma), dtype=np.uint8)]
        pyramid = {}
        for level in range(max(self._levels) + 1):
            if level:
                planes = [_halve(plane) for plane in planes]
            if level in self._levels:
                pyramid[level] = [_pad(plane) for plane in planes]
        size, half = self._size, self._size // 2
        crops = []
        for view in self._views:
            padded_luma, padded_chroma = pyramid[view.level]
            crop = np.empty((size * 3 // 2, size), dtype=np.uint8)
            crop[:size] = view.luma.sample(padded_luma, size)
            chroma_crop = list(crop[size:].reshape(2, half, half))
            cv2.split(view.chroma.sample(padded_chroma, half), chroma_crop)
            crops.append(crop)
        return crops

    def _view_map(self, view: View) -> _ViewMap:
        size = self._size
        steps = self._steps(view)
        height, width = self._source
        level = 0
        fine_step = float(np.quantile(steps, 0.1))
        while fine_step >= 2 ** (level + 1) * _LEVEL_STEP and height % 4 == 0 and width % 4 == 0:
            height, width, level = height // 2, width // 2, level + 1
        samples = int(np.ceil(steps.max() / 2**level / _SAMPLING_STEP))
        fine = (np.arange(size * samples) + 0.5) / (size * samples)
        half_samples = size // 2 * samples
        # Chroma pixel c spans two luma pixels around 2c + 1/2, half a luma pixel to the left of
        # the place where it would lie if it were centred.
        chroma_fine = (np.arange(half_samples) + 0.5) / half_samples
        scale = 2.0**level
        full_height, full_width = self._source
        luma = equirectangular_position(view_directions(view, fine[None, :], fine[:, None]))
        chroma = equirectangular_position(
            view_directions(view, chroma_fine[None, :] - 0.5 / size, chroma_fine[:, None])
        )
        edge = np.array([full_width, full_height], dtype=np.float64)
        # From edge coordinates to pixel indices of the plane at its pyramid level. Averaging 2×2
        # keeps luma centred; left-sited chroma keeps its half *full-size* pixel of offset.
        luma_index = luma * edge / scale - 0.5
        chroma_index = (chroma * edge + np.array([0.5, 0.0])) / (2 * scale) - 0.5
        return _ViewMap(level, _fixed_point(luma_index), _fixed_point(chroma_index))

    def _steps(self, view: View) -> Points:
        """Arcs between neighbouring output pixels, in pixels of the source at its equator.

        Nearer the poles a row's pixels are crowded, but the picture on them is as smooth as the
        rows above and below, so that arcs, not pixels, tell how finely it must be sampled.
        """
        centres = (np.arange(self._size) + 0.5) / self._size
        directions = view_directions(view, centres[None, :], centres[:, None])
        height, width = self._source
        density = max(height / np.pi, width / (2 * np.pi))
        return density * np.concatenate(
            [np.linalg.norm(np.diff(directions, axis=axis), axis=-1).ravel() for axis in (0, 1)]
        )


def split_yuv420(frame: Plane, height: int, width: int) -> list[Plane]:
    """The planes Y (height, width), U and V (half of both) of a frame (3/2·height, width)."""
    flat = frame.reshape(-1)
    luma, quarter = height * width, height * width // 4
    return [
        flat[:luma].reshape(height, width),
        flat[luma : luma + quarter].reshape(height // 2, width // 2),
        flat[luma + quarter :].reshape(height // 2, width // 2),
    ]


def _fixed_point(index: Points) -> _PlaneMap:
    shifted = (index + _PAD).astype(np.float32)
    whole, fraction = cv2.convertMaps(
        np.ascontiguousarray(shifted[..., 0]), np.ascontiguousarray(shifted[..., 1]), cv2.CV_16SC2
    )
    return _PlaneMap(np.asarray(whole), np.asarray(fraction))


def _halve(plane: Plane) -> Plane:
    height, width = plane.shape[:2]
    return np.asarray(cv2.resize(plane, (width // 2, height // 2), interpolation=cv2.INTER_AREA))


def _pad(plane: Plane) -> Plane:
    """One more pixel on each side as the sphere continues: round the seam and over the poles."""
    height, width = plane.shape[:2]
    half = width // 2
    padded = np.empty((height + 2, width + 2, *plane.shape[2:]), dtype=np.uint8)
    padded[1:-1, 1:-1] = plane
    for row, inside in ((0, 0), (-1, -1)):
        padded[row, 1 : half + 1], padded[row, half + 1 : -1] = (
            plane[inside, half:],
            plane[inside, :half],
        )
    padded[:, 0], padded[:, -1] = padded[:, -2], padded[:, 1]
    return padded
