"""How an action classifier is trained and tested: as published, or for small sets."""

from __future__ import annotations

from dataclasses import dataclass

from avtrain.config import AugmentConfig


@dataclass(frozen=True)
class ActionProtocol:
    """Training and test of an action classifier; results hold it, field by field.

    ``probe`` keeps the video network frozen. Every epoch shows ``turns`` random windows of each
    video; ``windows`` of each are tested. With ``rounds``, a probe shows the windows of that many
    epochs again and again and keeps their features (None: always new windows). A training window is
    a random part of the frame, at least ``smallest_part`` of its area (None: the whole frame);
    ``middle`` is the share of the frame's side that is tested.
    """

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
            raise ValueError("only a probe can keep features: its network does not learn")

    @property
    def task(self) -> str:
        """Name of the results."""
        return "action-probe" if self.probe else "action"


def paper(probe: bool = False) -> ActionProtocol:
    """The published protocol. The probe is not in it: one layer, at ten times the learning rate."""
    return ActionProtocol(
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


def tiny(probe: bool = False) -> ActionProtocol:
    """For small networks and sets of a few hundred videos. Left and right are never mirrored, since
    they make classes in the generated world."""
    return ActionProtocol(
        name="tiny",
        probe=probe,
        epochs=100,
        learning_rate=1e-2 if probe else 1e-3,
        milestones=(60, 80, 90),
        batch_size=16,
        rounds=8 if probe else None,
        # Half of 64 features would be too few to learn from.
        dropout=0.1,
        augment=AugmentConfig(jitter=(0.2, 0.2, 0.2, 0.0), volume=0.0, mirror=False),
    )
