"""The generated world of actions: small ordinary videos of an object that performs an action.

Ten videos, one of each action, are identical otherwise: the object's kind, colour and size, other
objects, the background and the camera's shake. The appearance of a video therefore gives no hint of
its action, not even to a network that has memorised the training set. In the hard world a single
frame gives no hint either, and a mirror image shows the same action. A video depends only on its
seed, number and difficulty; all videos of a group share a place, as in UCF101.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from avprep.world.generate import make_place
from avprep.world.picture import HEIGHT, WIDTH, Bytes, Drawing, Floats, halve, panorama
from avprep.world.scene import KINDS, Difficulty, SceneObject, Trajectory

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
HARD_ACTIONS = (
    "FadeFast",
    "FadeSlow",
    "Fall",
    "Grow",
    "Rise",
    "Shrink",
    "SpinFast",
    "SpinSlow",
    "SwayFast",
    "SwaySlow",
)
GROUPS = 12
"""Number of groups (from 1); each has a place of its own."""
FOLDS = 3
"""Fold f tests on the groups g with (g - f) divisible by this, and trains on the others."""

_SIZES = ((160, 120), (200, 150), (240, 180))
_RATES = (24, 25, 30)
_CROSSING = 1.7
"""Distance that a crossing object covers, in frame heights, from before it enters until it left."""


def actions_of(difficulty: Difficulty) -> tuple[str, ...]:
    """The ten actions of a world."""
    return ACTIONS if difficulty == "easy" else HARD_ACTIONS


@dataclass(frozen=True)
class Motion:
    """An object's motion, arrays of (frames,): the position of its centre in frame heights, to the
    right of and above the frame's centre; a factor on its size; its roll in radians; and how opaque
    it is (0 to 1)."""

    right: Floats
    up: Floats
    size: Floats
    roll: Floats
    visible: Floats


@dataclass(frozen=True)
class ActionVideo:
    """Video ``number`` of the world ``seed``: numbers run through the actions, then the groups, and
    then repeat both."""

    seed: int
    number: int
    difficulty: Difficulty = "easy"

    @property
    def action(self) -> str:
        return actions_of(self.difficulty)[self.number % len(ACTIONS)]

    @property
    def group(self) -> int:
        return self.number // len(ACTIONS) % GROUPS + 1

    @property
    def name(self) -> str:
        """Name in the style of UCF101."""
        clip = self.number // (len(ACTIONS) * GROUPS) + 1
        return f"v_{self.action}_g{self.group:02d}_c{clip:02d}"

    def role(self, fold: int) -> str:
        """``train`` or ``test`` in a fold (from 1)."""
        return "test" if (self.group - fold) % FOLDS == 0 else "train"


def render_video(video: ActionVideo) -> tuple[int, Iterator[Bytes]]:
    """Frame rate, and the frames of 2 to 4 s as I420 (height * 3 / 2, width)."""
    rng = np.random.default_rng([video.seed, 2, video.number // len(ACTIONS)])
    width, height = _SIZES[rng.integers(len(_SIZES))]
    rate = _RATES[rng.integers(len(_RATES))]
    times = np.arange(round(rng.uniform(2, 4) * rate)) / rate
    background = _Background(video, width, height, rng)
    still = np.zeros(len(times))
    if video.difficulty == "easy":
        motion = move(video.action, times, np.random.default_rng([video.seed, 3, video.number]))
    else:
        # The same draws for the ten actions: they begin with the same frame.
        draws = np.random.default_rng([video.seed, 6, video.number // len(ACTIONS)])
        motion = move_hard(video.action, times, draws)
    easy = video.difficulty == "easy"
    objects = [_Figure(motion, 1.0 if easy else 1.3, rng)]
    if easy and rng.random() < 0.4:  # an idle object behind the other
        right, up = rng.uniform(-0.45, 0.45), rng.uniform(-0.4, 0.4)
        rest = Motion(still + right, still + up, still + 1, still, still + 1)
        objects.insert(0, _Figure(rest, 0.6, rng))
    # Networks that see 32 pixels must tell slow motion from the camera's.
    shake = 0.012 if easy else 0.004
    shifts = shake * np.stack([_camera_shake(times, rng), _camera_shake(times, rng)])
    return rate, (
        _frame(background, objects, number, shift) for number, shift in enumerate(shifts.T)
    )


def move(action: str, times: Floats, rng: Generator) -> Motion:
    """The motion of an action at ``times`` (frames,) in seconds, with random tempo, size and
    phase."""
    turn = 2 * np.pi * rng.random()
    right: Floats = rng.uniform(-0.15, 0.15) + np.zeros(len(times))
    up: Floats = rng.uniform(-0.15, 0.15) + np.zeros(len(times))
    size: Floats = np.ones(len(times))
    visible: Floats = np.ones(len(times))
    roll: Floats = rng.uniform(-0.4, 0.4) + np.zeros(len(times))
    match action:
        case "Blink":
            visible = (np.sin(2 * np.pi * rng.uniform(1.5, 3.0) * times + turn) > 0).astype(float)
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
    return Motion(right, up, size, roll, visible)


def move_hard(action: str, times: Floats, rng: Generator) -> Motion:
    """The motion of an action of the hard world at ``times`` (frames,) in seconds.

    Position, size, roll and opacity are functions of a phase each, and in all actions all phases
    are uniform over a period at any time. An action is the speed of one of them, in periods per
    second, and the others rest: the content of one frame is distributed alike in all actions.
    """
    phases = dict(zip(("right", "up", "size", "roll", "visible"), rng.random(5), strict=True))
    sense, slow, fast = rng.choice([-1, 1]), rng.uniform(0.1, 0.2), rng.uniform(0.9, 1.2)
    speeds = {
        **{"FadeFast": ("visible", fast), "FadeSlow": ("visible", slow)},
        **{"Rise": ("up", (slow + fast) / 2), "Fall": ("up", -(slow + fast) / 2)},
        **{"Grow": ("size", (slow + fast) / 2), "Shrink": ("size", -(slow + fast) / 2)},
        **{"SpinFast": ("roll", sense * fast), "SpinSlow": ("roll", sense * slow)},
        **{"SwayFast": ("right", fast), "SwaySlow": ("right", slow)},
    }
    changing, speed = speeds[action]
    phase = {
        name: (start + (speed if name == changing else 0.0) * times) % 1
        for name, start in phases.items()
    }
    return Motion(
        right=0.7 * np.abs(2 * phase["right"] - 1) - 0.35,
        up=0.5 * phase["up"] - 0.25,
        size=0.6 + 0.9 * phase["size"],
        roll=2 * np.pi * phase["roll"],
        visible=0.2 + 0.8 * np.abs(2 * phase["visible"] - 1),
    )


class _Figure:
    """An object of random kind and colour, drawn like the objects of the 360° world."""

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
                path=Trajectory(0.0, 0.0),
                beats=(),
                radius_deg=1.0,
                hue_deg=rng.uniform(0, 360),
                brightness=rng.uniform(0.7, 1.0),
                aspect=rng.uniform(0.5, 0.75),  # oblong, so that rotation is visible
                roll_deg=0.0,
                texture_phase=rng.random(),
                level_db=0.0,
                semitones=0.0,
                timbre=0.0,
                seed=int(rng.integers(2**32)),
            )
        )
        self._drawing.roll = motion.roll

    def draw(self, number: int, image: Floats, shift: Floats) -> None:
        """Draw frame ``number`` into YUV (height, width, 3) without offsets, from a camera that is
        displaced by ``shift`` (right, up) frame heights."""
        motion, drawing = self.motion, self._drawing
        height, width = image.shape[:2]
        radius = self.radius * motion.size[number]
        # Outlines lie within the unit circle: pixels outside need no drawing.
        column = (motion.right[number] - shift[0]) * height + width / 2
        row = height / 2 - (motion.up[number] - shift[1]) * height
        columns, rows = _near(column, radius * height, width), _near(row, radius * height, height)
        x = np.float32((columns + 0.5 - column) / (radius * height))
        y = np.float32((row - rows[:, None] - 0.5) / (radius * height))
        across, upward = np.broadcast_arrays(x, y)
        edge, pattern = drawing.shape(across, upward, number)
        cover = motion.visible[number] * np.clip(edge * radius * height + 0.5, 0, 1)[..., None]
        ink = (drawing.light[number] * np.clip(edge * 14, 0.2, 1))[..., None]
        bright = pattern[..., None]
        colour = bright * drawing.bright_yuv + (1 - bright) * drawing.dark_yuv
        area = np.ix_(rows, columns)
        image[area] += cover * (ink * colour - image[area])


def _near(centre: float, reach: float, end: int) -> NDArray[np.intp]:
    """Indices in 0 to ``end`` (exclusive) within ``reach`` of a position, with a margin of one."""
    first, last = np.clip([int(centre - reach) - 1, int(centre + reach) + 2], 0, end)
    return np.arange(first, last)


class _Background:
    """A part of a place's panorama, seen by a shaking camera."""

    def __init__(self, video: ActionVideo, width: int, height: int, rng: Generator) -> None:
        self.width, self.height = width, height
        place = make_place(video.seed, video.group - 1)
        self._yuv = np.roll(_planes(panorama(place)), int(rng.integers(WIDTH)), axis=1)
        self._span = rng.uniform(150, 250)
        self._middle = (WIDTH / 2, HEIGHT / 2 + rng.uniform(-60, 40))

    def frame(self, shift: Floats) -> Floats:
        """The frame as YUV (height, width, 3) without offsets; the camera is displaced by ``shift``
        (right, up) frame heights."""
        step = self._span / self.height
        left = self._middle[0] - step * self.width / 2 + shift[0] * self._span
        top = self._middle[1] - step * self.height / 2 - shift[1] * self._span
        matrix = np.array([[step, 0, left], [0, step, top]])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        size = (self.width, self.height)
        warped = cv2.warpAffine(self._yuv, matrix, size, flags=flags, borderMode=cv2.BORDER_REFLECT)
        return np.asarray(warped, dtype=np.float32)


