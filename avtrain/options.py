"""How options become settings of a run, and settings options."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any, TypedDict, Unpack

from avtrain.config import PRESETS, Config, Precision
from avtrain.errors import TrainingError
from avtrain.networks.losses import Negatives

INTENSITY_GAIN = 8.0
"""Log-mels are standardised, intensities vary by about 0.3: without the gain, the first layer
hardly sees directions, and small networks need four times as many steps of avsa
(docs/study-notes.md). Much more hides the log-mels."""


WARMUP = 800
"""Steps of small networks. Before they perceive anything, there is nothing to carry from view to
view: transformers that learn at full rate from the first step learn less of space
(docs/transformer.md)."""


class Changes(TypedDict, total=False):
    """Settings that options change, by the names of their parameters; None leaves the preset's."""

    curriculum: bool | None
    features: str | None
    """``logmel`` or ``logmel+intensity``."""
    intensity_gain: float | None
    """By default `INTENSITY_GAIN`."""
    audio: str | None
    transformer: bool | None
    positions: str | None
    norm_first: bool | None
    negatives: Negatives | None
    temperature: float | None
    head: str | None
    dropout: float | None
    epochs: int | None
    """Epochs per stage; by default the preset's, halved for each stage of a ``curriculum``."""
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
    shuffle_views: bool | None
    freeze: str | None
    transformer_warmup: int | None
    """By default `WARMUP` with relative positions."""
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
    intensity = given.get("intensity", config.sound.intensity)
    if "intensity_gain" in given and not intensity:
        raise TrainingError("--intensity-gain needs --features logmel+intensity")
    if "intensity" in given:
        given.setdefault("intensity_gain", INTENSITY_GAIN if intensity else 1.0)
    sampling = given.pop("sampling", None)
    if sampling == "video":
        given.setdefault("clips_per_source", 1)
    elif sampling == "clip":
        if "clips_per_source" in given:
            raise TrainingError("--sampling clip shows all clips: leave out --clips-per-source")
        config = replace(config, clips_per_source=None)
    if given.get("positions") == "relative":
        given.setdefault("norm_first", True)
        given.setdefault("transformer_warmup", WARMUP)
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


def options_of(config: Config) -> Changes:
    """The changes of a preset that give ``config``, but for what a run begins with, for networks of
    the user's own and for weights of several sets, which no options hold.

    Raises TrainingError for settings that no options give."""
    sound, model, clip = config.sound, config.model, config.clip
    changes = Changes(
        curriculum=config.curriculum,
        features="logmel+intensity" if sound.intensity else "logmel",
        intensity_gain=sound.intensity_gain if sound.intensity else None,
        audio=sound.audio,
        transformer=model.transformer,
        positions=model.positions,
        norm_first=model.norm_first,
        negatives=config.negatives,
        temperature=config.temperature,
        head=model.head,
        dropout=model.dropout,
        epochs=config.epochs,
        batch_size=config.batch_size,
        views=clip.views,
        moments=clip.moments,
        margin_s=clip.margin_s,
        learning_rate=config.learning_rate,
        sampling="clip" if config.clips_per_source is None else "video",
        clips_per_source=config.clips_per_source,
        precision=config.precision,
        pieces=config.pieces,
        shuffle_views=config.shuffle_views,
        freeze=config.freeze,
        transformer_warmup=config.transformer_warmup,
        seed=config.seed,
    )
    built = with_options(PRESETS[config.preset](config.task), **changes)
    built = replace(
        built,
        begun_with=config.begun_with,
        weights=config.weights,
        model=replace(
            built.model, video_network=model.video_network, audio_network=model.audio_network
        ),
    )
    if built != config:
        parts = ((name, value, built.to_dict()[name]) for name, value in config.to_dict().items())
        differing = next(name for name, there, here in parts if there != here)
        raise TrainingError(
            f"its {differing} is not that of preset {config.preset}, and no options change it"
        )
    return changes
