"""What is in the generated world: places, objects, paths and rhythms; no pixels and no samples.

Clip ``i`` belongs to place ``i // 4`` and depends only on (seed, i) and on its place, which depends
only on (seed, i // 4): a larger world begins with the clips of a smaller one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from shards.geometry import angle_between_deg, direction_deg, unit_vector

Floats = NDArray[np.float64]
Range = tuple[float, float]

DURATION_S = 10.0
FPS = 24
FRAMES = 240
CLIPS_PER_PLACE = 4
ATTACK_S = 0.02


@dataclass(frozen=True)
class Kind:
    """A kind of object: its colours, its rhythm, and how its picture answers each beat."""

    name: str
    hue_deg: float
    second_hue_deg: float  # of the pattern's dark parts, from the first one
    period_s: Range  # time from beat to beat
    hold_s: float
    decay_s: float
    pulse: float  # relative growth of the radius on a beat
    flash: float  # relative growth of the brightness on a beat
    bounce_deg: float  # rise of the elevation on a beat
    spin_deg_s: float


KINDS = (
    Kind("bell", 50, 0, (0.60, 0.95), 0.02, 0.30, 0.16, 0.40, 0.0, 0.0),
    Kind("bird", 180, 60, (0.35, 0.60), 0.10, 0.06, 0.10, 0.30, 2.5, 0.0),
    Kind("drum", 0, 180, (0.35, 0.60), 0.02, 0.12, 0.30, 0.25, 0.0, 0.0),
    Kind("drone", 265, -60, (0.95, 1.40), 0.55, 0.12, 0.10, 0.45, 0.0, 15.0),
    Kind("hiss", 215, 180, (0.50, 0.85), 0.15, 0.10, 0.25, 0.30, 0.0, 0.0),
    Kind("clock", 90, -40, (0.40, 0.65), 0.02, 0.07, 0.08, 0.45, 0.0, 0.0),
    Kind("siren", 335, 60, (0.75, 1.10), 0.40, 0.08, 0.08, 0.70, 0.0, 0.0),
    Kind("string", 140, 180, (0.35, 0.65), 0.02, 0.20, 0.15, 0.35, 0.0, 0.0),
    Kind("crackle", 25, 40, (0.55, 0.90), 0.25, 0.08, 0.20, 0.50, 0.0, 60.0),
    Kind("voice", 300, -60, (0.30, 0.50), 0.12, 0.06, 0.10, 0.25, 2.0, 0.0),
)
"""Kind k of the label maps (1 to 10) is ``KINDS[k - 1]``; 0 is the background."""


@dataclass(frozen=True)
class Variation:
    """How much the objects of one kind differ in look and sound."""

    hue_deg: Range
    radius_deg: Range
    brightness: Range
    aspect: Range
    semitones: Range
    tempo: Range
    timbre: Range
    noise_db: Range
    reverb_db: Range


# The ranges overlap by about two thirds: the test asks for some generalisation, not for miracles.
VARIATION = {
    "train": Variation(
        (-9, 4), (11.0, 17.0), (0.80, 1.0), (0.80, 1.0), (-4, 2), (0.85, 1.20), (0.0, 0.7),
        (-30, -20), (-22, -14),
    ),
    "test": Variation(
        (-4, 9), (10.5, 16.0), (0.75, 0.95), (0.75, 0.95), (-2, 4), (0.95, 1.35), (0.3, 1.0),
        (-28, -18), (-20, -12),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Place:
    """A place: the source recording that four clips are cut from."""

    index: int
    split: Literal["train", "test"]
    seed: int  # seed of its panorama, of its noise colour and of its room
    hue_deg: tuple[float, ...]  # shift of the hue of each kind, in this place
    semitones: tuple[float, ...]  # shift of the pitch of each kind, in this place
    noise_db: float  # level of the diffuse noise (W) against a source of 0 dB; -inf for none
    # Energy of the diffuse tail against the direct sound; -inf for no reflections at all.
    reverb_db: float
    rt60_s: float

    @property
    def name(self) -> str:
        """Name of 11 characters, as long as those of YouTube."""
        return f"place-{self.index:05d}"


@dataclass(frozen=True)
class Path:
    """Movement along a great circle: steady at ``speed_deg_s``, or swinging to and fro."""

    azimuth_deg: float
    elevation_deg: float
    heading_deg: float = 0.0  # direction of the movement at the start: 0 is to the left, 90 is up
    speed_deg_s: float = 0.0
    swing_deg: float = 0.0
    swing_s: float = 1.0

    def direction(self, time_s: Floats) -> Floats:
        """Unit vectors (n, 3) at times (n,)."""
        start = unit_vector(self.azimuth_deg, self.elevation_deg)
        left = unit_vector(self.azimuth_deg + 90, 0)
        up = np.cross(start, left)
        heading = np.radians(self.heading_deg)
        ahead = np.cos(heading) * left + np.sin(heading) * up
        swing = self.swing_deg * np.sin(2 * np.pi * time_s / self.swing_s)
        arc = np.radians(self.speed_deg_s * time_s + swing)[:, None]
        return np.asarray(np.cos(arc) * start + np.sin(arc) * ahead)


@dataclass(frozen=True)
class Beat:
    """One event of a rhythm: both the sound and the picture of an object follow it."""

    time_s: float
    strength: float
    variant: int  # which of the object's notes (0, 1 or 2) is played


@dataclass(frozen=True)
class SceneObject:
    """Something that is seen, heard, or both."""

    id: int
    kind_index: int  # 1 to 10, as in the label maps
    silent: bool
    visible: bool
    animated: bool  # whether the picture follows the rhythm: silent objects may be still
    path: Path
    beats: tuple[Beat, ...]
    radius_deg: float
    hue_deg: float
    brightness: float
    aspect: float
    roll_deg: float
    texture_phase: float
    level_db: float
    semitones: float
    timbre: float
    seed: int

    @property
    def kind(self) -> Kind:
        """The kind of this object."""
        return KINDS[self.kind_index - 1]

    def animation(self, time_s: Floats) -> Floats:
        """How far the picture is into a beat, 0 to 1, at times (n,)."""
        age, strength = self._ages(time_s)
        decay = np.exp(-np.clip(age - self.kind.hold_s, 0, None) / self.kind.decay_s)
        level = strength * np.clip(age / ATTACK_S, 0, 1) * decay
        return np.asarray(np.max(level, axis=1, initial=0.0))

    def beat_count(self, time_s: Floats) -> Floats:
        """Beats seen so far at times (n,), moving on within the attack of each beat."""
        return np.asarray(np.clip(self._ages(time_s)[0] / ATTACK_S, 0, 1).sum(axis=1))

    def direction(self, time_s: Floats) -> Floats:
        """Unit vectors (n, 3) at times (n,): the path, and the bounce on every beat."""
        direction = self.path.direction(time_s)
        if self.kind.bounce_deg == 0:
            return direction
        azimuth, elevation = direction_deg(direction)
        return unit_vector(azimuth, elevation + self.kind.bounce_deg * self.animation(time_s))

    def radius(self, time_s: Floats) -> Floats:
        """Angular radius in degrees at times (n,)."""
        return self.radius_deg * (1 + self.kind.pulse * self.animation(time_s))

    def _ages(self, time_s: Floats) -> tuple[Floats, Floats]:
        """Time since each beat, (n, beats), and their strengths; no beats if it is not animated."""
        beats = self.beats if self.animated else ()
        times = np.array([beat.time_s for beat in beats])
        return time_s[:, None] - times, np.array([beat.strength for beat in beats])


@dataclass(frozen=True)
class Clip:
    """Ten seconds of a place, with its own objects. Later objects are in front."""

    index: int
    place: Place
    objects: tuple[SceneObject, ...]
    peak_dbfs: float  # peak of the sound: loudness differs between clips as it does in recordings
    seed: int

    @property
    def start_s(self) -> int:
        """Start in the (imagined) source recording."""
        return 10 * (self.index % CLIPS_PER_PLACE)

    @property
    def name(self) -> str:
        """Name of the clip's files, ID-START."""
        return f"{self.place.name}-{self.start_s}"


