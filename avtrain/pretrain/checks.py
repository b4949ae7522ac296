"""Checks that end a run which could only continue to nothing good."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from avtrain.data.shard_sets import Roots, Shards, in_words
from avtrain.errors import TrainingError
from avtrain.networks.losses import ContrastiveLoss
from avtrain.runtime.distributed import World

TOLERATED_FAULTS = 10
"""This number of unreadable clips never ends a run, unless none is allowed."""


def too_many_faults(faults: int, clips: int, max_share: float) -> bool:
    """Whether ``faults`` unreadable ones of ``clips`` clips are more than ``max_share`` allows."""
    return faults > max(TOLERATED_FAULTS * (max_share > 0), max_share * clips)


def check_loss(
    loss: ContrastiveLoss, shards: Shards, samples: NDArray[np.int64], step: int
) -> None:
    """The loss of ``step`` must be finite; ``samples`` are the clips that it is computed from."""
    value = loss.value.detach()
    if not torch.isfinite(value):
        keys = ", ".join(shards.keys[index] for index in samples.tolist())
        raise TrainingError(
            f"the loss of step {step} is {value.item()}; its clips: {keys}. Nothing of this step "
            "was saved; lower --lr, or remove a damaged clip"
        )


def check_weights(model: nn.Module, step: int, path: Path) -> None:
    """Weights to be saved to ``path`` after ``step`` must be finite: gradients can overflow where
    the loss does not."""
    if not all(torch.isfinite(value).all() for value in model.state_dict().values()):
        raise TrainingError(
            f"after step {step} weights are not finite, though the loss was; {path} is unchanged. "
            "Lower --lr"
        )


def check_own(folder: Path) -> None:
    """A folder inside a run's must not be a link, which in a stranger's run could lead to any
    folder of the user."""
    if folder.is_symlink():
        raise TrainingError(
            f"{folder} is a link; nothing is written or deleted through it: replace it by a folder"
        )


def check_agreed(world: World, out: Path, roots: Roots, found: str) -> None:
    """All ranks must have found the same (``found``) in the run's folder and in the set."""
    if not world.agree(found):
        raise TrainingError(
            f"the processes found different runs in {out}, or different sets in {in_words(roots)}: "
            "put both on storage that all machines share"
        )
