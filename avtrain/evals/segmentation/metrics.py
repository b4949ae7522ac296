"""Segmentation metrics, from counts of pixels of a whole test set."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from avtrain.evals.bootstrap import count_rounds, middle_95
from avtrain.evals.results import Metric
from avtrain.evals.segmentation.data import VOID, Classes

HITS, TRUE, PREDICTED = range(3)


def count_pixels(predicted: Tensor, truth: Tensor, classes: int) -> Tensor:
    """Pixels of each clip and class, int64 (B, 3, classes): hits, pixels of the class, and pixels
    predicted as the class; the diagonal, row sums and column sums of a confusion matrix. Void
    pixels count nowhere.

    ``predicted`` and ``truth`` (B, …) are classes, 255 for void.
    """
    clips = len(truth)
    valid = truth != VOID
    number = torch.arange(clips, device=truth.device).view(-1, *[1] * (truth.dim() - 1))
    number = (number * classes).expand_as(truth)
    hit = valid & (predicted == truth)
    counts = [
        torch.bincount((number + which)[where], minlength=clips * classes)
        for which, where in ((truth, hit), (truth, valid), (predicted, valid))
    ]
    return torch.stack([part.view(clips, classes) for part in counts], dim=1)


def iou(counts: ArrayLike) -> NDArray[np.float64]:
    """Intersection over union (…, classes) from counts (…, 3, classes). NaN for a class that is
    nowhere in the truth; predicting it still costs hits of the pixels' own class."""
    counts = np.asarray(counts, dtype=np.float64)
    hits, true, predicted = (counts[..., row, :] for row in (HITS, TRUE, PREDICTED))
    union = true + predicted - hits
    with np.errstate(invalid="ignore"):
        return np.where(true > 0, hits / union, np.nan)


def mean_iou(counts: ArrayLike) -> NDArray[np.float64]:
    """Mean IoU (…) over the classes in the truth, from counts (…, 3, classes)."""
    return np.asarray(np.nanmean(iou(counts), axis=-1))


def pixel_accuracy(counts: ArrayLike) -> NDArray[np.float64]:
    """Share of pixels that are hit (…), from counts (…, 3, classes)."""
    counts = np.asarray(counts, dtype=np.float64)
    return np.asarray(counts[..., HITS, :].sum(-1) / counts[..., TRUE, :].sum(-1))


def count_constant(counts: NDArray[np.int64]) -> tuple[int, NDArray[np.int64]]:
    """The most frequent class of the truth, and the counts (3, classes) of always predicting it."""
    true = counts[TRUE]
    most = int(true.argmax())
    always = np.zeros_like(counts)
    always[TRUE] = true
    always[HITS, most], always[PREDICTED, most] = true[most], true.sum()
    return most, always


def segmentation_metrics(
    by_source: NDArray[np.int64], classes: Classes
) -> tuple[dict[str, Metric], dict[str, Any]]:
    """Metrics from counts (sources, 3, classes) of a test set, and details: each class, and how
    chance is defined.

    All pixels count together; nothing is averaged over images. Intervals are by the Bayesian
    bootstrap over sources (Rubin, Annals of Statistics 1981).
    """
    total = by_source.sum(axis=0)
    most, always = count_constant(total)
    drawn = None
    if len(by_source) > 1:
        # Random weights instead of drawing with replacement: rounds without the sources of a class
        # would be means over other classes.
        weights = np.random.default_rng(0).dirichlet(
            np.ones(len(by_source)), size=count_rounds(len(by_source))
        )
        flat = by_source.reshape(len(by_source), -1).astype(np.float64)
        drawn = (weights @ flat).reshape(-1, *by_source.shape[1:])
    metrics = {
        name: Metric(
            float(metric(total)),
            None if drawn is None else middle_95(metric(drawn)),
            float(metric(always)),
        )
        for name, metric in (("mIoU", mean_iou), ("pixel accuracy", pixel_accuracy))
    }
    value, rounds = iou(total), None if drawn is None else iou(drawn)
    per_class = []
    for number, (label, name) in enumerate(zip(classes.ids, classes.names, strict=True)):
        there = total[TRUE, number] > 0
        interval = middle_95(rounds[:, number]) if rounds is not None and there else None
        per_class.append(
            {
                "id": label,
                "name": name,
                "iou": float(value[number]) if there else None,
                "interval_95": interval,
                "share_of_pixels": float(total[TRUE, number] / total[TRUE].sum()),
            }
        )
    details = {
        "classes": per_class,
        "chance": f"every pixel {classes.names[most]}, the test's most frequent class",
    }
    return metrics, details
