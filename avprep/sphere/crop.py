"""Rectilinear (gnomonic) crops and panoramas of 360° video, exact and free of aliasing.

All positions are *edge coordinates* of a frame: (0, 0) is its upper left corner, and the centre of
the pixel in column u and row v is (u + 1/2, v + 1/2). Frames are planar YUV 4:2:0 with left-sited
chroma (MPEG-2, H.264): chroma column c lies on luma column 2c, at 2c + 1/2; chroma row r lies
between two luma rows, at 2r + 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from avprep.sphere.projections import FramePositions, Sphere
from shards.geometry import unit_vector, view_rotation
from shards.schema import View

_LEVEL_STEP = 2.0
"""A pyramid level is used if nearly all output pixels still span this many of its pixels."""
_SINGLE_STEP, _SAMPLING_STEP = 1.55, 2.5
"""Output pixels that span up to the first number of level pixels take one sample; larger ones take
samples at most the second number apart, whose average fills the gaps between bilinear taps."""
_GRID_POINTS = 15
"""Points per side of the grid at which pixel spacing is measured; odd, to include the middle."""
_MAX_MAP_ROWS = 1 << 14
"""OpenCV accepts maps of fewer than 2^15 rows."""
FRAMES_AT_ONCE = 4
"""Number of frames that `crop_frames` crops fastest together."""
_MAX_MERGED_PIXELS_PER_SAMPLE = 8
_BLACK, _NEUTRAL_CHROMA = 16, 128

Plane = NDArray[np.uint8 | np.uint16]
"""8 bits per pixel, or 10 bits in 16."""
Map = NDArray[np.float32]
Points = NDArray[np.float64]


def view_directions(view: View, x: Points, y: Points) -> Points:
    """Unit vectors (..., 3) seen at positions in a view.

    ``x`` and ``y`` run from 0 at the left and upper edge to 1 at the right and lower edge. In the
    view's own frame the point at (x, y) lies at (1, (1-2x) tan(hfov/2), (1-2y) tan(vfov/2)).
    """
    left = (1.0 - 2.0 * x) * np.tan(np.radians(view.hfov_deg) / 2.0)
    up = (1.0 - 2.0 * y) * np.tan(np.radians(view.vfov_deg) / 2.0)
    # The rotation brings the view's direction to the front; its transpose takes rays back. Written
    # out instead of `@` and `norm`: these take twice as long, and BLAS differs between machines.
    axes = view_rotation(view.azimuth_deg, view.elevation_deg).T
    length = np.sqrt(1.0 + left * left + up * up)
    return np.stack([(a + b * left + c * up) / length for a, b, c in axes], axis=-1)


def view_position(view: View, directions: Points) -> Points:
    """Positions (..., 2) in the view, as in `view_directions`; NaN behind the camera."""
    rotated = directions @ view_rotation(view.azimuth_deg, view.elevation_deg).T
    depth = np.where(rotated[..., 0] > 0, rotated[..., 0], np.nan)
    x = (1.0 - rotated[..., 1] / depth / np.tan(np.radians(view.hfov_deg) / 2.0)) / 2.0
    y = (1.0 - rotated[..., 2] / depth / np.tan(np.radians(view.vfov_deg) / 2.0)) / 2.0
    return np.stack([x, y], axis=-1)


def equirectangular_directions(height: int, width: int) -> Points:
    """Unit vectors (height, width, 3) of the pixel centres of an equirectangular frame."""
    azimuth = 180.0 * (1.0 - 2.0 * (np.arange(width) + 0.5) / width)
    elevation = 90.0 * (1.0 - 2.0 * (np.arange(height) + 0.5) / height)
    return unit_vector(azimuth[None, :], elevation[:, None])


def _directions(view: View | None, x: Points, y: Points) -> Points:
    """`view_directions`; without a view, those of an equirectangular image of the whole sphere."""
    if view is not None:
        return view_directions(view, x, y)
    azimuth, elevation = np.broadcast_arrays(180.0 * (1.0 - 2.0 * x), 90.0 * (1.0 - 2.0 * y))
    return unit_vector(azimuth, elevation)


@dataclass(frozen=True)
class _Sampling:
    """How a view is sampled: the pyramid level, the samples per pixel (down, across), and their
    columns and rows in the luma plane and in a chroma plane, in pixels.

    ``hidden`` (height, width) marks pixels that the source does not show; None if it shows all.
    """

    level: int
    samples: tuple[int, int]
    luma: tuple[Map, Map]
    chroma: tuple[Map, Map]
    hidden: NDArray[np.bool_] | None = None


class Cropper:
    """Cuts fixed views of fixed size from YUV 4:2:0 frames of fixed size.

    A view of None is the whole sphere as an equirectangular image. ``size`` is (height, width) of
    all crops, or one number for both.

    An equirectangular source covers 360°×180° whatever its aspect ratio. A crop that is coarser
    than the source is sampled from a 2×2-averaged pyramid, with several samples per output pixel.
    Pixels that the source does not show are black.
    """

    def __init__(
        self,
        source_height: int,
        source_width: int,
        views: Sequence[View | None],
        size: int | tuple[int, int],
        sphere: Sphere | None = None,
    ) -> None:
        self._source = (source_height, source_width)
        self._size = (size, size) if isinstance(size, int) else size
        if any(number % 2 for number in (*self._source, *self._size)):
            raise ValueError("YUV 4:2:0 needs even frame and crop sizes")
        self._sphere = Sphere() if sphere is None else sphere
        self._hidden: dict[int, NDArray[np.bool_]] = {}
        self._views = len(views)
        # Views with the same level and samples per pixel share one map, one below the other.
        groups: dict[tuple[int, tuple[int, int], int], dict[int, _Sampling]] = {}
        for number, view in enumerate(views):
            sampling = self._sampling(view)
            if sampling.hidden is not None:
                self._hidden[number] = sampling.hidden
            height = self._size[0] * sampling.samples[0]
            part = number // max(1, _MAX_MAP_ROWS // height)
            group = groups.setdefault((sampling.level, sampling.samples, part), {})
            group[number] = sampling
        self._groups = [
            (
                list(group),
                _Sampling(
                    level,
                    samples,
                    luma=_stack([sampling.luma for sampling in group.values()]),
                    chroma=_stack([sampling.chroma for sampling in group.values()]),
                ),
            )
            for (level, samples, _), group in sorted(groups.items())
        ]

    def crop(self, planes: Sequence[Plane]) -> Plane:
        """Crops (views, 3/2·height, width), planar YUV 4:2:0, from a frame's planes: Y, and U and V
        of half its height and width."""
        return np.asarray(self.crop_frames([planes])[0])

    def crop_frames(self, frames: Sequence[Sequence[Plane]]) -> Plane:
        """Crops (frames, views, 3/2·height, width) of several frames, as `crop` returns for one; it
        is fastest with `FRAMES_AT_ONCE`."""
        (height, width), level = self._size, 0
        depth = frames[0][0].dtype
        halves = height // 2, width // 2
        crops = np.empty((len(frames), self._views, height + halves[0], width), dtype=depth)
        chroma_crops = crops[:, :, height:].reshape(len(frames), self._views, 2, *halves)
        scale = 1 if depth == np.uint8 else 4
        # Three stacks, of the Y, U and V planes of all frames.
        planes: list[_Stack] = [_Stack(list(same)) for same in zip(*frames, strict=True)]
        for views, sampling in self._groups:  # from fine levels to coarse ones
            while level < sampling.level:
                planes, level = [stack.halved() for stack in planes], level + 1
            for number, luma in enumerate(planes[0].sample(sampling.luma, sampling.samples)):
                crops[number, views, :height] = luma.reshape(-1, height, width)
            for part, stack in enumerate(planes[1:]):
                for number, chroma in enumerate(stack.sample(sampling.chroma, sampling.samples)):
                    chroma_crops[number, views, part] = chroma.reshape(-1, *halves)
        for view, hidden in self._hidden.items():
            crops[:, view, :height][:, hidden] = _BLACK * scale
            chroma_crops[:, view][..., hidden[::2, ::2]] = _NEUTRAL_CHROMA * scale
        return crops

    def _sampling(self, view: View | None) -> _Sampling:
        rows, columns = self._size
        steps = self._steps(view)
        height, width = self._source
        level = 0
        fine_step = float(np.quantile(np.concatenate([s.ravel() for s in steps]), 0.1))
        while fine_step >= 2 ** (level + 1) * _LEVEL_STEP and height % 4 == 0 and width % 4 == 0:
            height, width, level = height // 2, width // 2, level + 1
        down, across = (_samples(float(s.max()) / 2**level) for s in steps)
        # Chroma pixel c spans two luma pixels around 2c + 1/2: half a luma pixel to the left of a
        # centred one.
        scale = 2.0**level
        full_height, full_width = self._source
        edge = np.array([full_width, full_height], dtype=np.float64)
        # From edge coordinates to pixel indices of the plane at its pyramid level. Averaging 2×2
        # keeps luma centred; left-sited chroma keeps its offset of half a *full-size* pixel.
        luma = self._positions(view, _centres(columns * across), _centres(rows * down).T)
        luma_map = _map(luma.xy * edge / scale - 0.5, luma.box, height, width, self._sphere.wraps)
        x, y = _centres(columns // 2 * across) - 0.5 / columns, _centres(rows // 2 * down).T
        chroma = self._positions(view, x, y)
        chroma_map = _map(
            (chroma.xy * edge + np.array([0.5, 0.0])) / (2 * scale) - 0.5,
            chroma.box,
            height // 2,
            width // 2,
            self._sphere.wraps,
        )
        hidden = None
        if not luma.visible.all():
            blocks = luma.visible.reshape(rows, down, columns, across)
            hidden = np.logical_not(blocks.all(axis=(1, 3)))
        return _Sampling(level, (down, across), luma_map, chroma_map, hidden)

    def _positions(self, view: View | None, x: Points, y: Points) -> FramePositions:
        return self._sphere.positions(_directions(view, x, y), *self._source)

    def _steps(self, view: View | None) -> tuple[Points, Points]:
        """Spacing of neighbouring output pixels (down, across), as arcs in units of the source's
        finest pixels.

        Near the poles of an equirectangular frame a row has more pixels per degree, but its content
        is as smooth as that of other rows, so that arcs, not pixels, determine how finely it must
        be sampled.
        """
        # A grid of pixels, from the first to the last but one, represents all of them.
        (y, next_y), (x, next_x) = map(_neighbours, self._size)
        corner = _directions(view, x, y.T)
        below = _directions(view, x, next_y.T)
        beside = _directions(view, next_x, y.T)
        density = self._sphere.density(*self._source)
        down, across = (
            density * np.linalg.norm(other - corner, axis=-1) for other in (below, beside)
        )
        return down, across


def _samples(step: float) -> int:
    """Number of samples in one direction for an output pixel that spans ``step`` pixels."""
    return 1 if step <= _SINGLE_STEP else max(2, math.ceil(step / _SAMPLING_STEP))


def _neighbours(count: int) -> tuple[Points, Points]:
    """The centres (1, points) of some of ``count`` equal parts of [0, 1], and of the next parts."""
    parts = np.linspace(0, count - 2, _GRID_POINTS).round()[None, :]
    return (parts + 0.5) / count, (parts + 1.5) / count


def _centres(count: int) -> Points:
    """The centres (1, count) of ``count`` equal parts of [0, 1]."""
    return ((np.arange(count) + 0.5) / count)[None, :]


def _map(index: Points, box: Points, height: int, width: int, wraps: bool) -> tuple[Map, Map]:
    """Columns and rows for cv2.remap, clamped to their part of the frame.

    Within half a pixel of a pole only the last row exists.
    """
    low = np.ceil(box[..., :2] * (width, height) - 1e-6)
    high = np.floor(box[..., 2:] * (width, height) + 1e-6) - 1
    column, row = np.moveaxis(index, -1, 0)
    row = np.clip(row, low[..., 1], high[..., 1])
    if not wraps:
        column = np.clip(column, low[..., 0], high[..., 0])
    return column.astype(np.float32), row.astype(np.float32)


def _stack(maps: list[tuple[Map, Map]]) -> tuple[Map, Map]:
    columns, rows = zip(*maps, strict=True)
    return np.concatenate(columns), np.concatenate(rows)


class _Stack:
    """The same plane of several frames."""

    def __init__(self, planes: list[Plane]) -> None:
        self._planes = planes
        self._merged: Plane | None = None

    def halved(self) -> _Stack:
        return _Stack([_halve(plane) for plane in self._planes])

    def sample(self, where: tuple[Map, Map], samples: tuple[int, int]) -> list[Plane]:
        """Each plane sampled at the positions ``where``, averaging ``samples`` (down, across)."""
        # OpenCV samples four channels in little more than the time of one, but they must be
        # interleaved first, which does not pay off if few of many pixels are sampled.
        pays_off = self._planes[0].size <= _MAX_MERGED_PIXELS_PER_SAMPLE * where[0].size
        if len(self._planes) != FRAMES_AT_ONCE or not pays_off:
            return [_sample(plane, where, samples) for plane in self._planes]
        if self._merged is None:
            self._merged = np.asarray(cv2.merge(self._planes))
        sampled = cv2.split(_sample(self._merged, where, samples))
        return [np.asarray(plane) for plane in sampled]


def _sample(plane: Plane, where: tuple[Map, Map], samples: tuple[int, int]) -> Plane:
    """Like `_Stack.sample`, for one plane or for interleaved planes."""
    # Columns wrap around the frame's seam; rows never exceed the frame (see `_map`).
    sampled = np.asarray(
        cv2.remap(plane, *where, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP), dtype=plane.dtype
    )
    down, across = samples
    while down % 2 == 0 and across % 2 == 0:  # halving twice is several times as fast as quartering
        sampled, down, across = _halve(sampled), down // 2, across // 2
    if down * across > 1:
        height, width = sampled.shape[:2]
        target = (width // across, height // down)
        sampled = np.asarray(cv2.resize(sampled, target, interpolation=cv2.INTER_AREA))
    return sampled


def _halve(plane: Plane) -> Plane:
    height, width = plane.shape[:2]
    return np.asarray(cv2.resize(plane, (width // 2, height // 2), interpolation=cv2.INTER_AREA))
