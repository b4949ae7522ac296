"""A feature pyramid that tells classes of pixels from the stages of a video network.

Lin et al., "Feature Pyramid Networks for Object Detection" (2017), with the semantic branch of
Kirillov et al., "Panoptic Feature Pyramid Networks" (2019), as Morgado, Li and Vasconcelos (2020)
put it on frozen backbones: time is reduced by learned weights, which begin as the mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class FPN(nn.Module):
    """Maps of a network's stages, from fine to coarse, to logits at the size of the first ones.

    ``channels`` and ``frames`` are those of each stage; the last one's maps are put beside
    ``condition`` numbers, the same at every pixel. ``lateral`` and ``head`` are the channels of
    the pyramid and of the branch that reads it; ``initial_std`` is of the weights of its
    convolutions, None leaves PyTorch's.
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
        # Stage s is enlarged s times on its way to the size of the first one.
        self.branches = nn.ModuleList(
            nn.ModuleList(
                _normalised(lateral if step == 0 else head, head) for step in range(max(1, stage))
            )
            for stage in range(stages)
        )
        self.classify = nn.Conv2d(head, classes, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and initial_std is not None:
                nn.init.normal_(module.weight, std=initial_std)

    def forward(self, maps: Sequence[Tensor], condition: Tensor | None) -> Tensor:
        """Maps (N, channels, frames, height, width) of each stage and what the last one is put
        beside, (N, condition) or None, to logits (N, classes, height, width)."""
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
                    x = enlarge(x, sizes[stage - step - 1])
            total = total + x
        logits: Tensor = self.classify(total)
        return logits


def frames_of_stages(frames: int, stages: int) -> list[int]:
    """How many frames each stage has, of which all but the first halve them."""
    return [-(-frames // 2**stage) for stage in range(stages)]


def enlarge(x: Tensor, size: Sequence[int]) -> Tensor:
    """(N, C, height, width) to another size, linearly in between."""
    return F.interpolate(x, tuple(size), mode="bilinear", align_corners=False)


def _normalised(cin: int, cout: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(cin, cout, 3, padding=1, bias=False),
        nn.GroupNorm(cout // 4, cout),
        nn.ReLU(inplace=True),
    )
