"""Figures that a run reports: views with their audio, and the views nearest to an audio."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from avtrain.data.batch import Batch
from avtrain.pretrain.trainer import Trainer

CLIPS, NEAREST = 4, 5
"""Clips whose audio is the query, and number of nearest views shown for each."""


def draw(trainer: Trainer, batch: Batch) -> dict[str, Any]:
    """Figures of a batch, as the networks see it now, by name. Changes nothing of the run."""
    device, config = trainer.world.device, trainer.config
    batch = batch.to(device)
    with torch.no_grad():
        trainer.model.eval()
        video = batch.video_input(config.clip.size)
        audio = batch.audio_input(trainer.features, batch.matrices)
        features = trainer.model.embed(video, audio)
        embeddings = trainer.model.embeddings(*features, batch.directions, config.across_views)
        trainer.model.train()
    frames = batch.frames[:, :, batch.frames.shape[2] // 2].cpu().numpy()
    embeddings = embeddings.unit()
    similar = torch.einsum("bse,cte->bsct", embeddings.predicted_video, embeddings.video)
    return {
        "views and sounds": _plot_views(frames, audio.cpu()),
        "what sounds find": _plot_nearest(frames, similar.cpu()),
    }


def _plot_views(frames: np.ndarray[Any, Any], audio: Tensor) -> Any:
    """Every view of the first clip, the log-mels of its own audio (W, and the channel to the
    front), and that of the next view, which does not belong to it (of the next clip if there is
    one view)."""
    from matplotlib.figure import Figure  # slow to import, and needed only here

    views, front = frames.shape[1], min(3, audio.shape[2] - 1)
    figure = Figure(figsize=(2 * views, 6.5), layout="constrained")
    axes = figure.subplots(4, views, squeeze=False)
    for view in range(views):
        clip, other = (0, (view + 1) % views) if views > 1 else (1 % len(audio), 0)
        log_mels = [audio[0, view, 0], audio[0, view, front], audio[clip, other, front]]
        shown = [frames[0, view], *(part.T.numpy() for part in log_mels)]
        wrong = f"audio of view {other}" if clip == 0 else "audio of another clip"
        titles = [f"view {view}", "its audio, W", "its audio, front", wrong]
        for row, (content, title) in enumerate(zip(shown, titles, strict=True)):
            axes[row, view].imshow(content, origin="lower" if row else "upper", aspect="auto")
            axes[row, view].set_title(title, fontsize=8)
            axes[row, view].set_axis_off()
    return figure


def _plot_nearest(frames: np.ndarray[Any, Any], similar: Tensor) -> Any:
    """One row per clip: a view, then the views of the batch most similar to its audio, from left to
    right. Views of the same clip are framed in orange, the view itself in green."""
    from matplotlib.figure import Figure  # slow to import, and needed only here

    clips = min(CLIPS, len(frames))
    flat = frames.reshape(-1, *frames.shape[2:])
    found = min(NEAREST, len(flat))
    figure = Figure(figsize=(1.6 * (found + 1), 1.8 * clips), layout="constrained")
    axes = figure.subplots(clips, found + 1, squeeze=False)
    for clip in range(clips):
        view = clip % frames.shape[1]
        best = similar[clip, view].flatten().topk(found)
        axes[clip, 0].imshow(frames[clip, view])
        axes[clip, 0].set_title(f"audio of clip {clip}, view {view}", fontsize=7)
        for column, (value, number) in enumerate(zip(*map(Tensor.tolist, best), strict=True), 1):
            found_clip, found_view = divmod(number, frames.shape[1])
            axes[clip, column].imshow(flat[number])
            axes[clip, column].set_title(
                f"clip {found_clip}, view {found_view}: {value:.2f}", fontsize=7
            )
            if found_clip == clip:
                colour = "limegreen" if found_view == view else "orange"
                for spine in axes[clip, column].spines.values():
                    spine.set(color=colour, linewidth=3)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
    return figure
