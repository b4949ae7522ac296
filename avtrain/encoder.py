"""The networks of a checkpoint as functions of video and audio, for programs of one's own."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from avtrain.checkpoint import Checkpoint
from avtrain.config import Config
from avtrain.data.augment import prepare_video
from avtrain.errors import TrainingError
from avtrain.networks.features import Features
from avtrain.networks.models import AudioVisual
from avtrain.own_networks import Factories, Factory, build_networks, check_named


class Encoder(nn.Module):
    """Video and audio networks with what comes before them: frames and waveforms in, features out.

    ``video_dim``, ``audio_dim``: size D of the features. The settings say what the networks were
    trained on:
    ``config.clip.frames`` frames at ``config.clip.fps``, resized to ``config.clip.size`` pixels;
    ``config.sound.samples`` samples at ``config.sound.sample_rate``, in the format
    ``config.sound.audio``. Weights stay float32; for less, use autocast.
    """

    def __init__(self, config: Config, networks: AudioVisual, features: Features) -> None:
        super().__init__()
        self.config = config
        self.video_dim, self.audio_dim = config.model.video_dim, config.model.audio_dim
        self.video_network, self.audio_network = networks.video, networks.audio
        self.features = features

    def forward(self, frames: Tensor, sound: Tensor) -> tuple[Tensor, Tensor]:
        """`video` and `audio` at once."""
        return self.video(frames), self.audio(sound)

    def video(self, frames: Tensor) -> Tensor:
        """Features (N, D) of perspective crops: uint8 RGB (N, T, height, width, 3), or what
        `Batch.video_input` makes of them, float (N, 3, T, size, size)."""
        stored = frames.dtype == torch.uint8
        if frames.dim() != 5 or frames.shape[4 if stored else 1] != 3 or not len(frames):
            raise TrainingError(
                "an encoder takes frames as uint8 (N, T, height, width, 3) or float "
                f"(N, 3, T, size, size), not {frames.dtype} {tuple(frames.shape)}"
            )
        if stored:
            unchanged = frames.new_tensor([1, 1, 1, 0], dtype=torch.float32)
            mirror = torch.zeros(len(frames), dtype=torch.bool, device=frames.device)
            size = self.config.clip.size
            frames = prepare_video(
                frames[:, None], size, unchanged.expand(len(frames), -1), mirror
            )[:, 0]
        features: Tensor = self.video_network(frames)
        return features

    def audio(self, sound: Tensor) -> Tensor:
        """Features (N, D) of sound (N, channels, samples) as heard in the direction of the crop:
        ambisonics (ACN, SN3D) turned so that X points there, or beams. 1 is full scale."""
        wanted = self.config.sound
        fits = sound.dim() == 3 and sound.shape[1:] == (wanted.view_channels, wanted.samples)
        if not fits or not sound.is_floating_point():
            raise TrainingError(
                f"this encoder hears sound as float (N, {wanted.view_channels}, {wanted.samples}), "
                f"{wanted.duration_s:g} s at {wanted.sample_rate} Hz, not {sound.dtype} "
                f"{tuple(sound.shape)}"
            )
        alone = torch.eye(wanted.view_channels, device=sound.device).expand(len(sound), 1, -1, -1)
        features: Tensor = self.audio_network(self.features(sound.float(), alone)[:, 0])
        return features


def load_encoder(
    checkpoint: Path | str,
    device: torch.device | str = "cpu",
    video_network: str | Factory | None = None,
    audio_network: str | Factory | None = None,
) -> Encoder:
    """The encoder of a ``checkpoint.pt`` of `avtrain pretrain`, or of a folder of `avtrain export`,
    in evaluation mode; its weights can be trained further. Networks of your own are made by
    ``video_network`` and ``audio_network`` (docs/own-network.md).

    Raises TrainingError for other files, and for networks with the published code's weights, which
    hear another order of channels.
    """
    path = Path(checkpoint)
    content = Checkpoint.load(path)
    factories = Factories(video_network, audio_network)
    check_named(content.settings(), factories, path)
    return encoder_of(content, path, factories).to(device).eval()


def encoder_of(content: Checkpoint, path: Path, factories: Factories) -> Encoder:
    """The encoder of a checkpoint that was read from ``path``. Raises TrainingError."""
    config = content.settings()
    if config.sound.conventions != "avsa360" or not content.features:
        raise TrainingError(
            f"{path} has the weights of the published code, whose audio network needs its own "
            "channel conventions; use `avtrain embed` and `avtrain eval`"
        )
    networks, features = build_networks(config, factories), Features(config.sound)
    content.check_networks(networks)
    networks.load_state_dict(content.model)
    features.load_state_dict(content.features)
    return Encoder(config, networks, features).eval()
