"""The truth of windows: which sources sound where, from the ``events`` of a set."""

from __future__ import annotations

from collections import Counter, defaultdict
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from avtrain.data.clips import Clips
from avtrain.errors import TrainingError
from shards.errors import ShardError
from shards.geometry import unit_vector, view_rotation
from shards.reader import ShardSet
from shards.schema import SampleInfo

SMALLEST_SHARE = 0.2
"""Share of a window for which a source must sound to be in it."""
DEFAULT_STEP_S = 0.1
"""Step between events in sets that do not state theirs."""
_FIELDS = ("features", "rotations", "vectors", "sources", "others", "index")
_MIRROR = np.diag([1.0, -1.0, 1.0])


@dataclass(frozen=True)
class SoundingSource:
    """A source in a window: the mean direction while it sounds there, a unit vector (3,) in the
    recording's frame. ``source`` tells apart those of one class."""

    kind: int
    source: int
    direction: NDArray[np.float64]


def sources_in(info: SampleInfo, start_s: float, duration_s: float) -> list[SoundingSource]:
    """Sources that sound in a window of a clip; none if its record has no ``events``.

    Raises TrainingError for malformed events.
    """
    step_s = info.event_step_s or DEFAULT_STEP_S
    vectors: defaultdict[tuple[int, int], list[NDArray[np.float64]]] = defaultdict(list)
    unnumbered: Counter[tuple[float, int]] = Counter()
    try:
        for event in info.events or ():
            time_s, kind = float(event["time_s"]), int(event["class"])
            if not start_s <= time_s + step_s / 2 < start_s + duration_s:
                continue
            # Sources without a number are told apart by their order within one moment.
            source = event.get("source", unnumbered[time_s, kind])
            unnumbered[time_s, kind] += 1
            direction = unit_vector(event["azimuth_deg"], event["elevation_deg"])
            vectors[kind, int(source)].append(direction)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise TrainingError(
            f"{info.key}: its events are malformed ({error!r:.80}); build the set again"
        ) from None
    found = []
    for (kind, source), directions in sorted(vectors.items(), key=lambda item: item[0]):
        total = np.sum(directions, axis=0)
        length = np.linalg.norm(total)
        if len(directions) * step_s >= SMALLEST_SHARE * duration_s - 1e-6 and length > 0:
            found.append(SoundingSource(kind, source, total / length))
    return found


def find_classes(shards: ShardSet) -> tuple[int, ...]:
    """Classes that sound in a split.

    Raises TrainingError for a split without events.
    """
    found = set()
    for number in range(len(shards)):
        with suppress(ShardError):  # an unreadable clip is reported when its window is read
            found |= {event["class"] for event in shards.info(number).events or ()}
    if not found:
        raise TrainingError(
            f"no clip of split {shards.split!r} of {shards.root} says where its sounds come from "
            "(`events` in KEY.json); build the set from labelled recordings, such as STARSS or the "
            "generated world"
        )
    return tuple(sorted(found))


@dataclass(frozen=True)
class Windows:
    """N windows of clips at V views, with C classes, on the CPU."""

    features: Tensor
    """(N, V, D), audio feature of each view."""
    rotations: Tensor
    """(N, V, 3, 3), from the recording's frame to the view's, mirrored if the clip is."""
    vectors: Tensor
    """(N, C, 3), the truth in the recording's frame; 0 unless exactly one source sounds."""
    sources: Tensor
    """(N, C), number of sources of each class that sound."""
    others: Tensor
    """(N,), number of sources that sound of classes unknown to the probe."""
    index: Tensor
    """(N,), sample of the set."""

    @classmethod
    def join(cls, parts: list[Windows]) -> Windows:
        return cls(*(torch.cat([getattr(part, name) for part in parts]) for name in _FIELDS))

    def select(self, mask: NDArray[np.bool_]) -> Windows:
        """The windows where ``mask`` (N,) is true."""
        return Windows(*(getattr(self, name)[torch.from_numpy(mask)] for name in _FIELDS))


def label_windows(
    clips: Clips, epoch: int, index: Tensor, features: Tensor, classes: tuple[int, ...]
) -> Windows:
    """Windows that a batch of ``clips`` shows, with their truth.

    The batch has samples ``index`` (B,) of ``epoch``, with ``features`` (B, V, D) of their first
    views. Samples without events are left out.
    """
    rows, rotations, vectors, sources, others = [], [], [], [], []
    views = features.shape[1]
    for row, sample in enumerate(index.tolist()):
        info, draw = clips.shards.info(sample), clips.draw(epoch, sample)
        if info.events is None:
            continue
        vector, count = np.zeros((len(classes), 3)), np.zeros(len(classes), np.int64)
        start_s = clips.starts_s(sample, draw)[0]
        sounding = sources_in(info, start_s, clips.sound.duration_s)
        for source in sounding:
            if source.kind in classes:
                vector[classes.index(source.kind)] = source.direction
                count[classes.index(source.kind)] += 1
        places = [info.views[view] for view in draw.views[:views]]
        to_views = np.stack(
            [view_rotation(place.azimuth_deg, place.elevation_deg) for place in places]
        )
        rows.append(row)
        rotations.append(_MIRROR @ to_views if draw.mirror else to_views)
        vectors.append(np.where(count[:, None] == 1, vector, 0.0))
        sources.append(count)
        others.append(len(sounding) - int(count.sum()))
    return Windows(
        features[rows],
        torch.tensor(np.array(rotations).reshape(-1, views, 3, 3), dtype=torch.float32),
        torch.tensor(np.array(vectors).reshape(-1, len(classes), 3), dtype=torch.float32),
        torch.tensor(np.array(sources, np.int64).reshape(-1, len(classes))),
        torch.tensor(others, dtype=torch.int64),
        index[rows],
    )
