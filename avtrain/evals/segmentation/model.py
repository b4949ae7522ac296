"""Frozen networks with a head that predicts the class of each pixel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from avtrain.data.batch import Batch
from avtrain.evals.frozen import Networks
from avtrain.evals.segmentation.data import Classes, LabelledBatch
from avtrain.evals.segmentation.fpn import FPN, resize
from avtrain.evals.segmentation.protocol import Condition, SegmentationProtocol


@dataclass(frozen=True)
class HeadBatch:
    """Outputs of the frozen networks for the B V views of a batch, and the truth."""

    maps: list[Tensor]
    """(B V, channels, frames, height, width) of each stage."""
    condition: Tensor | None
    """(B V, features)."""
    truth: Tensor
    """uint8 (B V, height, width)."""


class Segmenter:
    """Frozen networks and the head on them."""

    def __init__(
        self,
        networks: Networks,
        condition: Condition,
        views: int,
        classes: Classes,
        protocol: SegmentationProtocol,
    ) -> None:
        """``views`` of a clip are each other's context."""
        self.networks = networks
        self.views = views
        self.condition = condition
        stages = self._maps(torch.zeros(1, *networks.config.video_shape, device=networks.device))
        audio_dim, video_dim = networks.audio_dim, networks.video_dim
        self.head = FPN(
            [stage.shape[1] for stage in stages],
            [stage.shape[2] for stage in stages],
            {"none": 0, "audio": audio_dim, "audio+context": 2 * audio_dim + video_dim}[condition],
            len(classes.ids),
            protocol.lateral,
            protocol.head,
            protocol.initial_std,
        ).to(networks.device)

    @torch.no_grad()
    def inputs(self, batch: LabelledBatch) -> HeadBatch:
        """Inputs of the head for a batch."""
        networks, clips = self.networks, batch.clips
        video_input = clips.video_input(networks.config.clip.size)
        maps = self._maps(video_input.flatten(0, 1))
        truth = batch.truth.flatten(0, 1)
        if self.condition == "none":
            return HeadBatch(maps, None, truth)
        audio = networks.audio(clips)
        parts = [audio]
        if self.condition == "audio+context":
            video = networks.audio_visual.embed_video(video_input)
            # The transformers of random networks are random, and are used here all the same.
            parts.append(self._across_views(networks.audio_visual.predict_audio, video, clips))
            parts.append(self._across_views(networks.audio_visual.predict_video, audio, clips))
        return HeadBatch(maps, torch.cat(parts, dim=-1).flatten(0, 1), truth)

    @torch.no_grad()
    def _maps(self, video: Tensor) -> list[Tensor]:
        """Outputs (N, channels, frames, height, width) of the video network's stages."""
        maps: list[Tensor] = self.networks.maps("video", video)
        return maps

    def _across_views(
        self, predict: Callable[[Tensor, Tensor], Tensor], features: Tensor, clips: Batch
    ) -> Tensor:
        """Predict in groups of as many views as in training: a test reads all views of a clip."""
        groups = (torch.split(part, self.views, dim=1) for part in (features, clips.directions))
        return torch.cat([predict(*group) for group in zip(*groups, strict=True)], dim=1)

    def logits(self, inputs: HeadBatch) -> Tensor:
        """(B V, classes, height, width) at the size of the truth."""
        return resize(self.head(inputs.maps, inputs.condition), inputs.truth.shape[-2:])

    @torch.no_grad()
    def predict(self, batch: LabelledBatch) -> Tensor:
        """Classes (B, V, height, width)."""
        return self.logits(self.inputs(batch)).argmax(dim=1).view_as(batch.truth)
