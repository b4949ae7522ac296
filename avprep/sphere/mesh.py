"""Recognise the projection that a mesh describes: Google's Spherical Video V2 RFC, box mshp.

A mesh maps a frame to the sphere by triangles. If one of the known projections maps their insides
alike, the frame has that projection.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from avprep.sphere.eyes import EYE_LAYOUTS
from avprep.sphere.projections import Floats, Projection, Sphere

_LARGEST = 1 << 23
"""Bytes of an inflated mesh; real ones have some 100,000."""
_MOST_COORDINATES, _MOST_VERTICES, _MOST_INDICES, _MOST_LISTS = 30_000, 32_000, 128_000, 64
_MOST_TRIANGLES = 5_000
_CUBES: tuple[Projection, ...] = ("eac", "cube3x2", "cube6x1")
_WEIGHTS = ((0.6, 0.2, 0.2), (0.2, 0.6, 0.2), (0.2, 0.2, 0.6))
"""Points inside each triangle that are compared: at its corners, faces of a cube meet."""
_CLOSE, _MOST_APART = 0.01, 0.05
"""Largest distance as a fraction of the frame, and the share of points that may be farther."""
_SEAM_DEG, _POLE_DEG = 170.0, 80.0
_FEWEST = 100
_EXACT = 1e-3

Ints = NDArray[np.int64]


class _MeshError(Exception):
    """A mesh that breaks its format."""


@dataclass(frozen=True)
class _Points:
    """Directions (n, 3) and where in a frame they are seen (n, 2), as fractions from its upper left
    corner."""

    directions: Floats
    xy: Floats


def recognise_mesh(content: bytes, height: int, width: int) -> tuple[Sphere, str] | None:
    """The projection and layout of eyes that a mesh describes in a frame of (height, width) pixels,
    which is one eye's unless the mesh itself says more; None if it is none of the known ones.

    ``content`` is that of an mshp box, which Matroska has as private content of its projection.
    """
    try:
        meshes = [_points(mesh) for mesh in _meshes(content)]
    except (_MeshError, struct.error, zlib.error, OverflowError):
        return None
    if not 1 <= len(meshes) <= 2:
        return None
    layouts = ["mono"] if len(meshes) == 1 else list(EYE_LAYOUTS)
    for name in layouts:
        eyes = EYE_LAYOUTS[name]
        xy = meshes[0].xy * (eyes.columns, eyes.rows) - (eyes.column, eyes.row)
        if len(xy) < _FEWEST or np.abs(xy - 0.5).max() > 0.5 + _CLOSE:
            continue
        # Another layout fits as well if the eye's image is smaller than its part of the frame.
        if len(meshes) == 2 and np.ptp(xy, axis=0).min() < 0.5 + _CLOSE:
            continue
        points = _Points(meshes[0].directions, xy)
        sphere = _recognise(points, height // eyes.rows, width // eyes.columns)
        if sphere is not None:
            return sphere, name
    return None


def _recognise(points: _Points, height: int, width: int) -> Sphere | None:
    candidates = [Sphere(name) for name in _CUBES]
    part = _equirectangular_part(points)
    for sphere in candidates if part is None else [part, *candidates]:
        there = sphere.positions(points.directions, height, width)
        apart = np.abs(there.xy - points.xy).max(axis=1)
        if np.mean(apart > _CLOSE) <= _MOST_APART:
            return sphere
    return None


def _equirectangular_part(points: _Points) -> Sphere | None:
    """The part of the sphere that the points show if their frame is equirectangular."""
    x, y, z = points.directions.T
    azimuth, elevation = np.degrees(np.arctan2(y, x)), np.degrees(np.arcsin(np.clip(z, -1, 1)))
    usual = (np.abs(azimuth) < _SEAM_DEG) & (np.abs(elevation) < _POLE_DEG)
    if usual.sum() < _FEWEST:
        return None
    bounds = []
    for whole, seen in zip(
        Sphere().positions(points.directions[usual], 1, 2).xy.T, points.xy[usual].T, strict=True
    ):
        if np.ptp(whole) < _CLOSE:
            return None
        slope, offset = np.polyfit(whole, seen, 1)
        if slope < 1 - _EXACT:
            return None
        first = -offset / slope
        bounds.append((first, 1 - first - 1 / slope))
    (left, right), (top, bottom) = bounds
    exact = [0.0 if abs(b) < _EXACT else b for b in (left, top, right, bottom)]
    # Meshes are coarse: halves and quarters are meant exactly.
    exact = [round(b * 16) / 16 if abs(b * 16 - round(b * 16)) < 16 * _EXACT else b for b in exact]
    if min(exact) < 0:
        return None
    return Sphere(bounds=(exact[0], exact[1], exact[2], exact[3]))


def _meshes(content: bytes) -> list[bytes]:
    """The contents of the mesh boxes in an mshp box."""
    if len(content) < 12 or content[0] != 0:
        raise _MeshError
    encoding, data = content[8:12], content[12:]
    if encoding == b"dfl8":
        data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, _LARGEST)
    elif encoding != b"raw ":
        raise _MeshError
    found, start = list[bytes](), 0
    while start + 8 <= len(data) and len(found) < 3:
        size, name = struct.unpack_from(">I4s", data, start)
        if size < 8 or start + size > len(data):
            raise _MeshError
        if name == b"mesh":
            found.append(data[start + 8 : start + size])
        start += size
    return found


class _Reader:
    """Reads the numbers of a mesh box one after the other."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def number(self, width: int = 4) -> int:
        self._at += width
        if self._at > len(self._data):
            raise _MeshError
        return int.from_bytes(self._data[self._at - width : self._at], "big")

    def count(self, most: int) -> int:
        count = self.number()
        if not 0 < count <= most:
            raise _MeshError
        return count

    def floats(self, count: int) -> Floats:
        if self._at + 4 * count > len(self._data):
            raise _MeshError
        with np.errstate(invalid="ignore"):  # a damaged mesh may hold signaling NaNs
            values = np.frombuffer(self._data, ">f4", count, self._at).astype(np.float64)
        self._at += 4 * count
        return values

    def indices(self, rows: int, columns: int, limit: int) -> Ints:
        """Indices (rows, columns) below a limit: each stored as the difference to the one above it,
        in as many bits as the largest difference needs."""
        bits = (2 * limit - 1).bit_length()
        size = (rows * columns * bits + 7) // 8
        if self._at + size > len(self._data):
            raise _MeshError
        raw = np.unpackbits(np.frombuffer(self._data, np.uint8, size, self._at))
        self._at += size
        digits = raw[: rows * columns * bits].reshape(rows, columns, bits).astype(np.int64)
        coded = digits @ (1 << np.arange(bits - 1, -1, -1, dtype=np.int64))
        found = np.cumsum(np.where(coded % 2, -(coded + 1) // 2, coded // 2), axis=0)
        if found.min() < 0 or found.max() >= limit:
            raise _MeshError
        return np.asarray(found)


def _points(mesh: bytes) -> _Points:
    """Points inside the triangles of a mesh box."""
    reader = _Reader(mesh)
    coordinates = reader.floats(reader.count(_MOST_COORDINATES))
    vertices = coordinates[reader.indices(reader.count(_MOST_VERTICES), 5, len(coordinates))]
    corners, left = [], _MOST_INDICES
    for _ in range(reader.count(_MOST_LISTS)):
        texture, kind = reader.number(1), reader.number(1)
        places = reader.indices(reader.count(left), 1, len(vertices))[:, 0]
        left -= len(places)
        if texture == 0:
            corners.append(_triangles(places, kind))
    triangles = np.concatenate(corners) if corners else np.empty((0, 3), dtype=np.int64)
    triangles = triangles[:: -(-len(triangles) // _MOST_TRIANGLES) or 1]
    with np.errstate(all="ignore"):  # damaged meshes hold any numbers
        inside = np.concatenate([np.einsum("c,ncv->nv", w, vertices[triangles]) for w in _WEIGHTS])
        # OpenGL's axes: x to the right, y up, z backward; v from the lower edge.
        x, y, z, u, v = inside.T
        directions = np.stack([-z, -x, y], axis=1)
        length = np.linalg.norm(directions, axis=1)
        good = np.isfinite(inside).all(axis=1) & np.isfinite(length) & (length > 0)
    unit = directions[good] / length[good, None]
    return _Points(unit, np.stack([u, 1 - v], axis=1)[good])


def _triangles(indices: Ints, kind: int) -> Ints:
    """Triangles (n, 3) of a list of vertices: separate, a strip, or a fan."""
    if kind == 0:
        return indices[: len(indices) // 3 * 3].reshape(-1, 3)
    if kind == 1:
        return np.stack([indices[:-2], indices[1:-1], indices[2:]], axis=1)
    if kind == 2:
        first = np.full(max(0, len(indices) - 2), indices[0])
        return np.stack([first, indices[1:-1], indices[2:]], axis=1)
    raise _MeshError
