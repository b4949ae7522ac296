"""Settings of a run, and the two presets: ``paper`` and ``tiny``.

Names of fields are keys of ``config.json`` and of checkpoints: a renamed one would no longer read
earlier runs.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta

from avtrain.errors import TrainingError
from avtrain.networks.features import FeatureConfig
from avtrain.networks.losses import TEMPERATURE, Negatives
from avtrain.networks.models import ModelConfig, Option, OwnNetwork
from shards.files import dump_json, parse_json, parse_value, read_regular

_Share = Annotated[float, Meta(ge=0, le=1)]
_PARTS = ("clip", "sound", "model", "augment")
_OWN = ("video_network", "audio_network")
_Setting = int | float | str | bool | list[float] | None
_Own = dict[str, Option | dict[str, Option]]
_Weight = Annotated[float, Meta(gt=0, le=1)]
_LARGEST_FILE = 100_000
_MOST_PIXELS, _MOST_BINS = 100_000_000, 100_000_000
"""A clip in the paper's settings has 400,000 and 200,000."""
Task = Literal["avc", "avts", "avsa"]
Precision = Literal["fp32", "bf16", "fp16"]


@dataclass(frozen=True)
class ClipConfig:
    """What is read from a clip: ``moments`` windows of audio at least ``margin_s`` apart; for each,
    ``views`` crops of ``frames`` frames at ``fps`` inside the window, resized to ``size`` x
    ``size`` pixels."""

    views: Annotated[int, Meta(ge=1, le=10_000)]
    moments: Annotated[int, Meta(ge=1, le=10_000)] = 1
    margin_s: Annotated[float, Meta(ge=0, le=3600)] = 0.5
    frames: Annotated[int, Meta(ge=1, le=1000)] = 8
    fps: Annotated[float, Meta(gt=0, le=1000)] = 16.0
    size: Annotated[int, Meta(ge=1, le=4096)] = 112


@dataclass(frozen=True)
class AugmentConfig:
    """Largest changes: ``jitter`` of brightness, contrast and saturation (factors) and of hue
    (full turns), ``volume`` as a factor. ``mirror``: left and right are exchanged with a
    probability of 1/2."""

    jitter: tuple[_Share, _Share, _Share, _Share] = (0.4, 0.4, 0.4, 0.2)
    volume: _Share = 0.1
    mirror: bool = True