def _planes(image: Bytes) -> Floats:
    """An I420 frame as YUV (height, width, 3) without the offsets of limited range."""
    chroma = image[HEIGHT:].reshape(2, HEIGHT // 2, WIDTH // 2).repeat(2, 1).repeat(2, 2)
    yuv = np.stack([image[:HEIGHT], *chroma], axis=-1).astype(np.float32)
    return yuv - np.array([16, 128, 128], dtype=np.float32)


def _frame(background: _Background, objects: list[_Figure], number: int, shift: Floats) -> Bytes:
    image = background.frame(shift)
    for figure in objects:
        figure.draw(number, image, shift)
    height, width = image.shape[:2]
    chroma = np.concatenate([halve(image[..., 1]), halve(image[..., 2])])
    full = np.concatenate([image[..., 0] + 16.5, chroma.reshape(height // 2, width) + 128.5])
    return np.asarray(np.clip(full, 0, 255), dtype=np.uint8)


def _camera_shake(times: Floats, rng: Generator) -> Floats:
    """Shake of a hand-held camera (frames,), at most about 1."""
    waves = [
        rng.uniform(0.1, 0.5) * np.sin(2 * np.pi * (rng.uniform(0.4, 2.5) * times + rng.random()))
        for _ in range(3)
    ]
    return np.asarray(np.sum(waves, axis=0))
