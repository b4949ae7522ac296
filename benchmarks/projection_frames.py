"""Pictures of the sphere in all projections that recordings have, for `benchmarks.projections`."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from avprep.media.ffmpeg import ffmpeg_path

Luma = NDArray[np.uint8]
Size = tuple[int, int]
"""Width and height."""

_BLACK = 16
_PARALLAX_DEG = (1.0, 5.0)
"""Least and greatest disparity between two eyes' images, at the horizon."""


def convert(picture: Luma, output: str, size: Size) -> Luma:
    """An equirectangular picture in another projection; ``output`` is v360's text for it."""
    width, height = size
    source = f"{picture.shape[1]}x{picture.shape[0]}"
    raw = ["-f", "rawvideo", "-pix_fmt", "gray"]
    graph = f"v360=e:{output}:w={width}:h={height}:interp=cubic"
    command = [ffmpeg_path(), "-v", "error", *raw, "-s", source, "-i", "-", "-vf", graph, *raw, "-"]
    done = subprocess.run(command, input=picture.tobytes(), stdout=subprocess.PIPE, check=True)
    return np.frombuffer(done.stdout, np.uint8).reshape(height, width)


def _resize(picture: Luma, size: Size) -> Luma:
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA))


def right_eye(picture: Luma) -> Luma:
    """What another eye would see: shifted sideways by depths that vary from place to place."""
    height, width = picture.shape
    y, x = np.indices(picture.shape, dtype=np.float32)
    elevation = np.pi * (0.5 - (y + 0.5) / height)
    around = 2 * np.pi * (x + 0.5) / width
    depth = 0.5 + 0.25 * np.sin(3 * around) + 0.25 * np.sin(5 * elevation + 2 * around)
    low, high = _PARALLAX_DEG
    shift = (low + (high - low) * depth) / 360 * width * np.cos(elevation) ** 2
    columns = np.asarray((x + shift) % width, dtype=np.float32)
    padded = np.concatenate([picture, picture[:, :1]], axis=1)
    return np.asarray(cv2.remap(padded, columns, y, cv2.INTER_LINEAR))


def _circles(frame: Luma, count: int, share: float = 1.0) -> Luma:
    """A frame that is black outside of ``count`` circles side by side."""
    height, width = frame.shape
    y, x = np.indices(frame.shape) + 0.5
    across = x % (width / count) - width / count / 2
    radius = min(height, width / count) / 2 * share
    return np.where(np.hypot(across, y - height / 2) > radius, _BLACK, frame).astype(np.uint8)


def _dual(picture: Luma, size: Size, fov_deg: int) -> Luma:
    return convert(picture, f"dfisheye:h_fov={fov_deg}:v_fov={fov_deg}", size)


def _theta(picture: Luma, size: Size) -> Luma:
    """Two lenses that lie on their sides, in circles smaller than their halves."""
    width, height = size
    side = round(min(width / 2, height) * 0.95) // 2 * 2
    frame = np.full((height, width), _BLACK, np.uint8)
    for number, (yaw, roll) in enumerate(((0, 90), (180, -90))):
        lens = convert(picture, f"fisheye:h_fov=190:v_fov=190:yaw={yaw}:roll={roll}", (side, side))
        left = round(width / 4 * (1 + 2 * number) - side / 2)
        top = round(height * 0.48 - side / 2)
        frame[max(top, 0) : max(top, 0) + side, left : left + side] = _circles(lens, 1)
    return frame


def _flat(picture: Luma, size: Size, bars: tuple[float, float] = (0.0, 0.0)) -> Luma:
    """A flat picture of 90°, with black bars of these shares of its width and height."""
    width, height = size
    across, down = round(width * (1 - bars[0])), round(height * (1 - bars[1]))
    vfov = float(np.degrees(2 * np.arctan(down / across)))
    inside = convert(picture, f"flat:h_fov=90:v_fov={vfov}", (across, down))
    frame = np.full((height, width), _BLACK, np.uint8)
    left, top = (width - across) // 2, (height - down) // 2
    frame[top : top + down, left : left + across] = inside
    return frame


