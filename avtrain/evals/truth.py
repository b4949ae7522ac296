"""The truth of windows: which sources sound where, from the ``events`` of a set."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from avtrain.data.clips import Clips
from avtrain.data.draws import Draw
from avtrain.errors import TrainingError
from shards.geometry import unit_vector, view_rotation
from shards.schema import SampleInfo, View

SMALLEST_SHARE = 0.2
"""Share of a window for which a source must sound to be in it."""
DEFAULT_STEP_S = 0.1
"""Step between events in sets that do not state theirs."""
_MIRROR = np.diag([1.0, -1.0, 1.0])


@dataclass(frozen=True)
class SoundingSource:
    """A source in a window: the mean direction while it sounds there, a unit vector (3,) in the
    recording's frame. ``source`` tells apart those of one class. ``distance_m`` is its mean
    distance, None where the set does not state it; ``visible`` is false for a source that the set
    marks as out of sight."""

    kind: int
    source: int
    direction: NDArray[np.float64]
    distance_m: float | None = None
    visible: bool = True


def sources_in(
    info: SampleInfo, start_s: float, duration_s: float, smallest_share: float = SMALLEST_SHARE
) -> list[SoundingSource]:
    """Sources that sound in a window of a clip, for ``smallest_share`` of it at least; none if its
    record has no ``events``.

    Raises TrainingError for malformed events.
    """
    step_s = info.event_step_s or DEFAULT_STEP_S
    vectors: defaultdict[tuple[int, int], list[NDArray[np.float64]]] = defaultdict(list)
    distances: defaultdict[tuple[int, int], list[float]] = defaultdict(list)
    hidden: set[tuple[int, int]] = set()
    unnumbered: Counter[tuple[float, int]] = Counter()
    try:
        for event in info.events or ():
            time_s, kind = float(event["time_s"]), int(event["class"])
            if not start_s <= time_s + step_s / 2 < start_s + duration_s:
                continue
            # Sources without a number are told apart by their order within one moment.
            source = event.get("source", unnumbered[time_s, kind])
            unnumbered[time_s, kind] += 1
            name = kind, int(source)
            vectors[name].append(unit_vector(event["azimuth_deg"], event["elevation_deg"]))
            if event.get("distance_m", 0.0) > 0:
                distances[name].append(float(event["distance_m"]))
            if not event.get("visible", True):
                hidden.add(name)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise TrainingError(
            f"{info.key}: its events are malformed ({error!r:.80}); build the set again"
        ) from None
    found = []
    for name, directions in sorted(vectors.items(), key=lambda item: item[0]):
        total = np.sum(directions, axis=0)
        length = np.linalg.norm(total)
        if len(directions) * step_s >= smallest_share * duration_s - 1e-6 and length > 0:
            known = distances[name]
            # A distance that some moments lack would be the mean of others.
            distance_m = float(np.mean(known)) if len(known) == len(directions) else None
            found.append(
                SoundingSource(*name, total / length, distance_m, visible=name not in hidden)
            )
    return found


def rotations_to_views(info: SampleInfo, draw: Draw, views: int) -> NDArray[np.float64]:
    """Matrices (V, 3, 3) from the recording's frame to those of the first ``views`` of a draw,
    mirrored if the clip is."""
    places = [info.views[view] for view in draw.views[:views]]
    to_views = np.stack([view_rotation(place.azimuth_deg, place.elevation_deg) for place in places])
    return _MIRROR @ to_views if draw.mirror else to_views


def views_with_source(
    clips: Clips, places: Sequence[tuple[int, int]], views: int
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """For each of M (pass, clip): whether its record has ``events`` (M,), and which of its first
    ``views`` show a sounding source (M, V), see `shows_source`.

    Raises TrainingError for malformed events.
    """
    shown: dict[tuple[int, int], NDArray[np.bool_]] = {}
    for pass_index, sample in dict.fromkeys(places):
        info, draw = clips.shards.info(sample), clips.draw(pass_index, sample)
        if info.events is not None:
            start_s = clips.starts_s(sample, draw)[0]
            shows = shows_source(info, draw, views, start_s, clips.sound.duration_s)
            shown[pass_index, sample] = shows
    known = np.array([place in shown for place in places], dtype=bool)
    nothing = np.zeros(views, dtype=bool)
    rows = [shown.get(place, nothing) for place in places]
    return known, np.array(rows, dtype=bool).reshape(-1, views)


def shows_source(
    info: SampleInfo, draw: Draw, views: int, start_s: float, duration_s: float
) -> NDArray[np.bool_]:
    """Whether each of the first ``views`` of a draw shows the middle of a source that sounds in the
    window, by the fields of view of a flat (gnomonic) crop."""
    directions = [
        source.direction for source in sources_in(info, start_s, duration_s) if source.visible
    ]
    if not directions:
        return np.zeros(views, dtype=bool)
    seen = np.array(directions) @ rotations_to_views(info, draw, views).transpose(0, 2, 1)
    places = [info.views[view] for view in draw.views[:views]]
    return np.asarray(views_that_show(seen, places).any(axis=-1))


def views_that_show(seen: NDArray[np.float64], places: Sequence[View]) -> NDArray[np.bool_]:
    """Whether each flat (gnomonic) view shows directions (V, N, 3) of its own frame: (V, N)."""
    widths = np.array([[view.hfov_deg, view.vfov_deg] for view in places])
    half = np.tan(np.radians(widths / 2))[:, None]  # (V, 1, 2)
    front = seen[..., 0]
    inside = (np.abs(seen[..., 1:]) <= half * front[..., None]).all(axis=-1)
    return np.asarray(inside & (front > 0))
