"""Frozen networks to evaluate: those of a checkpoint, random ones, or none (`EnergyMap`)."""

from __future__ import annotations

import hashlib
from collections.abc import Generator
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from avtrain.checkpoint import Checkpoint
from avtrain.config import Config
from avtrain.data.batch import Batch
from avtrain.data.clips import Clips, first_info
from avtrain.data.draws import NO_AUGMENTATION
from avtrain.data.loader import load
from avtrain.data.plan import Plan
from avtrain.data.statistics import fit_statistics
from avtrain.data.unreadable import Unreadable
from avtrain.errors import TrainingError
from avtrain.evals.results import ENERGY, Network
from avtrain.networks.energy import AUDIO_FEATURES, VIDEO_FEATURES, EnergyMap
from avtrain.networks.features import Features
from avtrain.networks.models import AudioVisual, Embeddings, calibrate_batch_norm
from avtrain.own_networks import PAPERS, Factories, Modality, build_networks
from shards.reader import ShardSet

CALIBRATION_CLIPS = 512


@dataclass(frozen=True)
class Networks:
    """Networks and features in evaluation mode, on ``device``; or the energy map in their place.

    ``transformer``: whether transformers were trained; untrained ones are not used.
    ``calibrated_on``: the clips that statistics were taken from when they were loaded, if any were,
    and the sizes of networks that are in no file.
    """

    model: AudioVisual | EnergyMap
    features: Features
    config: Config
    transformer: bool
    described: Network
    device: torch.device
    calibrated_on: tuple[Any, ...] = ()

    @property
    def audio_dim(self) -> int:
        """Size D of the audio's features."""
        return AUDIO_FEATURES if self.is_energy else self.config.model.audio_dim

    @property
    def video_dim(self) -> int:
        """Size D of the video's features, and of the audio's predicted from them."""
        return VIDEO_FEATURES if self.is_energy else self.config.model.video_dim

    @property
    def is_energy(self) -> bool:
        """Whether there is no network."""
        return isinstance(self.model, EnergyMap)

    @property
    def audio_visual(self) -> AudioVisual:
        """The networks. Raises TrainingError for the energy map."""
        if isinstance(self.model, EnergyMap):
            raise TrainingError("the energy map has no networks; name a checkpoint")
        return self.model

    def maps(self, modality: Modality, inputs: Tensor) -> Any:
        """What the video or audio network holds before pooling. Raises TrainingError for networks
        without ``maps``."""
        network = getattr(self.audio_visual, modality)
        if not callable(getattr(network, "maps", None)):
            own = self.config.model.own(modality)
            name = "the checkpoint" if own is None else own.factory
            raise TrainingError(
                f"this evaluation reads maps of the {modality} network, and that of {name} has no "
                "method maps (docs/own-network.md)"
            )
        return network.maps(inputs)

    @torch.no_grad()
    def video(self, batch: Batch) -> Tensor:
        """Features (B, S, D) of the video."""
        return self.model.embed_video(batch.video_input(self.config.clip.size))

    @torch.no_grad()
    def audio(self, batch: Batch, matrices: Tensor | None = None) -> Tensor:
        """Features (B, S, D) of the audio under ``matrices`` (default: the batch's own)."""
        matrices = batch.matrices if matrices is None else matrices
        return self.model.embed_audio(batch.audio_input(self.features, matrices))

    @torch.no_grad()
    def embeddings(self, video: Tensor, audio: Tensor, directions: Tensor) -> Embeddings:
        """Embeddings of length 1 that pretraining compares, from features (B, S, D)."""
        video, audio, directions = (part.to(self.device) for part in (video, audio, directions))
        across_views = self.config.across_views
        found = self.model.embeddings(video, audio, directions, across_views, self.transformer)
        return found.unit()

    @torch.no_grad()
    def predicted_audio(self, video: Tensor, directions: Tensor) -> Tensor:
        """Audio features predicted from video features; the video features themselves if no
        transformer was trained."""
        if not self.transformer:
            return video
        inputs = (part.to(self.device) for part in (video, directions))
        predicted: Tensor = self.audio_visual.predict_audio(*inputs)
        return predicted


