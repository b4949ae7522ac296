"""How well predicted maps fit the truth: counts of a whole test set, and what follows from them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from avtrain.evals.bootstrap import count_rounds, middle_95
from avtrain.evals.results import Metric
from avtrain.evals.segmentation.labels import VOID, Classes

HITS, TRUE, PREDICTED = range(3)


def count(predicted: Tensor, truth: Tensor, classes: int) -> Tensor:
    """Pixels of each clip and class: int64 (B, 3, classes) that are hit, that are of the class,
    and that were taken for it. These are what a confusion matrix has on its diagonal, in its rows
    and in its columns; void pixels are in none.

    ``predicted`` and ``truth`` (B, …) are classes, and 255 is void.
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
    """Intersection over union of each class: (…, 3, classes) to (…, classes). A class that is
    nowhere in the truth has none (NaN); who predicts it still loses the pixels' own class."""
    counts = np.asarray(counts, dtype=np.float64)
    hits, true, predicted = (counts[..., row, :] for row in (HITS, TRUE, PREDICTED))
    union = true + predicted - hits
    with np.errstate(invalid="ignore"):
        return np.where(true > 0, hits / union, np.nan)


def mean_iou(counts: ArrayLike) -> NDArray[np.float64]:
    """The mean over the classes that the truth has: (…, 3, classes) to (…)."""
    return np.asarray(np.nanmean(iou(counts), axis=-1))


def pixel_accuracy(counts: ArrayLike) -> NDArray[np.float64]:
    """The share of pixels that are hit: (…, 3, classes) to (…)."""
    counts = np.asarray(counts, dtype=np.float64)
    return np.asarray(counts[..., HITS, :].sum(-1) / counts[..., TRUE, :].sum(-1))


def constant(counts: NDArray[np.int64]) -> tuple[int, NDArray[np.int64]]:
    """The most frequent class of the truth, and the counts (3, classes) of who always says it."""
    true = counts[TRUE]
    most = int(true.argmax())
    always = np.zeros_like(counts)
    always[TRUE] = true
    always[HITS, most], always[PREDICTED, most] = true[most], true.sum()
    return most, always


def scores(
    by_source: NDArray[np.int64], classes: Classes
) -> tuple[dict[str, Metric], dict[str, Any]]:
    """Metrics of a test set's counts (sources, 3, classes), and details: each class and what
    guessing is. Everything is of the pixels of all pictures together, not averaged over pictures;
    intervals are by the Bayesian bootstrap over sources (Rubin, Annals of Statistics 1981)."""
    total = by_source.sum(axis=0)
    most, always = constant(total)
    drawn = None
    if len(by_source) > 1:
        # Sources have random weights: of those drawn with replacement some rounds lack a class, and
        # the mean is then of others.
        weights = np.random.default_rng(0).dirichlet(
            np.ones(len(by_source)), size=count_rounds(len(by_source))
        )
        flat = by_source.reshape(len(by_source), -1).astype(np.float64)
        drawn = (weights @ flat).reshape(-1, *by_source.shape[1:])
    metrics = {
        name: Metric(
            float(of(total)),
            None if drawn is None else middle_95(of(drawn)),
            float(of(always)),
        )
        for name, of in (("mIoU", mean_iou), ("pixel accuracy", pixel_accuracy))
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
