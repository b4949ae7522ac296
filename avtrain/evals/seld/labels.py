"""Labels by frames of 100 ms of the recording, and which recordings' labels are learned from."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from avtrain.data.unreadable import Unreadable
from avtrain.errors import TrainingError
from avtrain.evals.seld.detections import FRAME_S, Detection
from avtrain.evals.truth import DEFAULT_STEP_S
from shards.errors import ShardError
from shards.reader import ShardSet
from shards.schema import SampleInfo


@dataclass(frozen=True)
class ClipFrames:
    """The frames of the recording that lie wholly within a clip: ``count`` from number ``first``
    on, which begins at ``offset_s`` in the clip. ``events``: the sources that sound in them, by
    frame of the recording; None for a clip without labels."""

    first: int
    count: int
    offset_s: float
    events: tuple[Detection, ...] | None

    @classmethod
    def read(cls, info: SampleInfo) -> ClipFrames:
        """Raises TrainingError for malformed events."""
        first = max(0, math.ceil(info.start_s / FRAME_S - 1e-6))
        offset_s = first * FRAME_S - info.start_s
        duration_s = info.audio.samples / info.audio.sample_rate
        count = max(0, math.floor((duration_s - offset_s) / FRAME_S + 1e-6))
        events = None if info.events is None else tuple(_frames(info, first, count, offset_s))
        return cls(first, count, offset_s, events)

    @cached_property
    def by_frame(self) -> dict[int, list[Detection]]:
        """The events of each frame of the recording, in their order."""
        found: dict[int, list[Detection]] = {}
        for event in self.events or ():
            found.setdefault(event.frame, []).append(event)
        return found


def _frames(info: SampleInfo, first: int, count: int, offset_s: float) -> list[Detection]:
    """An event sounds in the frames whose middle is in its step."""
    step_s = info.event_step_s or DEFAULT_STEP_S
    unnumbered: Counter[tuple[float, int]] = Counter()
    found = []
    try:
        for event in info.events or ():
            time_s, kind = float(event["time_s"]), int(event["class"])
            # Sources without a number are told apart by their order within one moment.
            source = int(event.get("source", unnumbered[time_s, kind]))
            unnumbered[time_s, kind] += 1
            place = (float(event["azimuth_deg"]), float(event["elevation_deg"]))
            distance_m = float(event.get("distance_m", math.nan))
            if kind < 0 or not all(map(math.isfinite, place)):
                raise ValueError("a class or place is none")
            if distance_m <= 0:  # labels write 0 where they do not know it
                distance_m = math.nan
            begin, end = (
                math.ceil((moment - offset_s) / FRAME_S - 0.5 - 1e-3)
                for moment in (time_s, time_s + step_s)
            )
            found += [
                Detection(first + frame, kind, source, *place, distance_m)
                for frame in range(max(0, begin), min(end, count))
            ]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise TrainingError(
            f"{info.key}: its events are malformed ({error!r:.80}); build the set again"
        ) from None
    return found


@dataclass(frozen=True)
class LabelledClips:
    """The clips of a split that have labels: ``frames`` by their numbers."""

    shards: ShardSet
    frames: dict[int, ClipFrames]

    @classmethod
    def read(cls, shards: ShardSet, unreadable: Unreadable) -> LabelledClips:
        """Raises TrainingError for a split without labels."""
        frames = {}
        for number in range(len(shards)):
            try:
                found = ClipFrames.read(shards.info(number))
            except (ShardError, TrainingError) as error:
                unreadable.add([(number, str(error))])
                continue
            if found.events is not None and found.count:
                frames[number] = found
        if not frames:
            raise TrainingError(
                f"no clip of {shards.where} says where its sounds come "
                "from (`events` in KEY.json); build the set from labelled recordings, such as "
                "STARSS or the generated world"
            )
        if not any(found.events for found in frames.values()):
            raise TrainingError(
                f"nothing sounds in {shards.where} by its labels (all `events` are empty); "
                "name another split, or check the label files of the recordings"
            )
        return cls(shards, frames)

    @cached_property
    def classes(self) -> tuple[int, ...]:
        """Classes that sound."""
        events = (event for found in self.frames.values() for event in found.events or ())
        return tuple(sorted({event.kind for event in events}))

    @property
    def has_distance(self) -> bool:
        """Whether the distance of every source is known."""
        events = (event for found in self.frames.values() for event in found.events or ())
        return all(math.isfinite(event.distance_m) for event in events)

    @property
    def knows_distances(self) -> bool:
        """Whether the distance of any source is known, so that distances are learned."""
        events = (event for found in self.frames.values() for event in found.events or ())
        return any(math.isfinite(event.distance_m) for event in events)

    @property
    def sources(self) -> list[str]:
        """The recordings, sorted."""
        return sorted({self.shards.sources[number] for number in self.frames})

    def by_source(self) -> dict[str, list[int]]:
        """Clips of each recording, by their begin."""
        found: dict[str, list[int]] = {source: [] for source in self.sources}
        for number in sorted(self.frames, key=lambda number: (self.frames[number].first, number)):
            found[self.shards.sources[number]].append(number)
        return found

    def part(self, share: float, seed: int) -> LabelledClips:
        """The clips of a ``share`` of the recordings, at least of one: the first ones of an order
        that ``seed`` draws, so that smaller parts are in larger ones."""
        sources = self.sources
        order = np.random.default_rng([seed, 1]).permutation(len(sources))
        count = max(1, math.ceil(share * len(sources) - 1e-9))
        chosen = {sources[place] for place in order[:count]}
        frames = {n: f for n, f in self.frames.items() if self.shards.sources[n] in chosen}
        return LabelledClips(self.shards, frames)


def targets(
    found: ClipFrames, begin: int, count: int, classes: tuple[int, ...], tracks: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """What sounds in ``count`` frames from frame ``begin`` of a clip on: azimuth, elevation and
    distance (frames, classes, tracks, 3), NaN where there is none, and numbers of sources (frames,
    classes), which may be larger than the ``tracks``."""
    places = np.full((count, len(classes), tracks, 3), np.nan)
    sources = np.zeros((count, len(classes)), np.int64)
    for frame in range(count):
        for event in found.by_frame.get(found.first + begin + frame, ()):
            if event.kind in classes:
                kind = classes.index(event.kind)
                number = sources[frame, kind]
                sources[frame, kind] += 1
                if number < tracks:
                    place = (event.azimuth_deg, event.elevation_deg, event.distance_m)
                    places[frame, kind, number] = place
    return places, sources
