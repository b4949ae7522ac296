"""What a view's audio and video say without a network: the energy map, and a few pixels.

A baseline. Nothing in it is learned; what a network knows beyond it, it has learned.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avtrain.networks.models import Embeddings

BANDS = 8
"""Groups of mel bands, equally many in each."""
PIXELS = 8
AUDIO_FEATURES = 4 * BANDS
VIDEO_FEATURES = 4 * PIXELS**2
_MIDDLE_DB, _SPREAD_DB = -40.0, 20.0
"""Levels are given relative to these, so that they are about as large as the other numbers."""
_HALF_WIDTH = 0.84
"""Tangent of half the angle of a view of 80°, which the map is drawn for."""
_MOTION = 4.0
"""Factor of the changes between frames: so they are about as large as the pixels."""


class EnergyMap(nn.Module):
    """Features in the place of `AudioVisual`'s, from the same inputs, without a weight.

    The audio's (B, V, `AUDIO_FEATURES`): for each of the bands, the level of W, and the intensity
    towards Y, Z and X, averaged over time with W's energy as weight: the direction (y, z, x) of a
    single plane wave in the frame of the view. The video's (B, V, `VIDEO_FEATURES`): the frames'
    mean at 8 x 8 pixels (red, green, blue), and the mean change from frame to frame there.
    """

    def embed_audio(self, audio: Tensor) -> Tensor:
        """``audio`` (B, V, 7, frames, mels): log-mels in dB, not normalised, and intensities."""
        # Log-mels are magnitudes: their squares are energies.
        energy = torch.pow(10.0, audio[:, :, :1] / 5)
        flow = energy * audio[:, :, 4:]
        parts = []
        for group, inside in zip(
            torch.tensor_split(energy, BANDS, dim=-1),
            torch.tensor_split(flow, BANDS, dim=-1),
            strict=True,
        ):
            level = (10 * group.mean(dim=(-2, -1)).log10() - _MIDDLE_DB) / _SPREAD_DB
            intensity = inside.sum(dim=(-2, -1)) / group.sum(dim=(-2, -1))
            parts += [level, intensity]
        return torch.cat(parts, dim=-1)

    def embed_video(self, video: Tensor) -> Tensor:
        """``video`` (B, V, 3, frames, height, width), normalised."""
        change = video.diff(dim=3).abs().mean(dim=2, keepdim=True)
        if video.shape[3] == 1:
            change = torch.zeros_like(video[:, :, :1])
        maps = torch.cat([video.mean(dim=3), _MOTION * change.mean(dim=3)], dim=2)
        return F.adaptive_avg_pool2d(maps.flatten(0, 1), PIXELS).view(*video.shape[:2], -1)

    def embeddings(
        self,
        video: Tensor,
        audio: Tensor,
        directions: Tensor,
        across_views: bool,
        transformers: bool = True,
    ) -> Embeddings:
        """Maps (B, V, 64) to compare: where the picture moves, and where its sound comes from.

        Both are without their means, so that their cosine is the correlation. The sound's is the
        energy of a cardioid beam towards each pixel of a view of 80°, whatever the view's own
        angle is: features do not hold it.
        """
        motion = video[..., -(PIXELS**2) :]
        bands = audio.view(*audio.shape[:2], BANDS, 4)
        energy = torch.pow(10.0, bands[..., :1] * _SPREAD_DB / 10)
        mean = (energy * bands[..., 1:]).sum(dim=-2) / energy.sum(dim=-2)
        sound = (1 + mean @ _pixel_directions().to(mean).T).square()
        motion, sound = (part - part.mean(dim=-1, keepdim=True) for part in (motion, sound))
        return Embeddings(motion, sound, sound, motion)


def _pixel_directions() -> Tensor:
    """Unit vectors (64, 3) as (y, z, x) of the pixels' centres, row by row from the top left."""
    place = _HALF_WIDTH * (1 - 2 * (torch.arange(PIXELS) + 0.5) / PIXELS)
    up, left = torch.meshgrid(place, place, indexing="ij")
    rays = torch.stack([left, up, torch.ones_like(left)], dim=-1)
    return F.normalize(rays.flatten(0, 1), dim=-1)
