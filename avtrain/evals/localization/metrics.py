"""Angular errors of estimated directions, and what guessing gives."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from avtrain.evals.bootstrap import mean_metric, median_metric
from avtrain.evals.localization.data import Windows
from avtrain.evals.results import Metric
from shards.geometry import angle_between_deg

CHANCE_DEG = 90.0
"""Mean and median error of a guess that is uniform over the sphere, wherever the source is."""
NEAR_DEG = 20.0
_CHANCE_PAIRS = 200_000


@dataclass(frozen=True)
class Estimates:
    """M sources of the truth with their estimates, in the recording's frame."""

    truth: NDArray[np.float64]
    """(M, 3), unit vectors."""
    estimate: NDArray[np.float64]
    """(M, 3), of any length."""
    kind: NDArray[np.int64]
    """(M,), position of the source's class among the probe's."""
    index: NDArray[np.int64]
    """(M,), sample of the set."""

    @property
    def error_deg(self) -> NDArray[np.float64]:
        """Great-circle errors (M,). An estimate of length 0 points nowhere: 180°."""
        length = np.linalg.norm(self.estimate, axis=-1)
        return np.where(length > 0, angle_between_deg(self.truth, self.estimate), 180.0)


def match_sources(windows: Windows, vectors: Tensor) -> tuple[Estimates, Estimates]:
    """Estimates from vectors (N, C, 3) of the probe.

    The first has every class with exactly one source in its window, estimated by its own vector;
    the second the windows with exactly one source at all, estimated by the sum of the vectors of
    all classes.
    """
    truth, estimate = windows.vectors.double().numpy(), vectors.double().numpy()
    window, kind = np.nonzero(windows.sources.numpy() == 1)
    index = windows.index.numpy()
    by_class = Estimates(truth[window, kind], estimate[window, kind], kind, index[window])
    alone = (windows.sources.sum(dim=1) + windows.others == 1).numpy()[window]
    window, kind = window[alone], kind[alone]
    lone = Estimates(truth[window, kind], estimate[window].sum(axis=1), kind, index[window])
    return by_class, lone


def chance_near(truth: NDArray[np.float64]) -> float:
    """Share of guesses within `NEAR_DEG` of a source (M, 3), if a guess is the direction of a
    source at a random azimuth: it knows how high sources usually are (near the horizon), and
    nothing about the clip."""
    rng = np.random.default_rng(0)
    one, other = truth[rng.integers(len(truth), size=(2, _CHANCE_PAIRS))]
    azimuth = rng.uniform(-np.pi, np.pi, _CHANCE_PAIRS)
    across = np.linalg.norm(other[:, :2], axis=-1)
    guess = np.stack([across * np.cos(azimuth), across * np.sin(azimuth), other[:, 2]], axis=-1)
    return float((angle_between_deg(one, guess) <= NEAR_DEG).mean())


def localization_metrics(
    prefix: str, estimates: Estimates, sources: NDArray[np.str_]
) -> dict[str, Metric]:
    """Errors of the estimates; ``sources`` of all samples of the set, for the intervals."""
    error_deg, source = estimates.error_deg, sources[estimates.index]
    return {
        f"{prefix}mean error": mean_metric(error_deg, source, CHANCE_DEG, unit="°", better="lower"),
        f"{prefix}median error": median_metric(error_deg, source, CHANCE_DEG, unit="°"),
        f"{prefix}within {NEAR_DEG:g}°": mean_metric(
            error_deg <= NEAR_DEG, source, chance_near(estimates.truth)
        ),
    }
