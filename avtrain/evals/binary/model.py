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
        logits: Tensor = self.layers(pairs)
        return logits.mean(dim=1)
