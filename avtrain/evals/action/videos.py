"""Labelled videos of a set, their official folds, and windows of their frames; no sound."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

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
from avtrain.data.unreadable import LeftOut
from avtrain.errors import TrainingError
from shards.folders import open_folder
from shards.manifest import read_indices, read_manifest
from shards.reader import ShardSet
from shards.schema import VideoInfo

_UCF101_GROUP = re.compile(r"(v_\w+_g\d\d)_c\d\d")


@dataclass(frozen=True)
class Video:
    """A labelled video: sample ``index`` of a split, in shard ``shard`` of the whole set.
    ``origin`` is the recording that it was cut from."""

    split: str
    index: int
    shard: int
    origin: str
    label: str
    folds: tuple[str, ...] | None


@dataclass(frozen=True)
class Fold:
    """Positions in ``LabelledSet.videos`` that are trained on, and those that are tested."""

    name: str
    train: NDArray[np.int64]
    test: NDArray[np.int64]


class LabelledSet:
    """The labelled videos of all splits as one list, and their sorted ``classes``.

    A video's split is its role in the first fold, so that other folds need samples of all splits.
    Raises TrainingError for a set without labels.
    """

    def __init__(self, root: Path | str) -> None:
        self.root = open_folder(root)
        self.manifest = read_manifest(self.root)
        self.shards = {split: ShardSet(self.root, split) for split in self.manifest.splits}
        self.videos: list[Video] = []
        shard = 0
        for split, entries in self.manifest.splits.items():
            index = 0
            for content in read_indices(self.root, [entry.index for entry in entries]):
                for sample in content.samples:
                    if sample.label is not None:
                        origin = _origin(sample.source)
                        place = (split, index, shard, origin, str(sample.label), sample.folds)
                        self.videos.append(Video(*place))
                    index += 1
                shard += 1
        self.classes = sorted({video.label for video in self.videos})
        if not self.classes:
            raise TrainingError(
                f"the videos in {self.root} have no labels; build a set of labelled videos "
                "(`avprep build-shards` with --layout ucf101, hmdb51 or kinetics)"
            )
        number = {label: number for number, label in enumerate(self.classes)}
        self.labels = np.array([number[video.label] for video in self.videos])

    @property
    def has_folds(self) -> bool:
        return any(video.folds for video in self.videos)

    def folds(
        self, wanted: Sequence[int] | None, train_split: str, test_split: str
    ) -> tuple[Fold, ...]:
        """Official folds by their numbers (None: all), or the two splits of a set without them.

        Raises TrainingError for folds that there are not or that teach nothing.
        """
        there = max(len(video.folds or ()) for video in self.videos)
        if not self.has_folds:
            if wanted is not None:
                raise TrainingError(
                    f"{self.root} has no official folds; leave --folds out, and its splits "
                    f"{train_split!r} and {test_split!r} are used"
                )
            for split in (train_split, test_split):
                if split not in self.shards:
                    names = ", ".join(self.shards)
                    raise TrainingError(f"{self.root} has no split {split!r}; its splits: {names}")
            split_of = [video.split for video in self.videos]
            found = [_fold(test_split, split_of, train_split, test_split)]
        else:
            if (train_split, test_split) != ("train", "test"):
                raise TrainingError(
                    f"{self.root} has official folds, which say what is trained on and tested; "
                    "leave --train-split and --test-split out, or choose --folds"
                )
            numbers = range(1, there + 1) if wanted is None else wanted
            found = []
            for number in numbers:
                if not 1 <= number <= there:
                    raise TrainingError(f"{self.root} has folds 1 to {there}, and no fold {number}")
                roles = [(v.folds or ("unused",) * there)[number - 1] for v in self.videos]
                found.append(_fold(f"fold {number}", roles, "train", "test"))
        for fold in found:
            if not len(fold.test) or len(set(self.labels[fold.train])) < 2:
                raise TrainingError(
                    f"{fold.name} of {self.root} has {len(fold.train)} videos of "
                    f"{len(set(self.labels[fold.train]))} classes to train on and "
                    f"{len(fold.test)} to test; two classes and one video are the least"
                )
        return tuple(found)

    def info(self, position: int) -> VideoInfo:
        video = self.videos[position]
        return self.shards[video.split].info(video.index).video

    def frames(self, position: int, start: int, count: int) -> NDArray[np.uint8]:
        """Of the first view: RGB uint8 (count, height, width, 3)."""
        video = self.videos[position]
        return self.shards[video.split].frames(video.index, 0, start, count)


def _fold(name: str, roles: list[str], train: str, test: str) -> Fold:
    of = np.array(roles)
    return Fold(name, np.flatnonzero(of == train), np.flatnonzero(of == test))


def _origin(source: str) -> str:
    """The clips of a group of UCF101 are of one recording; other sets' videos name their own."""
    match = _UCF101_GROUP.fullmatch(source)
    return source if match is None else match[1]


