"""The two contrastive losses: InfoNCE (van den Oord et al., 2018) over clips, and over viewpoints.

Morgado, Li and Vasconcelos (NeurIPS 2020): cosine similarities, divided by a temperature, are
the logits of a classifier that has to find the right partner among candidates.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

TEMPERATURE = 0.07


@dataclass(frozen=True)
class Contrast:
    """A loss (scalar, with gradient) and the accuracies (scalars, without) it was reached with.

    ``clip_accuracy``: how often the right partner beats those of all other clips.
    ``view_accuracy``: how often it beats the same clip's other viewpoints; None with one view.
    A tie is a miss, so that a collapsed network scores 0.
    """

    loss: Tensor
    clip_accuracy: Tensor
    view_accuracy: Tensor | None = None

    def mean(self, other: Contrast) -> Contrast:
        """The average of the two directions, video from audio and audio from video."""
        views = None
        if self.view_accuracy is not None and other.view_accuracy is not None:
            views = (self.view_accuracy + other.view_accuracy) / 2
        return Contrast(
            (self.loss + other.loss) / 2, (self.clip_accuracy + other.clip_accuracy) / 2, views
        )


def clip_contrast(query: Tensor, target: Tensor, temperature: float = TEMPERATURE) -> Contrast:
    """Find the target of clip i among all clips' targets. Both (B, D), of any length."""
    scores = F.normalize(query, dim=-1) @ F.normalize(target, dim=-1).T
    label = torch.arange(len(scores), device=scores.device)
    loss = F.cross_entropy(scores / temperature, label)
    with torch.no_grad():
        others = scores.masked_fill(torch.eye(len(scores), device=scores.device).bool(), -torch.inf)
        accuracy = (scores.diagonal() > others.amax(dim=-1)).float().mean()
    return Contrast(loss, clip_accuracy=accuracy)


def view_contrast(query: Tensor, target: Tensor, temperature: float = TEMPERATURE) -> Contrast:
    """Find the target of viewpoint j of clip i among V + B - 1 candidates. Both (B, V, D).

    The candidates are the V targets of clip i and, of every other clip, the target at the same
    viewpoint index j ("easy + hard" negatives).
    """
    clips, views, _ = query.shape
    query, target = F.normalize(query, dim=-1), F.normalize(target, dim=-1)
    own = query @ target.transpose(1, 2)  # (B, V, V)
    across = (query.transpose(0, 1) @ target.permute(1, 2, 0)).transpose(0, 1)  # (B, V, B)
    same_clip = torch.eye(clips, device=query.device).bool()
    across = across.masked_fill(same_clip[:, None], -torch.inf)  # its own target is in `own`
    label = torch.arange(views, device=query.device).repeat(clips)
    logits = torch.cat([own, across], dim=-1).flatten(0, 1) / temperature
    loss = F.cross_entropy(logits, label)
    with torch.no_grad():
        right = own.diagonal(dim1=1, dim2=2)
        same_view = torch.eye(views, device=query.device).bool()
        best_view = own.masked_fill(same_view, -torch.inf).amax(dim=-1)
        return Contrast(
            loss,
            clip_accuracy=(right > across.amax(dim=-1)).float().mean(),
            view_accuracy=(right > best_view).float().mean() if views > 1 else None,
        )
