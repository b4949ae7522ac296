"""The classifier on frozen features: how it is trained, tested and given an interval."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from avtrain.config import PASSES_PER_EPOCH, Task
from avtrain.evals.progress import Progress


@dataclass(frozen=True)
class Protocol:
    """How the classifier is trained.

    Features are extracted in ``rounds`` passes over the training split, each with windows, views
    and augmentation of its own; epoch e uses round e modulo ``rounds``. A clip of a round is
    matched or mismatched by the toss of a coin, or, if ``paired``, once each.
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


def paper(task: Task) -> Protocol:
    """The published protocol: every epoch sees new windows."""
    avc = task == "avc"
    return Protocol(
        name="paper",
        epochs=10,
        rounds=10,
        learning_rate=1e-5 if avc else 1e-4,
        milestones=(5, 8) if avc else (8,),
        paired=False,
        clips_per_source=PASSES_PER_EPOCH,
        weight_decay=1e-5,
    )


def tiny(task: Task) -> Protocol:
    """For small sets: features of a few windows are kept, and used many times; the same for
    both tasks."""
    return Protocol(
        name="tiny",
        epochs=60,
        rounds=8,
        learning_rate=1e-3,
        milestones=(40, 52),
        paired=True,
        clips_per_source=None,
    )


class PairClassifier(nn.Module):
    """Dropout, then 2 D -> D -> 2, for each view; the logits are averaged over the views."""

    def __init__(self, features: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(2 * features, features),
            nn.ReLU(inplace=True),
            nn.Linear(features, 2),
        )

    def forward(self, pairs: Tensor) -> Tensor:
        """(N, V, 2 D) to logits (N, 2): mismatched, matched."""
        logits: Tensor = self.layers(pairs)
        return logits.mean(dim=1)


@dataclass(frozen=True)
class Pairs:
    """Frozen features (N, V, 2 D) of picture and sound, matched and mismatched; ``index`` (N,)
    names the clips. They are kept on the CPU."""

    matched: Tensor
    mismatched: Tensor
    index: Tensor

    @classmethod
    def join(cls, parts: list[Pairs]) -> Pairs:
        columns = ("matched", "mismatched", "index")
        return cls(*(torch.cat([getattr(part, name) for part in parts]) for name in columns))

    def choose(self, protocol: Protocol, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Shuffled training pairs and their labels (1: matched)."""
        count = len(self.index)
        if protocol.paired:
            label = torch.arange(2 * count) % 2
            clip = torch.arange(2 * count) // 2
        else:
            label = torch.randint(2, (count,), generator=generator)
            clip = torch.arange(count)
        order = torch.randperm(len(label), generator=generator)
        label, clip = label[order], clip[order]
        pairs = torch.where(label.view(-1, 1, 1) == 1, self.matched[clip], self.mismatched[clip])
        return pairs, label


def train_classifier(
    classifier: PairClassifier,
    pairs_of: Callable[[int], Pairs],
    protocol: Protocol,
    seed: int,
    progress: Progress | None = None,
) -> None:
    """``pairs_of`` extracts a round; rounds are kept where they are needed again. What
    ``progress`` holds of an earlier start is gone on with."""
    optimiser = torch.optim.Adam(
        classifier.parameters(),
        lr=protocol.learning_rate,
        weight_decay=protocol.weight_decay,
        fused=True,
    )
    schedule = torch.optim.lr_scheduler.MultiStepLR(
        optimiser, list(protocol.milestones), protocol.gamma
    )
    kept: dict[int, Pairs] = {}
    first = 0
    earlier = progress.load() if progress is not None else None
    if earlier is not None:
        classifier.load_state_dict(earlier["classifier"])
        optimiser.load_state_dict(earlier["optimiser"])
        schedule.load_state_dict(earlier["schedule"])
        first = earlier["epoch"]
    classifier.train()
    for epoch in range(first, protocol.epochs):
        # Randomness is a function of the epoch, so that a run goes on as it would have.
        torch.manual_seed(seed * 10_007 + epoch)
        generator = torch.Generator().manual_seed(seed * 10_007 + epoch)
        number = epoch % protocol.rounds
        pairs = kept[number] if number in kept else pairs_of(number)
        if protocol.rounds < protocol.epochs:
            kept[number] = pairs
        inputs, labels = pairs.choose(protocol, generator)
        size = protocol.batch_size
        for batch, label in zip(torch.split(inputs, size), torch.split(labels, size), strict=True):
            optimiser.zero_grad()
            F.cross_entropy(classifier(batch), label).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        schedule.step()
        if progress is not None:
            progress.save(
                {
                    "epoch": epoch + 1,
                    "classifier": classifier.state_dict(),
                    "optimiser": optimiser.state_dict(),
                    "schedule": schedule.state_dict(),
                }
            )


@torch.no_grad()
def decide(
    classifier: PairClassifier, batches: Iterable[Pairs]
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Whether each decision was right, and of which clip it was; every window of every clip is
    decided once matched and once mismatched, so that chance is one half exactly."""
    classifier.eval()
    correct, index = [], []
    for pairs in batches:
        for inputs, label in ((pairs.mismatched, 0), (pairs.matched, 1)):
            correct.append((classifier(inputs).argmax(dim=1) == label).numpy())
            index.append(pairs.index.numpy())
    return np.concatenate(correct), np.concatenate(index)
