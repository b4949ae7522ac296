"""The classifier on frozen features."""

from __future__ import annotations

from torch import Tensor, nn


class PairClassifier(nn.Module):
    """Dropout, then ``inputs`` -> ``inputs`` / 2 -> 2, for each view; the logits are averaged over
    the views."""

    def __init__(self, inputs: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(inputs, inputs // 2),
            nn.ReLU(inplace=True),
            nn.Linear(inputs // 2, 2),
        )

    def forward(self, pairs: Tensor) -> Tensor:
        """Logits (N, 2), mismatched and matched, of pairs (N, V, inputs)."""
        return self.by_view(pairs).mean(dim=1)

    def by_view(self, pairs: Tensor) -> Tensor:
        """Logits (N, V, 2) of each view alone."""
        logits: Tensor = self.layers(pairs)
        return logits
