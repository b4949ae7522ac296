"""The README of a generated world; that of a hard one states how hard its clips came out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from avprep.world.folder import World
from avprep.world.picture import HEIGHT, WIDTH
from avprep.world.scene import FPS, HARD_KINDS, KINDS, SAMPLE_RATE
from shards.files import parse_json, read_regular
from shards.geometry import angle_between_deg, unit_vector

# An object is active in frames whose level is within this of its loudest frame.
ACTIVE_BELOW_PEAK_DB = 26.0
FLOOR_DBFS = -120.0
_TRUTH_BYTES = 64_000_000


@dataclass(frozen=True)
class _Object:
    """What is used of an object in a truth file of a hard world."""

    kind_index: int
    silent: bool
    visible: bool
    azimuth_deg: list[float]
    elevation_deg: list[float]
    active: list[bool]
    level_dbfs: list[float]
    distance_m: list[float]
    direct_to_reverberant_db: float | None


@dataclass(frozen=True)
class _Truth:
    diffuse_noise_dbfs: float
    reverberation_rt60_s: float
    objects: list[_Object]


def headline(world: World) -> str:
    """The beginning of the README, which identifies the world."""
    hard = "" if world.difficulty == "easy" else f", difficulty {world.difficulty}"
    return f"""# A generated world of 360° videos

{world.count} clips of 10 s, seed {world.seed}{hard}, four from each place."""


def world_readme(world: World, truth: Path) -> str:
    """The README; ``truth`` is the folder with the truth files of all clips."""
    if world.difficulty == "easy":
        return _describe(world, "", "")
    truths = [
        parse_json(read_regular(path, _TRUTH_BYTES), _Truth)
        for path in sorted(truth.glob("*.json"))
    ]
    return _describe(world, _HARD_MEMBERS, _measure(truths))


_EASY_CONTENTS = """\
In a clip, one to three objects are visible and audible, up to two more are visible but silent, and
sometimes an invisible object is audible. Objects pulse in the rhythm of their sound; half of the
silent ones have a rhythm too, the others are still."""
_HARD_CONTENTS = """\
In a clip, one to three objects are visible and audible, up to three more are visible but silent,
and up to two are audible but invisible. Objects pulse in the rhythm of their sound; three in four
of the silent ones have a rhythm too, the others are still. A gong looks like a bell and a buzzer
like a siren: only their sound tells them apart. A whistle sounds like a bird and an organ like a
drone: only their look does. Objects are 1 to 3 m away, and three in ten come nearer or go away: the
direct sound falls with the distance, the reverberation does not, and the apparent size falls by the
distance's fourth root. The room decides at which distance direct sound and reverberation are
equally loud."""
_HARD_MEMBERS = """
    `distance_m`: the distance per frame. `direct_to_reverberant_db`: energy of the direct sound
    against that of its reflections and its diffuse tail (null if silent); `reverberation_db` is
    that of the tail alone against the direct sound of a source at 1 m."""


def _describe(world: World, members: str, measured: str) -> str:
    all_kinds = KINDS if world.difficulty == "easy" else HARD_KINDS
    kinds = "\n".join(
        f"| {number} | {kind.name} |" for number, kind in enumerate(all_kinds, start=1)
    )
    contents = _EASY_CONTENTS if world.difficulty == "easy" else _HARD_CONTENTS
    return f"""{headline(world)} A place (`place-00003`) stands for a
source recording: its clips share the panorama, the noise and the room, and have different objects.
{contents}

- `video/ID-START.mp4`: equirectangular, {WIDTH} x {HEIGHT}, {FPS} frames per second, H.264,
  no sound.
- `audio/ID-START.wav`: first-order ambisonics, ambiX (ACN order W, Y, Z, X; SN3D),
  {SAMPLE_RATE} Hz, 16 bit.
