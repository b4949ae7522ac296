"""What TensorBoard shows of a run: curves, views with their sounds, and what sounds find."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from avtrain.data.batch import Batch
from avtrain.errors import TrainingError
from avtrain.pretrain.trainer import Trainer
from avtrain.run_folder import TENSORBOARD

CLIPS, FOUND = 4, 5
"""Sounds of so many clips are looked up, and so many pictures shown of what they find."""


class Board:
    """Writes to ``OUT/tensorboard``; what an earlier start wrote after step ``total`` is hidden."""

    def __init__(self, out: Path, total: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise TrainingError(
                "TensorBoard is not installed; `pip install 'avsa360[tensorboard]'` brings it"
            ) from None
        folder = str(out / TENSORBOARD)
        self._writer: Any = SummaryWriter(folder, purge_step=total + 1)

    def add(self, line: Mapping[str, Any]) -> None:
        """The curves' next point: a line of the log."""
        for name, value in line.items():
            if name not in ("step", "epoch") and value is not None:
                self._writer.add_scalar(name, value, line["step"])

    def show(self, trainer: Trainer, batch: Batch, step: int) -> None:
        """Pictures of a batch as the networks see it now. Nothing of the run changes by it."""
        device, config = trainer.world.device, trainer.config
        batch = batch.to(device)
        with torch.no_grad():
            trainer.model.eval()
            inputs = batch.video_input(config.clip.size)
            sound = batch.audio_input(trainer.features, batch.matrices)
            features = trainer.model.embed(inputs, sound)
            found = trainer.model.embeddings(*features, batch.directions, config.across_views)
            trainer.model.train()
        frames = batch.frames[:, :, batch.frames.shape[2] // 2].cpu().numpy()
        self._writer.add_figure("views and sounds", _views(frames, sound.cpu()), step)
        found = found.unit()
        similar = torch.einsum("bse,cte->bsct", found.predicted_video, found.video)
        self._writer.add_figure("what sounds find", _found(frames, similar.cpu()), step)

    def close(self) -> None:
        self._writer.close()


def _views(frames: np.ndarray[Any, Any], sound: Tensor) -> Any:
    """Of the first clip every view, the log-mel of its own sound (W and the one to the front), and
    that of the next view's, which does not belong to it; of one view that of the next clip's."""
    from matplotlib.figure import Figure  # slow to import, and needed only here

    views, front = frames.shape[1], min(3, sound.shape[2] - 1)
    figure = Figure(figsize=(2 * views, 6.5), layout="constrained")
    axes = figure.subplots(4, views, squeeze=False)
    for view in range(views):
        clip, other = (0, (view + 1) % views) if views > 1 else (1 % len(sound), 0)
        heard = [sound[0, view, 0], sound[0, view, front], sound[clip, other, front]]
        shown = [frames[0, view], *(part.T.numpy() for part in heard)]
        wrong = f"that of view {other}" if clip == 0 else "that of another clip"
        titles = [f"view {view}", "its sound", "to the front", wrong]
        for row, (content, title) in enumerate(zip(shown, titles, strict=True)):
            axes[row, view].imshow(content, origin="lower" if row else "upper", aspect="auto")
            axes[row, view].set_title(title, fontsize=8)
            axes[row, view].set_axis_off()
    return figure


def _found(frames: np.ndarray[Any, Any], similar: Tensor) -> Any:
    """For a sound of each of the first clips the picture of its view, and those of the batch that
    are most like the sound, from left to right; of its own clip with a frame, its own in green."""
    from matplotlib.figure import Figure  # slow to import, and needed only here

    clips = min(CLIPS, len(frames))
    flat = frames.reshape(-1, *frames.shape[2:])
    found = min(FOUND, len(flat))
    figure = Figure(figsize=(1.6 * (found + 1), 1.8 * clips), layout="constrained")
    axes = figure.subplots(clips, found + 1, squeeze=False)
    for clip in range(clips):
        view = clip % frames.shape[1]
        best = similar[clip, view].flatten().topk(found)
        axes[clip, 0].imshow(frames[clip, view])
        axes[clip, 0].set_title(f"sound of clip {clip}, view {view}", fontsize=7)
        for place, (value, number) in enumerate(zip(*map(Tensor.tolist, best), strict=True), 1):
            of_clip, of_view = divmod(number, frames.shape[1])
            axes[clip, place].imshow(flat[number])
            axes[clip, place].set_title(f"clip {of_clip}, view {of_view}: {value:.2f}", fontsize=7)
            if of_clip == clip:
                colour = "limegreen" if of_view == view else "orange"
                for spine in axes[clip, place].spines.values():
                    spine.set(color=colour, linewidth=3)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
    return figure
