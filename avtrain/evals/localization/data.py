"""The windows of localization: features with the directions of each class."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from avtrain.data.clips import Clips
from avtrain.errors import TrainingError
from avtrain.evals.truth import rotations_to_views, sources_in
from shards.errors import ShardError
from shards.reader import ShardSet

_FIELDS = ("features", "rotations", "vectors", "sources", "others", "index")


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
            f"no clip of {shards.where} says where its sounds come from "
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
        rows.append(row)
        rotations.append(rotations_to_views(info, draw, views))
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
