"""The pretext task of a step: embeddings of both modalities, and their contrastive loss."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from avtrain.config import Config
from avtrain.networks.losses import ContrastiveLoss, info_nce
from avtrain.networks.models import AudioVisual
from avtrain.runtime.distributed import World

AMP = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Objective(nn.Module):
    """Loss of the task, averaged over video from audio and audio from video.

    The transformers predict the views of a clip in one modality from those in the other; a single
    view, or several moments, are compared without them.
    """

    def __init__(self, model: AudioVisual, config: Config, world: World) -> None:
        super().__init__()
        self.model = model
        self.config = config
        self.world = world
        if not config.across_views:  # networks that the task does not use are not trained
            for part in (
                model.predict_audio,
                model.predict_video,
                model.predicted_audio_head,
                model.predicted_video_head,
            ):
                part.requires_grad_(False)

    def forward(self, video: Tensor, audio: Tensor, directions: Tensor) -> ContrastiveLoss:
        """Loss of the global batch; inputs are this rank's part of a `Batch`."""
        model, config = self.model, self.config
        if config.precision == "fp32":
            video, audio = model.embed(video, audio)
        else:
            with torch.autocast(video.device.type, AMP[config.precision]):
                video, audio = model.embed(video, audio)
            # Initial embeddings are nearly equal: the 8 bits of bfloat16 would lose their
            # differences, and learning would start late.
            video, audio = video.float(), audio.float()
        video, audio = self.world.gather(video), self.world.gather(audio)
        if config.across_views:
            directions = self.world.gather(directions)
        embeddings = model.embeddings(video, audio, directions, config.across_views)

        def compare(query: Tensor, target: Tensor) -> ContrastiveLoss:
            return info_nce(query, target, config.temperature, config.negatives)

        audio_loss = compare(embeddings.predicted_audio, embeddings.audio)
        return audio_loss.mean(compare(embeddings.predicted_video, embeddings.video))
