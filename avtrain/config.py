"""Settings of a run, and the two that come with the toolkit: ``paper`` and ``tiny``."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, TypedDict, Unpack

from avtrain.errors import TrainingError
from avtrain.networks.features import FeatureConfig
from avtrain.networks.losses import TEMPERATURE, Negatives
from avtrain.networks.models import ModelConfig
from shards.files import dump_json

Task = Literal["avc", "avts", "avsa"]
Precision = Literal["fp32", "bf16", "fp16"]


@dataclass(frozen=True)
class ClipConfig:
    """What is taken of a clip: ``views`` crops of ``frames`` pictures at ``fps``, inside the
    second of sound, made ``size`` pixels square; at ``moments`` with ``margin_s`` between."""

    views: int
    moments: int = 1
    margin_s: float = 0.5
    frames: int = 8
    fps: float = 16.0
    size: int = 112


@dataclass(frozen=True)
class AugmentConfig:
    """Largest changes: ``jitter`` of brightness, contrast and saturation (factors) and of hue
    (turns), ``volume`` as a factor; and whether left and right are exchanged half of the time."""

    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.4, 0.2)
    volume: float = 0.1
    mirror: bool = True


@dataclass(frozen=True)
class Config:
    """A pretraining run. Two runs of equal settings, data and ``seed`` are the same run.
    ``begun_with``: the run whose networks it began with, if any, and the steps of that one
    (``curriculum``: it is the stage of AVC before). ``precision`` is of the backbones. A batch is
    learned from in ``pieces``, each contrasted for itself."""

    task: Task
    preset: str
    clip: ClipConfig
    sound: FeatureConfig
    model: ModelConfig
    augment: AugmentConfig
    batch_size: int
    epochs: int
    learning_rate: float
    weight_decay: float = 1e-5
    negatives: Negatives = "easy+hard"
    temperature: float = TEMPERATURE
    clips_per_source: int | None = None
    curriculum: bool = False
    seed: int = 0
    precision: Precision = "fp32"
    pieces: int = 1
    begun_with: str = ""

    def __post_init__(self) -> None:
        if self.model.audio_channels != self.sound.channels:
            raise ValueError(
                f"{self.sound.channels} feature channels, but the audio network takes "
                f"{self.model.audio_channels}"
            )

    def check(self) -> None:
        """Raise TrainingError for settings that make no task."""
        slots = self.clip.moments if self.task == "avts" else self.clip.views
        if self.task == "avts" and self.clip.views != 1:
            raise TrainingError(f"task avts uses one view of a clip, not {self.clip.views}")
        if self.task != "avts" and self.clip.moments != 1:
            raise TrainingError(f"--moments is of task avts, not of {self.task}")
        if self.task == "avts" and self.clip.moments < 2:
            raise TrainingError("task avts compares the moments of a clip: it needs at least 2")
        if self.negatives == "hard" and slots < 2:
            raise TrainingError("hard negatives are of the clip's own views: use at least 2")
        if self.model.positions != "none" and not self.model.transformer:
            raise TrainingError("positions are told to transformers: add --transformer")
        if self.model.norm_first and not self.model.transformer:
            raise TrainingError("--norm-first is of transformers: add --transformer")
        if not 0 < self.temperature < math.inf:
            raise TrainingError(f"the temperature is a number above 0, not {self.temperature:g}")
        if not 0 < self.learning_rate < math.inf:
            raise TrainingError(f"--lr is a number above 0, not {self.learning_rate:g}")
        if not 0 <= self.clip.margin_s < math.inf:
            raise TrainingError(f"--margin is a number of seconds, not {self.clip.margin_s:g}")
        if self.batch_size < 2 * self.pieces:
            raise TrainingError(
                "clips are compared with each other: the batch size is at least 2"
                + f" for each of the {self.pieces} pieces" * (self.pieces > 1)
            )

    @property
    def across_views(self) -> bool:
        """Whether it learns to predict one modality's views from those of the other; what has one
        view, or several moments, is compared as it is."""
        return self.task == "avsa" or self.clip.views > 1

    @property
    def trains_transformers(self) -> bool:
        """Only what is compared across views trains them."""
        return self.model.transformer and self.across_views

    @property
    def title(self) -> str:
        """The pretext task in words."""
        words = "curriculum AVC, AVSA" if self.curriculum else self.task.upper()
        if self.begun_with and not self.curriculum:
            words += f" after {self.begun_with.rpartition(' ')[0]}"
        if self.clip.views == PRESETS[self.preset](self.task).clip.views:
            return words
        return f"{words}, {self.clip.views} view{'s' * (self.clip.views > 1)}"

    def after(self, other: Config, steps: int) -> Config:
        """Begun with the networks that another run had after ``steps``."""
        return replace(self, begun_with=f"{steps} steps of {other.title} {other.digest}")

    @property
    def digest(self) -> str:
        """The same for runs that differ in their seed (or planned length) alone."""
        settings = self.to_dict() | {"seed": None, "epochs": None}
        # Newer than the first results: as they were before, they do not tell runs from theirs.
        if not self.model.norm_first:
            del settings["model"]["norm_first"]
        if not self.begun_with:
            del settings["begun_with"]
        return hashlib.sha256(dump_json(settings)).hexdigest()[:12]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Config:
        """Raises KeyError or TypeError for another program version's settings."""
        parts = {
            "clip": ClipConfig(**value["clip"]),
            "sound": FeatureConfig(**value["sound"]),
            "model": ModelConfig(**value["model"]),
            "augment": AugmentConfig(**value["augment"]),
        }
        return cls(**(value | parts))


