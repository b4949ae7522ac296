"""What is random about a sample: views, window, augmentation.

A function of (seed, turn through the set, sample index) alone, so that results do not depend on
the number of loader workers, and a run resumes in mid-epoch exactly.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from avtrain.config import AugmentConfig, ClipConfig

NO_JITTER = np.array([1.0, 1.0, 1.0, 0.0])
NO_AUGMENTATION = AugmentConfig(jitter=(0.0, 0.0, 0.0, 0.0), volume=0.0, mirror=False)


@dataclass(frozen=True)
class Draw:
    """Everything random about one sample; places in [0, 1] are shares of the room there is."""

    views: NDArray[np.int64]
    audio_positions: NDArray[np.float64]
    """One for each moment, in no order."""
    video_position: float
    mirror: bool
    jitter: NDArray[np.float32]
    volume: float
    yaw_deg: float
    frame_yaw_deg: float
    """Where azimuth 0 lies: nothing may depend on that."""
    middle_s: float | None = None
    """The moment of the clip that is in the middle of sound and pictures, as far as the clip's
    ends allow; None: the places decide."""

    @classmethod
    def from_seed(
        cls, place: list[int], views_stored: int, clip: ClipConfig, augment: AugmentConfig
    ) -> Draw:
        """``place`` is (seed, turn, index): the same draw for the same place."""
        rng = np.random.default_rng(place)
        reach = np.array(augment.jitter)
        return cls(
            views=rng.choice(views_stored, size=clip.views, replace=False),
            audio_positions=rng.random(clip.moments),
            video_position=rng.random(),
            mirror=bool(rng.random() < 0.5) and augment.mirror,
            jitter=(NO_JITTER + rng.uniform(-reach, reach)).astype(np.float32),
            volume=rng.uniform(1 - augment.volume, 1 + augment.volume),
            yaw_deg=rng.uniform(-180.0, 180.0),
            frame_yaw_deg=rng.uniform(-180.0, 180.0),
        )

    def fixed(self, window: int, windows: int) -> Draw:
        """The same views and yaw at one of ``windows`` places of the clip."""
        places = np.full(len(self.audio_positions), (window + 0.5) / windows)
        return replace(self, audio_positions=places, video_position=0.5)

    def starts(self, total: int, length: int, margin: int) -> list[int]:
        """First samples of windows of ``length`` samples, ``margin`` apart at least, in ``total``.

        Places in order, stretched over the room that windows and margins leave, keep them apart;
        all arrangements are equally likely if places are uniform.
        """
        places, apart = self.audio_positions, length + margin
        room = total - length - (len(places) - 1) * apart
        shifts = np.minimum((places * (room + 1)).astype(int), room)
        ranks = np.argsort(np.argsort(places, kind="stable"), kind="stable")
        return [int(shift + apart * rank) for shift, rank in zip(shifts, ranks, strict=True)]
