"""DCASE's metrics of sound event localization and detection (SELD), class by class.

Per class, then averaged over the classes (macro): F20° counts a source as right if its class is
right and its direction within 20°; ER20° is the error rate of the same, over all classes together;
LE_CD is the mean angle of pairs of one class, and LR_CD the share of references that have such a
partner, whatever the angle (Mesaros et al., WASPAA 2019; Politis et al., 2020). Two definitions of
how sources are paired, each as DCASE's evaluation code of its years computes it:

- ``2023`` (code of DCASE 2022 and 2023): in segments of one second. In each frame, references and
  estimates of a class are paired so that the sum of the angles is the least; a reference of the
  segment (the n-th of its class in each frame) is right if the mean of its angles is at most 20°.
  Counted are the most sources in any frame of the segment. A class without any pair has LE_CD 180°.
  Where a segment has both but never in the same frame, the number of estimates counts as missed.
- ``2024``: in each frame. With distances, a hit also needs a relative distance error of at most 1,
  and there is the relative distance error |estimated - true| / true of the pairs. A class without
  any pair is left out of the means of angle and distance (NaN if no class has one).

Both score the frames before the last one with a reference (``2023``: up to the end of its second),
as that code does. The summary is DCASE's SELD score, lower is better: the mean of ER20°, 1 - F20°,
LE_CD / 180° and 1 - LR_CD; with distances the mean of 1 - F20°, LE_CD / 180° and the relative
distance error.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from avtrain.evals.seld.detections import Detections

Definition = Literal["2023", "2024"]
NEAR_DEG = 20.0
LARGEST_DISTANCE_ERROR = 1.0
"""Relative distance error up to which a source with a distance is a hit."""
SEGMENT_FRAMES = 10
_EPS = float(np.finfo(np.float64).eps)
_SMALL = 1e-10
"""Added to squared lengths by DCASE's code of 2024; without it equal directions would be 0° apart
instead of 0.0008°."""
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Counts:
    """Sums over recordings from which all metrics follow. Each is (..., classes), but ``errors``
    (...): substitutions, deletions and insertions of all classes together."""

    references: Floats
    hits: Floats
    misplaced: Floats
    """Pairs that are too far from each other."""
    extra: Floats
    missed: Floats
    angle_deg: Floats
    """Sum over the pairs."""
    relative_distance: Floats
    """Sum over the pairs of |estimated - true| / true."""
    errors: Floats

    @classmethod
    def stack(cls, parts: Sequence[Counts]) -> Counts:
        """Counts of all parts along a new first axis."""
        names = (field.name for field in fields(cls))
        return cls(*(np.stack([getattr(part, name) for part in parts]) for name in names))

    def weighted(self, weights: Floats) -> Counts:
        """Sums over the first axis, the recordings, times ``weights`` (..., recordings)."""
        values = (getattr(self, field.name) for field in fields(self))
        return Counts(*(np.tensordot(weights, value, axes=1) for value in values))


class _Sums:
    """Counts of one recording while they are summed."""

    def __init__(self, classes: int) -> None:
        names = [field.name for field in fields(Counts)]
        self.of_class = {name: np.zeros(classes) for name in names[:-1]}
        self.errors = 0.0
        self._missed = self._extra = 0

    def add(self, name: str, kind: int, number: float) -> None:
        self.of_class[name][kind] += number
        self._missed += int(number) if name == "missed" else 0
        self._extra += int(number) if name in ("extra", "misplaced") else 0

    def end_segment(self) -> None:
        """A missed and an extra source of the same segment are one error: a substitution."""
        self.errors += max(self._missed, self._extra)
        self._missed = self._extra = 0

    def counts(self) -> Counts:
        return Counts(**self.of_class, errors=np.array(self.errors))


def scored_frames(reference: Detections) -> int:
    """Number of frames that DCASE's code scores: those before the last one with a reference."""
    return int(reference.frame.max(initial=0))


