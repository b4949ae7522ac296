"""Records of the generated world: places, objects, paths and rhythms, without pixels or samples."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from shards.geometry import direction_deg, unit_vector

Floats = NDArray[np.float64]
Range = tuple[float, float]
Difficulty = Literal["easy", "hard"]

DURATION_S = 10.0
FPS = 24
SAMPLE_RATE = 48000
FRAMES = 240
CLIPS_PER_PLACE = 4
ATTACK_S = 0.02


@dataclass(frozen=True)
class Kind:
    """A kind of object: its colours, its rhythm, and how its image changes on a beat."""

    name: str
    hue_deg: float
    second_hue_deg: float  # hue of the pattern's dark parts, relative to hue_deg
    period_s: Range  # time between beats
    hold_s: float
    decay_s: float
    pulse: float  # relative growth of the radius on a beat
    flash: float  # relative growth of the brightness on a beat
    bounce_deg: float  # rise of the elevation on a beat
    spin_deg_s: float
    looks_like: str = ""  # the kind whose shape and pattern it has, if not its own
    sounds_like: str = ""  # the kind whose notes it plays, if not its own

    @property
    def look(self) -> str:
        return self.looks_like or self.name

    @property
    def sound(self) -> str:
        return self.sounds_like or self.name


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
"""Value k of the label maps (1 to 10) is ``KINDS[k - 1]``; 0 is the background."""
HARD_KINDS = (
    *KINDS,
    # Two kinds that only their sound tells from a bell and a siren.
    replace(KINDS[0], name="gong", looks_like="bell"),
    replace(KINDS[6], name="buzzer", looks_like="siren"),
    # Two kinds that only their look tells from a bird and a drone.
    replace(KINDS[1], name="whistle", hue_deg=20, second_hue_deg=180, sounds_like="bird"),
    replace(KINDS[3], name="organ", hue_deg=120, second_hue_deg=60, sounds_like="drone"),
)
"""The kinds of hard worlds: value k of the label maps (1 to 14) is ``HARD_KINDS[k - 1]``."""


@dataclass(frozen=True)
class Variation:
    """Ranges in which the objects of a split vary in look and sound."""

    hue_deg: Range
    radius_deg: Range
    brightness: Range
    aspect: Range
    semitones: Range
    tempo: Range
    timbre: Range
    noise_db: Range
    reverb_db: Range


# The ranges overlap by about two thirds, so that testing needs some generalisation, but not much.
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
    """A place: the (imagined) source recording from which four clips are cut."""

    index: int
    split: Literal["train", "test"]
    seed: int  # seed of its panorama, noise colour and room
    hue_deg: tuple[float, ...]  # hue shift of each kind in this place
    semitones: tuple[float, ...]  # pitch shift of each kind in this place
    noise_db: float  # level of the diffuse noise (W) relative to a source of 0 dB; -inf: none
    # Energy of the diffuse tail relative to the direct sound; -inf: no reflections at all.
    reverb_db: float
    rt60_s: float
    # Distance at which the tail is as loud as the direct sound. With one, loudness depends on
    # distance: the direct sound of a source at r is 1 / r of that at 1 m, its tail is as at 1 m.
    critical_distance_m: float | None = None

    @property
    def name(self) -> str:
        return place_name(self.index)


def split_of_place(index: int) -> Literal["train", "test"]:
    """Every fifth place, from the second, is a test place."""
    return "test" if index % 5 == 1 else "train"


def place_name(index: int) -> str:
    """Name of 11 characters, the length of YouTube's ids."""
    return f"place-{index:05d}"


def clip_name(index: int) -> str:
    """Name of the files of clip ``index``, ID-START."""
    place, part = divmod(index, CLIPS_PER_PLACE)
    return f"{place_name(place)}-{10 * part}"


@dataclass(frozen=True)
class Trajectory:
    """Movement along a great circle: steady at ``speed_deg_s``, or swinging back and forth."""

    azimuth_deg: float
    elevation_deg: float
    heading_deg: float = 0.0  # direction of movement at the start: 0 is to the left, 90 is up
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
    """One event of a rhythm, which both the sound and the image of an object follow."""

    time_s: float
    strength: float
    variant: int  # the object's note to play: 0, 1 or 2


@dataclass(frozen=True)
class SceneObject:
    """An object that is visible, audible, or both."""

    id: int
    kind_index: int  # from 1, as in the label maps
    silent: bool
    visible: bool
    animated: bool  # whether its image follows the rhythm; silent objects may be still
    path: Trajectory
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
    # Distance at the clip's start and end, between which it changes steadily; None: not modelled.
    distances_m: Range | None = None

    @property
    def kind(self) -> Kind:
        """This object's kind."""
        return HARD_KINDS[self.kind_index - 1]

    def animation(self, time_s: Floats) -> Floats:
        """How strongly a beat shows in the image, 0 to 1, at times (n,)."""
        age, strength = self._ages(time_s)
        decay = np.exp(-np.clip(age - self.kind.hold_s, 0, None) / self.kind.decay_s)
        level = strength * np.clip(age / ATTACK_S, 0, 1) * decay
        return np.asarray(np.max(level, axis=1, initial=0.0))

    def beat_count(self, time_s: Floats) -> Floats:
        """Number of visible beats so far at times (n,), rising during the attack of each beat."""
        return np.asarray(np.clip(self._ages(time_s)[0] / ATTACK_S, 0, 1).sum(axis=1))

    def direction(self, time_s: Floats) -> Floats:
        """Unit vectors (n, 3) at times (n,): the path plus the bounce on each beat."""
        direction = self.path.direction(time_s)
        if self.kind.bounce_deg == 0:
            return direction
        azimuth, elevation = direction_deg(direction)
        return unit_vector(azimuth, elevation + self.kind.bounce_deg * self.animation(time_s))

    def distance(self, time_s: Floats) -> Floats:
        """Distance in metres at times (n,); 1 if it is not modelled."""
        start, end = self.distances_m or (1.0, 1.0)
        return start + (end - start) * time_s / DURATION_S

    def radius(self, time_s: Floats) -> Floats:
        """Angular radius in degrees at times (n,).

        It falls by the fourth root of the distance: by the distance itself, objects at 3 m would
        have a third of their size, too little for crops of 32 pixels.
        """
        radius_deg = self.radius_deg * (1 + self.kind.pulse * self.animation(time_s))
        return (
            radius_deg if self.distances_m is None else radius_deg * self.distance(time_s) ** -0.25
        )

    def _ages(self, time_s: Floats) -> tuple[Floats, Floats]:
        """Time since each beat (n, beats), and the beats' strengths; no beats unless animated."""
        beats = self.beats if self.animated else ()
        times = np.array([beat.time_s for beat in beats])
        return time_s[:, None] - times, np.array([beat.strength for beat in beats])


@dataclass(frozen=True)
class WorldClip:
    """Ten seconds of a place, with objects of its own. Later objects are in front."""

    index: int
    place: Place
    objects: tuple[SceneObject, ...]
    peak_dbfs: float  # audio peak; like recordings, clips differ in loudness
    seed: int

    @property
    def start_s(self) -> int:
        """Start in the (imagined) source recording."""
        return 10 * (self.index % CLIPS_PER_PLACE)

    @property
    def name(self) -> str:
        """Name of the clip's files, ID-START."""
        return clip_name(self.index)


def frame_times() -> Floats:
    """Times (FRAMES,) of the video frames in seconds."""
    return np.arange(FRAMES) / FPS