- `segmentation/ID-START/0001.png` to `0040.png`: label maps, four per second, equirectangular,
  {WIDTH // 2} x {HEIGHT // 2}, one byte per pixel: the kind of object in front, 0 for the
  background. Map k (from 1) is the scene at (k - 1/2) / 4 s, which is video frame 6 k - 3 (from 0).
- `truth/ID-START.json`: the clip's contents. Lists have one value per video frame n, at time
  n / {FPS} s. `avprep build-shards` turns it into `events`.
  - `format`: identifies the file format.
  - `source`, `start_s`, `split`: the place, the start in it, and `train` or `test`.
  - `diffuse_noise_dbfs`: RMS of W of the diffuse noise. `reverberation_db`: energy of the diffuse
    tail against the direct sound. `reverberation_rt60_s`: time in which it falls by 60 dB.
  - `objects`: `id`, `kind`, `kind_index` (value in the label maps), `silent`, `visible`;
    `azimuth_deg` (positive to the left), `elevation_deg` (positive up), `angular_radius_deg` of
    the circle around the object's outline (null if not visible), `animation` (how strongly a beat
    shows in the image, 0 to 1), `level_dbfs` (RMS of W of the direct sound from this frame to the
    next; {FLOOR_DBFS:g} is silence) and `active` (level within {ACTIVE_BELOW_PEAK_DB:g} dB of the
    object's loudest frame). Later objects are in front of earlier ones.{members}
- `train.txt`, `test.txt`: the places of each split, one per line. They are disjoint: every fifth
  place is a test place, and its objects vary in colour, size, pitch, tempo and timbre over ranges
  that overlap with those of training only in part.

| value | kind |
| --- | --- |
{kinds}
{measured}"""


def _measure(truths: list[_Truth]) -> str:
    """Tables of what the clips hold, measured from their truth files."""
    objects = [item for truth in truths for item in truth.objects]
    sounding = [(truth, item) for truth in truths for item in truth.objects if not item.silent]
    counts = {
        "visible and audible": sum(item.visible and not item.silent for item in objects),
        "visible and silent": sum(item.silent for item in objects),
        "audible and invisible": sum(not item.visible for item in objects),
        "moving": sum(_moves(item) for item in objects),
        "with a changing distance": sum(len(set(item.distance_m)) > 1 for item in objects),
    }
    clips = {
        "a silent object looks like a sounding one": _share(truths, _has_silent_lookalike),
        "several visible objects look alike": _share(truths, _has_visible_lookalikes),
        "several sources sound alike": _share(truths, _has_soundalikes),
        "an invisible object sounds": _share(truths, _has_unseen_sound),
    }
    values: dict[str, ArrayLike] = {
        "level of a source's direct sound above the noise (SNR), dB": [
            _mean_level(item) - truth.diffuse_noise_dbfs for truth, item in sounding
        ],
        "direct-to-reverberant ratio of a source, dB": [
            item.direct_to_reverberant_db
            for _, item in sounding
            if item.direct_to_reverberant_db is not None
        ],
        "reverberation time of a clip's room, s": [truth.reverberation_rt60_s for truth in truths],
        "distance of an object, m": [item.distance_m for item in objects],
        "elevation of an object without its sign, degrees": np.abs(
            [item.elevation_deg for item in objects]
        ),
    }
    lines = ["", "How hard the clips are, measured from their truth files:", ""]
    lines += ["| objects | number |", "| --- | --- |"]
    lines += [f"| {name} | {count} |" for name, count in counts.items()]
    lines += ["", "| clips in which | % |", "| --- | --- |"]
    lines += [f"| {name} | {100 * share:.0f} |" for name, share in clips.items()]
    lines += ["", "| value | lower quartile | median | upper quartile |"]
    lines += ["| --- | --- | --- | --- |"]
    for name, numbers in values.items():
        quartiles = np.percentile(np.ravel(numbers), [25, 50, 75])
        lines.append(f"| {name} | {' | '.join(f'{number:.1f}' for number in quartiles)} |")
    return "\n".join(lines) + "\n"


def _share(truths: list[_Truth], holds: Callable[[_Truth], bool]) -> float:
    return sum(map(holds, truths)) / len(truths)


def _has_silent_lookalike(truth: _Truth) -> bool:
    seen = [item for item in truth.objects if item.visible]
    sounding, silent = ({_look(i) for i in seen if i.silent == quiet} for quiet in (False, True))
    return bool(sounding & silent)


def _has_visible_lookalikes(truth: _Truth) -> bool:
    looks = [_look(item) for item in truth.objects if item.visible]
    return len(set(looks)) < len(looks)


def _has_soundalikes(truth: _Truth) -> bool:
    sounds = [HARD_KINDS[i.kind_index - 1].sound for i in truth.objects if not i.silent]
    return len(set(sounds)) < len(sounds)


def _has_unseen_sound(truth: _Truth) -> bool:
    return not all(item.visible for item in truth.objects)


def _look(item: _Object) -> str:
    return HARD_KINDS[item.kind_index - 1].look


def _moves(item: _Object) -> bool:
    """Whether it strays by more than 10 degrees, which no object does that only bounces."""
    directions = unit_vector(item.azimuth_deg, item.elevation_deg)
    return float(angle_between_deg(directions, directions[0]).max()) > 10


def _mean_level(item: _Object) -> float:
    """Mean level, as energy, in the frames in which the object is active."""
    levels = np.array(item.level_dbfs)[np.array(item.active)]
    return float(10 * np.log10(np.mean(10 ** (levels / 10))))