@dataclass(frozen=True)
class Config:
    """A pretraining run. Two runs of equal settings, data and ``seed`` are the same run.

    ``begun_with`` names the run that the initial networks are from, and its steps (with
    ``curriculum``: the AVC stage). ``precision`` is that of the backbones. ``pieces`` is the number
    of micro-batches per step; the loss compares clips within a micro-batch. ``shuffle_views``: the
    views of a clip exchange their audio, in a random order for each clip and pass. ``freeze``:
    backbones that are not trained. ``transformer_warmup``: steps in which the learning rate of the
    transformers rises linearly from 0. ``weights``: of several sets, each one's share of the clips
    that an epoch shows; empty: every clip is shown once.
    """

    task: Task
    preset: Literal["tiny", "paper"]
    clip: ClipConfig
    sound: FeatureConfig
    model: ModelConfig
    augment: AugmentConfig
    batch_size: Annotated[int, Meta(ge=1, le=1_000_000)]
    epochs: Annotated[int, Meta(ge=0, le=1_000_000_000)]
    learning_rate: Annotated[float, Meta(gt=0, le=1e30)]
    weight_decay: Annotated[float, Meta(ge=0, le=1e30)] = 1e-5
    negatives: Negatives = "easy+hard"
    temperature: Annotated[float, Meta(gt=0, le=1e30)] = TEMPERATURE
    clips_per_source: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None
    curriculum: bool = False
    seed: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 0
    precision: Precision = "fp32"
    pieces: Annotated[int, Meta(ge=1, le=1_000_000)] = 1
    begun_with: Annotated[str, Meta(max_length=1000)] = ""
    shuffle_views: bool = False
    freeze: Literal["none", "video", "audio", "both"] = "none"
    transformer_warmup: Annotated[int, Meta(ge=0, le=1_000_000_000)] = 0
    weights: Annotated[tuple[_Weight, ...], Meta(max_length=1000)] = ()

    def __post_init__(self) -> None:
        if self.model.audio_channels != self.sound.channels:
            raise ValueError(
                f"{self.sound.channels} feature channels, but the audio network takes "
                f"{self.model.audio_channels}"
            )

    def check(self) -> None:
        """Raise TrainingError for settings that define no task."""
        slots = self.clip.moments if self.task == "avts" else self.clip.views
        if self.task == "avts" and self.clip.views != 1:
            raise TrainingError(f"task avts uses one view per clip, not {self.clip.views}")
        if self.task != "avts" and self.clip.moments != 1:
            raise TrainingError(f"--moments belongs to task avts, not to {self.task}")
        if self.task == "avts" and self.clip.moments < 2:
            raise TrainingError("task avts compares the moments of a clip: it needs at least 2")
        if self.negatives == "hard" and slots < 2:
            raise TrainingError("hard negatives are other views of the same clip: use at least 2")
        if self.shuffle_views and (self.task != "avsa" or self.clip.views < 2):
            raise TrainingError(
                "--shuffle-views exchanges the audio of a clip's views: it needs --task avsa and "
                "at least 2 views"
            )
        if self.task == "avsa" and self.sound.audio == "omni":
            raise TrainingError(
                "--audio omni sounds the same in all views of a clip, which task avsa tells apart: "
                "use --task avc or avts"
            )
        if self.model.positions != "none" and not self.model.transformer:
            raise TrainingError("--positions needs transformers: add --transformer")
        if self.model.norm_first and not self.model.transformer:
            raise TrainingError("--norm-first needs transformers: add --transformer")
        if self.transformer_warmup and not self.model.transformer:
            raise TrainingError("--transformer-warmup needs transformers: add --transformer")
        if self.model.positions == "relative" and not self.model.norm_first:
            raise TrainingError("--positions relative normalises first: leave out --norm-last")
        if not 0 < self.temperature < math.inf:
            raise TrainingError(f"--temperature must be a number above 0, not {self.temperature:g}")
        if not 0 < self.learning_rate < math.inf:
            raise TrainingError(f"--lr must be a number above 0, not {self.learning_rate:g}")
        if not 0 <= self.clip.margin_s < math.inf:
            raise TrainingError(f"--margin must be a number of seconds, not {self.clip.margin_s:g}")
        if self.batch_size < 2 * self.pieces:
            raise TrainingError(
                "clips are compared with each other: --batch-size must be at least 2"
                + f" for each of the {self.pieces} micro-batches" * (self.pieces > 1)
            )

    @property
    def across_views(self) -> bool:
        """Whether each modality's views are predicted from all views of the other; a single view,
        or several moments, are compared without that."""
        return self.task == "avsa" or self.clip.views > 1

    @property
    def frozen(self) -> tuple[str, ...]:
        """Backbones that are not trained."""
        return {"none": (), "both": ("video", "audio")}.get(self.freeze, (self.freeze,))

    @property
    def video_shape(self) -> tuple[int, int, int, int]:
        """Shape of a view's video at the video network: RGB, frames, height, width."""
        return 3, self.clip.frames, self.clip.size, self.clip.size

    @property
    def audio_shape(self) -> tuple[int, int, int]:
        """Shape of a view's audio at the audio network: channels, frames, mel bands."""
        return self.sound.channels, self.sound.frames, self.sound.mels

    @property
    def trains_transformers(self) -> bool:
        """Only a loss across views trains them."""
        return self.model.transformer and self.across_views

    @property
    def title(self) -> str:
        """The pretext task in words, for tables and figures."""
        words = "curriculum AVC, AVSA" if self.curriculum else self.task.upper()
        if self.shuffle_views:
            words += " with shuffled views"
        for name in _OWN:
            own: OwnNetwork | None = getattr(self.model, name)
            if own is not None:
                words += f", {name.replace('_', ' ')} {own.factory}"
        if self.freeze != "none":
            words += f", {'backbones' if self.freeze == 'both' else self.freeze} frozen"
        if self.begun_with and not self.curriculum:
            words += f" after {self.begun_with.rpartition(' ')[0]}"
        if self.clip.views == PRESETS[self.preset](self.task).clip.views:
            return words
        return f"{words}, {self.clip.views} view{'s' * (self.clip.views > 1)}"

    def initialised_from(self, other: Config, steps: int) -> Config:
        """This run, initialised with the networks that ``other`` had after ``steps``."""
        return replace(self, begun_with=f"{steps} steps of {other.title} {other.digest}")

    @property
    def digest(self) -> str:
        """Equal for runs that differ only in their seed or planned length."""
        settings = self.to_dict() | {"seed": None, "epochs": None}
        # Settings newer than the first results count only where they differ from what was before.
        if not self.model.norm_first:
            del settings["model"]["norm_first"]
        if not self.begun_with:
            del settings["begun_with"]
        if self.sound.intensity_gain == 1:
            del settings["sound"]["intensity_gain"]
        if not self.shuffle_views:
            del settings["shuffle_views"]
        if self.freeze == "none":
            del settings["freeze"]
        if not self.weights:
            del settings["weights"]
        if not self.transformer_warmup:
            del settings["transformer_warmup"]
        for name in _OWN:
            if settings["model"][name] is None:
                del settings["model"][name]
        return hashlib.sha256(dump_json(settings)).hexdigest()[:12]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def flat(self) -> dict[str, Any]:
        """The settings in one level; names within parts have the part's before them."""
        return _flat(self.to_dict())

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Config:
        """Raises ValueError, a sentence, for settings of another version and for damaged ones."""
        config = parse_value(value, cls)
        known = config.to_dict()
        parts = [("", value, known)]
        parts += [(f"{name}.", value[name], known[name]) for name in known if name in _PARTS]
        parts += [
            (f"model.{name}.", value["model"][name], known["model"][name])
            for name in _OWN
            if known["model"][name] is not None
        ]
        for prefix, there, here in parts:
            if unknown := there.keys() - here.keys():
                raise ValueError(f"its field {prefix}{min(unknown)} is not of this version")
        config._check_sizes()
        try:
            config.check()
        except TrainingError as error:
            raise ValueError(str(error)) from None
        return config

    @classmethod
    def read(cls, path: Path) -> Config:
        """The settings in ``config.json``. Raises OSError, and ValueError as `from_dict` does."""
        content = read_regular(path, _LARGEST_FILE)
        return cls.from_dict(parse_json(content, dict[str, _Setting | dict[str, _Setting | _Own]]))

    def _check_sizes(self) -> None:
        """Refuse what would fill any memory with the input of one clip."""
        clip, sound = self.clip, self.sound
        pixels = clip.views * clip.moments * clip.frames * clip.size**2
        bins = clip.views * clip.moments * sound.frames * sound.n_fft
        if pixels > _MOST_PIXELS or bins > _MOST_BINS or sound.hop_length > sound.samples:
            raise ValueError("its fields clip and sound describe clips that are too large")


