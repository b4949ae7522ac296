"""The generated world of actions: small ordinary videos of an object that does something.

Ten videos, one of each action, are alike in all else: the object's kind, colour and size, what
stands beside it, the background and the camera's tremor. So the look of a video says nothing of its
action, not even to a network that knows the training set by heart. A video depends on (seed, its
number) alone; all videos of a group are of one place, as those of UCF101.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from avprep.world.picture import HEIGHT, WIDTH, Bytes, Drawing, Floats, halve, panorama
from avprep.world.scene import KINDS, Path, SceneObject, make_place

ACTIONS = (
    "Blink",
    "Bounce",
    "CircleClockwise",
    "CircleCounterclockwise",
    "CrossLeft",
    "CrossRight",
    "Grow",
    "Shake",
    "Spin",
    "Swing",
)
GROUPS = 12
"""Places that videos are of; groups number them from 1."""
FOLDS = 3
"""Fold f tests the groups g with (g - f) divisible by this, and trains on the others."""

_SIZES = ((160, 120), (200, 150), (240, 180))
_RATES = (24, 25, 30)
_CROSSING = 1.7
"""Heights from where a crossing object enters to where it has left."""


@dataclass(frozen=True)
class Motion:
    """What an object does, (frames,) each: where its centre is, in heights of the picture to the
    right of and above the middle; a factor of its size; its roll in radians; and whether it is
    seen (0 or 1)."""

    right: Floats
    up: Floats
    size: Floats
    roll: Floats
    seen: Floats


@dataclass(frozen=True)
class ActionVideo:
    """Video ``number`` of the world ``seed``: every action in every group, then the same again."""

    seed: int
    number: int

    @property
    def action(self) -> str:
        return ACTIONS[self.number % len(ACTIONS)]

    @property
    def group(self) -> int:
        return self.number // len(ACTIONS) % GROUPS + 1

    @property
    def name(self) -> str:
        """As UCF101 names them."""
        clip = self.number // (len(ACTIONS) * GROUPS) + 1
        return f"v_{self.action}_g{self.group:02d}_c{clip:02d}"

    def role(self, fold: int) -> str:
        """``train`` or ``test`` in a fold (from 1)."""
        return "test" if (self.group - fold) % FOLDS == 0 else "train"


def render_video(video: ActionVideo) -> tuple[int, Iterator[Bytes]]:
    """Frames a second, and the frames as I420 (height * 3 / 2, width), for 2 to 4 s."""
    rng = np.random.default_rng([video.seed, 2, video.number // len(ACTIONS)])
    width, height = _SIZES[rng.integers(len(_SIZES))]
    rate = _RATES[rng.integers(len(_RATES))]
    times = np.arange(round(rng.uniform(2, 4) * rate)) / rate
    view = _View(video, width, height, rng)
    still = np.zeros(len(times))
    motion = move(video.action, times, np.random.default_rng([video.seed, 3, video.number]))
    objects = [_Figure(motion, 1.0, rng)]
    if rng.random() < 0.4:  # something that does nothing, behind
        right, up = rng.uniform(-0.45, 0.45), rng.uniform(-0.4, 0.4)
        rest = Motion(still + right, still + up, still + 1, still, still + 1)
        objects.insert(0, _Figure(rest, 0.6, rng))
    shifts = 0.012 * np.stack([_tremor(times, rng), _tremor(times, rng)])
    return rate, (_frame(view, objects, number, shift) for number, shift in enumerate(shifts.T))


def move(action: str, times: Floats, rng: Generator) -> Motion:
    """An action over ``times`` (frames,) in seconds, with random tempo, size and phase."""
    turn = 2 * np.pi * rng.random()
    right: Floats = rng.uniform(-0.15, 0.15) + np.zeros(len(times))
    up: Floats = rng.uniform(-0.15, 0.15) + np.zeros(len(times))
    size: Floats = np.ones(len(times))
    seen: Floats = np.ones(len(times))
    roll: Floats = rng.uniform(-0.4, 0.4) + np.zeros(len(times))
    match action:
        case "Blink":
            seen = (np.sin(2 * np.pi * rng.uniform(1.5, 3.0) * times + turn) > 0).astype(float)
        case "Bounce":
            rise = np.abs(np.sin(np.pi * rng.uniform(1.2, 2.0) * times + turn))
            up = up - 0.2 + rng.uniform(0.3, 0.45) * rise
        case "CircleClockwise" | "CircleCounterclockwise":
            sense = -1 if action == "CircleClockwise" else 1
            angle = sense * 2 * np.pi * rng.uniform(0.7, 1.2) * times + turn
            reach = rng.uniform(0.18, 0.28)
            right, up = right / 2 + reach * np.cos(angle), up / 2 + reach * np.sin(angle)
        case "CrossLeft" | "CrossRight":
            sense = -1 if action == "CrossLeft" else 1
            way = sense * rng.uniform(0.8, 1.4) * times + _CROSSING * rng.random()
            right = way % _CROSSING - _CROSSING / 2
        case "Grow":
            size = 0.35 + 1.1 * ((rng.uniform(0.7, 1.2) * times + rng.random()) % 1)
        case "Shake":
            way = 2 * np.pi * rng.uniform(3.0, 5.0) * times + turn
            right = right + rng.uniform(0.04, 0.07) * np.sin(way)
            up = up + 0.03 * np.sin(1.3 * way)
        case "Spin":
            roll = roll + rng.choice([-1, 1]) * 2 * np.pi * rng.uniform(0.6, 1.2) * times
        case "Swing":
            angle = rng.uniform(0.7, 1.1) * np.sin(2 * np.pi * rng.uniform(0.7, 1.2) * times + turn)
            right, up = right + 0.4 * np.sin(angle), up + 0.3 - 0.4 * np.cos(angle)
            roll = roll + angle
        case _:
            raise ValueError(f"no action {action}")
    return Motion(right, up, size, roll, seen)


class _Figure:
    """An object of random kind and colour, drawn as the world draws its own."""

    def __init__(self, motion: Motion, factor: float, rng: Generator) -> None:
        self.motion = motion
        self.radius = factor * rng.uniform(0.15, 0.22)
        self._drawing = Drawing(
            SceneObject(
                id=0,
                kind_index=int(rng.integers(1, len(KINDS) + 1)),
                silent=True,
                visible=True,
                animated=False,
                path=Path(0.0, 0.0),
                beats=(),
                radius_deg=1.0,
                hue_deg=rng.uniform(0, 360),
                brightness=rng.uniform(0.7, 1.0),
                aspect=rng.uniform(0.5, 0.75),  # so that none looks the same from all sides
                roll_deg=0.0,
                texture_phase=rng.random(),
                level_db=0.0,
                semitones=0.0,
                timbre=0.0,
                seed=int(rng.integers(2**32)),
            )
        )
        self._drawing.roll = motion.roll

    def draw(self, number: int, picture: Floats, shift: Floats) -> None:
        """Into YUV (height, width, 3) without offsets, seen ``shift`` (right, up) heights aside."""
        motion, drawing = self.motion, self._drawing
        height, width = picture.shape[:2]
        radius = self.radius * motion.size[number]
        # Outlines lie within the unit circle: pixels beyond it need no look.
        column = (motion.right[number] - shift[0]) * height + width / 2
        row = height / 2 - (motion.up[number] - shift[1]) * height
        columns, rows = _near(column, radius * height, width), _near(row, radius * height, height)
        x = np.float32((columns + 0.5 - column) / (radius * height))
        y = np.float32((row - rows[:, None] - 0.5) / (radius * height))
        across, upward = np.broadcast_arrays(x, y)
        edge, pattern = drawing.look(across, upward, number)
        cover = motion.seen[number] * np.clip(edge * radius * height + 0.5, 0, 1)[..., None]
        ink = (drawing.light[number] * np.clip(edge * 14, 0.2, 1))[..., None]
        bright = pattern[..., None]
        colour = bright * drawing.bright_yuv + (1 - bright) * drawing.dark_yuv
        here = np.ix_(rows, columns)
        picture[here] += cover * (ink * colour - picture[here])


def _near(middle: float, reach: float, end: int) -> NDArray[np.intp]:
    """The pixels of a row or column (of ``end``) within ``reach`` and one of a place."""
    first, last = np.clip([int(middle - reach) - 1, int(middle + reach) + 2], 0, end)
    return np.arange(first, last)


class _View:
    """A part of a place's panorama as a camera's picture."""

    def __init__(self, video: ActionVideo, width: int, height: int, rng: Generator) -> None:
        self.width, self.height = width, height
        place = make_place(video.seed, video.group - 1)
        self._yuv = np.roll(_planes(panorama(place)), int(rng.integers(WIDTH)), axis=1)
        self._span = rng.uniform(150, 250)
        self._middle = (WIDTH / 2, HEIGHT / 2 + rng.uniform(-60, 40))

    def picture(self, shift: Floats) -> Floats:
        """YUV (height, width, 3) without offsets, seen ``shift`` (right, up) heights aside."""
        step = self._span / self.height
        left = self._middle[0] - step * self.width / 2 + shift[0] * self._span
        top = self._middle[1] - step * self.height / 2 - shift[1] * self._span
        matrix = np.array([[step, 0, left], [0, step, top]])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        size = (self.width, self.height)
        seen = cv2.warpAffine(self._yuv, matrix, size, flags=flags, borderMode=cv2.BORDER_REFLECT)
        return np.asarray(seen, dtype=np.float32)


def _planes(picture: Bytes) -> Floats:
    """I420 as YUV (height, width, 3) without the offsets of limited range."""
    chroma = picture[HEIGHT:].reshape(2, HEIGHT // 2, WIDTH // 2).repeat(2, 1).repeat(2, 2)
    yuv = np.stack([picture[:HEIGHT], *chroma], axis=-1).astype(np.float32)
    return yuv - np.array([16, 128, 128], dtype=np.float32)


def _frame(view: _View, objects: list[_Figure], number: int, shift: Floats) -> Bytes:
    picture = view.picture(shift)
    for figure in objects:
        figure.draw(number, picture, shift)
    height, width = picture.shape[:2]
    chroma = np.concatenate([halve(picture[..., 1]), halve(picture[..., 2])])
    full = np.concatenate([picture[..., 0] + 16.5, chroma.reshape(height // 2, width) + 128.5])
    return np.asarray(np.clip(full, 0, 255), dtype=np.uint8)


def _tremor(times: Floats, rng: Generator) -> Floats:
    """A hand's unrest (frames,), about 1 at most."""
    waves = [
        rng.uniform(0.1, 0.5) * np.sin(2 * np.pi * (rng.uniform(0.4, 2.5) * times + rng.random()))
        for _ in range(3)
    ]
    return np.asarray(np.sum(waves, axis=0))