PASSES_PER_EPOCH = 16
"""So many times the number of clips that it is told of every video an epoch of the published code
shows: clips by videos of YT-360, 73,635 by 4,506, rounded down."""


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
    """Small networks and pictures, which learn within minutes on two CPU cores."""
    avc = task == "avc"
    return Config(
        task=task,
        preset="tiny",
        clip=_slots(task, ClipConfig(views=1, frames=4, fps=8.0, size=32), moments=2),
        sound=FeatureConfig(mels=64),
        # Within minutes the transformers slow learning down, and their dropout does so by far more.
        model=ModelConfig(width=8, transformer=False, dropout=0.0),
        # Small networks tell things apart by their hue: they learn twice as fast if it stays.
        augment=AugmentConfig(jitter=(0.2, 0.2, 0.2, 0.0)),
        # Of few clips each other clip is soon known by heart, and then nothing asks which view a
        # sound belongs to; with fewer of them in a batch the clip's own views weigh more. Moments
        # are harder to tell apart than clips: of more than two nothing is learned for long.
        batch_size={"avc": 48, "avts": 24, "avsa": 12}[task],
        negatives="easy" if avc else "easy+hard",
        epochs=200,
        learning_rate=1e-3,
    )


def _slots(task: Task, clip: ClipConfig, moments: int = 4) -> ClipConfig:
    """Of a clip, the paper compares four views; of its moments as many, or ``moments``."""
    return {
        "avc": clip,
        "avts": replace(clip, moments=moments),
        "avsa": replace(clip, views=4),
    }[task]


PRESETS: dict[str, Callable[[Task], Config]] = {"tiny": tiny, "paper": paper}


class Changes(TypedDict, total=False):
    """Settings that command-line options change, by their names as options; None leaves the
    preset's."""

    curriculum: bool | None
    features: str | None
    """``logmel`` or ``logmel+intensity``."""
    audio: str | None
    transformer: bool | None
    positions: str | None
    norm_first: bool | None
    negatives: Negatives | None
    temperature: float | None
    head: str | None
    dropout: float | None
    epochs: int | None
    """Of each stage; a preset's are halved for each stage of a ``curriculum``."""
    batch_size: int | None
    views: int | None
    moments: int | None
    margin_s: float | None
    learning_rate: float | None
    sampling: str | None
    """``clip`` (an epoch shows every clip) or ``video`` (one clip of every source, or
    ``clips_per_source``)."""
    clips_per_source: int | None
    precision: Precision | None
    pieces: int | None
    seed: int | None


def with_options(config: Config, **changes: Unpack[Changes]) -> Config:
    """The same run with changed settings.

    Raises TrainingError for settings that exclude each other.
    """
    given: dict[str, Any] = {}
    given.update((name, value) for name, value in changes.items() if value is not None)
    features = given.pop("features", None)
    if features is not None:
        given["intensity"] = features == "logmel+intensity"
    sampling = given.pop("sampling", None)
    if sampling == "video":
        given.setdefault("clips_per_source", 1)
    elif sampling == "clip":
        if "clips_per_source" in given:
            raise TrainingError("--sampling clip shows all clips: leave out --clips-per-source")
        config = replace(config, clips_per_source=None)
    parts: dict[str, Any] = {}
    for name in ("clip", "sound", "model"):
        part = getattr(config, name)
        known = {field.name for field in fields(part)}
        changed = {option: given.pop(option) for option in list(given) if option in known}
        try:
            parts[name] = replace(part, **changed)
        except ValueError as error:
            raise TrainingError(str(error)) from None
    parts["model"] = replace(parts["model"], audio_channels=parts["sound"].channels)
    if given.get("curriculum") and "epochs" not in given:
        given["epochs"] = config.epochs // 2  # for each stage
    return replace(config, **parts, **given)


def first_stage(config: Config) -> Config:
    """AVC as a curriculum begins with it: with the views, batches and negatives of its preset, and
    all else as in the run."""
    stage = PRESETS[config.preset]("avc")
    return replace(
        config,
        task=stage.task,
        clip=stage.clip,
        batch_size=stage.batch_size,
        negatives=stage.negatives,
        curriculum=False,
    )
