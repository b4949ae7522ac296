"""Render the video of the generated world: a still panorama with objects drawn on the sphere.

Frames are YUV 4:2:0 (BT.709, limited range). Shapes are computed in the tangent plane at each
object's centre, so that a view centred on an object shows it undistorted anywhere on the sphere.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage

from avprep.world.scene import FPS, FRAMES, Place, SceneObject, WorldClip, frame_times
from shards.geometry import direction_deg, unit_vector, view_rotation

# Per-pixel work on frames is done in float32, by NumPy's rules of promotion.
Floats = NDArray[np.floating[Any]]
Bytes = NDArray[np.uint8]

WIDTH, HEIGHT = 960, 480
MAPS_PER_SECOND = 4
# Map k (from 1) shows the scene at (k - 1/2) / 4 s, the time of frame 6 k - 3.
FRAMES_PER_MAP = FPS // MAPS_PER_SECOND
# BT.709: from R, G, B in 0 to 1 to Y, Cb, Cr in 8-bit limited range, without the offsets.
YUV_FROM_RGB = np.array(
    [[46.559, 156.629, 15.812], [-25.664, -86.336, 112.0], [112.0, -101.730, -10.270]]
)


def render_frames(clip: WorldClip) -> Iterator[tuple[Bytes, Bytes | None]]:
    """Yield each frame of a clip as I420 (HEIGHT * 3 / 2, WIDTH), with its label map if it has one.

    Label maps (HEIGHT / 2, WIDTH / 2) hold the kind in front, 0 for the background.
    """
    background = panorama(clip.place)
    objects = [Drawing(scene_object) for scene_object in clip.objects if scene_object.visible]
    for frame in range(FRAMES):
        image = background.copy()
        labels = np.zeros((HEIGHT // 2, WIDTH // 2), dtype=np.uint8)
        for drawing in objects:
            drawing.draw(frame, image, labels)
        yield image, labels if frame % FRAMES_PER_MAP == FRAMES_PER_MAP // 2 else None


class Drawing:
    """An object with everything needed to draw it, precomputed for all frames."""

    def __init__(self, scene_object: SceneObject) -> None:
        times = frame_times()
        self.kind = scene_object.kind
        self.kind_index = scene_object.kind_index
        self.phase = scene_object.texture_phase
        self.aspect = scene_object.aspect
        self.azimuth_deg, self.elevation_deg = direction_deg(scene_object.direction(times))
        self.radius_deg = scene_object.radius(times)
        self.level = scene_object.animation(times)
        self.beat = scene_object.beat_count(times)
        roll_deg = scene_object.roll_deg + self.kind.spin_deg_s * times
        if self.kind.look == "string":  # trembles when plucked
            roll_deg = roll_deg + 14 * self.level * np.sin(2 * np.pi * 7 * times)
        self.roll = np.radians(roll_deg)
        rng = np.random.default_rng([scene_object.seed, 1])
        bright = hsv_to_rgb(scene_object.hue_deg, rng.uniform(0.75, 1.0), scene_object.brightness)
        second_hue = scene_object.hue_deg + self.kind.second_hue_deg + rng.uniform(-8, 8)
        dark = hsv_to_rgb(second_hue, rng.uniform(0.6, 0.9), 0.5 * scene_object.brightness)
        self.bright_yuv, self.dark_yuv = YUV_FROM_RGB @ bright, YUV_FROM_RGB @ dark
        # Dark enough at rest that the flash of a beat stays within the video's range.
        self.light = (1 + self.kind.flash * self.level) / (1 + self.kind.flash)

    def draw(self, frame: int, image: Bytes, labels: Bytes) -> None:
        """Draw the object into an I420 frame and a label map."""
        azimuth_deg, elevation_deg = self.azimuth_deg[frame], self.elevation_deg[frame]
        radius = np.radians(self.radius_deg[frame])
        top, bottom, columns = pixels_within(
            azimuth_deg, elevation_deg, self.radius_deg[frame] + 0.5
        )
        right, up = tangent_plane(top, bottom, columns, azimuth_deg, elevation_deg)
        size = np.float32(1 / np.tan(radius))
        edge, pattern = self.shape(right * size, up * size, frame)
        pixel = np.pi / HEIGHT * size
        cover = np.clip(edge / pixel + 0.5, 0, 1)
        # A dark outline of 1/14 of the radius separates the object from any background.
        ink = self.light[frame] * np.clip(edge * 14, 0.2, 1)
        bright, dark = cover * ink * pattern, cover * ink * (1 - pattern)
        luma = image[top:bottom, columns].astype(np.float32) - 16
        luma += self.bright_yuv[0] * bright + self.dark_yuv[0] * dark - cover * luma
        image[top:bottom, columns] = luma + 16.5

        half_cover, bright, dark = halve(cover), halve(bright), halve(dark)
        rows, half_columns = slice(top // 2, bottom // 2), columns[::2] // 2
        for number, plane in enumerate(chroma_planes(image), start=1):
            chroma = plane[rows, half_columns].astype(np.float32) - 128
            chroma += self.bright_yuv[number] * bright + self.dark_yuv[number] * dark
            chroma -= half_cover * (plane[rows, half_columns].astype(np.float32) - 128)
            plane[rows, half_columns] = chroma + 128.5
        inside = labels[rows, half_columns]
        labels[rows, half_columns] = np.where(half_cover > 0.5, self.kind_index, inside)

    def shape(self, x: Floats, y: Floats, frame: int) -> tuple[Floats, Floats]:
        """Distance to the outline (positive inside) and pattern (0 dark, 1 bright) at x, y in units
        of the radius.

        Outlines lie within the unit circle, with their centroid at its centre.
        """
        cos, sin = np.float32(np.cos(self.roll[frame])), np.float32(np.sin(self.roll[frame]))
        x, y = (cos * x + sin * y) / np.float32(self.aspect), cos * y - sin * x
        level, turn = np.float32(self.level[frame]), np.float32(2 * np.pi * self.phase)
        match self.kind.look:
            case "bell":  # rings
                r = np.hypot(x, y)
                return 1 - r, _wave(14 * r - turn)
            case "bird":  # two wings that fold on a chirp
                x = x / (1 - 0.45 * level)
                theta = np.arctan2(y, x)
                return 0.45 + 0.55 * np.cos(theta) ** 2 - np.hypot(x, y), _wave(10 * theta + turn)
            case "drum":  # a hexagon with a skin and a rim
                a, b = 0.5 * x + 0.866 * y, 0.5 * x - 0.866 * y
                rim = np.maximum(np.maximum(np.abs(a), np.abs(b)), np.abs(x))
                return 0.866 - rim, _step(0.55 - rim)
            case "drone":  # a square with stripes that slide while it sounds
                stripes = _wave(9 * (x + (self.phase - 0.5) * y) + turn + 5 * level)
                return 0.7 - np.maximum(np.abs(x), np.abs(y)), stripes
            case "hiss":  # a cloud with dots
                r, theta = np.hypot(x, y), np.arctan2(y, x)
                dots = _wave(9 * x + turn) * _wave(9 * y - turn)
                return 0.86 + 0.14 * np.cos(6 * theta) - r, dots
            case "clock":  # a hand that jumps by a twelfth of a turn on each tick
                angle = turn - np.pi / 6 * self.beat[frame]
                along = x * np.float32(np.cos(angle)) + y * np.float32(np.sin(angle))
                across = y * np.float32(np.cos(angle)) - x * np.float32(np.sin(angle))
                hand = _step(np.minimum(0.13 - np.abs(across), along + 0.1))
                r = np.hypot(x, y)
                return 1 - r, np.maximum(1 - hand, _step(r - 0.78)) * _step(0.95 - r)
            case "siren":  # a triangle whose two halves swap colours with the sweep
                a, b = 0.866 * x + 0.5 * y, -0.866 * x + 0.5 * y
                corner = np.maximum(np.maximum(a, b), -y)
                swap = np.float32(np.cos(turn + np.pi * level))
                return 0.5 - corner, np.clip(0.5 + 3 * swap * x, 0, 1)
            case "string":  # a long oval with stripes
                return 0.5 * (1 - np.hypot(x, 2 * y)), _wave(16 * y + turn)
            case "crackle":  # a star with a glowing core
                r, theta = np.hypot(x, y), np.arctan2(y, x)
                core = np.clip(0.5 + 3 * (0.45 + 0.3 * level - r), 0, 1)
                return 0.7 * (0.74 + 0.26 * np.cos(7 * theta) - r), core
            case "voice":  # a face that opens its mouth
                eyes = np.hypot(np.abs(x) - 0.36, y - 0.3) - 0.14
                mouth = np.hypot(0.6 * x, (y + 0.35) / (0.25 + 0.9 * level)) - 0.3
                return 1 - np.hypot(x, y), _step(np.minimum(eyes, mouth))
            case "whistle":  # a diamond with a hole that closes on a chirp
                diamond = np.abs(x) + np.abs(y)
                return 0.7 * (1 - diamond), _step(diamond - 0.5 * (1 - 0.8 * level))
            case "organ":  # a cross with a seam across each arm
                a, b = np.abs(x), np.abs(y)
                arms = np.minimum(0.34 - np.minimum(a, b), 0.9 - np.maximum(a, b))
                return arms, _wave(11 * np.maximum(a, b) + turn + 5 * level)
        raise ValueError(f"no shape for the kind {self.kind.name}")


def _wave(phase: Floats) -> Floats:
    return np.asarray(0.5 + 0.5 * np.cos(phase), dtype=np.float32)


def _step(distance: Floats) -> Floats:
    """Soft step at distance 0, about one pixel wide for an object of 10 degrees."""
    return np.asarray(np.clip(0.5 + 16 * distance, 0, 1), dtype=np.float32)


def pixels_within(
    azimuth_deg: float, elevation_deg: float, reach_deg: float
) -> tuple[int, int, NDArray[np.intp]]:
    """Rows [top, bottom) and columns that cover all pixels within ``reach_deg`` of a direction.

    Both are aligned to even numbers; columns wrap around the seam.
    """
    top = max(int((90 - elevation_deg - reach_deg) * HEIGHT / 180) // 2 * 2, 0)
    bottom = min(-(-int((90 - elevation_deg + reach_deg) * HEIGHT / 180 + 1) // 2) * 2, HEIGHT)
    if abs(elevation_deg) + reach_deg >= 90:
        return top, bottom, np.arange(WIDTH)
    ratio = np.sin(np.radians(reach_deg)) / np.cos(np.radians(elevation_deg))
    half = float(np.degrees(np.arcsin(ratio)))
    left = int(np.floor((180 - azimuth_deg - half) * WIDTH / 720)) * 2
    right = int(np.ceil((180 - azimuth_deg + half) * WIDTH / 720)) * 2
    return top, bottom, np.arange(left, min(right, left + WIDTH)) % WIDTH


def tangent_plane(
    top: int, bottom: int, columns: NDArray[np.intp], azimuth_deg: float, elevation_deg: float
) -> tuple[Floats, Floats]:
    """Coordinates (right, up) of pixels in the plane tangent to the sphere at a direction."""
    azimuth = np.pi * (1 - 2 * (columns + 0.5) / WIDTH)
    elevation = np.pi * (0.5 - (np.arange(top, bottom) + 0.5) / HEIGHT)
    rotation = view_rotation(azimuth_deg, elevation_deg)
    cos, sin = np.cos(elevation)[:, None], np.sin(elevation)[:, None]
    flat = rotation[:, :1] * np.cos(azimuth) + rotation[:, 1:2] * np.sin(azimuth)
    ahead, left, up = (
        (cos * flat[axis] + sin * rotation[axis, 2]).astype(np.float32) for axis in range(3)
    )
    ahead = np.maximum(ahead, np.float32(0.05))  # pixels behind the plane land far outside
    return -left / ahead, up / ahead


def chroma_planes(image: Bytes) -> tuple[Bytes, Bytes]:
    """Array views of U and V, each (HEIGHT / 2, WIDTH / 2), in an I420 frame."""
    chroma = image[HEIGHT:].reshape(2, HEIGHT // 2, WIDTH // 2)
    return chroma[0], chroma[1]


def halve(plane: Floats) -> Floats:
    """Means over 2 x 2 pixels."""
    rows = plane[::2] + plane[1::2]
    return 0.25 * (rows[:, ::2] + rows[:, 1::2])


def hsv_to_rgb(hue_deg: float, saturation: float, value: float) -> NDArray[np.float64]:
    """Red, green and blue (3,) in 0 to 1, from hue in degrees, saturation and value in 0 to 1."""
    sector = (np.array([5.0, 3.0, 1.0]) + hue_deg / 60) % 6
    away = np.clip(np.minimum(sector, 4 - sector), 0, 1)
    return value * (1 - saturation * away)


@lru_cache(maxsize=1)
def panorama(place: Place) -> Bytes:
    """The empty place as I420 (HEIGHT * 3 / 2, WIDTH), read-only."""
    rng = np.random.default_rng(place.seed)
    azimuth_deg = 180 * (1 - 2 * (np.arange(WIDTH) + 0.5) / WIDTH)
    elevation_deg = 90 - 180 * (np.arange(HEIGHT)[:, None] + 0.5) / HEIGHT
    sphere = unit_vector(azimuth_deg, elevation_deg).astype(np.float32)
    coarse, fine = _noise(rng, sphere, [1.5, 3, 6]), _noise(rng, sphere, [8, 16, 32])

    hues = rng.uniform(0, 360) + np.array([0, 40, 200]) + rng.uniform(-30, 30, 3)
    values = rng.uniform([0.3, 0.35, 0.55], [0.5, 0.6, 0.8])
    ground, wall, sky = (
        hsv_to_rgb(hue, rng.uniform(0.05, 0.25), value)
        for hue, value in zip(hues, values, strict=True)
    )
    horizon, skyline = rng.uniform(-12, 0), rng.uniform(10, 35)
    above_ground = np.clip((elevation_deg - horizon + 3 * coarse) / 1.0, 0, 1)[..., None]
    above_wall = np.clip((elevation_deg - skyline + 8 * coarse) / 2.0, 0, 1)[..., None]
    rgb = ground + above_ground * (wall - ground)
    rgb = rgb + above_wall * (sky - rgb)

    # Floor tiles, which fade towards the horizon where they would be finer than a pixel.
    depth = np.maximum(-sphere[..., 2], 0.02)
    tiles = np.cos(sphere[..., 0] / depth * 4) * np.cos(sphere[..., 1] / depth * 4)
    fade = np.clip((-elevation_deg - 14) / 15, 0, 1) * rng.uniform(0.0, 0.25)
    light = 1 + 0.17 * coarse + 0.14 * fine * (1 - 0.6 * above_wall[..., 0])
    light += fade * np.clip(4 * tiles, -1, 1)
    for _ in range(rng.integers(3, 9)):
        pillar = _panel(rng, azimuth_deg, elevation_deg, (1.5, 5), (-35, -10), (15, 60))
        light *= 1 + rng.uniform(-0.45, 0.35) * pillar
    for _ in range(rng.integers(2, 8)):
        pane = _panel(rng, azimuth_deg, elevation_deg, (3, 9), (-5, 8), (12, 30))
        tint = hsv_to_rgb(rng.uniform(0, 360), 0.25, rng.uniform(0.3, 0.9))
        rgb += 0.8 * pane[..., None] * (tint - rgb)
    rgb = np.clip(rgb * np.maximum(light, 0.2)[..., None], 0, 1)

    yuv = np.moveaxis(rgb @ YUV_FROM_RGB.T, -1, 0).astype(np.float32)
    chroma = np.stack([halve(yuv[1]), halve(yuv[2])]).reshape(HEIGHT // 2, WIDTH)
    image = np.concatenate([yuv[0] + 16.5, chroma + 128.5]).astype(np.uint8)
    image.flags.writeable = False
    return image


def _noise(rng: Generator, sphere: Floats, cells: list[float]) -> Floats:
    """Seamless noise over directions (..., 3), RMS about 1; ``cells`` are lattice cells per
    radius, one per octave."""
    total = np.zeros(sphere.shape[:-1], dtype=np.float32)
    for frequency in cells:
        lattice = rng.standard_normal((16, 16, 16)).astype(np.float32)
        # Random rotations, so that the lattices' axes do not show.
        rotation = np.linalg.qr(rng.standard_normal((3, 3)))[0].astype(np.float32)
        points = sphere @ rotation * np.float32(frequency) + rng.uniform(0, 16)
        octave = ndimage.map_coordinates(
            lattice, np.moveaxis(points, -1, 0), order=1, mode="grid-wrap"
        )
        total += octave * np.float32(frequency**-0.5)
    return np.asarray(total / total.std())


def _panel(
    rng: Generator,
    azimuth_deg: NDArray[np.float64],
    elevation_deg: NDArray[np.float64],
    half_width_deg: tuple[float, float],
    foot_deg: tuple[float, float],
    head_deg: tuple[float, float],
) -> NDArray[np.float64]:
    """Coverage (HEIGHT, WIDTH), 0 to 1, of an upright rectangle on a wall."""
    away = np.abs((azimuth_deg - rng.uniform(-180, 180) + 180) % 360 - 180)
    across = np.clip((rng.uniform(*half_width_deg) - away) / 0.5 + 0.5, 0, 1)
    above = np.clip((elevation_deg - rng.uniform(*foot_deg)) / 0.5 + 0.5, 0, 1)
    below = np.clip((rng.uniform(*head_deg) - elevation_deg) / 0.5 + 0.5, 0, 1)
    return np.asarray(across * above * below)
