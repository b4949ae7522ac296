"""Random places and clips of the hard world.

Sounding and silent objects look alike, kinds share their look or their sound, and sources differ in
distance. As in the easy world, clip ``i`` depends only on (seed, i) and on its place.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.random import Generator

from avprep.world.generate import ObjectRanges, make_object
from avprep.world.scene import (
    CLIPS_PER_PLACE,
    HARD_KINDS,
    VARIATION,
    Place,
    SceneObject,
    WorldClip,
    split_of_place,
)

# A first version had sources at up to 6 m in small rooms (direct-to-reverberant ratio -0.5 dB, SNR
# 7 dB, medians) and more silent objects: with 1,920 training clips, small networks found 42 % of
# the right views (chance 25) after 4,000 steps of AVSA. Here they find 45 %, and with the intensity
# scaled as it is today 59 %.
HARD = ObjectRanges(HARD_KINDS, 0.25, 0.5, 45, 35, (-5, 0), (1.0, 3.0))
RT60_S = (0.2, 0.9)
VOLUME_M3 = (1000.0, 8000.0)
DIRECTIVITY = 2.5
"""How much more intense sources are towards the listener than on average; speech has about this."""
NOISE_DB = {"train": (-34.0, -24.0), "test": (-32.0, -22.0)}
"""Diffuse noise (W) relative to a source of 0 dB at 1 m."""

_NAMES = [kind.name for kind in HARD_KINDS]


def make_place(seed: int, index: int) -> Place:
    """Place ``index`` of the hard world ``seed``."""
    rng = np.random.default_rng([seed, 4, index])
    split = split_of_place(index)
    ranges = VARIATION[split]
    rt60_s = rng.uniform(*RT60_S)
    volume_m3 = math.exp(rng.uniform(*np.log(VOLUME_M3)))
    critical_m = critical_distance_m(volume_m3, rt60_s)
    hues, semitones = (
        rng.uniform(*span, len(HARD_KINDS)) for span in (ranges.hue_deg, ranges.semitones)
    )
    return Place(
        index=index,
        split=split,
        seed=int(rng.integers(2**32)),
        # Kinds that share their look or sound share its shift, or the place would tell them apart.
        hue_deg=tuple(float(hues[_NAMES.index(kind.look)]) for kind in HARD_KINDS),
        semitones=tuple(float(semitones[_NAMES.index(kind.sound)]) for kind in HARD_KINDS),
        noise_db=rng.uniform(*NOISE_DB[split]),
        reverb_db=-20 * math.log10(critical_m),
        rt60_s=rt60_s,
        critical_distance_m=critical_m,
    )


def critical_distance_m(volume_m3: float, rt60_s: float) -> float:
    """Distance at which a source's direct sound is as strong as its diffuse field in a room.

    Kuttruff, Room Acoustics, 4th ed., eq. 5.39 and Sabine's formula: 0.057 sqrt(Q V / T), with Q
    the source's directivity.
    """
    return 0.057 * math.sqrt(DIRECTIVITY * volume_m3 / rt60_s)


def make_clip(seed: int, index: int) -> WorldClip:
    """Clip ``index`` of the hard world ``seed``.

    One to three objects sound and are seen, up to three are seen only, and up to two are heard
    only. Silent objects look like sounding ones in two of three cases, and mostly have a rhythm.
    """
    place = make_place(seed, index // CLIPS_PER_PLACE)
    rng = np.random.default_rng([seed, 5, index])
    objects: list[SceneObject] = []
    for _ in range(rng.choice([1, 2, 3], p=[0.35, 0.4, 0.25])):
        # Objects of one kind, of which only the direction of the sound tells which one sounds.
        again = bool(objects) and rng.random() < 0.35
        kind = objects[0].kind_index if again else _any_kind(rng)
        objects.append(make_object(rng, place, kind, objects, HARD))
    sounding = [scene_object.kind_index for scene_object in objects]
    for _ in range(rng.choice([0, 1, 2, 3], p=[0.5, 0.3, 0.15, 0.05])):
        kind = _lookalike(rng, sounding) if rng.random() < 0.67 else _any_kind(rng)
        objects.append(make_object(rng, place, kind, objects, HARD, silent=True))
    for _ in range(rng.choice([0, 1, 2], p=[0.82, 0.13, 0.05])):
        kind = _soundalike(rng, sounding) if rng.random() < 0.4 else _any_kind(rng)
        objects.append(make_object(rng, place, kind, objects, HARD, visible=False))
    # Near objects are drawn in front of far ones.
    objects.sort(key=lambda item: -sum(item.distances_m or (0, 0)))
    peak_dbfs = rng.uniform(-10.0, -3.0)
    return WorldClip(index, place, tuple(objects), peak_dbfs, int(rng.integers(2**32)))


def _any_kind(rng: Generator) -> int:
    return int(rng.integers(1, len(HARD_KINDS) + 1))


def _lookalike(rng: Generator, kinds: list[int]) -> int:
    """A kind that looks like one of ``kinds``."""
    look = HARD_KINDS[int(rng.choice(kinds)) - 1].look
    same = [number for number, kind in enumerate(HARD_KINDS, start=1) if kind.look == look]
    return int(rng.choice(same))


def _soundalike(rng: Generator, kinds: list[int]) -> int:
    """A kind that sounds like one of ``kinds``."""
    sound = HARD_KINDS[int(rng.choice(kinds)) - 1].sound
    same = [number for number, kind in enumerate(HARD_KINDS, start=1) if kind.sound == sound]
    return int(rng.choice(same))
