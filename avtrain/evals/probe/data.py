"""Items of the probes: every view of every window, with its features and the truth about it."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from avtrain.data.clips import Clips
from avtrain.evals.feature_store import FrozenFeatures, check_finite
from avtrain.evals.frozen import Networks
from avtrain.evals.truth import (
    SoundingSource,
    rotations_to_views,
    sources_in,
    views_that_show,
)
from shards.schema import View

AUDIO, VIDEO, BOTH, PREDICTED = "audio", "video", "audio + video", "predicted audio"
"""Inputs of the probes. ``PREDICTED``: the audio's feature as the transformer predicts it from the
video of all views."""


@dataclass(frozen=True)
class Truth:
    """What is true of M items; NaN and -1 stand for what is not known or has no single answer. The
    only source is one beside which no other sounds, not even for a moment."""

    direction: NDArray[np.float64]
    """(M, 3), unit vector in the frame of the view of the only source that sounds."""
    in_view: NDArray[np.int64]
    """(M,), 1 if the view shows the place of the only source, and it is in sight; 0 if not."""
    kind: NDArray[np.int64]
    """(M,), class of the only source."""
    count: NDArray[np.int64]
    """(M,), number of sources that sound."""
    distance_m: NDArray[np.float64]
    """(M,), distance of the only source."""
    rt60_s: NDArray[np.float64]
    """(M,), reverberation time."""

    @classmethod
    def join(cls, parts: list[Truth]) -> Truth:
        columns = cls.__annotations__
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in columns))


@dataclass(frozen=True)
class Items:
    """M items of a split: features (M, D) of each input, their truth, and their recordings (M,)."""

    features: dict[str, Tensor]
    truth: Truth
    sources: NDArray[np.str_]


def read_truth(clips: Clips, epoch: int, samples: NDArray[np.int64], views: int) -> Truth:
    """Truth of the first ``views`` of each of ``samples`` in an epoch, view by view.

    Raises TrainingError for malformed events.
    """
    parts = []
    for sample in samples.tolist():
        info, draw = clips.shards.info(sample), clips.draw(epoch, sample)
        window = info, clips.starts_s(sample, draw)[0], clips.sound.duration_s
        sounding = sources_in(*window)
        # A source that sounds for a moment does not count, but may be the loudest of the window.
        only = sounding[0] if len(sounding) == len(sources_in(*window, 0.0)) == 1 else None
        places = [info.views[view] for view in draw.views[:views]]
        parts.append(
            replace(
                _truth_of_source(only, rotations_to_views(info, draw, views), places),
                count=np.full(views, -1 if info.events is None else len(sounding)),
                rt60_s=np.full(views, info.reverberation_rt60_s or np.nan),
            )
        )
    return Truth.join(parts)


def _truth_of_source(
    only: SoundingSource | None, rotations: NDArray[np.float64], places: list[View]
) -> Truth:
    """What the only source of a window says; the number of sources and the room are unknown."""
    views = len(places)
    direction, in_view = np.full((views, 3), np.nan), np.full(views, -1)
    if only is not None:
        direction = rotations @ only.direction
        in_view = (only.visible & views_that_show(direction[:, None], places)[:, 0]).astype(
            np.int64
        )
    distance_m = None if only is None else only.distance_m
    return Truth(
        direction=direction,
        in_view=in_view,
        kind=np.full(views, -1 if only is None else only.kind),
        count=np.full(views, -1),
        distance_m=np.full(views, distance_m or np.nan),
        rt60_s=np.full(views, np.nan),
    )


@dataclass(frozen=True)
class SplitReader:
    """Features of a split, epoch by epoch; ``bar`` counts the clips."""

    features: FrozenFeatures
    bar: tqdm[Any]

    def read(self, epoch: int) -> dict[str, Tensor]:
        """Features (N, V, D) of all N clips in the order of the set: 0 for unreadable ones.

        Raises TrainingError for features that are not finite.
        """
        networks = self.features.networks
        shape = len(self.features.clips.shards), self.features.options.views
        found = empty_features(networks, *shape)
        with closing(self.features.batches(epoch, ("audio", "video"))) as batches:
            for batch in batches:
                parts = {AUDIO: batch.features["audio"], VIDEO: batch.features["video"]}
                if PREDICTED in found:
                    predicted = networks.predicted_audio(parts[VIDEO], batch.directions)
                    parts[PREDICTED] = predicted.cpu()
                for name, values in parts.items():
                    check_finite(values)
                    found[name][batch.index] = values
                self.bar.update(len(batch.index))
        return found

    def items(self, epochs: list[dict[str, Tensor]]) -> Items:
        """The items of the first epochs, as `read` returned them, without unreadable clips."""
        clips, views = self.features.clips, self.features.options.views
        samples = self.features.unreadable.readable_clips
        rows = torch.from_numpy(samples)
        features = {
            name: torch.cat([epoch[name][rows].flatten(0, 1) for epoch in epochs])
            for name in epochs[0]
        }
        features[BOTH] = torch.cat([features[AUDIO], features[VIDEO]], dim=1)
        truth = [read_truth(clips, epoch, samples, views) for epoch in range(len(epochs))]
        sources = np.repeat(np.array(clips.shards.sources)[samples], views)
        return Items(features, Truth.join(truth), np.tile(sources, len(epochs)))


def empty_features(networks: Networks, clips: int, views: int) -> dict[str, Tensor]:
    """Zeros in the shape of what `SplitReader.read` returns."""
    sizes = {AUDIO: networks.audio_dim, VIDEO: networks.video_dim}
    if networks.transformer:
        sizes[PREDICTED] = networks.video_dim
    return {name: torch.zeros(clips, views, size) for name, size in sizes.items()}