def _row(picture: Luma, size: Size) -> Luma:
    width, height = size
    return convert(picture, "eac", (width, height * 2))[:height]


PROJECTIONS: dict[str, Callable[[Luma, Size], Luma]] = {
    "equirect": _resize,
    "equirect, 16:9": lambda picture, size: _resize(picture, (640, 360)),
    "eac": lambda picture, size: convert(picture, "eac", size),
    "cube3x2": lambda picture, size: convert(picture, "c3x2", size),
    "cube6x1": lambda picture, size: convert(picture, "c6x1", size),
    "fisheye 180": lambda picture, size: convert(picture, "fisheye:h_fov=180:v_fov=180", size),
    "fisheye 180, black": lambda picture, size: _circles(
        convert(picture, "fisheye:h_fov=180:v_fov=180", size), 1
    ),
    "fisheye 200, black": lambda picture, size: _circles(
        convert(picture, "fisheye:h_fov=200:v_fov=200", size), 1
    ),
    "dual fisheye 180": lambda picture, size: _dual(picture, size, 180),
    "dual fisheye 190": lambda picture, size: _dual(picture, size, 190),
    "dual fisheye 195": lambda picture, size: _dual(picture, size, 195),
    "dual fisheye 200": lambda picture, size: _dual(picture, size, 200),
    "dual fisheye 180, black": lambda picture, size: _circles(_dual(picture, size, 180), 2),
    "dual fisheye 190, black": lambda picture, size: _circles(_dual(picture, size, 190), 2),
    "dual fisheye 195, black": lambda picture, size: _circles(_dual(picture, size, 195), 2),
    "dual fisheye 200, black": lambda picture, size: _circles(_dual(picture, size, 200), 2),
    "Theta, Gear 360": _theta,
    "half sphere": lambda picture, size: convert(picture, "hequirect", size),
    "flat": _flat,
    "flat, bars above": lambda picture, size: _flat(picture, size, (0.0, 0.25)),
    "flat, bars beside": lambda picture, size: _flat(picture, size, (0.25, 0.0)),
    "row of a cubemap": _row,
}
"""Makers of a frame of a size from an equirectangular picture."""

EXPECTED = {
    "equirect": "equirect",
    "equirect, 16:9": "equirect",
    "eac": "eac",
    "cube3x2": "cube3x2",
    "cube6x1": "cube6x1",
    "half sphere": "half-equirect",
}
"""What is right for frames that this program can read without being told; of the others nothing
is."""

_ASPECTS = {
    "equirect": 2.0,
    "equirect,": 16 / 9,
    "cube3x2": 1.5,
    "cube6x1": 6.0,
    "fisheye": 1.0,
    "dual": 2.0,
    "Theta,": 2.0,
    "half": 1.0,
    "row": 3.0,
}


def frames_of(picture: Luma, height: int) -> Iterator[tuple[str, str, Luma]]:
    """A picture's frames in all projections and stereo layouts, as (projection, stereo, frame);
    ``height`` is that of one eye's image, except in long rows."""
    eyes = picture, right_eye(picture)
    for name, make in PROJECTIONS.items():
        aspect = _ASPECTS.get(name.split()[0], 16 / 9)
        down = height if aspect < 3 else height // 2
        left, right = (make(eye, (round(down * aspect) // 2 * 2, down)) for eye in eyes)
        yield name, "mono", left
        yield name, "top-bottom", np.concatenate([left, right], axis=0)
        yield name, "left-right", np.concatenate([left, right], axis=1)
    turned = [np.rot90(convert(eye, "eac", (height * 2, height))) for eye in eyes]
    yield "YouTube's 3D EAC", "left-right", np.concatenate(turned, axis=1)
