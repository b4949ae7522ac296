"""What a step of pretraining computes: both modalities' embeddings, and how well they match."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from avtrain.config import Config
from avtrain.networks.losses import ContrastiveLoss, info_nce
from avtrain.networks.models import AudioVisual
from avtrain.runtime.distributed import World

AMP = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Objective(nn.Module):
    """The task's loss, averaged over video from audio and audio from video.

    The views of a clip are predicted from each other's modality by the transformers; what has one
    view, or several moments, is compared as it is.
    """

    def __init__(self, model: AudioVisual, config: Config, world: World) -> None:
        super().__init__()
        self.model = model
        self.config = config
        self.world = world
        if not config.across_views:  # what the task does not use learns nothing
            for part in (
                model.predict_audio,
                model.predict_video,
                model.predicted_audio_head,
                model.predicted_video_head,
            ):
                part.requires_grad_(False)

    def forward(self, pictures: Tensor, sound: Tensor, directions: Tensor) -> ContrastiveLoss:
        """Inputs are this process' part of a `Batch`; the contrast is that of the whole."""
        model, config = self.model, self.config
        if config.precision == "fp32":
            video, audio = model.embed(pictures, sound)
        else:
            with torch.autocast(pictures.device.type, AMP[config.precision]):
                video, audio = model.embed(pictures, sound)
            # Embeddings begin nearly alike: in 8 bits their differences are lost, and learning
            # starts late.
            video, audio = video.float(), audio.float()
        video, audio = self.world.gather(video), self.world.gather(audio)
        if config.across_views:
            directions = self.world.gather(directions)
        found = model.embeddings(video, audio, directions, config.across_views)

        def compare(query: Tensor, target: Tensor) -> ContrastiveLoss:
            return info_nce(query, target, config.temperature, config.negatives)

        heard = compare(found.predicted_audio, found.audio)
        return heard.mean(compare(found.predicted_video, found.video))
