"""The SELD network: maps of the audio network, a head with multi-ACCDOA, and their sources."""

from __future__ import annotations

import copy

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from avtrain.errors import TrainingError
from avtrain.evals.frozen import Networks
from avtrain.evals.seld.detections import FRAME_S, Detection
from avtrain.evals.seld.protocol import TRACKS, SeldProtocol
from shards.geometry import angle_between_deg, direction_deg

VIDEO_HIDDEN = 64


class SeldNet(nn.Module):
    """Inputs of the audio network to three tracks per class and frame of 100 ms.

    The maps of the audio network before pooling, their maximum and mean over frequency at each
    time, are brought to frames; without a network (energy) the inputs themselves are. Then two
    convolutions over time. A video feature of every view, with the view's direction, goes through
    a small network; the mean over the views stands beside every frame of the window.
    """

    def __init__(self, networks: Networks, classes: int, protocol: SeldProtocol) -> None:
        super().__init__()
        sound = networks.config.sound
        trains = not protocol.probe
        self.probe, self.classes = protocol.probe, classes
        self.audio: nn.Module | None = None
        self.video: nn.Module | None = None
        self.step_s = sound.hop_length / sound.sample_rate
        inputs = sound.channels * sound.mels
        if not networks.is_energy:
            # A copy, since evaluations of other labels start from the same networks.
            self.audio = copy.deepcopy(networks.audio_visual.audio).requires_grad_(trains)
            stride, channels = _time_stride(networks)
            self.step_s *= stride
            inputs = 2 * channels
        if protocol.with_video:
            self.video = copy.deepcopy(networks.audio_visual.video).requires_grad_(trains)
            self.video_scale = nn.BatchNorm1d(networks.video_dim, affine=False)
            self.views = nn.Sequential(nn.Linear(networks.video_dim + 3, VIDEO_HIDDEN), nn.ReLU())
        hidden = protocol.hidden
        # Networks differ in the scale of their maps.
        self.scale = nn.BatchNorm1d(inputs, affine=False)
        self.head = nn.Sequential(
            nn.Conv1d(inputs + VIDEO_HIDDEN * protocol.with_video, hidden, 3, padding=1),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            nn.Conv1d(hidden, hidden, 3, padding=1),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            nn.Conv1d(hidden, TRACKS * classes * 4, 1),
        )

    def train(self, mode: bool = True) -> SeldNet:
        """The frozen networks of a probe are never in training mode."""
        super().train(mode)
        for network in (self.audio, self.video):
            if self.probe and network is not None:
                network.eval()
        return self

    def forward(
        self, inputs: Tensor, frames: int, video: Tensor | None, directions: Tensor | None
    ) -> Tensor:
        """Tracks (N, frames, classes, tracks, 4) of N windows of ``frames`` frames: vectors, and
        logarithms of distances.

        ``inputs`` (N, C, time, mel); ``video`` (N, V, 3, T, H, W) of views in ``directions``
        (N, V, 3), unit vectors.
        """
        if self.audio is None:
            maps = inputs.transpose(2, 3).flatten(1, 2)
        else:
            found = self.audio.maps(inputs)  # type: ignore[operator]
            maps = torch.cat([found.amax(dim=3), found.mean(dim=3)], dim=1)
        weights = frame_weights(maps.shape[-1], frames, self.step_s).to(maps)
        columns = self.scale(maps @ weights.T)
        if self.video is not None and video is not None and directions is not None:
            features = self.video_scale(self.video(video.flatten(0, 1)))
            features = features.view(*video.shape[:2], -1)
            seen = self.views(torch.cat([features, directions], dim=-1)).mean(dim=1)
            columns = torch.cat([columns, seen[..., None].expand(-1, -1, frames)], dim=1)
        out: Tensor = self.head(columns)
        return out.view(len(out), self.classes, TRACKS, 4, frames).permute(0, 4, 1, 2, 3)


@torch.no_grad()
def _time_stride(networks: Networks) -> tuple[float, int]:
    """Input frames from one map of the audio network to the next, and channels of its maps.

    Raises TrainingError for networks that do not say the first.
    """
    zeros = torch.zeros(1, *networks.config.audio_shape, device=networks.device)
    channels: int = networks.maps("audio", zeros).shape[1]
    stride: float | None = getattr(networks.audio_visual.audio, "TIME_STRIDE", None)
    if not stride:
        raise TrainingError(
            "SELD needs the times of the audio network's maps: give the network an attribute "
            "TIME_STRIDE (docs/own-network.md)"
        )
    return stride, channels


def frame_weights(maps: int, frames: int, step_s: float) -> Tensor:
    """Weights (frames, maps) that bring maps at times 0, ``step_s``, … to frames of 100 ms: a
    triangle around the middle of each frame that ends 100 ms, or a step, from it. Frames after the
    last map (of networks without padding) have that of the nearest one."""
    middles = (torch.arange(frames) + 0.5) * FRAME_S
    times = torch.arange(maps) * step_s
    near = 1 - (middles[:, None] - times).abs() / max(FRAME_S, step_s)
    alone = near == near.amax(dim=1, keepdim=True)
    weights = torch.where(near.amax(dim=1, keepdim=True) > 0, near.clamp(min=0), alone.float())
    return weights / weights.sum(dim=1, keepdim=True)


def audible_sources(
    tracks: NDArray[np.float64], classes: tuple[int, ...], first: int, protocol: SeldProtocol
) -> list[Detection]:
    """Sources in tracks (frames, classes, tracks, 4); the first frame has the number ``first``.

    A track whose vector is longer than the threshold is active. Tracks of a class that are within
    ``unify_deg`` of each other, or of a third one, are one source in the mean of their vectors; its
    distance is the mean of theirs.
    """
    active = np.linalg.norm(tracks[..., :3], axis=-1) > protocol.threshold
    found = []
    for frame, kind in np.argwhere(active.any(axis=-1)).tolist():
        mine = tracks[frame, kind, active[frame, kind]]
        for number, members in enumerate(_unify(mine[:, :3], protocol.unify_deg)):
            azimuth, elevation = direction_deg(mine[members, :3].mean(axis=0))
            distance = float(np.exp(np.clip(mine[members, 3], -10, 10)).mean())
            place = (float(azimuth), float(elevation), distance)
            found.append(Detection(first + frame, classes[kind], number, *place))
    return found


def _unify(vectors: NDArray[np.float64], unify_deg: float) -> list[list[int]]:
    """Groups of vectors (n, 3) that are connected by angles below ``unify_deg``."""
    groups: list[list[int]] = []
    for number, vector in enumerate(vectors):
        near = [
            group
            for group in groups
            if (angle_between_deg(vectors[group], vector) < unify_deg).any()
        ]
        groups = [group for group in groups if group not in near]
        groups.append([*(member for group in near for member in group), number])
    return groups
