"""Video@1 and Clip@1 over folds, and the confusion of classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from avtrain.evals.action.folds import Fold, LabelledSet
from avtrain.evals.bootstrap import mean_metric
from avtrain.evals.results import Metric


@dataclass(frozen=True)
class Predictions:
    """Predicted classes for the readable test videos of a fold at ``positions`` (N,): of each
    window (N, windows), and of each video from all its windows (N,)."""

    positions: NDArray[np.int64]
    windows: NDArray[np.int64]
    videos: NDArray[np.int64]


def action_metrics(
    videos: LabelledSet, folds: Sequence[Fold], predictions: Sequence[Predictions]
) -> dict[str, Metric]:
    """Video@1 and Clip@1: their means over the folds, whatever their sizes, then those of each."""
    metrics = {}
    parts = list(zip(folds, predictions, strict=True))
    groups = {"": parts}
    if len(parts) > 1:
        groups |= {f", {fold.name}": [(fold, found)] for fold, found in parts}
    for name, group in groups.items():
        positions = [found.positions for _, found in group]
        truth = [videos.labels[tested] for tested in positions]
        origins = [videos.videos[position].origin for position in np.concatenate(positions)]
        weights = np.concatenate([np.full(len(tested), 1 / len(tested)) for tested in positions])
        # Accuracy of predicting the most frequent class for all videos.
        chance = float(np.mean([np.bincount(true).max() / len(true) for true in truth]))
        right = [found.videos == true for (_, found), true in zip(group, truth, strict=True)]
        metrics[f"Video@1{name}"] = mean_metric(np.concatenate(right), origins, chance, weights)
        right = [
            (found.windows == true[:, None]).mean(axis=1)
            for (_, found), true in zip(group, truth, strict=True)
        ]
        metrics[f"Clip@1{name}"] = mean_metric(np.concatenate(right), origins, chance, weights)
    return metrics


def accuracy_by_class(videos: LabelledSet, predictions: Sequence[Predictions]) -> dict[str, float]:
    """Share of the test videos of each class that are predicted right."""
    truth = videos.labels[np.concatenate([found.positions for found in predictions])]
    predicted = np.concatenate([found.videos for found in predictions])
    return {
        label: float((predicted[truth == number] == number).mean())
        for number, label in enumerate(videos.classes)
        if (truth == number).any()
    }


def confusion_matrix(videos: LabelledSet, predictions: Sequence[Predictions]) -> NDArray[np.int64]:
    """Number of test videos of each class (rows) that were predicted as each class (columns)."""
    counts = np.zeros((len(videos.classes),) * 2, dtype=np.int64)
    for found in predictions:
        np.add.at(counts, (videos.labels[found.positions], found.videos), 1)
    return counts
