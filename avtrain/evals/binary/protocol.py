"""How the classifier of AVC-Bin and AVSA-Bin is trained: as published, or for small sets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from avtrain.config import PASSES_PER_EPOCH

BinaryTask = Literal["avc", "avsa"]
VideoInput = Literal["prediction", "feature", "both"]
"""What the classifier reads of a view's video: the audio feature that a transformer predicts from
all views, as published; the video network's own feature; or both. Networks whose transformers were
not trained predict nothing, and it reads the feature."""


@dataclass(frozen=True)
class BinaryProtocol:
    """Training of the classifier; results hold it, field by field.

    Features come from ``rounds`` passes over the training split, each with windows, views and
    augmentation of its own; epoch e uses round e modulo ``rounds``. A round shows each clip matched
    or mismatched, as a coin decides, or, if ``paired``, once each. ``clips_per_source``: see
    `avtrain.data.plan.Plan`.
    """

    name: str
    epochs: int
    rounds: int
    learning_rate: float
    milestones: tuple[int, ...]
    paired: bool
    clips_per_source: int | None
    gamma: float = 0.1
    batch_size: int = 32
    dropout: float = 0.5
    weight_decay: float = 0.0


def paper(task: BinaryTask) -> BinaryProtocol:
    """The published protocol: every epoch sees new windows."""
    avc = task == "avc"
    return BinaryProtocol(
        name="paper",
        epochs=10,
        rounds=10,
        learning_rate=1e-5 if avc else 1e-4,
        milestones=(5, 8) if avc else (8,),
        paired=False,
        clips_per_source=PASSES_PER_EPOCH,
        weight_decay=1e-5,
    )


def tiny(task: BinaryTask) -> BinaryProtocol:
    """For small sets: the features of a few windows are kept and used many times; the same for
    both tasks."""
    return BinaryProtocol(
        name="tiny",
        epochs=60,
        rounds=8,
        learning_rate=1e-3,
        milestones=(40, 52),
        paired=True,
        clips_per_source=None,
    )