def _flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, item in value.items():
        if isinstance(item, dict):
            flat |= _flat(item, f"{prefix}{name}.")
        else:
            flat[prefix + name] = item
    return flat


PASSES_PER_EPOCH = 16
"""Passes per epoch of the published code: 73,635 clips / 4,506 videos of YT-360, rounded down."""


def paper(task: Task) -> Config:
    """The settings of Morgado, Li and Vasconcelos (NeurIPS 2020), for GPUs."""
    avc = task == "avc"
    return Config(
        task=task,
        preset="paper",
        clip=_slots(task, ClipConfig(views=1)),
        sound=FeatureConfig(),
        model=ModelConfig(),
        augment=AugmentConfig(),
        negatives="easy" if avc else "easy+hard",
        batch_size=112 if avc else 28,
        epochs=100,
        learning_rate=1e-4,
        clips_per_source=2 * PASSES_PER_EPOCH,
    )


def tiny(task: Task) -> Config:
    """Small networks and crops, which learn within minutes on two CPU cores."""
    avc = task == "avc"
    return Config(
        task=task,
        preset="tiny",
        clip=_slots(task, ClipConfig(views=1, frames=4, fps=8.0, size=32), moments=2),
        sound=FeatureConfig(mels=64),
        # Within minutes the paper's transformers only slow learning down, and dropout far more so.
        model=ModelConfig(width=8, transformer=False, dropout=0.0),
        # Small networks tell objects apart by hue: they learn twice as fast if it is kept.
        augment=AugmentConfig(jitter=(0.2, 0.2, 0.2, 0.0)),
        # With few clips, every other clip is soon memorised, and then nothing asks which view an
        # audio belongs to; with fewer clips per batch the clip's own views weigh more. Moments are
        # harder to tell apart than clips: with more than two, nothing is learned for long.
        batch_size={"avc": 48, "avts": 24, "avsa": 12}[task],
        negatives="easy" if avc else "easy+hard",
        epochs=200,
        learning_rate=1e-3,
    )


def _slots(task: Task, clip: ClipConfig, moments: int = 4) -> ClipConfig:
    """The clip settings of a task: as in the paper, four views for avsa; ``moments`` for avts."""
    return {
        "avc": clip,
        "avts": replace(clip, moments=moments),
        "avsa": replace(clip, views=4),
    }[task]


PRESETS: dict[str, Callable[[Task], Config]] = {"tiny": tiny, "paper": paper}


def first_stage(config: Config) -> Config:
    """The AVC stage of a curriculum: views, batch size and negatives of the preset's AVC, all else
    as in ``config``."""
    stage = PRESETS[config.preset]("avc")
    return replace(
        config,
        task=stage.task,
        clip=stage.clip,
        batch_size=stage.batch_size,
        negatives=stage.negatives,
        curriculum=False,
        shuffle_views=False,
        transformer_warmup=0,
    )