def load_networks(
    checkpoint: Path | None,
    config: Config,
    train: ShardSet,
    seed: int,
    device: torch.device,
    workers: int,
    factories: Factories = PAPERS,
) -> Networks:
    """Networks of a checkpoint, whose settings are ``config``; None: random networks of ``config``.

    Random networks take the statistics of their features and of their batch normalisation from
    clips of the training split: otherwise their activations would have no sensible scale, and the
    comparison would be with broken networks. A checkpoint without statistics of its features gets
    them in the same way. Raises TrainingError.
    """
    torch.manual_seed(seed)
    model = build_networks(config, factories).to(device)
    features = Features(config.sound).to(device)
    transformer = checkpoint is not None and config.trains_transformers
    content = None
    calibrated_on: tuple[Any, ...] = ()
    split = (train.sha256, train.split)
    if checkpoint is not None:
        content = Checkpoint.load(checkpoint)
        content.check_networks(model)
        model.load_state_dict(content.model)
        if content.features:
            features.load_state_dict(content.features)
        else:
            fit_statistics(features, train, replace(config.clip, moments=1), seed)
            calibrated_on = (*split, seed)
    else:
        views = min(config.clip.views, len(first_info(train).views))
        clip = replace(config.clip, moments=1, views=views)
        fit_statistics(features, train, clip, seed)
        calibrated_on = (*split, seed, asdict(clip), config.batch_size, asdict(config.model))
        config_of_clips = replace(config, clip=clip)
        with closing(
            _calibration_batches(train, config_of_clips, seed, device, workers)
        ) as batches:
            calibrate_batch_norm(
                model,
                (
                    (batch.video_input(clip.size), batch.audio_input(features, batch.matrices))
                    for batch in batches
                ),
            )
    described = describe(config, checkpoint, content, transformer, seed)
    return Networks(model.eval(), features, config, transformer, described, device, calibrated_on)


def energy_features(config: Config, seed: int, device: torch.device) -> Networks:
    """The energy map in the place of networks, with the inputs of ``config``: log-mels and
    intensities. ``seed`` is that of the evaluation."""
    features = Features(config.sound).to(device)
    described = Network(
        pretraining=ENERGY,
        steps=0,
        features="levels + intensity, pixels",
        audio=config.sound.audio,
        transformer=False,
        positions="none",
        checkpoint=None,
        data=None,
        preset=config.preset,
        seed=seed,
    )
    return Networks(EnergyMap(), features, config, False, described, device)


def describe(
    config: Config,
    checkpoint: Path | None,
    content: Checkpoint | None,
    transformer: bool,
    seed: int,
) -> Network:
    """Record of the networks of a checkpoint with its content, or of random ones of ``seed``."""
    if checkpoint is None or content is None:
        own = [config.model.own(modality) for modality in ("video", "audio")]
        # Random networks of the paper are told apart by what is described; others by this alone.
        settings = hashlib.sha256(repr(own).encode()).hexdigest()[:12] if any(own) else ""
        return replace(
            describe_settings(config, transformer), pretraining="none", seed=seed, settings=settings
        )
    return replace(
        describe_settings(config, transformer),
        steps=content.total_steps,
        checkpoint=str(checkpoint),
        data=content.data,
        weights=content.weights_sha256,
    )


def describe_settings(config: Config, transformer: bool) -> Network:
    """As much of the record of pretrained networks as their settings say."""
    features = "log-mel + intensity" if config.sound.intensity else "log-mel"
    if config.sound.intensity_gain != 1:
        features += f" × {config.sound.intensity_gain:g}"
    if config.sound.conventions == "published":
        features += ", published conventions"
    return Network(
        pretraining=config.title,
        steps=0,
        features=features,
        audio=config.sound.audio,
        transformer=transformer,
        positions=config.model.positions,
        norm_first=config.model.norm_first,
        checkpoint=None,
        data=None,
        preset=config.preset,
        seed=config.seed,
        settings=config.digest,
    )


def _calibration_batches(
    shards: ShardSet, config: Config, seed: int, device: torch.device, workers: int
) -> Generator[Batch]:
    clips = Clips(shards, config.clip, config.sound, NO_AUGMENTATION, seed)
    plan = Plan(shards, seed, config.batch_size)
    remaining = CALIBRATION_CLIPS
    pin, unreadable = device.type == "cuda", Unreadable.in_split(shards)
    with closing(load(clips, plan, range(1), 0, workers, pin, unreadable=unreadable)) as batches:
        for _, batch in batches:
            yield batch.to(device)
            remaining -= len(batch.index)
            if remaining <= 0:
                break
