"""Choose the views that are cut from a clip."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from avprep.errors import UserError
from avprep.sphere.projections import vertical_fov_deg
from shards.files import parse_json, read_regular
from shards.geometry import angle_between_deg, unit_vector
from shards.schema import MAX_VIEWS, View

MAX_ELEVATION_DEG = 30.6
MIN_SEPARATION_DEG = 36.0
ASPECT_RANGE = (3 / 4, 4 / 3)
MAX_FOV_DEG = 150.0
"""Wider rectilinear views show little but stretched edges, and need much memory to sample well."""
_TRIES_PER_VIEW = 200
_RESTARTS = 100
_LIMIT_BYTES = 1_000_000


class _Entry(Struct, forbid_unknown_fields=True):
    """A view in a file; without ``vfov_deg`` it is square."""

    azimuth_deg: float
    elevation_deg: float
    hfov_deg: float
    vfov_deg: float | None = None


@dataclass(frozen=True)
class RandomViews:
    """Random viewpoints.

    Azimuth is uniform, elevation uniform within ±30.6°, centres are at least
    ``min_separation_deg`` of arc apart, the horizontal field of view is uniform in ``hfov_deg``,
    and the aspect (width to height in the image plane) log-uniform in 3/4…4/3. With ``by_energy``,
    every other centre is drawn with the density of the clip's direct sound energy.
    """

    count: int
    hfov_deg: tuple[float, float]
    min_separation_deg: float = MIN_SEPARATION_DEG
    by_energy: bool = False

    def draw(
        self, key: str, seed: int, energy: NDArray[np.float64] | None = None
    ) -> tuple[View, ...]:
        """The views of clip ``key``, a function of the arguments alone.

        ``energy`` is the clip's `avprep.foa.energy_map.energy_map`. Raises UserError if ``count``
        views do not fit at the minimum separation.
        """
        rng = np.random.default_rng(_clip_seed(key, seed))
        for _ in range(_RESTARTS):
            directions = self._centres(rng, energy)
            if len(directions) == self.count:
                return tuple(self._view(*direction, rng) for direction in directions)
        raise UserError(
            f"{self.count} views do not fit with their centres {self.min_separation_deg:g}° apart "
            f"within ±{MAX_ELEVATION_DEG}° of elevation; ask for fewer with --views or for less "
            "distance with --min-separation"
        )

    def _centres(
        self, rng: np.random.Generator, energy: NDArray[np.float64] | None
    ) -> list[tuple[float, float]]:
        """Directions (azimuth, elevation), drawn one after another; each is the first of many
        candidates that is far enough from the earlier ones. Fewer than ``count`` if no candidate
        is."""
        chosen: list[tuple[float, float]] = []
        vectors = np.empty((0, 1, 3))
        while len(chosen) < self.count:
            azimuth = 180.0 - 360.0 * rng.random(_TRIES_PER_VIEW)
            reach = MAX_ELEVATION_DEG
            elevation = rng.uniform(-reach, reach, _TRIES_PER_VIEW)
            if energy is not None and len(chosen) % 2 == 0:
                # Candidates by energy first; uniform ones follow in case all sound comes from one
                # direction.
                loud = _draw_by_energy(energy, rng, _TRIES_PER_VIEW)
                azimuth = np.concatenate([loud[0], azimuth])
                elevation = np.concatenate([loud[1], elevation])
            # Rounded before the distance is checked, so that the stored values satisfy it; -180 is
            # +180 by our convention.
            azimuth, elevation = np.round(azimuth, 4), np.round(elevation, 4)
            azimuth[azimuth == -180.0] = 180.0
            candidates = unit_vector(azimuth, elevation)
            far = np.all(angle_between_deg(vectors, candidates) >= self.min_separation_deg, axis=0)
            if not far.any():
                break
            first = int(np.argmax(far))
            chosen.append((float(azimuth[first]), float(elevation[first])))
            vectors = np.concatenate([vectors, candidates[first].reshape(1, 1, 3)])
        return chosen

    def _view(self, azimuth_deg: float, elevation_deg: float, rng: np.random.Generator) -> View:
        hfov = rng.uniform(*self.hfov_deg)
        aspect = float(np.exp(rng.uniform(*np.log(ASPECT_RANGE))))
        return View(
            azimuth_deg, elevation_deg, round(hfov, 4), round(vertical_fov_deg(hfov, aspect), 4)
        )


@dataclass(frozen=True)
class FixedViews:
    """The same views for every clip."""

    views: tuple[View, ...]

    def draw(
        self, key: str, seed: int, energy: NDArray[np.float64] | None = None
    ) -> tuple[View, ...]:
        return self.views


def grid_views(count: int, hfov_deg: float) -> FixedViews:
    """``count`` square views in rows around the viewer, evenly spaced in azimuth and over ±30.6° of
    elevation. Up to thirteen views form one row at the horizon; the first one is in front."""
    rows = max(1, round(np.sqrt(count * 2 * MAX_ELEVATION_DEG / 360.0)))
    views = []
    for row, numbers in enumerate(np.array_split(np.arange(count), rows)):
        elevation = MAX_ELEVATION_DEG * (1 - (2 * row + 1) / rows)
        for column in range(len(numbers)):
            azimuth = 360.0 * column / len(numbers)
            azimuth -= 360.0 if azimuth > 180.0 else 0.0
            views.append(View(round(azimuth, 4), round(elevation, 4), hfov_deg, hfov_deg))
    return FixedViews(tuple(views))


def _draw_by_energy(
    energy: NDArray[np.float64], rng: np.random.Generator, count: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Azimuths and elevations of ``count`` random directions within ±30.6° of elevation, with the
    density that a map (height, width) gives on the sphere; none if the map is zero there."""
    height, width = energy.shape
    elevations = 90.0 * (1 - 2 * (np.arange(height) + 0.5) / height)
    within = np.abs(elevations) <= MAX_ELEVATION_DEG - 90.0 / height
    weight = energy * (np.cos(np.radians(elevations)) * within)[:, None]
    total = float(weight.sum())
    if not total > 0:
        return np.empty(0), np.empty(0)
    cells = rng.choice(weight.size, size=count, p=weight.ravel() / total)
    row, column = np.divmod(cells, width)
    x, y = column + rng.random(count), row + rng.random(count)
    return 180.0 * (1 - 2 * x / width), 90.0 * (1 - 2 * y / height)


