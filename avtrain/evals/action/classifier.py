"""The network that names actions, and how it is trained: as published, or for small sets."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from avtrain.config import AugmentConfig
from avtrain.networks.models import VideoNet


@dataclass(frozen=True)
class Protocol:
    """How an action recogniser is trained and tested; ``probe``: its video network stays as it is.
    Every epoch shows ``turns`` random windows of each video; ``windows`` of each are tested.
    ``rounds``: epochs show the windows of so many again and again, of which a probe keeps the
    features (None: always others). ``smallest_part``: a window in training is a random part of the
    picture, of this share of its area at least (None: all of it); ``middle``: the share of the
    picture's side that is tested."""

    name: str
    probe: bool
    epochs: int
    learning_rate: float
    milestones: tuple[int, ...]
    batch_size: int
    augment: AugmentConfig
    gamma: float = 0.3
    dropout: float = 0.5
    windows: int = 25
    turns: int = 1
    rounds: int | None = None
    smallest_part: float | None = None
    middle: float = 1.0

    def __post_init__(self) -> None:
        if self.rounds is not None and not self.probe:
            raise ValueError("features are kept of a network that does not learn")

    @property
    def task(self) -> str:
        """The name of results."""
        return "action-probe" if self.probe else "action"


def paper(probe: bool = False) -> Protocol:
    """The published protocol. It has no probe: that learns one layer, and ten times as fast."""
    return Protocol(
        name="paper",
        probe=probe,
        epochs=20,
        learning_rate=1e-3 if probe else 1e-4,
        milestones=(8, 12, 16),
        batch_size=28,
        augment=AugmentConfig(volume=0.0),
        turns=5,
        smallest_part=0.08,
        middle=0.875,
    )


def tiny(probe: bool = False) -> Protocol:
    """For small networks and sets of some hundred videos. Left and right stay, since in the
    generated world they make classes."""
    return Protocol(
        name="tiny",
        probe=probe,
        epochs=100,
        learning_rate=1e-2 if probe else 1e-3,
        milestones=(60, 80, 90),
        batch_size=16,
        rounds=8 if probe else None,
        # Half of 64 features are too few to learn from.
        dropout=0.1,
        augment=AugmentConfig(jitter=(0.2, 0.2, 0.2, 0.0), volume=0.0, mirror=False),
    )


class Recogniser(nn.Module):
    """Windows (N, 3, T, H, W) to logits of classes. A probe sees features that are brought to mean
    0 and variance 1, as networks differ in their scale."""

    def __init__(self, video: VideoNet, features: int, classes: int, protocol: Protocol) -> None:
        super().__init__()
        self.video = video.requires_grad_(not protocol.probe)
        self.probe = protocol.probe
        scale = [nn.BatchNorm1d(features, affine=False)] if protocol.probe else []
        layers = [*scale, nn.Dropout(protocol.dropout), nn.Linear(features, classes)]
        self.head = nn.Sequential(*layers)

    def train(self, mode: bool = True) -> Recogniser:
        """A probe's network never is in training mode."""
        super().train(mode)
        if self.probe:
            self.video.eval()
        return self

    def forward(self, pictures: Tensor) -> Tensor:
        logits: Tensor = self.head(self.video(pictures))
        return logits


def decide(logits: Tensor) -> tuple[Tensor, Tensor]:
    """The class (W,) that each of a video's windows (W, classes) names, and the class () that the
    mean of their probabilities does."""
    mean = logits.float().softmax(dim=1).mean(dim=0)
    return logits.argmax(dim=1).cpu(), mean.argmax().cpu()
