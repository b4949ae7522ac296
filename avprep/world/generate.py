"""Generate random places and clips.

Clip ``i`` belongs to place ``i // 4`` and depends only on (seed, i) and on its place, which depends
only on (seed, i // 4): a larger world begins with the clips of a smaller one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from avprep.world.scene import (
    CLIPS_PER_PLACE,
    DURATION_S,
    KINDS,
    VARIATION,
    Beat,
    Kind,
    Place,
    Range,
    SceneObject,
    Trajectory,
    WorldClip,
    split_of_place,
)
from shards.geometry import angle_between_deg


@dataclass(frozen=True)
class ObjectRanges:
    """Ranges of objects that all places of a world share.

    ``still``: the share of the silent visible ones without a rhythm; ``moving``: the share of all
    that move. Elevations are the highest at which paths begin: a great circle through 18° with a
    slope of 25°, the steepest, reaches 31°; through 35°, 42°. ``distance_m``: None if it is not
    modelled; three in ten come nearer or go away.
    """

    kinds: tuple[Kind, ...]
    still: float
    moving: float
    still_elevation_deg: float
    moving_elevation_deg: float
    level_db: Range
    distance_m: Range | None = None


EASY = ObjectRanges(KINDS, 0.5, 0.4, 30, 18, (-7, 0))


def make_place(seed: int, index: int) -> Place:
    """Place ``index`` of the world ``seed``."""
    rng = np.random.default_rng([seed, 0, index])
    split = split_of_place(index)
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


def make_clip(seed: int, index: int) -> WorldClip:
    """Clip ``index`` of the world ``seed``.

    One to three objects sound. In two of five clips one or two further objects are silent, often of
    the same kind as a sounding one, and in three of twenty clips an invisible object sounds.
    """
    place = make_place(seed, index // CLIPS_PER_PLACE)
    rng = np.random.default_rng([seed, 1, index])
    objects: list[SceneObject] = []
    for _ in range(rng.choice([1, 2, 3], p=[0.1, 0.2, 0.7])):
        same_kind = bool(objects) and rng.random() < 0.3
        kind = objects[0].kind_index if same_kind else int(rng.integers(1, len(KINDS) + 1))
        objects.append(make_object(rng, place, kind, objects, EASY))
    sounding = [scene_object.kind_index for scene_object in objects]
    for _ in range(rng.choice([0, 1, 2], p=[0.6, 0.3, 0.1])):
        lookalike = rng.random() < 0.7
        kind = int(rng.choice(sounding) if lookalike else rng.integers(1, len(KINDS) + 1))
        objects.append(make_object(rng, place, kind, objects, EASY, silent=True))
    if rng.random() < 0.15:
        kind = int(rng.integers(1, len(KINDS) + 1))
        objects.append(make_object(rng, place, kind, objects, EASY, visible=False))
    peak_dbfs = rng.uniform(-10.0, -3.0)
    return WorldClip(index, place, tuple(objects), peak_dbfs, int(rng.integers(2**32)))


def make_object(
    rng: Generator,
    place: Place,
    kind_index: int,
    others: list[SceneObject],
    shared: ObjectRanges,
    silent: bool = False,
    visible: bool = True,
) -> SceneObject:
    """An object of a clip in a place, beside ``others``."""
    kind, ranges = shared.kinds[kind_index - 1], VARIATION[place.split]
    radius_deg = rng.uniform(*ranges.radius_deg)
    distances_m = None
    if shared.distance_m is not None:
        distances_m = _draw_distances_m(rng, shared.distance_m)
    return SceneObject(
        id=len(others),
        kind_index=kind_index,
        silent=silent,
        visible=visible,
        animated=visible and not (silent and rng.random() < shared.still),
        path=make_path(rng, radius_deg, [other for other in others if visible], shared),
        beats=make_beats(rng, kind, rng.uniform(*ranges.tempo)),
        radius_deg=radius_deg,
        hue_deg=kind.hue_deg + place.hue_deg[kind_index - 1] + rng.uniform(-5, 5),
        brightness=rng.uniform(*ranges.brightness),
        aspect=rng.uniform(*ranges.aspect),
        roll_deg=rng.uniform(-15, 15),
        texture_phase=rng.random(),
        level_db=rng.uniform(*shared.level_db),
        semitones=place.semitones[kind_index - 1] + rng.uniform(-1, 1),
        timbre=rng.uniform(*ranges.timbre),
        seed=int(rng.integers(2**32)),
        distances_m=distances_m,
    )


def _draw_distances_m(rng: Generator, distance_m: Range) -> Range:
    """Distances at the begin and end of a clip."""
    start_m = end_m = math.exp(rng.uniform(*np.log(distance_m)))
    if rng.random() < 0.3:
        end_m = math.exp(rng.uniform(*np.log(distance_m)))
    return start_m, end_m


def make_path(
    rng: Generator, radius_deg: float, others: list[SceneObject], ranges: ObjectRanges
) -> Trajectory:
    """A path that starts away from other objects."""
    moving = rng.random() < ranges.moving
    best, best_gap = Trajectory(0, 0), -np.inf
    for _ in range(50):
        reach = ranges.moving_elevation_deg if moving else ranges.still_elevation_deg
        elevation = rng.uniform(-reach, reach)
        path = Trajectory(rng.uniform(-180, 180), elevation)
        start = path.direction(np.zeros(1))
        gap = min(
            (
                float(angle_between_deg(start, o.path.direction(np.zeros(1)))[0]) - o.radius_deg
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
        return Trajectory(best.azimuth_deg, best.elevation_deg, heading, speed_deg_s=speed)
    swing = rng.uniform(15, 50)
    period = 2 * np.pi * swing / speed  # `speed` is the highest speed of the swing
    return Trajectory(
        best.azimuth_deg, best.elevation_deg, heading, swing_deg=swing, swing_s=period
    )


def make_beats(rng: Generator, kind: Kind, tempo: float) -> tuple[Beat, ...]:
    """A random rhythm: tempo, phase, a pattern of short and long steps, and random pauses."""
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
