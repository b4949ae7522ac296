"""Projections of the sphere: from directions to positions in a frame.

Positions are fractions of the frame's width and height, from its upper left corner. A frame shows
one eye: stereo pairs are cut apart before.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Projection = Literal["equirect", "eac", "cube3x2", "cube6x1", "fisheye", "dual-fisheye", "flat"]
PROJECTIONS: tuple[Projection, ...] = (
    "equirect",
    "eac",
    "cube3x2",
    "cube6x1",
    "fisheye",
    "dual-fisheye",
)

Floats = NDArray[np.float64]

_FRONT, _LEFT, _UP = np.eye(3)
# For each face of a cube: the direction of its centre, and those of its right and lower edges.
_FACES = {
    "right": (-_LEFT, -_FRONT, -_UP),
    "left": (_LEFT, _FRONT, -_UP),
    "up": (_UP, -_LEFT, _FRONT),
    "down": (-_UP, -_LEFT, -_FRONT),
    "front": (_FRONT, -_LEFT, -_UP),
    "back": (-_FRONT, _LEFT, -_UP),
}
_CUBE = [_FACES[name] for name in ("right", "left", "up", "down", "front", "back")]
# YouTube's equi-angular cubemap: each row is continuous across the borders of its faces.
_EAC = [
    _FACES["left"],
    _FACES["front"],
    _FACES["right"],
    (-_UP, -_FRONT, _LEFT),  # down, back and up are rotated by 90°
    (-_FRONT, _UP, _LEFT),
    (_UP, _FRONT, _LEFT),
]
_EAC_PADDING = 2.0
"""Padding pixels at the edges of each row of an equi-angular cubemap, as in ffmpeg's v360."""


def vertical_fov_deg(hfov_deg: float, aspect: float) -> float:
    """Vertical field of view of an image plane ``aspect`` times as wide as high."""
    return float(2 * np.degrees(np.arctan(np.tan(np.radians(hfov_deg) / 2) / aspect)))


@dataclass(frozen=True)
class FramePositions:
    """Positions of directions in a frame, as fractions of its width and height.

    ``xy`` (..., 2) are the positions and ``box`` (..., 4: left, top, right, bottom) the continuous
    part of the frame that each lies in; one box (4,) if the frame has one part. ``visible`` (...)
    is False for directions that the frame does not show.
    """

    xy: Floats
    box: Floats
    visible: NDArray[np.bool_]


