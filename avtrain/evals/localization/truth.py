"""What sounds where in windows of clips, by the truth that came with them (``events``)."""

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
"""Of a window: a source that sounds for less of it is not in it."""
_STEP_S = 0.1
"""Of sets that do not say theirs."""
_FIELDS = ("features", "rotations", "vectors", "sources", "others", "index")
_MIRROR = np.diag([1.0, -1.0, 1.0])


@dataclass(frozen=True)
class Sounding:
    """A source in a window: unit vector (3,) of its mean direction while it sounds there, in the
    recording's frame. ``source`` tells those of one class apart."""

    kind: int
    source: int
    direction: NDArray[np.float64]


def sounding_in(info: SampleInfo, start_s: float, duration_s: float) -> list[Sounding]:
    """The sources that sound in a window of a clip; none where its record has no ``events``.

    Raises TrainingError for events that are none.
    """
    step_s = info.event_step_s or _STEP_S
    vectors: defaultdict[tuple[int, int], list[NDArray[np.float64]]] = defaultdict(list)
    unnamed: Counter[tuple[float, int]] = Counter()
    try:
        for event in info.events or ():
            time_s, kind = float(event["time_s"]), int(event["class"])
            if not start_s <= time_s + step_s / 2 < start_s + duration_s:
                continue
            # Sources without a number are told apart by their places among those of one moment.
            source = event.get("source", unnamed[time_s, kind])
            unnamed[time_s, kind] += 1
            direction = unit_vector(event["azimuth_deg"], event["elevation_deg"])
            vectors[kind, int(source)].append(direction)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise TrainingError(
            f"{info.key}: its events are none ({error!r:.80}); build the set again"
        ) from None
    found = []
    for (kind, source), directions in sorted(vectors.items(), key=lambda item: item[0]):
        total = np.sum(directions, axis=0)
        length = np.linalg.norm(total)
        if len(directions) * step_s >= SMALLEST_SHARE * duration_s - 1e-6 and length > 0:
            found.append(Sounding(kind, source, total / length))
    return found


def classes_of(shards: ShardSet) -> tuple[int, ...]:
    """The classes that sound in a split.

    Raises TrainingError where no clip of it says what sounds.
    """
    found = set()
    for number in range(len(shards)):
        with suppress(ShardError):  # where it is to be read, it is said and left out
            found |= {sounding["class"] for sounding in shards.info(number).events or ()}
    if not found:
        raise TrainingError(
            f"no clip of split {shards.split!r} of {shards.root} says where its sounds come from "
            "(`events` in KEY.json); build the set from recordings that come with labels, as those "
            "of STARSS and of the generated world do"
        )
    return tuple(sorted(found))


@dataclass(frozen=True)
class Windows:
    """N windows of clips at V views with C classes, on the CPU."""

    features: Tensor
    """(N, V, D) of the sound at each view."""
    rotations: Tensor
    """(N, V, 3, 3), take the recording's directions to the view's frame; mirrored as the clip."""
    vectors: Tensor
    """(N, C, 3) in the recording's frame: the truth; 0 where no source or several sound."""
    sources: Tensor
    """(N, C), how many sources of each class sound."""
    others: Tensor
    """(N,), how many sources of classes sound that the probe has not learned."""
    index: Tensor
    """(N,), which sample of the set."""

    @classmethod
    def join(cls, parts: list[Windows]) -> Windows:
        return cls(*(torch.cat([getattr(part, name) for part in parts]) for name in _FIELDS))

    def where(self, kept: NDArray[np.bool_]) -> Windows:
        """Those of the N that are ``kept``."""
        return Windows(*(getattr(self, name)[torch.from_numpy(kept)] for name in _FIELDS))


def windows_of(
    clips: Clips, epoch: int, index: Tensor, features: Tensor, classes: tuple[int, ...]
) -> Windows:
    """The truth of the windows that a batch of ``clips`` shows: samples ``index`` (B,) of epoch
    ``epoch``, with ``features`` (B, V, D) of their first views. Samples without truth are left
    out."""
    rows, rotations, vectors, sources, others = [], [], [], [], []
    for row, sample in enumerate(index.tolist()):
        info, draw = clips.shards.info(sample), clips.draw(epoch, sample)
        if info.events is None:
            continue
        vector, count = np.zeros((len(classes), 3)), np.zeros(len(classes), np.int64)
        start_s = clips.starts_s(sample, draw)[0]
        found = sounding_in(info, start_s, clips.sound.duration_s)
        for source in found:
            if source.kind in classes:
                vector[classes.index(source.kind)] = source.direction
                count[classes.index(source.kind)] += 1
        places = [info.views[view] for view in draw.views[: features.shape[1]]]
        turns = np.stack(
            [view_rotation(place.azimuth_deg, place.elevation_deg) for place in places]
        )
        rows.append(row)
        rotations.append(_MIRROR @ turns if draw.mirror else turns)
        vectors.append(np.where(count[:, None] == 1, vector, 0.0))
        sources.append(count)
        others.append(len(found) - int(count.sum()))
    views = features.shape[1]
    return Windows(
        features[rows],
        torch.tensor(np.array(rotations).reshape(-1, views, 3, 3), dtype=torch.float32),
        torch.tensor(np.array(vectors).reshape(-1, len(classes), 3), dtype=torch.float32),
        torch.tensor(np.array(sources, np.int64).reshape(-1, len(classes))),
        torch.tensor(others, dtype=torch.int64),
        index[rows],
    )