def count(
    reference: Detections,
    estimate: Detections,
    classes: Sequence[int],
    definition: Definition = "2024",
    distance: bool = False,
    frames: int | None = None,
) -> Counts:
    """Counts of one recording, for the labels ``classes``; other labels are left out.

    ``frames``: number of frames to score (None: `scored_frames`). With ``distance``, which
    ``2024`` alone defines, all of both need distances. Raises ValueError.
    """
    if distance and definition == "2023":
        raise ValueError("the definition of 2023 has no distances")
    if distance and not (reference.has_distance and estimate.has_distance):
        raise ValueError("a distance is unknown")
    frames = scored_frames(reference) if frames is None else frames
    sums, number = _Sums(len(classes)), {kind: place for place, kind in enumerate(classes)}
    step = SEGMENT_FRAMES if definition == "2023" else 1
    last = -(-frames // step) * step
    true, guessed = (_by_segment(part, number, step, last) for part in (reference, estimate))
    for segment in sorted(true.keys() | guessed.keys()):
        kinds = true[segment].keys() | guessed[segment].keys()
        for kind in sorted(kinds):
            pair = true[segment].get(kind, {}), guessed[segment].get(kind, {})
            if definition == "2023":
                _count_segment(sums, kind, _Pairing(reference, estimate, *pair))
            else:
                _count_frame(sums, kind, _Pairing(reference, estimate, *pair), distance)
        sums.end_segment()
    return sums.counts()


_Rows = dict[int, list[int]]
"""Rows by frame."""


def _by_segment(
    part: Detections, number: dict[int, int], step: int, last: int
) -> defaultdict[int, dict[int, _Rows]]:
    """Rows of each frame, by segment and class, before frame ``last``."""
    found: defaultdict[int, dict[int, _Rows]] = defaultdict(dict)
    for row, (frame, label) in enumerate(zip(part.frame.tolist(), part.kind.tolist(), strict=True)):
        if frame < last and label in number:
            rows = found[frame // step].setdefault(number[label], {})
            rows.setdefault(frame, []).append(row)
    return found


@dataclass(frozen=True)
class _Pairing:
    """Sources of one class in one segment."""

    reference: Detections
    estimate: Detections
    true: _Rows
    guessed: _Rows

    @property
    def most_true(self) -> int:
        return max(map(len, self.true.values()), default=0)

    @property
    def most_guessed(self) -> int:
        return max(map(len, self.guessed.values()), default=0)

    def pairs(self, with_small: bool) -> Iterator[tuple[NDArray[np.int64], Floats, Floats]]:
        """For each frame with both: the place of each paired reference among those of its frame,
        the angles in degrees, and the relative distance errors, all (pairs,)."""
        from scipy.optimize import linear_sum_assignment  # slow, and only evaluations need it

        for frame, true in self.true.items():
            guessed = self.guessed.get(frame)
            if guessed is None:
                continue
            angles = _angles_deg(self.reference, true, self.estimate, guessed, with_small)
            place, partner = linear_sum_assignment(angles)
            distance = self.reference.distance_m[np.array(true)[place]]
            other = self.estimate.distance_m[np.array(guessed)[partner]]
            yield place, angles[place, partner], np.abs(distance - other) / (distance + _EPS)


def _angles_deg(
    reference: Detections, true: list[int], estimate: Detections, guessed: list[int], small: bool
) -> Floats:
    """Angles (references, estimates), rounded as DCASE's code does: where several pairings are
    equally good, the last bit decides which one it takes. ``small``: with `_SMALL`."""
    places = [
        (part.azimuth_deg[rows] * np.pi / 180, part.elevation_deg[rows] * np.pi / 180)
        for part, rows in ((reference, true), (estimate, guessed))
    ]
    if not small:
        (azimuth, elevation), (other_azimuth, other_elevation) = places
        azimuth, elevation = azimuth[:, None], elevation[:, None]
        both_up = np.sin(elevation) * np.sin(other_elevation)
        both_level = np.cos(elevation) * np.cos(other_elevation)
        cosine = both_up + both_level * np.cos(np.abs(azimuth - other_azimuth))
    else:
        vectors = []
        for azimuth, elevation in places:
            level = np.cos(elevation)
            x, y, z = np.cos(azimuth) * level, np.sin(azimuth) * level, np.sin(elevation)
            length = np.sqrt(x**2 + y**2 + z**2 + _SMALL)
            vectors.append((x / length, y / length, z / length))
        (x, y, z), (other_x, other_y, other_z) = vectors
        cosine = x[:, None] * other_x + y[:, None] * other_y + z[:, None] * other_z
    return np.asarray(np.arccos(np.clip(cosine, -1, 1)) * 180 / np.pi)


def _count_segment(sums: _Sums, kind: int, pairing: _Pairing) -> None:
    """As of 2023: a segment of one second."""
    true, guessed = pairing.most_true, pairing.most_guessed
    sums.add("references", kind, true)
    angles: defaultdict[int, list[float]] = defaultdict(list)
    for places, found, _ in pairing.pairs(with_small=False):
        for place, angle in zip(places.tolist(), found.tolist(), strict=True):
            angles[place].append(angle)
    if true and guessed and not angles:
        sums.add("missed", kind, guessed)
        return
    for track in angles.values():
        angle = sum(track) / len(track)
        sums.add("angle_deg", kind, angle)
        sums.add("hits" if angle <= NEAR_DEG else "misplaced", kind, 1)
    sums.add("extra", kind, max(0, guessed - true))
    sums.add("missed", kind, max(0, true - guessed))


def _count_frame(sums: _Sums, kind: int, pairing: _Pairing, distance: bool) -> None:
    """As of 2024: one frame."""
    true, guessed = pairing.most_true, pairing.most_guessed
    sums.add("references", kind, true)
    for _, angles, relative in pairing.pairs(with_small=True):
        far = angles > NEAR_DEG
        if distance:
            far |= relative > LARGEST_DISTANCE_ERROR
            sums.add("relative_distance", kind, float(relative.sum()))
        sums.add("angle_deg", kind, float(angles.sum()))
        sums.add("hits", kind, int((~far).sum()))
        sums.add("misplaced", kind, int(far.sum()))
    sums.add("extra", kind, max(0, guessed - true))
    sums.add("missed", kind, max(0, true - guessed))


@dataclass(frozen=True)
class Scores:
    """The metrics, each (..., classes) by class, or (...) if averaged. Shares are 0 to 1, angles in
    degrees; NaN where no pair defines them. ``relative_distance``: None without distances."""

    f20: Floats
    er20: Floats
    le_cd_deg: Floats
    lr_cd: Floats
    relative_distance: Floats | None
    seld: Floats

    def average(self, known: NDArray[np.bool_] | None = None) -> Scores:
        """Mean over the classes, without those for which a metric is not defined, and over those
        that are ``known`` (..., classes) if it is given."""

        def mean(values: Floats) -> Floats:
            return _mean(values if known is None else np.where(known, values, np.nan))

        relative = self.relative_distance
        return Scores(
            f20=mean(self.f20),
            er20=mean(self.er20),
            le_cd_deg=mean(self.le_cd_deg),
            lr_cd=mean(self.lr_cd),
            relative_distance=None if relative is None else mean(relative),
            seld=mean(self.seld),
        )


def scores_by_class(counts: Counts, definition: Definition, distance: bool = False) -> Scores:
    """Metrics of each class; `Scores.average` gives those that DCASE reports."""
    pairs = counts.hits + counts.misplaced
    others = 0.5 * (counts.extra + counts.missed)
    f20 = counts.hits / (_EPS + pairs + others)
    lr_cd = pairs / (_EPS + pairs + counts.missed)
    unpaired = 180.0 if definition == "2023" else np.nan
    le_cd_deg = np.where(pairs > 0, counts.angle_deg / (pairs + _EPS), unpaired)
    er20 = counts.errors / (counts.references.sum(axis=-1) + _EPS)
    er20 = np.broadcast_to(er20[..., None], f20.shape)
    relative = None
    if distance:
        relative = np.where(pairs > 0, counts.relative_distance / (pairs + _EPS), np.nan)
        parts = [1 - f20, le_cd_deg / 180, relative]
    else:
        parts = [er20, 1 - f20, le_cd_deg / 180, 1 - lr_cd]
    seld = _mean(np.stack(parts, axis=-1))
    return Scores(f20, er20, le_cd_deg, lr_cd, relative, seld)


def _mean(values: Floats) -> Floats:
    """Mean over the last axis without NaN; NaN where there is nothing else."""
    known = np.isfinite(values)
    number = known.sum(axis=-1)
    total = np.where(known, values, 0.0).sum(axis=-1)
    return np.asarray(np.where(number > 0, total / np.maximum(number, 1), np.nan))


def jackknife_95(whole: float, without: Floats) -> tuple[float, float]:
    """95 % interval by jackknife over recordings, as DCASE's code: from the value of all recordings
    and those ``without`` each of them (recordings,); bias-corrected, with Student's t."""
    from scipy.special import stdtrit  # slow, and only evaluations need it

    recordings = len(without)
    mean = float(without.mean())
    error = np.sqrt((recordings - 1) * np.mean((without - mean) ** 2))
    half = float(stdtrit(recordings - 1, 0.975) * error)
    estimate = whole - (recordings - 1) * (mean - whole)
    return estimate - half, estimate + half