def window_frames(video: VideoInfo, step: int, count: int, place: float) -> NDArray[np.int64]:
    """Numbers of a window's ``count`` frames, ``step`` apart: it begins at ``place``, from 0 to 1,
    of the room there is. Of a video shorter than a window the last frame stands still."""
    room = max(0, video.frames - (count - 1) * step - 1)
    first = min(int(place * (room + 1)), room)
    return np.minimum(first + step * np.arange(count), video.frames - 1)


@dataclass(frozen=True)
class VideoBatch:
    """B videos with W windows each, as read."""

    position: Tensor
    """(B,) in the set's list."""
    frames: Tensor
    """uint8 (B, W, T, height, width, 3) RGB."""
    jitter: Tensor
    """float32 (B, 4), see ``colour_jitter``."""
    mirror: Tensor
    """bool (B,)."""
    boxes: Tensor
    """int64 (B, 4): which part of the picture, see `random_crop_box`."""

    def pin_memory(self) -> VideoBatch:
        return VideoBatch(*(getattr(self, field.name).pin_memory() for field in fields(self)))

    def pictures(self, size: int, device: torch.device) -> Tensor:
        """Network input (B * W, 3, T, size, size) on a device."""
        frames, jitter, mirror = (
            part.to(device, non_blocking=True) for part in (self.frames, self.jitter, self.mirror)
        )
        whole = torch.tensor([0, 0, *frames.shape[3:5]])
        if not (self.boxes == whole).all():
            frames = crop_and_resize(frames, self.boxes, size)
        return prepare_video(frames, size, jitter, mirror).flatten(0, 1)


class Windows(Dataset[dict[str, NDArray[np.generic]]]):
    """Videos by (turn, position): a random window, augmented, and a random part of the picture, of
    ``smallest_part`` of its area at least (None: all of it); or with ``windows`` = W all of W
    windows that are evenly spread over the video, as they are, in the ``middle`` of the picture."""

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
        """The fields of a batch for one video, the same for the same place.

        Raises TrainingError where its frame rate does not fit.
        """
        turn, position = place
        info, key = self.videos.info(position), self.videos.videos[position].origin
        step = frame_step(key, info.fps, self.clip.fps)
        draw = Draw.from_seed([self.seed, turn, position], 1, self.clip, self.augment)
        places, jitter, mirror = [draw.video_position], draw.jitter, draw.mirror
        if self.windows is not None:
            places = [(number + 0.5) / self.windows for number in range(self.windows)]
            jitter, mirror = NO_JITTER.astype(np.float32), False
        wanted = np.stack([window_frames(info, step, self.clip.frames, at) for at in places])
        first = int(wanted.min())
        read = self.videos.frames(position, first, int(wanted.max()) - first + 1)
        return {
            "position": np.array(position),
            "frames": read[wanted - first],
            "jitter": jitter,
            "mirror": np.array(mirror),
            "boxes": np.array(self._box(turn, position, *read.shape[1:3])),
        }

    def _box(self, turn: int, position: int, height: int, width: int) -> tuple[int, int, int, int]:
        if self.windows is not None and self.middle < 1:
            return centre_crop_box(height, width, self.middle)
        if self.windows is None and self.smallest_part is not None:
            rng = np.random.default_rng([self.seed, turn, position, 2])
            return random_crop_box(rng, height, width, self.smallest_part)
        return 0, 0, height, width


Places = list[list[tuple[int, int]]]
"""For every batch the (turn, position) of its videos."""


def training_places(
    videos: LabelledSet, chosen: NDArray[np.int64], seed: int, turn: int, batch_size: int
) -> Places:
    """A turn: every chosen video once. Nothing is contrasted here, so that videos of one
    recording may stand in one batch."""
    names = [str(position) for position in chosen]
    shard = np.array([videos.videos[position].shard for position in chosen])
    steps = pass_batches(names, shard, seed, turn, batch_size)
    return [[(turn, int(chosen[number])) for number in step] for step in steps]


def load_videos(
    dataset: Windows, places: Places, workers: int, pin: bool, left_out: LeftOut
) -> Iterator[VideoBatch | None]:
    """See `read_ahead`."""
    return read_ahead(dataset, places, _collate, workers, pin, left_out)


def _collate(videos: list[dict[str, NDArray[np.generic]]]) -> VideoBatch:
    sizes = {video["frames"].shape for video in videos}
    if len(sizes) > 1:
        raise TrainingError(f"the videos' crops differ in size: {sorted(sizes)}")
    names = [field.name for field in fields(VideoBatch)]
    columns = [torch.from_numpy(np.stack([video[name] for video in videos])) for name in names]
    return VideoBatch(*columns)
