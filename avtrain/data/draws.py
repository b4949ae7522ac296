"""The random choices of a sample: views, window, augmentation.

They are a function of (seed, pass through the set, clip) alone, so that results do not depend on
the number of loader workers, and a run resumes exactly within an epoch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from avtrain.config import AugmentConfig, ClipConfig

_ORDER = 3  # keeps its random numbers apart from the others
NO_JITTER = np.array([1.0, 1.0, 1.0, 0.0])
NO_AUGMENTATION = AugmentConfig(jitter=(0.0, 0.0, 0.0, 0.0), volume=0.0, mirror=False)


@dataclass(frozen=True)
class Draw:
    """All random choices of one sample. Positions in [0, 1] are shares of the available range."""

    views: NDArray[np.int64]
    audio_positions: NDArray[np.float64]
    """(moments,), unordered."""
    video_position: float
    mirror: bool
    jitter: NDArray[np.float32]
    volume: float
    yaw_deg: float
    frame_yaw_deg: float
    """Azimuth of the frame that ``Batch.directions`` refers to: nothing may depend on it."""
    audio_order: NDArray[np.int64] | None = None
    """(views,), places in ``views``: the audio of the view at its entry stands for that of each
    view; None: its own."""
    middle_s: float | None = None
    """Time in the clip at the middle of audio and video, as far as the clip's ends allow; None: the
    positions decide."""

    @classmethod
    def from_seed(
        cls, seed: list[int], views_stored: int, clip: ClipConfig, augment: AugmentConfig
    ) -> Draw:
        """``seed`` is (seed of the run, pass, clip): equal seeds give equal draws."""
        rng = np.random.default_rng(seed)
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

    def with_shuffled_audio(self, seed: list[int]) -> Draw:
        """The same draw, in which all orders of the views' audio are equally likely.

        A view may keep its own audio: if none did, the audio would tell which view it does not
        belong to, and learning that needs space as well.
        """
        rng = np.random.default_rng([*seed, _ORDER])
        return replace(self, audio_order=rng.permutation(len(self.views)))

    def fixed(self, window: int, windows: int) -> Draw:
        """The same draw at window number ``window`` of ``windows`` evenly spread ones."""
        positions = np.full(len(self.audio_positions), (window + 0.5) / windows)
        return replace(self, audio_positions=positions, video_position=0.5)

    def starts(self, total: int, length: int, margin: int) -> list[int]:
        """First samples of windows of ``length`` samples in ``total``, at least ``margin`` apart.

        The positions in ascending order, stretched over the range that windows and margins leave
        free, keep windows apart; uniform positions make all arrangements equally likely.
        """
        positions, spacing = self.audio_positions, length + margin
        room = total - length - (len(positions) - 1) * spacing
        shifts = np.minimum((positions * (room + 1)).astype(int), room)
        ranks = np.argsort(np.argsort(positions, kind="stable"), kind="stable")
        return [int(shift + spacing * rank) for shift, rank in zip(shifts, ranks, strict=True)]
