"""Batches of clips for a training loop of one's own."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any, Literal

import torch.distributed as dist

from avtrain.config import AugmentConfig, ClipConfig
from avtrain.data.batch import Batch
from avtrain.data.clips import Clips, first_info
from avtrain.data.draws import NO_AUGMENTATION
from avtrain.data.loader import load
from avtrain.data.plan import Plan, Share
from avtrain.data.shard_sets import Shards, ShardSets, sets_in
from avtrain.data.unreadable import Unreadable
from avtrain.errors import TrainingError
from avtrain.networks.features import FeatureConfig
from shards.geometry import BEAMS
from shards.reader import ShardSet

_LEAST = {"batch_size": 2, "views": 1, "frames": 1, "clips_per_source": 1, "seed": 0, "workers": 0}
"""Smallest values of whole numbers."""
_LEAST_S = 0.01


@dataclass(kw_only=True, eq=False)
class ClipLoader:
    """Batches of one split: every clip once per epoch, no two clips of a source in a batch.

    Each pass over the loader yields this rank's batches of the rest of the epoch; the next pass is
    the next epoch. A pass that is left early continues where it was. The order and all random
    choices are a function of ``seed``, epoch and clip, never of ``workers`` or ranks: `state_dict`
    after any step, loaded anywhere, continues with exactly the clips that are left. There is one
    place: a pass ends with TrainingError once another pass or place is begun.

    ``batch_size`` is the number of clips of a step on all ranks together: at least 2, and one for
    each rank. All ranks have the same number of steps. A clip holds ``views`` views, drawn without
    repetition, each of ``frames`` frames at ``fps`` within ``audio_s`` seconds of sound in the
    format ``audio``. With ``panorama`` batches also hold the whole sphere and its sound field
    (`Batch.panorama_input`, `Batch.field_audio`). ``augment`` changes colours, loudness, and left
    and right (by default nothing). ``clips_per_source``: an epoch shows that many clips of every
    source instead of all clips. ``weights``: of several sets (`ShardSets`), each one's share of the
    clips that an epoch shows; it shows as many as without. ``rank`` and ``world_size`` are by
    default those of `torch.distributed`, if it is initialised.

    A clip that cannot be read is noted in ``unreadable`` and replaced by one of another source, or,
    in sets of few sources, by another of its own. A rank that meets more than 10 of them, or more
    than 1 % of the split if that is more, raises TrainingError; one that finds no replacement,
    ShardError.

    Raises TrainingError for settings that the set does not suit, and ShardError for a damaged set.
    """

    shards: Shards
    batch_size: int
    weights: Sequence[float] | None = None
    views: int = 4
    frames: int = 8
    fps: float = 16.0
    audio_s: float = 1.0
    audio: Literal["foa", "omni", "mono", "stereo"] = "foa"
    panorama: bool = False
    augment: AugmentConfig = NO_AUGMENTATION
    clips_per_source: int | None = None
    seed: int = 0
    workers: int = 0
    pin_memory: bool = False
    rank: int | None = None
    world_size: int | None = None
    epoch: int = field(default=0, init=False)
    """Number of the epoch that the next batch belongs to."""
    step: int = field(default=0, init=False)
    """Number of that batch in its epoch."""
    unreadable: Unreadable = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._check_types()
        self.shards.check_files()
        rate = first_info(self.shards).audio.sample_rate
        clip = ClipConfig(views=self.views, frames=self.frames, fps=self.fps)
        sound = FeatureConfig(sample_rate=rate, duration_s=self.audio_s, audio=self.audio)
        self._clips = Clips(
            self.shards, clip, sound, self.augment, self.seed, panorama=self.panorama
        )
        self._plan = Plan(
            self.shards, self.seed, self.batch_size, self.clips_per_source, self._shares()
        )
        self._plan.check_batches(self._share())
        self.unreadable = Unreadable.in_split(self.shards)
        self._passes = 0
        # What decides which clips come when, and what is random about them.
        names = ("batch_size", "views", "frames", "fps", "audio_s", "audio", "seed")
        augment = (*map(float, self.augment.jitter), self.augment.volume, self.augment.mirror)
        self._settings: dict[str, Any] = {
            "set": self.shards.sha256,
            "split": self.shards.split,
            **{name: getattr(self, name) for name in names},
            "clips_per_source": self.clips_per_source,
            "weights": str(self._plan.weights),
            "augment": str(augment),
        }

    def _check_types(self) -> None:
        if not isinstance(self.shards, ShardSet | ShardSets):
            raise TrainingError(
                'shards must be a ShardSet, such as ShardSet("folder", "train"), or ShardSets'
            )
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value is None and name == "clips_per_source":
                continue
            if not isinstance(value, Integral) or value < least:
                raise TrainingError(f"{name} must be a whole number from {least}, not {value!r}")
            setattr(self, name, int(value))
        if not isinstance(self.augment, AugmentConfig):
            raise TrainingError(f"augment must be an AugmentConfig, not {self.augment!r}")
        for name in ("fps", "audio_s"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not _LEAST_S <= value < 1e4:
                raise TrainingError(f"{name} must be a number from {_LEAST_S}, not {value!r}")
            setattr(self, name, float(value))
        if not isinstance(self.audio, str) or self.audio not in BEAMS:
            raise TrainingError(f"audio must be one of {', '.join(BEAMS)}, not {self.audio!r}")

    def __len__(self) -> int:
        """Steps of an epoch."""
        return self._plan.steps_per_epoch

    def __iter__(self) -> Iterator[Batch]:
        share = self._share()
        self._plan.check_batches(share)  # ranks may have begun since
        self._passes += 1
        number, epochs = self._passes, range(self.epoch, self.epoch + 1)
        batches = load(
            self._clips, self._plan, epochs, self.step, self.workers, self.pin_memory, share
        )
        with closing(batches):
            for step, batch in batches:
                if number != self._passes:
                    raise TrainingError(
                        "this pass over the loader is over: another pass or place was begun"
                    )
                self.unreadable.add(batch.faults)
                self.epoch, self.step = step.epoch, step.step + 1
                if step.last_of_epoch:
                    self.epoch, self.step = step.epoch + 1, 0
                yield batch

    def set_epoch(self, epoch: int) -> None:
        """Begin the next pass with the first step of an epoch."""
        self._go_to(epoch, 0)

    def state_dict(self) -> dict[str, Any]:
        """The place after the last batch, in numbers and strings."""
        return {"epoch": self.epoch, "step": self.step, "settings": dict(self._settings)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue after the batch that a `state_dict` followed, with any number of workers and
        ranks. Raises TrainingError where the set or the settings are others."""
        if not isinstance(state, dict) or not isinstance(state.get("settings"), dict):
            raise TrainingError("this is no state of a ClipLoader")
        there = state["settings"]
        other = sorted(name for name, value in self._settings.items() if there.get(name) != value)
        if other:
            raise TrainingError(
                "this loader cannot continue from that state, which differs in "
                f"{', '.join(other)}: make it with the same set and settings"
            )
        self._go_to(state.get("epoch"), state.get("step"))

    def _go_to(self, epoch: Any, step: Any) -> None:
        whole = isinstance(epoch, Integral) and isinstance(step, Integral)
        if not whole or epoch < 0 or not 0 <= step < len(self):
            raise TrainingError(f"an epoch has {len(self)} steps: no step {step} of epoch {epoch}")
        self._passes += 1
        self.epoch, self.step = int(epoch), int(step)

    def _shares(self) -> tuple[float, ...]:
        """The weights, which add up to 1."""
        if self.weights is None:
            return ()
        sets, weights = len(sets_in(self.shards)), list[float]()
        with suppress(TypeError, ValueError):
            weights = [math.nan if isinstance(one, str) else float(one) for one in self.weights]
        if not weights or not all(0 < weight < 1e9 for weight in weights):
            raise TrainingError(f"weights are numbers above 0, one for each set: {self.weights!r}")
        if sets < 2 or len(weights) != sets:
            raise TrainingError(
                f"weights divide the clips of several sets: there are {len(weights)} weights, and "
                f"{sets} set{'s' * (sets > 1)}"
            )
        return tuple(weight / sum(weights) for weight in weights)

    def _share(self) -> Share:
        """What this rank reads."""
        grouped = dist.is_available() and dist.is_initialized()
        rank, size = self.rank, self.world_size
        if (rank is None) != (size is None):
            raise TrainingError("rank and world_size go together")
        if rank is None or size is None:
            rank, size = (dist.get_rank(), dist.get_world_size()) if grouped else (0, 1)
        whole = isinstance(rank, Integral) and isinstance(size, Integral)
        if not whole or not 0 <= rank < size:
            raise TrainingError(f"there is no rank {rank!r} of {size!r}")
        return Share(rank, size, replace=True)