@dataclass(frozen=True)
class Sphere:
    """A frame's projection.

    ``bounds`` are the fractions of the full sphere that an equirectangular frame lacks at its left,
    top, right and bottom (0 to 1, as in sv3d boxes). ``fov_deg`` is the field of view of a (dual)
    fisheye's circle, which is equidistant and touches the frame's sides, or of a flat
    (rectilinear) frame across its shorter side.
    """

    projection: Projection = "equirect"
    bounds: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    fov_deg: float = 180.0

    @property
    def wraps(self) -> bool:
        """Whether the frame's left edge continues its right edge."""
        return self.projection == "equirect" and self.bounds[0] == self.bounds[2] == 0.0

    def density(self, height: int, width: int) -> float:
        """Pixels per radian where the frame is finest, approximately."""
        if self.projection == "equirect":
            left, top, right, bottom = self.bounds
            across, down = width / (1 - left - right), height / (1 - top - bottom)
            return max(down / np.pi, across / (2 * np.pi))
        if self.projection == "eac":
            return max(width / 3, height / 2) / (np.pi / 2)
        if self.projection == "cube3x2":
            return max(width / 3, height / 2)  # in a face's corners; half of it in the middle
        if self.projection == "cube6x1":
            return max(width / 6, height)
        if self.projection == "flat":
            half = math.radians(self.fov_deg) / 2
            return min(height, width) / 2 / math.tan(half) / math.cos(half) ** 2
        circles = 2 if self.projection == "dual-fisheye" else 1
        return width / circles / float(np.radians(self.fov_deg))

    def positions(self, directions: Floats, height: int, width: int) -> FramePositions:
        """Positions of unit vectors (..., 3) in a frame of (height, width) pixels."""
        if self.projection == "equirect":
            return self._equirect(directions)
        if self.projection == "eac":
            return _eac(directions, height, width)
        if self.projection == "cube3x2":
            return _cube(directions, 2, 3)
        if self.projection == "cube6x1":
            return _cube(directions, 1, 6)
        if self.projection == "flat":
            return self._flat(directions, height, width)
        return self._fisheye(directions, height, width)

    def _equirect(self, directions: Floats) -> FramePositions:
        azimuth = np.arctan2(directions[..., 1], directions[..., 0])
        elevation = np.arctan2(directions[..., 2], np.hypot(directions[..., 0], directions[..., 1]))
        left, top, right, bottom = self.bounds
        x = (0.5 - azimuth / (2 * np.pi) - left) / (1 - left - right)
        y = (0.5 - elevation / np.pi - top) / (1 - top - bottom)
        visible = np.ones(np.shape(x), dtype=bool)
        if any(self.bounds):
            visible = (x >= 0) & (x <= 1) & (y >= 0) & (y <= 1)
        xy = np.stack([x, y], axis=-1)
        return FramePositions(xy, np.array([0.0, 0.0, 1.0, 1.0]), visible)

    def _flat(self, directions: Floats, height: int, width: int) -> FramePositions:
        """The tangent plane at the front, with square pixels."""
        ahead = directions[..., 0] > 0
        depth = np.where(ahead, directions[..., 0], 1.0)
        scale = min(height, width) / 2 / np.tan(np.radians(self.fov_deg) / 2)
        x = 0.5 - scale / width * directions[..., 1] / depth
        y = 0.5 - scale / height * directions[..., 2] / depth
        visible = ahead & (x >= 0) & (x <= 1) & (y >= 0) & (y <= 1)
        xy = np.stack([x, y], axis=-1)
        return FramePositions(
            xy, np.broadcast_to([0.0, 0.0, 1.0, 1.0], (*xy.shape[:-1], 4)), visible
        )

    def _fisheye(self, directions: Floats, height: int, width: int) -> FramePositions:
        """Equidistant circles side by side: one around the front and, for a dual fisheye, one
        around the back on its left (as in ffmpeg's v360)."""
        circles = 2 if self.projection == "dual-fisheye" else 1
        back = (directions[..., 0] < 0) & (circles == 2)
        forward = np.where(back, -directions[..., 0], directions[..., 0])
        right = np.where(back, directions[..., 1], -directions[..., 1])
        down = -directions[..., 2]
        off_axis = np.arctan2(np.hypot(right, down), forward) / np.radians(self.fov_deg / 2)
        turn = np.arctan2(down, right)
        radius_x = 0.5 / circles
        radius_y = radius_x * width / height
        centre = np.where(back, 0.25, 1 - 0.5 / circles)
        x = centre + radius_x * off_axis * np.cos(turn)
        y = 0.5 + radius_y * off_axis * np.sin(turn)
        zero, one = np.zeros_like(centre), np.ones_like(centre)
        box = np.stack([centre - radius_x, zero, centre + radius_x, one], axis=-1)
        return FramePositions(np.stack([x, y], axis=-1), box, off_axis <= 1)


def _project_on_faces(
    directions: Floats, faces: list[tuple[Floats, Floats, Floats]]
) -> tuple[NDArray[np.intp], Floats, Floats]:
    """The face that shows each direction, and the tangents to its right and downward, -1 to 1."""
    centres, rights, downs = (np.stack(axes) for axes in zip(*faces, strict=True))
    face = np.argmax(directions @ centres.T, axis=-1)
    depth = np.einsum("...i,...i->...", directions, centres[face])
    u = np.einsum("...i,...i->...", directions, rights[face]) / depth
    v = np.einsum("...i,...i->...", directions, downs[face]) / depth
    return face, u, v


def _cube(directions: Floats, rows: int, columns: int) -> FramePositions:
    face, u, v = _project_on_faces(directions, _CUBE)
    row, column = np.divmod(face, columns)
    xy = np.stack([(column + (1 + u) / 2) / columns, (row + (1 + v) / 2) / rows], axis=-1)
    left, top = column / columns, row / rows
    box = np.stack([left, top, left + 1 / columns, top + 1 / rows], axis=-1)
    return FramePositions(xy, box, np.ones(face.shape, dtype=bool))


def _eac(directions: Floats, height: int, width: int) -> FramePositions:
    """Equi-angular: positions linear in the angle, not in its tangent (Google, "Bringing pixels
    front and center in VR video", 2017)."""
    face, u, v = _project_on_faces(directions, _EAC)
    row, column = np.divmod(face, 3)
    across, down = (0.5 + np.arctan(t) * (2 / np.pi) for t in (u, v))
    pad_x, pad_y = _EAC_PADDING / width, _EAC_PADDING / height
    x = pad_x + (column + across) * (1 - 2 * pad_x) / 3
    y = 0.5 * row + pad_y + down * (0.5 - 2 * pad_y)
    top = 0.5 * row
    box = np.stack([np.zeros_like(x), top, np.ones_like(x), top + 0.5], axis=-1)
    return FramePositions(np.stack([x, y], axis=-1), box, np.ones(face.shape, dtype=bool))
