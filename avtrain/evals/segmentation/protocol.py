"""How the segmentation head is trained: as published, or for small sets."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from avtrain.config import PASSES_PER_EPOCH

Condition = Literal["none", "audio", "audio+context"]
"""What the head gets beside the video: nothing, the view's audio feature, or also what the
transformers predict from all views."""


@dataclass(frozen=True)
class SegmentationProtocol:
    """Training of the head; results hold it, field by field.

    Every epoch shows a random map of ``clips_per_source`` clips of each source (None: of all
    clips), see `avtrain.data.plan.Plan`. With ``rounds``, the maps of that many epochs are shown
    again and again, and the outputs of the frozen networks for them are kept. ``classes``: which
    labels are told apart. After ``milestones`` (epochs, also parts of them) the learning rate is
    multiplied by ``gamma``.
    """

    name: str
    epochs: int
    batch_size: int
    learning_rate: float
    milestones: tuple[float, ...]
    lateral: int
    head: int
    clips_per_source: int | None
    classes: Literal["yt360", "all"]
    initial_std: float | None
    rounds: int | None = None
    gamma: float = 0.1
    weight_decay: float = 5e-4

    def with_epochs(self, epochs: int) -> SegmentationProtocol:
        """Another number of epochs, with the milestones at the same fractions of the training."""
        if epochs == self.epochs:
            return self
        milestones = tuple(at * epochs / self.epochs for at in self.milestones)
        return replace(self, epochs=epochs, milestones=milestones)


def paper() -> SegmentationProtocol:
    """The published protocol."""
    return SegmentationProtocol(
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


def tiny() -> SegmentationProtocol:
    """For small sets and networks: minutes on two CPU cores."""
    return SegmentationProtocol(
        name="tiny",
        epochs=8,
        # Small sets get many small steps: after a few hundred steps of large batches, a head shows
        # the luck of its initial weights rather than its inputs.
        batch_size=1,
        rounds=1,
        learning_rate=1e-3,
        milestones=(4, 7),
        lateral=64,
        head=32,
        clips_per_source=None,
        classes="all",
        # A small head takes hundreds of steps to outgrow weights as small as the paper's.
        initial_std=None,
    )
