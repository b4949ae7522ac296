"""Windows of the frames of labelled videos; no audio."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from avtrain.config import AugmentConfig, ClipConfig
from avtrain.data.augment import centre_crop_box, crop_and_resize, prepare_video, random_crop_box
from avtrain.data.clips import frame_step
from avtrain.data.draws import NO_JITTER, Draw
from avtrain.data.loader import read_ahead
from avtrain.data.sampling import pass_batches
from avtrain.data.unreadable import Unreadable
from avtrain.errors import TrainingError
from avtrain.evals.action.folds import LabelledSet
from shards.schema import VideoInfo


def window_frames(video: VideoInfo, step: int, count: int, place: float) -> NDArray[np.int64]:
    """Numbers of a window's ``count`` frames, ``step`` apart.

    ``place``, from 0 to 1, sets the start between the first and the last possible one. A video
    shorter than a window stands still on its last frame.
    """
    last_start = max(0, video.frames - (count - 1) * step - 1)
    first = min(int(place * (last_start + 1)), last_start)
    return np.minimum(first + step * np.arange(count), video.frames - 1)


@dataclass(frozen=True)
class VideoBatch:
    """W windows of each of B videos, as read."""

    position: Tensor
    """(B,), positions in ``LabelledSet.videos``."""
    frames: Tensor
    """uint8 (B, W, T, height, width, 3) RGB."""
    jitter: Tensor
    """float32 (B, 4), see ``colour_jitter``."""
    mirror: Tensor
    """bool (B,)."""
    boxes: Tensor
    """int64 (B, 4), part of the frame, see `random_crop_box`."""

    def pin_memory(self) -> VideoBatch:
        return VideoBatch(*(getattr(self, field.name).pin_memory() for field in fields(self)))

    def video_input(self, size: int, device: torch.device) -> Tensor:
        """Network input (B * W, 3, T, size, size) on ``device``."""
        frames, jitter, mirror = (
            part.to(device, non_blocking=True) for part in (self.frames, self.jitter, self.mirror)
        )
        whole = torch.tensor([0, 0, *frames.shape[3:5]])
        if not (self.boxes == whole).all():
            frames = crop_and_resize(frames, self.boxes, size)
        return prepare_video(frames, size, jitter, mirror).flatten(0, 1)


class VideoWindows(Dataset[dict[str, NDArray[np.generic]]]):
    """Windows of videos by (pass, position).

    In training one random, augmented window of a random part of the frame, at least
    ``smallest_part`` of its area (None: the whole frame). With ``windows`` = W, W windows spread
    evenly over the video, not augmented, of the ``middle`` of the frame (a share of its side).
    """

    def __init__(
        self,
        videos: LabelledSet,
        clip: ClipConfig,
        augment: AugmentConfig,
        seed: int,
        windows: int | None = None,
        smallest_part: float | None = None,
        middle: float = 1.0,
    ) -> None:
        self.smallest_part, self.middle = smallest_part, middle
        self.videos = videos
        self.clip = replace(clip, views=1, moments=1)
        self.augment = augment
        self.seed = seed
        self.windows = windows

    def __getitem__(self, place: tuple[int, int]) -> dict[str, NDArray[np.generic]]:
        """Fields of a batch for one video, the same for the same place.

        Raises TrainingError if its frame rate is no multiple of the network's.
        """
        number, position = place
        info, key = self.videos.info(position), self.videos.videos[position].origin
        step = frame_step(key, info.fps, self.clip.fps)
        draw = Draw.from_seed([self.seed, number, position], 1, self.clip, self.augment)
        places, jitter, mirror = [draw.video_position], draw.jitter, draw.mirror
        if self.windows is not None:
            places = [(window + 0.5) / self.windows for window in range(self.windows)]
            jitter, mirror = NO_JITTER.astype(np.float32), False
        frames = np.stack([window_frames(info, step, self.clip.frames, at) for at in places])
        first = int(frames.min())
        read = self.videos.frames(position, first, int(frames.max()) - first + 1)
        return {
            "position": np.array(position),
            "frames": read[frames - first],
            "jitter": jitter,
            "mirror": np.array(mirror),
            "boxes": np.array(self._box(number, position, *read.shape[1:3])),
        }

    def _box(
        self, number: int, position: int, height: int, width: int
    ) -> tuple[int, int, int, int]:
        if self.windows is not None and self.middle < 1:
            return centre_crop_box(height, width, self.middle)
        if self.windows is None and self.smallest_part is not None:
            rng = np.random.default_rng([self.seed, number, position, 2])
            return random_crop_box(rng, height, width, self.smallest_part)
        return 0, 0, height, width


Places = list[list[tuple[int, int]]]
"""(pass, position) of the videos of each batch."""


def training_places(
    videos: LabelledSet, chosen: NDArray[np.int64], seed: int, number: int, batch_size: int
) -> Places:
    """Pass ``number``: every chosen video once. No loss contrasts videos here, so that one batch
    may have several videos of one recording."""
    names = [str(position) for position in chosen]
    shard = np.array([videos.videos[position].shard for position in chosen])
    steps = pass_batches(names, shard, seed, number, batch_size)
    return [[(number, int(chosen[video])) for video in step] for step in steps]


def load_videos(
    dataset: VideoWindows, places: Places, workers: int, pin: bool, unreadable: Unreadable
) -> Generator[VideoBatch | None]:
    """Batches of these places, None where no video is readable; see `read_ahead`."""
    return read_ahead(dataset, places, _collate, workers, pin, unreadable)


def _collate(videos: list[dict[str, NDArray[np.generic]]]) -> VideoBatch:
    sizes = {video["frames"].shape for video in videos}
    if len(sizes) > 1:
        raise TrainingError(f"the videos' crops differ in size: {sorted(sizes)}")
    names = [field.name for field in fields(VideoBatch)]
    columns = [torch.from_numpy(np.stack([video[name] for video in videos])) for name in names]
    return VideoBatch(*columns)
