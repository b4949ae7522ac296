"""How a SELD network is trained and tested: for networks of the paper's size, or for small sets."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from avtrain.evals.seld.metrics import Definition

Inputs = Literal["audio", "audio+video"]
TRACKS = 3
"""Sources of one class that can be told apart at once."""


@dataclass(frozen=True)
class SeldProtocol:
    """Training and test; results hold it, field by field.

    ``probe`` keeps the networks frozen. Training takes ``steps`` steps, as many for few labels as
    for all, with ``batch_size`` random windows of ``window_frames`` frames of 100 ms, in random
    rotations: any yaw, a pitch of at most ``pitch_deg``, and mirrored half of the time. The state
    is saved ``saves`` times; after the parts ``milestones`` the learning rate is multiplied by
    ``gamma``. In the loss, a class counts ``active_weight`` times as much in frames where it
    sounds; ``distance_weight`` as in `adpit_loss`. ``hidden`` is the width of the head. A track is
    active whose vector is longer than ``threshold``; tracks of a class within ``unify_deg`` are one
    source.
    """

    name: str
    inputs: Inputs
    probe: bool
    definition: Definition
    steps: int
    batch_size: int
    window_frames: int
    learning_rate: float
    hidden: int
    pitch_deg: float = 30.0
    saves: int = 20
    milestones: tuple[float, ...] = (0.6, 0.85)
    gamma: float = 0.3
    threshold: float = 0.5
    unify_deg: float = 15.0
    distance_weight: float = 0.1
    active_weight: float = 1.0

    def to_dict(self) -> dict[str, Any]:
        """All fields, as results hold them. A weight of 1 is left out: so do earlier results."""
        found = asdict(self)
        if self.active_weight == 1:
            del found["active_weight"]
        return found

    @property
    def with_video(self) -> bool:
        """Whether the feature of the video is a second input."""
        return self.inputs == "audio+video"


def paper(inputs: Inputs, probe: bool, definition: Definition) -> SeldProtocol:
    """For networks of the paper's size, on a GPU. Windows are those of DCASE's baselines, 5 s; all
    else is our own choice."""
    return SeldProtocol(
        name="paper",
        inputs=inputs,
        probe=probe,
        definition=definition,
        steps=10_000,
        batch_size=32,
        window_frames=50,
        learning_rate=1e-3 if probe else 1e-4,
        hidden=256,
    )


def tiny(inputs: Inputs, probe: bool, definition: Definition) -> SeldProtocol:
    """For small networks and sets of a hundred clips, in minutes on a CPU."""
    return SeldProtocol(
        name="tiny",
        inputs=inputs,
        probe=probe,
        definition=definition,
        steps=2000,
        batch_size=16,
        window_frames=20,
        # One or two of 14 classes sound at a time. With equal weights and 1e-3, most vectors
        # were still too short to be sources after 1,500 steps (docs/study-notes.md).
        learning_rate=3e-3,
        active_weight=3.0,
        hidden=64,
    )
