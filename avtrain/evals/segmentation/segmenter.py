"""Frozen networks with a head that tells the class of each pixel, and how the head is trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from avtrain.config import PASSES_PER_EPOCH
from avtrain.data.batch import Batch
from avtrain.evals.frozen import Networks
from avtrain.evals.segmentation.fpn import FPN, enlarge, frames_of_stages
from avtrain.evals.segmentation.labels import Classes, LabelledBatch

Condition = Literal["none", "audio", "audio+context"]


@dataclass(frozen=True)
class Protocol:
    """How the head is trained: every epoch shows a random map of ``clips_per_source`` clips of
    each source (None: of all clips), see `avtrain.data.plan.Plan`; with ``rounds`` those of so
    many epochs again and again, of which what the frozen networks make is kept. ``classes``: which
    labels are told apart."""

    name: str
    epochs: int
    batch_size: int
    learning_rate: float
    milestones: tuple[int, ...]
    lateral: int
    head: int
    clips_per_source: int | None
    classes: Literal["yt360", "all"]
    initial_std: float | None
    rounds: int | None = None
    gamma: float = 0.1
    weight_decay: float = 5e-4

    def lasting(self, epochs: int) -> Protocol:
        """With another number of epochs, and steps of the learning rate at the same shares."""
        milestones = tuple(round(at * epochs / self.epochs) for at in self.milestones)
        return replace(self, epochs=epochs, milestones=milestones)


def paper() -> Protocol:
    """The published protocol."""
    return Protocol(
        name="paper",
        epochs=10,
        batch_size=20,
        learning_rate=1e-4,
        milestones=(5, 8),
        lateral=256,
        head=128,
        clips_per_source=PASSES_PER_EPOCH,
        classes="yt360",
        initial_std=0.001,
    )


def tiny() -> Protocol:
    """For small sets and networks, within minutes on two CPU cores."""
    return Protocol(
        name="tiny",
        epochs=8,
        # Of small sets many small steps: a head after some hundred steps of large batches says how
        # luckily it began, and little of what it was given.
        batch_size=1,
        rounds=1,
        learning_rate=1e-3,
        milestones=(4, 7),
        lateral=64,
        head=32,
        clips_per_source=None,
        classes="all",
        # Weights as small as the paper's take a small head hundreds of steps to outgrow.
        initial_std=None,
    )


@dataclass(frozen=True)
class HeadBatch:
    """Of the B V views of a batch, what frozen networks make of them and the truth."""

    maps: list[Tensor]
    """Of each stage (B V, channels, frames, height, width)."""
    condition: Tensor | None
    """(B V, numbers)."""
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
        protocol: Protocol,
    ) -> None:
        """``views`` of a clip are each other's context."""
        self.networks = networks
        self.views = views
        self.condition = condition
        width = networks.config.model.width
        channels = [width * 2**stage for stage in range(4)]
        parts = {"none": 0, "audio": 1, "audio+context": 3}[condition]
        self.head = FPN(
            channels,
            frames_of_stages(networks.config.clip.frames, len(channels)),
            parts * networks.dim,
            len(classes.ids),
            protocol.lateral,
            protocol.head,
            protocol.initial_std,
        ).to(networks.device)

    @torch.no_grad()
    def inputs(self, batch: LabelledBatch) -> HeadBatch:
        """What the head needs of a batch."""
        networks, clips = self.networks, batch.clips
        pictures = clips.video_input(networks.config.clip.size)
        maps = networks.model.video.maps(pictures.flatten(0, 1))
        truth = batch.truth.flatten(0, 1)
        if self.condition == "none":
            return HeadBatch(maps, None, truth)
        audio = networks.audio(clips)
        parts = [audio]
        if self.condition == "audio+context":
            video = maps[-1].amax(dim=(2, 3, 4)).view_as(audio)
            # Random networks have random transformers: here they are not left out.
            parts.append(self._across_views(networks.model.predict_audio, video, clips))
            parts.append(self._across_views(networks.model.predict_video, audio, clips))
        return HeadBatch(maps, torch.cat(parts, dim=-1).flatten(0, 1), truth)

    def _across_views(
        self, predict: Callable[[Tensor, Tensor], Tensor], features: Tensor, clips: Batch
    ) -> Tensor:
        """In groups of as many views as the head learns from: a test reads all that there are."""
        groups = (torch.split(part, self.views, dim=1) for part in (features, clips.directions))
        return torch.cat([predict(*group) for group in zip(*groups, strict=True)], dim=1)

    def logits(self, inputs: HeadBatch) -> Tensor:
        """(B V, classes, height, width) at the size of the truth."""
        return enlarge(self.head(inputs.maps, inputs.condition), inputs.truth.shape[-2:])

    @torch.no_grad()
    def predict(self, batch: LabelledBatch) -> Tensor:
        """Classes (B, V, height, width)."""
        return self.logits(self.inputs(batch)).argmax(dim=1).view_as(batch.truth)
