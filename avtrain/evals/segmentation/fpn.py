"""A feature pyramid that predicts classes of pixels from the stages of a video network.

Lin et al., "Feature Pyramid Networks for Object Detection" (2017), with the semantic branch of
Kirillov et al., "Panoptic Feature Pyramid Networks" (2019), as Morgado, Li and Vasconcelos (2020)
put it on frozen backbones: learned weights, initially the mean, reduce the time axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class FPN(nn.Module):
    """Logits at the size of the first stage, from the maps of all stages, fine to coarse.

    ``channels`` and ``frames`` belong to each stage. ``condition`` features, the same at every
    pixel, are concatenated to the maps of the last stage. ``lateral`` and ``head`` are the channels
    of the pyramid and of the branch that reads it. ``initial_std`` is the standard deviation of the
    initial convolution weights (None: PyTorch's default).
    """

    def __init__(
        self,
        channels: Sequence[int],
        frames: Sequence[int],
        condition: int,
        classes: int,
        lateral: int,
        head: int,
        initial_std: float | None = None,
    ) -> None:
        super().__init__()
        stages = len(channels)
        widths = [*channels[:-1], channels[-1] + condition]
        self.time = nn.ParameterList(torch.full((count,), 1 / count) for count in frames)
        self.lateral = nn.ModuleList(nn.Conv2d(width, lateral, 1) for width in widths)
        self.smooth = nn.ModuleList(nn.Conv2d(lateral, lateral, 3, padding=1) for _ in channels)
        # Stage s is resized s times on its way to the size of the first stage.
        self.branches = nn.ModuleList(
            nn.ModuleList(
                _conv_block(lateral if step == 0 else head, head) for step in range(max(1, stage))
            )
            for stage in range(stages)
        )
        self.classify = nn.Conv2d(head, classes, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and initial_std is not None:
                nn.init.normal_(module.weight, std=initial_std)

    def forward(self, maps: Sequence[Tensor], condition: Tensor | None) -> Tensor:
        """Logits (N, classes, height, width) from maps (N, channels, frames, height, width) of each
        stage and the condition (N, condition) or None."""
        flat = [torch.einsum("nctyx,t->ncyx", x, w) for x, w in zip(maps, self.time, strict=True)]
        if condition is not None:
            everywhere = condition[:, :, None, None].expand(-1, -1, *flat[-1].shape[2:])
            flat[-1] = torch.cat([flat[-1], everywhere], dim=1)
        sizes = [x.shape[2:] for x in flat]
        pyramid = [lateral(x) for lateral, x in zip(self.lateral, flat, strict=True)]
        for stage in reversed(range(len(pyramid) - 1)):
            pyramid[stage] = pyramid[stage] + F.interpolate(pyramid[stage + 1], sizes[stage])
        total = torch.zeros((), device=flat[0].device)
        for stage, branch in enumerate(self.branches):
            x = self.smooth[stage](pyramid[stage])
            for step, layer in enumerate(cast(nn.ModuleList, branch)):
                x = layer(x)
                if stage:
                    x = resize(x, sizes[stage - step - 1])
            total = total + x
        logits: Tensor = self.classify(total)
        return logits


def resize(x: Tensor, size: Sequence[int]) -> Tensor:
    """Resize (N, C, height, width) by bilinear interpolation."""
    return F.interpolate(x, tuple(size), mode="bilinear", align_corners=False)


def _conv_block(cin: int, cout: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(cin, cout, 3, padding=1, bias=False),
        nn.GroupNorm(cout // 4, cout),
        nn.ReLU(inplace=True),
    )
