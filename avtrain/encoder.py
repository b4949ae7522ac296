"""The networks of a checkpoint as functions of pictures and sound, for programs of one's own."""

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


class Encoder(nn.Module):
    """Video and audio networks with what comes before them: frames and waveforms in, features out.

    ``dim``: size D of both features. The settings say what the networks were trained on:
    ``config.clip.frames`` frames at ``config.clip.fps``, resized to ``config.clip.size`` pixels;
    ``config.sound.samples`` samples at ``config.sound.sample_rate``, in the format
    ``config.sound.audio``.
    """

    def __init__(self, config: Config, model: AudioVisual, features: Features) -> None:
        super().__init__()
        self.config, self.dim = config, config.model.features
        self.model, self.features = model, features

    def video(self, frames: Tensor) -> Tensor:
        """Features (N, D) of perspective crops, uint8 RGB (N, T, height, width, 3)."""
        if frames.dim() != 5 or frames.shape[-1] != 3 or frames.dtype != torch.uint8:
            raise TrainingError(
                "an encoder takes frames as uint8 (N, T, height, width, 3), not "
                f"{frames.dtype} {tuple(frames.shape)}"
            )
        unchanged = frames.new_tensor([1, 1, 1, 0], dtype=torch.float32).expand(len(frames), -1)
        mirror = torch.zeros(len(frames), dtype=torch.bool, device=frames.device)
        inputs = prepare_video(frames[:, None], self.config.clip.size, unchanged, mirror)
        return self.model.embed_video(inputs)[:, 0]

    def audio(self, sound: Tensor) -> Tensor:
        """Features (N, D) of sound (N, channels, samples) as heard in the direction of the crop:
        ambisonics (ACN, SN3D) turned so that X points there, or beams. 1 is full scale."""
        wanted = self.config.sound
        if sound.shape[1:] != (wanted.view_channels, wanted.samples):
            raise TrainingError(
                f"this encoder hears {wanted.samples} samples ({wanted.duration_s:g} s at "
                f"{wanted.sample_rate} Hz) of {wanted.view_channels} channels, not "
                f"{tuple(sound.shape[1:])}"
            )
        alone = torch.eye(wanted.view_channels, device=sound.device).expand(len(sound), 1, -1, -1)
        return self.model.embed_audio(self.features(sound, alone))[:, 0]


def load_encoder(checkpoint: Path | str, device: torch.device | str = "cpu") -> Encoder:
    """The encoder of a ``checkpoint.pt`` of `avtrain pretrain`, in evaluation mode; its weights can
    be trained further. Raises TrainingError for other files, and for networks with the published
    code's weights, which hear another order of channels."""
    path = Path(checkpoint)
    content = Checkpoint.load(path)
    config = content.settings()
    if config.sound.conventions != "avsa360" or not content.features:
        raise TrainingError(
            f"{path} has the weights of the published code, whose audio network needs its own "
            "channel conventions; use `avtrain embed` and `avtrain eval`"
        )
    model, features = AudioVisual(config.model), Features(config.sound)
    model.load_state_dict(content.model)
    features.load_state_dict(content.features)
    return Encoder(config, model, features).to(device).eval()
