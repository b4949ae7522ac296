"""Augmentation and normalisation of whole batches, on the device of the model.

The parameters of a clip are drawn in ``avtrain.data.draws`` from its own generator, so that they
do not depend on the number of loader workers.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
LUMA = (0.299, 0.587, 0.114)
"""Grey of (R, G, B), ITU-R BT.601."""


def prepare_video(
    frames: Tensor, size: int | tuple[int, int], jitter: Tensor, mirror: Tensor
) -> Tensor:
    """Frames as stored to network input: resized, jittered, mirrored, normalised.

    ``frames`` uint8 (B, V, T, height, width, 3); ``jitter`` (B, 4) as in ``colour_jitter``;
    ``mirror`` bool (B,), for all views of a clip; ``size`` is (height, width), or one number for
    both. Returns float (B, V, 3, T, height, width), laid out in memory as (..., T, height, width,
    3): the fastest order for 3-D convolutions on CPUs.
    """
    height, width = (size, size) if isinstance(size, int) else size
    clips, views, count = frames.shape[:3]
    video = frames.flatten(0, 2).permute(0, 3, 1, 2)
    if video.shape[-2:] != (height, width):
        video = _resized(video, (height, width))
    video = video.permute(0, 2, 3, 1).reshape(clips, -1, 3).float() / 255.0
    video = colour_jitter(video, jitter)
    mean, std = video.new_tensor(IMAGENET_MEAN), video.new_tensor(IMAGENET_STD)
    video = video.sub_(mean).div_(std)
    video = video.view(clips, views, count, height, width, 3)
    video = torch.where(mirror.view(-1, 1, 1, 1, 1, 1), video.flip(-2), video)
    return video.permute(0, 1, 5, 2, 3, 4)


def random_crop_box(
    rng: np.random.Generator, height: int, width: int, smallest: float
) -> tuple[int, int, int, int]:
    """A random crop (top, left, height, width) of a frame: area uniform between ``smallest`` and 1
    of the frame, logarithm of the aspect ratio uniform between 3/4 and 4/3; after ten attempts that
    do not fit, the centre (Szegedy et al., CVPR 2015, as torchvision's RandomResizedCrop)."""
    for _ in range(10):
        area = height * width * rng.uniform(smallest, 1.0)
        aspect = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
        wide, high = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < wide <= width and 0 < high <= height:
            top, left = rng.integers(height - high + 1), rng.integers(width - wide + 1)
            return int(top), int(left), high, wide
    return centre_crop_box(height, width, 1.0)


def centre_crop_box(height: int, width: int, share: float) -> tuple[int, int, int, int]:
    """The central square whose side is ``share`` of the frame's shorter side."""
    side = round(share * min(height, width))
    return (height - side) // 2, (width - side) // 2, side, side


def crop_and_resize(frames: Tensor, boxes: Tensor, size: int) -> Tensor:
    """Crop frames, uint8 (B, V, T, height, width, 3), to ``boxes`` (B, 4) of
    `random_crop_box`, and resize them: (B, V, T, size, size, 3)."""
    parts = []
    for clip, (top, left, height, width) in zip(frames, boxes.tolist(), strict=True):
        part = clip[:, :, top : top + height, left : left + width].flatten(0, 1)
        part = part.permute(0, 3, 1, 2)
        part = _resized(part, (size, size))
        part = part.round().clamp(0, 255).byte() if part.is_floating_point() else part
        parts.append(part.permute(0, 2, 3, 1).view(*clip.shape[:2], size, size, 3))
    return torch.stack(parts)


def _resized(video: Tensor, size: tuple[int, int]) -> Tensor:
    """uint8 (N, 3, height, width) to (N, 3, *size). On CPUs uint8 is resized several times faster
    than float, and stays uint8; elsewhere only float is supported."""
    video = video if video.device.type == "cpu" else video.float()
    return F.interpolate(video, size, mode="bilinear", antialias=True)


def colour_jitter(pixels: Tensor, jitter: Tensor) -> Tensor:
    """Brightness, contrast, saturation and hue, in this order, of the pixels of each clip.

    ``pixels`` (B, N, 3) RGB in [0, 1], all pixels of a clip (its views and frames share one
    change of colours); ``jitter`` (B, 4): three factors (1 changes nothing) and the hue in full
    turns (0 changes nothing). Each step is linear in the colours:

    - brightness b: c -> b c
    - contrast k: c -> k c + (1 - k) m, with m the mean grey of the clip
    - saturation s: c -> s c + (1 - s) grey(c)
    - hue h: rotation by h full turns about the grey axis (so a third of a turn takes R to G to B)

    so that all of them are one matrix and one offset per clip, clamped to [0, 1] once at the end.
    """
    brightness, contrast, saturation, hue = jitter.to(pixels.dtype)[:, :, None, None].unbind(1)
    eye = torch.eye(3, dtype=pixels.dtype, device=pixels.device)
    luma = pixels.new_tensor(LUMA)
    grey = brightness * (pixels.mean(dim=1) @ luma)[:, None, None]
    to_grey = luma.expand(3, 3)
    matrix = _hue_rotation(hue) @ (saturation * eye + (1 - saturation) * to_grey)
    # Grey is left alone by saturation and hue, so the contrast's offset is, too.
    offset = ((1 - contrast) * grey).expand(-1, 1, 3)
    matrix = brightness * contrast * matrix
    return torch.baddbmm(offset, pixels, matrix.transpose(1, 2)).clamp_(0.0, 1.0)


def _hue_rotation(full_turns: Tensor) -> Tensor:
    """Rotations (B, 3, 3) about (1, 1, 1) / sqrt(3) by ``full_turns`` (B, 1, 1): Rodrigues."""
    angle = 2 * math.pi * full_turns
    axis = 1 / math.sqrt(3)
    cross = axis * full_turns.new_tensor([[0, -1, 1], [1, 0, -1], [-1, 1, 0]])
    outer = torch.full((3, 3), 1 / 3, dtype=full_turns.dtype, device=full_turns.device)
    eye = torch.eye(3, dtype=full_turns.dtype, device=full_turns.device)
    return angle.cos() * eye + angle.sin() * cross + (1 - angle.cos()) * outer
