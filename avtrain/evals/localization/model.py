"""The linear probe of localization, and the least squares that fit it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from avtrain.evals.feature_store import check_finite
from avtrain.evals.localization.data import Windows

RIDGE = 1e-3
"""Ridge, relative to the variance of a feature."""


@dataclass(frozen=True)
class Probe:
    """Linear map with ``weights`` (C, D + 1, 3), the bias last, of features that are standardised
    with ``mean`` and ``std`` (D,)."""

    mean: Tensor
    std: Tensor
    weights: Tensor

    def directions(self, windows: Windows) -> Tensor:
        """Vectors (N, C, 3) in the recording's frame, averaged over the views."""
        inputs = _inputs(windows.features, self.mean, self.std)
        vectors = torch.einsum("nvp,cpi->nvci", inputs, self.weights)
        inverse = windows.rotations.double().transpose(-1, -2)
        averaged: Tensor = torch.einsum("nvij,nvcj->nvci", inverse, vectors).mean(dim=1)
        return averaged


class LeastSquares:
    """Sums over windows that determine the best probe, in ``state``. Features are standardised by
    the statistics of the first round."""

    def __init__(self) -> None:
        self.state: dict[str, Any] = {"rounds": 0}

    @staticmethod
    def example(classes: int, dim: int) -> dict[str, Any]:
        """The state before a first round, without statistics: features of size ``dim``."""
        return {
            "rounds": 0,
            "mean": torch.zeros(dim, dtype=torch.float64),
            "std": torch.ones(dim, dtype=torch.float64),
            "inputs": torch.zeros(classes, dim + 1, dim + 1, dtype=torch.float64),
            "wanted": torch.zeros(classes, dim + 1, 3, dtype=torch.float64),
        }

    def add(self, windows: Windows) -> None:
        """Add a round of windows, all views of each.

        Raises TrainingError for features that are not finite.
        """
        check_finite(windows.features)
        state = self.state
        classes, dim = windows.sources.shape[1], windows.features.shape[-1]
        if not state["rounds"]:
            std, mean = torch.std_mean(windows.features.double().flatten(0, 1), dim=0, correction=0)
            state |= self.example(classes, dim) | {"mean": mean, "std": std + 1e-5}
        inputs = _inputs(windows.features, state["mean"], state["std"])
        targets = torch.einsum(
            "nvij,ncj->nvci", windows.rotations.double(), windows.vectors.double()
        )
        for kind in range(classes):
            # Several sources of one class have no single direction.
            clear = windows.sources[:, kind] < 2
            rows = inputs[clear].flatten(0, 1)
            state["inputs"][kind] += rows.T @ rows
            state["wanted"][kind] += rows.T @ targets[clear, :, kind].flatten(0, 1)
        state["rounds"] += 1

    def solve(self) -> Probe:
        """The probe with the least mean squared error, plus ridge, on all windows added."""
        state = self.state
        count = state["inputs"][:, -1, -1].clamp(min=1)
        ridge = RIDGE * count[:, None, None] * torch.eye(state["inputs"].shape[-1])
        weights = torch.linalg.solve(state["inputs"] + ridge, state["wanted"])
        return Probe(state["mean"], state["std"], weights)


def _inputs(features: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Standardised features (N, V, D + 1), with a one for the bias."""
    standard = (features.double() - mean) / std
    return torch.cat([standard, torch.ones_like(standard[..., :1])], dim=-1)