def frame_times() -> Floats:
    """Times (FRAMES,) of the video frames in seconds."""
    return np.arange(FRAMES) / FPS


def make_place(seed: int, index: int) -> Place:
    """Place ``index`` of the world ``seed``; every fifth one, from the second, is for the test."""
    rng = np.random.default_rng([seed, 0, index])
    split: Literal["train", "test"] = "test" if index % 5 == 1 else "train"
    ranges = VARIATION[split]
    return Place(
        index=index,
        split=split,
        seed=int(rng.integers(2**32)),
        hue_deg=tuple(rng.uniform(*ranges.hue_deg, len(KINDS)).tolist()),
        semitones=tuple(rng.uniform(*ranges.semitones, len(KINDS)).tolist()),
        noise_db=rng.uniform(*ranges.noise_db),
        reverb_db=rng.uniform(*ranges.reverb_db),
        rt60_s=rng.uniform(0.2, 0.6),
    )


def make_clip(seed: int, index: int) -> Clip:
    """Clip ``index`` of the world ``seed``.

    One to three objects sound, in every other clip one or two more are silent, often of the same
    kind as a sounding one, and in three clips of twenty something sounds that is not seen.
    """
    place = make_place(seed, index // CLIPS_PER_PLACE)
    rng = np.random.default_rng([seed, 1, index])
    objects: list[SceneObject] = []
    for _ in range(rng.choice([1, 2, 3], p=[0.1, 0.2, 0.7])):
        again = bool(objects) and rng.random() < 0.3
        kind = objects[0].kind_index if again else int(rng.integers(1, len(KINDS) + 1))
        objects.append(_make_object(rng, place, kind, objects))
    sounding = [scene_object.kind_index for scene_object in objects]
    for _ in range(rng.choice([0, 1, 2], p=[0.6, 0.3, 0.1])):
        lookalike = rng.random() < 0.7
        kind = int(rng.choice(sounding) if lookalike else rng.integers(1, len(KINDS) + 1))
        objects.append(_make_object(rng, place, kind, objects, silent=True))
    if rng.random() < 0.15:
        kind = int(rng.integers(1, len(KINDS) + 1))
        objects.append(_make_object(rng, place, kind, objects, visible=False))
    peak_dbfs = rng.uniform(-10.0, -3.0)
    return Clip(index, place, tuple(objects), peak_dbfs, int(rng.integers(2**32)))


def _make_object(
    rng: Generator,
    place: Place,
    kind_index: int,
    others: list[SceneObject],
    silent: bool = False,
    visible: bool = True,
) -> SceneObject:
    kind, ranges = KINDS[kind_index - 1], VARIATION[place.split]
    radius_deg = rng.uniform(*ranges.radius_deg)
    return SceneObject(
        id=len(others),
        kind_index=kind_index,
        silent=silent,
        visible=visible,
        animated=visible and not (silent and rng.random() < 0.5),
        path=_make_path(rng, radius_deg, [o for o in others if visible]),
        beats=_make_beats(rng, kind, rng.uniform(*ranges.tempo)),
        radius_deg=radius_deg,
        hue_deg=kind.hue_deg + place.hue_deg[kind_index - 1] + rng.uniform(-5, 5),
        brightness=rng.uniform(*ranges.brightness),
        aspect=rng.uniform(*ranges.aspect),
        roll_deg=rng.uniform(-15, 15),
        texture_phase=rng.random(),
        level_db=rng.uniform(-7, 0),
        semitones=place.semitones[kind_index - 1] + rng.uniform(-1, 1),
        timbre=rng.uniform(*ranges.timbre),
        seed=int(rng.integers(2**32)),
    )


def _make_path(rng: Generator, radius_deg: float, others: list[SceneObject]) -> Path:
    """Four in ten move; they start clear of the others and keep to about 30° of elevation."""
    moving = rng.random() < 0.4
    best, best_gap = Path(0, 0), -np.inf
    for _ in range(50):
        # A great circle through 18° with a slope of 25° rises to 31°.
        elevation = rng.uniform(-18, 18) if moving else rng.uniform(-30, 30)
        path = Path(rng.uniform(-180, 180), elevation)
        here = path.direction(np.zeros(1))
        gap = min(
            (
                float(angle_between_deg(here, o.path.direction(np.zeros(1)))[0]) - o.radius_deg
                for o in others
            ),
            default=np.inf,
        )
        if gap > best_gap:
            best, best_gap = path, gap
        if gap > radius_deg + 10:
            break
    if not moving:
        return best
    heading = rng.uniform(-25, 25)
    speed = rng.uniform(8, 40) * rng.choice([-1, 1])
    if rng.random() < 0.5:
        return Path(best.azimuth_deg, best.elevation_deg, heading, speed_deg_s=speed)
    swing = rng.uniform(15, 50)
    period = 2 * np.pi * swing / speed  # so that the fastest moment has this speed
    return Path(best.azimuth_deg, best.elevation_deg, heading, swing_deg=swing, swing_s=period)


def _make_beats(rng: Generator, kind: Kind, tempo: float) -> tuple[Beat, ...]:
    """A rhythm of its own: tempo, phase, a pattern of short and long steps, and random pauses."""
    period = rng.uniform(*kind.period_s) / tempo
    pattern = [(1.0,), (1.0, 1.0, 1.6), (0.8, 1.3), (1.0, 1.0, 0.8, 0.8)][rng.integers(4)]
    beats: list[Beat] = []
    time_s = rng.uniform(0, period)
    while time_s < DURATION_S - 0.1:
        beats.append(Beat(float(time_s), float(rng.uniform(0.6, 1.0)), int(rng.integers(3))))
        time_s += period * pattern[len(beats) % len(pattern)] * rng.normal(1.0, 0.03)
        if rng.random() < 0.06:
            time_s += rng.uniform(0.6, 1.5)
    return tuple(beats)
