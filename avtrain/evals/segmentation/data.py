"""Label maps, and the clips around their moments."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from avtrain.data.batch import Batch, collate
from avtrain.data.clips import Clips
from avtrain.data.loader import read_ahead
from avtrain.data.sampling import pass_batches
from avtrain.data.unreadable import Unreadable
from avtrain.errors import TrainingError
from shards.errors import ShardError
from shards.reader import ShardSet

VOID = 255
SAMPLED_CLIPS = 512
SAMPLED_MAPS = 8

Place = tuple[int, int]
"""(pass, sample) in training, (number of the map, sample) in a test."""
Sample = tuple[dict[str, NDArray[np.generic]], NDArray[np.uint8]]


@dataclass(frozen=True)
class Classes:
    """Class k has the pixels with the label ``ids[k]``; all other pixels are void."""

    ids: tuple[int, ...]
    names: tuple[str, ...]

    def from_labels(self, labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Classes of labels, `VOID` for labels without one."""
        table = np.full(256, VOID, dtype=np.uint8)
        table[list(self.ids)] = np.arange(len(self.ids))
        return np.asarray(table[labels])


_YT360 = {
    **{0: "person", 2: "car", 4: "airplane", 8: "boat", 3: "motorcycle", 6: "train"},
    **{62: "tv", 56: "chair", 60: "dining table", 55: "cake", 59: "bed", 25: "umbrella"},
    **{5: "bus", 7: "truck", 58: "potted plant", 66: "keyboard", 120: "sky", 132: "wall"},
    **{117: "tree", 119: "ceiling", 130: "building", 123: "floor", 126: "grass", 101: "road"},
    **{125: "mountain", 124: "pavement", 106: "snow", 127: "dirt", 131: "rock", 104: "sea"},
    **{103: "sand", 116: "window"},
}
YT360 = Classes(tuple(_YT360), tuple(_YT360.values()))
"""The 32 panoptic classes of COCO that are evaluated on YT-360, in the published order."""


def find_classes(shards: ShardSet) -> Classes:
    """Every label but 255 in maps spread evenly over the split: up to `SAMPLED_MAPS` of each of up
    to `SAMPLED_CLIPS` clips, in all views. Raises TrainingError if there is none."""
    found = np.zeros(256, dtype=bool)
    for sample in spread(len(shards), SAMPLED_CLIPS):
        with suppress(ShardError):  # an unreadable clip is reported when it is loaded
            info = shards.info(sample)
            for number in spread(len(info.map_times_s or ()), SAMPLED_MAPS):
                for view in range(len(info.views)):
                    found[shards.label_map(sample, view, number)] = True
    ids = tuple(np.nonzero(found[:VOID])[0].tolist())
    if not ids:
        raise TrainingError(
            f"no label maps were found in the {shards.where}; build it "
            "from a folder with segmentation/"
        )
    return Classes(ids, tuple(str(number) for number in ids))


def spread(length: int, count: int) -> list[int]:
    """Up to ``count`` different numbers below ``length``, spread evenly."""
    count = min(length, count)
    return [int((place + 0.5) * length / count) for place in range(count)]


@dataclass(frozen=True)
class LabelledBatch:
    """Clips of one moment, and the truth around it: classes or `VOID`, uint8 (B, V, height, width),
    mirrored where the clip is."""

    clips: Batch
    truth: Tensor

    def pin_memory(self) -> LabelledBatch:
        return LabelledBatch(self.clips.pin_memory(), self.truth.pin_memory())

    def to(self, device: torch.device) -> LabelledBatch:
        return LabelledBatch(self.clips.to(device), self.truth.to(device, non_blocking=True))


class LabelledMoments(Dataset[Sample]):
    """Moments with label maps, as clips and their truth.

    ``samples`` are the clips with label maps, and ``maps`` their numbers of maps. In training the
    map, the views and the augmentation are random; in a test (``testing``) the place names the map,
    and all views are read.
    """

    def __init__(
        self, clips: Clips, classes: Classes, testing: bool, unreadable: Unreadable
    ) -> None:
        """Raises TrainingError for a split without label maps."""
        self.clips = clips
        self.classes = classes
        self.testing = testing
        self.unreadable = unreadable
        shards = clips.shards
        counts = np.zeros(len(shards), dtype=np.int64)
        for sample in range(len(shards)):
            try:
                counts[sample] = len(shards.info(sample).map_times_s or ())
            except ShardError as error:
                self.unreadable.add([(sample, str(error))])
        self.samples: NDArray[np.int64] = np.nonzero(counts)[0]
        self.maps: NDArray[np.int64] = counts[self.samples]
        if not len(self.samples):
            raise TrainingError(
                f"the {shards.where} has no label maps; build it from a folder with segmentation/"
            )

    def __getitem__(self, place: Place) -> Sample:
        first, index = place
        info = self.clips.shards.info(index)
        times = info.map_times_s or ()
        if self.testing:
            number = first
            draw = replace(self.clips.draw(0, index), views=np.arange(len(info.views)))
        else:
            rng = np.random.default_rng([self.clips.seed, first, index, 1])
            number = int(rng.integers(len(times)))
            draw = self.clips.draw(first, index)
        clip = self.clips.read(index, replace(draw, middle_s=times[number]))
        views = [self.clips.shards.label_map(index, int(view), number) for view in draw.views]
        truth = self.classes.from_labels(np.stack(views))
        return clip, np.ascontiguousarray(truth[..., ::-1]) if draw.mirror else truth

    def train_batches(
        self, epoch: int, batch_size: int, clips_per_source: int | None
    ) -> list[list[Place]]:
        """Places of an epoch's batches, a function of the set, the seed and the epoch alone."""
        sources = [self.clips.shards.sources[sample] for sample in self.samples]
        shard_index = self.clips.shards.shard_index[self.samples]
        seed, each = self.clips.seed, clips_per_source is not None
        passes = clips_per_source or 1
        return [
            [(number, int(sample)) for sample in self.samples[step]]
            for number in range(epoch * passes, (epoch + 1) * passes)
            for step in pass_batches(sources, shard_index, seed, number, batch_size, each)
        ]

    def test_batches(self, maps: int, batch_size: int) -> list[list[Place]]:
        """Places of batches with up to ``maps`` evenly spread maps of every clip."""
        places = [
            (number, int(sample))
            for sample, count in zip(self.samples, self.maps, strict=True)
            for number in spread(int(count), maps)
        ]
        return [places[at : at + batch_size] for at in range(0, len(places), batch_size)]

    def load(
        self, batches: Sequence[list[Place]], workers: int, device: torch.device
    ) -> Generator[LabelledBatch | None]:
        """The batches on the device, None where no sample is readable; see `read_ahead`."""
        pin = device.type == "cuda"
        loaded = read_ahead(self, batches, _collate, workers, pin, self.unreadable)
        with closing(loaded):
            for batch in loaded:
                yield None if batch is None else batch.to(device)


def _collate(samples: list[Sample]) -> LabelledBatch:
    clips, truth = zip(*samples, strict=True)
    return LabelledBatch(collate(list(clips)), torch.from_numpy(np.stack(truth)))
