"""Settings of a run, and the two that come with the toolkit: ``paper`` and ``tiny``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from avtrain.errors import TrainingError
from avtrain.features import FeatureConfig
from avtrain.models import ModelConfig

Task = Literal["avc", "avsa"]


@dataclass(frozen=True)
class ClipConfig:
    """What is taken of a clip: ``views`` crops of ``frames`` pictures at ``fps``, inside the
    second of sound, made ``size`` pixels square."""

    views: int
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
    """A pretraining run. Two runs of equal settings, data and ``seed`` are the same run."""

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
    clips_per_source: int | None = None
    seed: int = 0
    bf16: bool = False

    def __post_init__(self) -> None:
        if self.model.audio_channels != self.sound.channels:
            raise ValueError(
                f"{self.sound.channels} feature channels, but the audio network takes "
                f"{self.model.audio_channels}"
            )

    def check(self) -> None:
        """Raise TrainingError for settings that make no task."""
        if self.task == "avc" and self.clip.views != 1:
            raise TrainingError(f"task avc uses one view of a clip, not {self.clip.views}")
        if self.task == "avsa" and self.clip.views < 2:
            raise TrainingError("task avsa compares the views of a clip: it needs at least 2")
        if self.batch_size < 2:
            raise TrainingError("clips are compared with each other: the batch size is at least 2")

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


def paper(task: Task) -> Config:
    """The settings of Morgado, Li and Vasconcelos (NeurIPS 2020), for GPUs."""
    avc = task == "avc"
    return Config(
        task=task,
        preset="paper",
        clip=ClipConfig(views=1 if avc else 4),
        sound=FeatureConfig(),
        model=ModelConfig(),
        augment=AugmentConfig(),
        batch_size=112 if avc else 28,
        epochs=100 if avc else 50,
        learning_rate=1e-4,
        clips_per_source=2,
    )


def tiny(task: Task) -> Config:
    """Small networks and pictures, which learn within minutes on two CPU cores."""
    avc = task == "avc"
    return Config(
        task=task,
        preset="tiny",
        clip=ClipConfig(views=1 if avc else 4, frames=4, fps=8.0, size=32),
        sound=FeatureConfig(mels=64),
        # Within minutes the transformers only slow learning down.
        model=ModelConfig(width=8, transformer=False),
        # Small networks tell things apart by their hue: they learn twice as fast if it stays.
        augment=AugmentConfig(jitter=(0.2, 0.2, 0.2, 0.0)),
        # Of few clips each other clip is soon known by heart, and then nothing asks which view a
        # sound belongs to; with fewer of them in a batch the clip's own views weigh more.
        batch_size=48 if avc else 12,
        epochs=200,
        learning_rate=1e-3,
    )


PRESETS: dict[str, Callable[[Task], Config]] = {"tiny": tiny, "paper": paper}


def with_intensity(config: Config, intensity: bool) -> Config:
    """The same run with or without the intensity channels, networks included."""
    sound = replace(config.sound, intensity=intensity)
    return replace(config, sound=sound, model=replace(config.model, audio_channels=sound.channels))
