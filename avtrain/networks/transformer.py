"""Transformers over the views of a clip, which predict one modality from the other.

Morgado, Li and Vasconcelos (NeurIPS 2020), section 3.3; and layers of our own, which know where
each view looks as seen from the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

Positions = Literal["none", "direction", "relative"]
CIRCLE = 4
"""Harmonics of an azimuth: cosine and sine of itself and of its double."""


@dataclass(frozen=True)
class TransformerConfig:
    """Sizes of a transformer, see `avtrain.networks.models.ModelConfig`."""

    dim: int
    depth: int
    dropout: float
    positions: Positions = "none"
    norm_first: bool = False


class ViewTransformer(nn.Module):
    """Features of views (B, V, features) to the same shape; unchanged if it has no layers.

    The views are an unordered set; their directions are (B, V, 3). With the positions
    ``direction``, each token gets an encoding of its own: a linear map of the spherical harmonics
    up to the second order. With ``relative``, layers are `RelativeLayer`.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.relative = config.positions == "relative"
        self.layers = nn.ModuleList(
            RelativeLayer(config.dim, config.dropout)
            if self.relative
            else TransformerLayer(config.dim, config.dropout, config.norm_first)
            for _ in range(config.depth)
        )
        placed = config.depth > 0 and config.positions == "direction"
        self.place = nn.Linear(8, config.dim, bias=False) if placed else None

    def forward(self, x: Tensor, directions: Tensor) -> Tensor:
        if self.relative:
            towards = relative_harmonics(directions)
            for layer in self.layers:
                x = layer(x, towards)
            return x
        if self.place is not None:
            x = x + self.place(_spherical_harmonics(directions))
        for layer in self.layers:
            x = layer(x)
        return x


class TransformerLayer(nn.Module):
    """Single-head attention and an MLP, each with dropout, a residual and LayerNorm; then ReLU.

    With ``norm_first``, LayerNorm comes before attention and MLP instead of after the sums, and
    there is no ReLU, so that the input passes through unchanged (Xiong et al., ICML 2020).
    """

    def __init__(self, dim: int, dropout: float, norm_first: bool) -> None:
        super().__init__()
        self.norm_first = norm_first
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim)
        self.value = nn.Linear(dim, dim)
        self.out = nn.Linear(dim, dim)
        self.attention_norm = nn.LayerNorm(dim)
        self.mlp = _mlp(dim)
        self.mlp_norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        if self.norm_first:
            x = x + self.dropout(self.attend(self.attention_norm(x)))
            y: Tensor = x + self.dropout(self.mlp(self.mlp_norm(x)))
            return y
        x = self.attention_norm(x + self.dropout(self.attend(x)))
        return torch.relu(self.mlp_norm(x + self.dropout(self.mlp(x))))

    def attend(self, x: Tensor) -> Tensor:
        scores = self.query(x) @ self.key(x).transpose(-1, -2) / x.shape[-1] ** 0.5
        context: Tensor = self.out(scores.softmax(dim=-1) @ self.value(x))
        return context


class RelativeLayer(nn.Module):
    """Attention by where views look as seen from each other, and an MLP; LayerNorm comes first.

    With t the azimuth of view j minus that of view i, and a_ij the attention of i to j, view i gets
    ``out`` of

        sum_j a_ij (W_0 + cos t W_1 + sin t W_2 + cos 2t W_3 + sin 2t W_4) x_j

    where the W are the blocks of ``value``, and the scores of a_ij have a term that is linear in
    the same four harmonics (``turn``). What the views hold is encoded over the circle as ambisonics
    encodes sound, and decoded towards view i. A common yaw of all views changes nothing.

    The last linear map of attention and that of the MLP begin at zero, so that training begins with
    the input itself: with random ones networks stay on a plateau (docs/transformer.md).
    """

    def __init__(self, dim: int, dropout: float) -> None:
        super().__init__()
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim)
        self.value = nn.Linear(dim, (1 + CIRCLE) * dim, bias=False)
        self.turn = nn.Linear(CIRCLE, 1, bias=False)
        self.out = nn.Linear(dim, dim)
        self.attention_norm = nn.LayerNorm(dim)
        self.mlp = _mlp(dim)
        self.mlp_norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)
        for last in (self.out, self.mlp[-1]):
            for parameter in last.parameters():
                nn.init.zeros_(parameter)

    def forward(self, x: Tensor, towards: Tensor) -> Tensor:
        """``towards``: `relative_harmonics` of the views' directions."""
        x = x + self.dropout(self.attend(self.attention_norm(x), towards))
        y: Tensor = x + self.dropout(self.mlp(self.mlp_norm(x)))
        return y

    def attend(self, x: Tensor, towards: Tensor) -> Tensor:
        scores = self.query(x) @ self.key(x).transpose(-1, -2) / x.shape[-1] ** 0.5
        attention = (scores + self.turn(towards).squeeze(-1)).softmax(dim=-1)
        # Weights (B, i, j, 5) and values (B, j, 5, dim): one matrix product over all (j, 5).
        weights = torch.cat([attention[..., None], attention[..., None] * towards], dim=-1)
        values = self.value(x).unflatten(-1, (1 + CIRCLE, -1)).flatten(-3, -2)
        context: Tensor = self.out(weights.flatten(-2) @ values)
        return context


def relative_harmonics(directions: Tensor) -> Tensor:
    """cos t, sin t, cos 2t, sin 2t (B, V, V, 4) of the azimuth t of view j minus that of view i, at
    (i, j), for unit vectors (B, V, 3).

    They vanish where one of the two looks straight up or down, which is no azimuth.
    """
    x, y, _ = directions.unbind(-1)
    length = torch.hypot(x, y).clamp(min=1e-6)
    once = torch.complex(x / length, y / length)
    turns = torch.stack([once, once.square()], dim=-1)  # e^(i t) and e^(2 i t) of each azimuth
    return torch.view_as_real(turns[:, None] * turns[:, :, None].conj()).flatten(-2)


def _mlp(dim: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(dim, 4 * dim), nn.ReLU(inplace=True), nn.Linear(4 * dim, dim))


def _spherical_harmonics(directions: Tensor) -> Tensor:
    """Real spherical harmonics of orders 1 and 2 (..., 8) of unit vectors (..., 3), each with a
    mean square of 1 over the sphere."""
    x, y, z = directions.unbind(-1)
    first = 3**0.5 * directions
    mixed = 15**0.5 * torch.stack([x * y, y * z, x * z, (x * x - y * y) / 2], dim=-1)
    return torch.cat([first, mixed, (5**0.5 / 2 * (3 * z * z - 1))[..., None]], dim=-1)
