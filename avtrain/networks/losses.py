"""The contrastive loss: InfoNCE (van den Oord et al., 2018) over clips, and over their views.

Morgado, Li and Vasconcelos (NeurIPS 2020): cosine similarities, divided by a temperature, are
the logits of a classifier that has to find the right target among candidates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Negatives = Literal["easy", "hard", "easy+hard"]
TEMPERATURE = 0.07


@dataclass(frozen=True)
class ContrastiveLoss:
    """A loss (``value``: scalar, with gradient) and its accuracies (scalars, without gradient).

    ``clip_accuracy``: share of queries whose target beats those of all other clips.
    ``view_accuracy``: share whose target beats the same clip's other views (or moments); None with
    one. A tie is a miss, so that a collapsed network scores 0.
    """

    value: Tensor
    clip_accuracy: Tensor
    view_accuracy: Tensor | None = None

    def mean(self, other: ContrastiveLoss) -> ContrastiveLoss:
        """Average with the loss of the other direction: video from audio, audio from video."""
        views = None
        if self.view_accuracy is not None and other.view_accuracy is not None:
            views = (self.view_accuracy + other.view_accuracy) / 2
        return ContrastiveLoss(
            (self.value + other.value) / 2, (self.clip_accuracy + other.clip_accuracy) / 2, views
        )


def info_nce(
    query: Tensor,
    target: Tensor,
    temperature: float = TEMPERATURE,
    negatives: Negatives = "easy+hard",
) -> ContrastiveLoss:
    """Loss of finding the target of view (or moment) j of clip i among candidates. ``query`` and
    ``target`` (B, V, D).

    Candidates with ``hard``: the V targets of clip i; with ``easy``: its own target and that of
    every other clip at the same index j, which with one view is InfoNCE over clips; with
    ``easy+hard``: both, V + B - 1 candidates.
    """
    clips, views, _ = query.shape
    query, target = F.normalize(query, dim=-1), F.normalize(target, dim=-1)
    own = query @ target.transpose(1, 2)  # (B, V, V)
    across_clips = (query.transpose(0, 1) @ target.permute(1, 2, 0)).transpose(0, 1)  # (B, V, B)
    same_clip = torch.eye(clips, device=query.device).bool()
    others = across_clips.masked_fill(same_clip[:, None], -torch.inf)  # its own target is in `own`
    if negatives == "easy":
        logits, label = (
            across_clips,
            torch.arange(clips, device=query.device).repeat_interleave(views),
        )
    else:
        label = torch.arange(views, device=query.device).repeat(clips)
        logits = own if negatives == "hard" else torch.cat([own, others], dim=-1)
    loss = F.cross_entropy(logits.flatten(0, 1) / temperature, label)
    with torch.no_grad():
        right = own.diagonal(dim1=1, dim2=2)
        same_view = torch.eye(views, device=query.device).bool()
        best_view = own.masked_fill(same_view, -torch.inf).amax(dim=-1)
        return ContrastiveLoss(
            loss,
            clip_accuracy=(right > others.amax(dim=-1)).float().mean(),
            view_accuracy=(right > best_view).float().mean() if views > 1 else None,
        )
