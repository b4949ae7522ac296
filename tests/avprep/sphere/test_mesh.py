"""Meshes of known projections are recognised, and no others."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from avprep.sphere.mesh import recognise_mesh
from avprep.sphere.projections import _CUBE, _EAC, Projection, Sphere

HEIGHT, WIDTH = 540, 960
STEPS = 10
Floats = NDArray[np.float64]


def bits(values: NDArray[np.int64], limit: int) -> bytes:
    """Indices (rows, columns) as differences between rows, zigzag, in as few bits as needed."""
    steps = np.diff(values, axis=0, prepend=np.zeros((1, values.shape[1]), np.int64))
    coded = np.where(steps < 0, -2 * steps - 1, 2 * steps).ravel()
    width = int(np.ceil(np.log2(2 * limit)))
    text = "".join(f"{int(value):0{width}b}" for value in coded)
    text += "0" * (-len(text) % 8)
    return bytes(int(text[i : i + 8], 2) for i in range(0, len(text), 8))


def mesh_box(patches: list[tuple[Floats, Floats]]) -> bytes:
    """A mesh of patches: directions (n, n, 3) in our axes, and positions (n, n, 2) in the frame."""
    coordinates: list[float] = []
    rows, triangles = [], []
    for directions, xy in patches:
        first, n = len(rows), len(xy)
        for d, p in zip(directions.reshape(-1, 3), xy.reshape(-1, 2), strict=True):
            rows.append(range(len(coordinates), len(coordinates) + 5))
            coordinates += [-d[1], d[2], -d[0], p[0], 1 - p[1]]
        for i in range(n - 1):
            for j in range(n - 1):
                a = first + i * n + j
                triangles += [a, a + n, a + 1, a + 1, a + n, a + n + 1]
    content = struct.pack(">I", len(coordinates))
    content += np.array(coordinates, ">f4").tobytes()
    content += struct.pack(">I", len(rows)) + bits(np.array(rows), len(coordinates))
    content += struct.pack(">IBBI", 1, 0, 0, len(triangles))
    content += bits(np.array(triangles)[:, None], len(rows))
    return struct.pack(">I4s", 8 + len(content), b"mesh") + content


def mshp(*boxes: bytes, deflated: bool = True) -> bytes:
    """The content of an mshp box; the checksum is not looked at."""
    data = b"".join(boxes)
    if not deflated:
        return struct.pack(">II4s", 0, 0, b"raw ") + data
    squeeze = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return struct.pack(">II4s", 0, 0, b"dfl8") + squeeze.compress(data) + squeeze.flush()


def grid(first: float, last: float) -> tuple[Floats, Floats]:
    a, b = np.meshgrid(np.linspace(first, last, STEPS), np.linspace(first, last, STEPS))
    return a, b


def cube_patches(name: Projection, scale: float = 1.0) -> list[tuple[Floats, Floats]]:
    """The faces of a cube in a frame, on each a grid of vertices."""
    u, v = grid(-1, 1)
    patches = []
    for centre, right, down in _EAC if name == "eac" else _CUBE:
        directions = centre + u[..., None] * right + v[..., None] * down
        # Just inside the face, whose border belongs to two of them.
        inside = centre + 0.9999 * (u[..., None] * right + v[..., None] * down)
        inside /= np.linalg.norm(inside, axis=-1, keepdims=True)
        xy = Sphere(name).positions(inside, HEIGHT, WIDTH).xy
        patches.append((directions, 0.5 + scale * (xy - 0.5)))
    return patches


def equirect_patches(
    bounds: tuple[float, float, float, float] = (0, 0, 0, 0),
) -> list[tuple[Floats, Floats]]:
    """Patches of 1/4 × 1/4 of an equirectangular frame."""
    left, top, right, bottom = bounds
    patches = []
    for column in range(8):
        for row in range(4):
            x, y = grid(0, 1)
            x, y = (x + column) / 8, (y + row) / 4
            azimuth = np.pi * (1 - 2 * (left + x * (1 - left - right)))
            elevation = np.pi * (0.5 - (top + y * (1 - top - bottom)))
            directions = np.stack(
                [
                    np.cos(elevation) * np.cos(azimuth),
                    np.cos(elevation) * np.sin(azimuth),
                    np.sin(elevation),
                ],
                axis=-1,
            )
            patches.append((directions, np.stack([x, y], axis=-1)))
    return patches


def moved(
    patches: list[tuple[Floats, Floats]], x: float, y: float, width: float, height: float
) -> list[tuple[Floats, Floats]]:
    """The patches in a part of the frame."""
    return [(d, np.array([x, y]) + xy * (width, height)) for d, xy in patches]


@pytest.mark.parametrize("deflated", [True, False])
@pytest.mark.parametrize("name", ["eac", "cube3x2", "cube6x1"])
def test_cubemaps_are_recognised(name: Projection, deflated: bool) -> None:
    content = mshp(mesh_box(cube_patches(name)), deflated=deflated)
    assert recognise_mesh(content, HEIGHT, WIDTH) == (Sphere(name), "mono")


@pytest.mark.parametrize(
    "bounds", [(0.0, 0.0, 0.0, 0.0), (0.25, 0.0, 0.25, 0.0), (0.25, 0.125, 0.25, 0.0)]
)
def test_parts_of_an_equirectangular_frame_are_recognised(
    bounds: tuple[float, float, float, float],
) -> None:
    content = mshp(mesh_box(equirect_patches(bounds)))
    assert recognise_mesh(content, HEIGHT, WIDTH) == (Sphere(bounds=bounds), "mono")


@pytest.mark.parametrize(
    ("layout", "left_eye", "right_eye"),
    [
        ("left-right", (0, 0, 0.5, 1), (0.5, 0, 0.5, 1)),
        ("right-left", (0.5, 0, 0.5, 1), (0, 0, 0.5, 1)),
        ("top-bottom", (0, 0, 1, 0.5), (0, 0.5, 1, 0.5)),
        ("bottom-top", (0, 0.5, 1, 0.5), (0, 0, 1, 0.5)),
    ],
)
def test_two_meshes_say_where_each_eyes_image_is(
    layout: str, left_eye: tuple[float, ...], right_eye: tuple[float, ...]
) -> None:
    half = equirect_patches((0.25, 0, 0.25, 0))
    boxes = [mesh_box(moved(half, *place)) for place in (left_eye, right_eye)]
    found = recognise_mesh(mshp(*boxes), HEIGHT, WIDTH)
    assert found == (Sphere(bounds=(0.25, 0, 0.25, 0)), layout)


def test_other_mappings_are_not_recognised() -> None:
    """A cubemap with a wide border, one whose faces are exchanged, a turned sphere, a fisheye."""
    wide = cube_patches("cube3x2", scale=0.9)
    faces = cube_patches("eac")
    exchanged = [(faces[1 - n if n < 2 else n][0], xy) for n, (_, xy) in enumerate(faces)]
    turned = [(d[..., [0, 2, 1]], xy) for d, xy in equirect_patches()]
    fisheye = [
        (d, Sphere("fisheye").positions(d, 100, 100).xy)
        for d, _ in equirect_patches((0.25, 0, 0.25, 0))
    ]
    for patches in (wide, exchanged, turned, fisheye):
        assert recognise_mesh(mshp(mesh_box(patches)), HEIGHT, WIDTH) is None


GOOD = mshp(mesh_box(cube_patches("eac")), deflated=False)


@settings(max_examples=60)
@given(place=st.integers(0, len(GOOD) - 1), new=st.binary(min_size=1, max_size=8))
@example(place=24, new=b"\x7f\xa0\0\0").via("the first coordinate is a signaling NaN")
def test_damaged_meshes_are_none(place: int, new: bytes) -> None:
    changed = GOOD[:place] + new + GOOD[place + len(new) :]
    for content in (changed, changed[:place], GOOD[:12] + new):
        found = recognise_mesh(content, HEIGHT, WIDTH)
        assert found in (None, (Sphere("eac"), "mono"))


def test_a_small_mesh_does_not_become_a_large_one() -> None:
    squeeze = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    bomb = squeeze.compress(bytes(100_000_000)) + squeeze.flush()
    assert recognise_mesh(struct.pack(">II4s", 0, 0, b"dfl8") + bomb, HEIGHT, WIDTH) is None
