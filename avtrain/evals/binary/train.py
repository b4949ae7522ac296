"""Training and test of the classifier on frozen features."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from avtrain.evals.binary.data import Pairs
from avtrain.evals.binary.decisions import Decisions
from avtrain.evals.binary.model import PairClassifier
from avtrain.evals.binary.protocol import BinaryProtocol
from avtrain.evals.progress import Progress


def train_classifier(
    classifier: PairClassifier,
    read_round: Callable[[int], Pairs],
    protocol: BinaryProtocol,
    seed: int,
    progress: Progress | None = None,
) -> None:
    """Train on the pairs that ``read_round`` reads; rounds that are needed again are kept.

    A state in ``progress`` is resumed.
    """
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
    state = progress.load() if progress is not None else None
    if state is not None and progress is not None:
        progress.check(
            state,
            {
                "epoch": 0,
                "classifier": classifier.state_dict(),
                "optimiser": optimiser,
                "schedule": schedule.state_dict(),
            },
        )
        classifier.load_state_dict(state["classifier"])
        optimiser.load_state_dict(state["optimiser"])
        schedule.load_state_dict(state["schedule"])
        first = state["epoch"]
    classifier.train()
    for epoch in range(first, protocol.epochs):
        # Randomness is a function of the epoch, so that a resumed training ends the same.
        torch.manual_seed(seed * 10_007 + epoch)
        generator = torch.Generator().manual_seed(seed * 10_007 + epoch)
        number = epoch % protocol.rounds
        pairs = kept[number] if number in kept else read_round(number)
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
def decide_pairs(classifier: PairClassifier, batches: Iterable[Pairs]) -> Decisions:
    """Every window of every clip is decided once matched and once mismatched, so that chance is
    exactly one half."""
    classifier.eval()
    parts: list[tuple[Tensor, ...]] = []
    for pairs in batches:
        for inputs, label in ((pairs.mismatched, 0), (pairs.matched, 1)):
            logits = classifier.by_view(inputs)
            correct, by_view = logits.mean(dim=1).argmax(dim=-1), logits.argmax(dim=-1)
            parts.append((correct == label, by_view == label, pairs.index, pairs.epoch))
    return Decisions(*(torch.cat(column).numpy() for column in zip(*parts, strict=True)))
