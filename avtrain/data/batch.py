"""A batch: what loader workers deliver, and the input of the networks made from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from avtrain.data.augment import prepare_video
from avtrain.errors import TrainingError
from avtrain.networks.features import Features


@dataclass(frozen=True)
class Batch:
    """B clips at M moments with V views each, as read: S = M V pairs of video and audio, ordered by
    moment."""

    index: Tensor
    """(B,) numbers of the clips in the set."""
    frames: Tensor
    """uint8 (B, S, T, height, width, 3) RGB."""
    audio: Tensor
    """float32 (B, M, stored, samples): FOA (ACN, SN3D) as stored for one view, or the channels of
    all views."""
    matrices: Tensor
    """float32 (B, M, V, channels, stored): from the stored audio to that of each view."""
    misaligned: Tensor
    """float32 (B, M, V, channels, stored): the same after the recording's sound field was rotated
    by a random yaw (negatives of AVSA-Bin); without ambisonics equal to ``matrices``."""
    directions: Tensor
    """float32 (B, S, 3): unit vectors of the viewing directions, counted from a random azimuth."""
    jitter: Tensor
    """float32 (B, 4), see ``colour_jitter``."""
    volume: Tensor
    """float32 (B,), factors."""
    mirror: Tensor
    """bool (B,): left and right are exchanged in all views of the clip, and in ``matrices`` and
    ``directions``."""
    faults: tuple[tuple[int, str], ...] = ()
    """Numbers of clips that could not be read, and why; other clips replaced them."""
    panorama: Tensor | None = None
    """uint8 (B, M, T, height, width, 3) RGB, equirectangular, at the times of ``frames``; only
    where it is asked for."""
    field: Tensor | None = None
    """float32 (B, M, 4, stored): from the stored audio to the recording's own sound field, which
    goes with ``panorama``; only of ambisonics."""

    def pin_memory(self) -> Batch:
        return self._each(lambda tensor: tensor.pin_memory())

    def to(self, device: torch.device | str) -> Batch:
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        values: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        tensors = {name: change(v) for name, v in values.items() if isinstance(v, Tensor)}
        return Batch(**(values | tensors))

    def video_input(self, size: int) -> Tensor:
        """Network input (B, S, 3, T, size, size)."""
        return prepare_video(self.frames, size, self.jitter, self.mirror)

    def panorama_input(self) -> Tensor:
        """Network input (B, M, 3, T, height, width): the whole sphere, changed as the views are.
        Raises TrainingError where it was not asked for."""
        if self.panorama is None:
            raise TrainingError("this batch has no panoramas: ask for them with panorama=True")
        height, width = self.panorama.shape[3:5]
        return prepare_video(self.panorama, (height, width), self.jitter, self.mirror)

    def field_audio(self) -> Tensor:
        """Sound of the whole sphere, float32 (B, M, 4, samples): ambisonics whose X points to the
        middle of the panorama. Raises TrainingError where there is none."""
        if self.field is None:
            raise TrainingError(
                "this batch has no sound field: it needs panorama=True and ambisonics (audio='foa')"
            )
        audio = self.audio * self.volume[:, None, None, None]
        with torch.autocast(audio.device.type, enabled=False):
            return self.field @ audio

    def view_audio(self) -> Tensor:
        """Sound of every view, float32 (B, S, channels, samples): ambisonics turned so that X
        points where the view looks, or beams; as loud as the draw says."""
        audio = self.audio * self.volume[:, None, None, None]
        with torch.autocast(audio.device.type, enabled=False):
            return (self.matrices @ audio[:, :, None]).flatten(1, 2)

    def audio_input(self, features: Features, matrices: Tensor) -> Tensor:
        """Network input (B, S, C, time, mels): features of the audio under ``matrices``."""
        audio = self.audio * self.volume[:, None, None, None]
        inputs: Tensor = features(audio.flatten(0, 1), matrices.flatten(0, 1))
        return inputs.view(len(audio), -1, *inputs.shape[2:])


def collate(clips: list[dict[str, NDArray[np.generic]]]) -> Batch:
    """Join clips as read to a batch. Raises TrainingError where their crops or panoramas differ in
    size."""
    for name, what in (("frames", "crops"), ("panorama", "panoramas")):
        sizes = {clip[name].shape for clip in clips if name in clip}
        if len(sizes) > 1:
            raise TrainingError(f"the clips' {what} differ in size: {sorted(sizes)}")
    names = [one.name for one in fields(Batch) if one.name != "faults" and one.name in clips[0]]
    arrays = {name: np.stack([clip[name] for clip in clips]) for name in names}
    faults = tuple(
        (int(index), str(fault))
        for clip in clips
        for index, fault in zip(clip.get("faulty", ()), clip.get("faults", ()), strict=True)
    )
    return Batch(**{name: torch.from_numpy(array) for name, array in arrays.items()}, faults=faults)