def read_views(path: Path) -> FixedViews:
    """Views from a JSON file: a list of {"azimuth_deg", "elevation_deg", "hfov_deg"[, "vfov_deg"]}.

    Without ``vfov_deg`` a view is square. Raises UserError for any other content.
    """
    try:
        content = read_regular(path, _LIMIT_BYTES)
    except OSError as error:
        raise UserError(f"--viewpoints {path} cannot be read: {error.strerror}") from None
    try:
        views = tuple(map(_parse_view, parse_json(content, list[_Entry])))
    except ValueError as error:
        raise UserError(
            f'--viewpoints {path} must hold a list of {{"azimuth_deg", "elevation_deg", '
            f'"hfov_deg"}} with angles in degrees: {error}'
        ) from None
    if not 0 < len(views) <= MAX_VIEWS:
        raise UserError(f"--viewpoints {path} holds {len(views)} views, not 1 to {MAX_VIEWS}")
    return FixedViews(views)


def _parse_view(entry: _Entry) -> View:
    hfov = entry.hfov_deg
    vfov = hfov if entry.vfov_deg is None else entry.vfov_deg
    if max(hfov, vfov) > MAX_FOV_DEG:
        raise ValueError(f"a field of view is wider than {MAX_FOV_DEG:g}")
    azimuth = 180.0 if entry.azimuth_deg == -180 else entry.azimuth_deg
    return View(azimuth, entry.elevation_deg, hfov, vfov)


def _clip_seed(key: str, seed: int) -> list[int]:
    digest = hashlib.sha256(key.encode()).digest()
    return [seed, *np.frombuffer(digest[:16], dtype="<u4").tolist()]
