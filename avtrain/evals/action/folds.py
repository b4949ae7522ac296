"""Labelled videos of a set, and the folds that say which are trained on and which tested."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from avtrain.errors import TrainingError
from shards.folders import open_folder
from shards.manifest import read_indices, read_manifest
from shards.reader import ShardSet
from shards.schema import VideoInfo

_UCF101_GROUP = re.compile(r"(v_\w+_g\d\d)_c\d\d")
_HMDB51_FILM = re.compile(r"(.+_(?:goo|med|bad))_\d+")


@dataclass(frozen=True)
class Video:
    """A labelled video: sample ``index`` of a split, in shard ``shard`` of the whole set.
    ``origin`` names the recording that it was cut from, ``folds`` its role in each fold."""

    split: str
    index: int
    shard: int
    origin: str
    label: str
    folds: tuple[str, ...] | None


@dataclass(frozen=True)
class Fold:
    """Positions in ``LabelledSet.videos`` of the training videos and of the test videos."""

    name: str
    train: NDArray[np.int64]
    test: NDArray[np.int64]


class LabelledSet:
    """The labelled videos of all splits as one list, and their sorted ``classes``.

    The split of a video is its role in the first fold, so that other folds need all splits. Raises
    TrainingError for a set without labels.
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
        self, numbers: Sequence[int] | None, train_split: str, test_split: str
    ) -> tuple[Fold, ...]:
        """Official folds by their numbers (None: all), or one fold of the two splits of a set
        without them.

        Raises TrainingError for folds that do not exist, or in which nothing can be learned.
        """
        count = max(len(video.folds or ()) for video in self.videos)
        if not self.has_folds:
            if numbers is not None:
                raise TrainingError(
                    f"{self.root} has no official folds; leave --folds out, and its splits "
                    f"{train_split!r} and {test_split!r} are used"
                )
            for split in (train_split, test_split):
                if split not in self.shards:
                    names = ", ".join(self.shards)
                    raise TrainingError(f"{self.root} has no split {split!r}; its splits: {names}")
            splits = [video.split for video in self.videos]
            found = [_fold(test_split, splits, train_split, test_split)]
        else:
            if (train_split, test_split) != ("train", "test"):
                raise TrainingError(
                    f"{self.root} has official folds, which say what is trained on and tested; "
                    "leave --train-split and --test-split out, or choose --folds"
                )
            numbers = range(1, count + 1) if numbers is None else numbers
            found = []
            for number in numbers:
                if not 1 <= number <= count:
                    raise TrainingError(f"{self.root} has folds 1 to {count}, and no fold {number}")
                roles = [(v.folds or ("unused",) * count)[number - 1] for v in self.videos]
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
        """Frames of the first view, RGB uint8 (count, height, width, 3)."""
        video = self.videos[position]
        return self.shards[video.split].frames(video.index, 0, start, count)


def _fold(name: str, roles: list[str], train: str, test: str) -> Fold:
    role = np.array(roles)
    return Fold(name, np.flatnonzero(role == train), np.flatnonzero(role == test))


def _origin(source: str) -> str:
    """UCF101 cuts all clips of a group from one recording, HMDB51 those of a name without its
    number from one film; in other sets each video is its own."""
    match = _UCF101_GROUP.fullmatch(source) or _HMDB51_FILM.fullmatch(source)
    return source if match is None else match[1]
