"""Matched and mismatched pairs of frozen video and audio features."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from avtrain.errors import TrainingError
from avtrain.evals.binary.protocol import BinaryProtocol, BinaryTask, VideoInput
from avtrain.evals.feature_store import PARTS, FrozenBatch, FrozenFeatures, Part, check_finite


@dataclass(frozen=True)
class Pairs:
    """Features (N, V, inputs) of video and audio side by side, matched and mismatched, on the CPU;
    ``index`` (N,) names the clips, and ``epoch`` (N,) the epoch, or the fixed window."""

    matched: Tensor
    mismatched: Tensor
    index: Tensor
    epoch: Tensor

    @classmethod
    def join(cls, parts: Sequence[Pairs]) -> Pairs:
        columns = ("matched", "mismatched", "index", "epoch")
        return cls(*(torch.cat([getattr(part, name) for part in parts]) for name in columns))

    def choose(self, protocol: BinaryProtocol, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Training pairs in random order, and their labels (1: matched)."""
        count = len(self.index)
        if protocol.paired:
            label = torch.arange(2 * count) % 2
            clip = torch.arange(2 * count) // 2
        else:
            label = torch.randint(2, (count,), generator=generator)
            clip = torch.arange(count)
        order = torch.randperm(len(label), generator=generator)
        label, clip = label[order], clip[order]
        pairs = torch.where(label.view(-1, 1, 1) == 1, self.matched[clip], self.mismatched[clip])
        return pairs, label


@dataclass(frozen=True)
class PairReader:
    """Pairs from the frozen features of a split; ``bar`` counts the clips."""

    task: BinaryTask
    video_input: VideoInput
    features: FrozenFeatures
    bar: tqdm[Any]

    def read(self, epochs: range) -> Generator[Pairs]:
        """Pairs of these epochs, batch by batch; to be closed, as what `load` returns.

        Raises TrainingError where there is none.
        """
        found = False
        parts: tuple[Part, ...] = PARTS if self.task == "avsa" else ("video", "audio")
        for epoch in epochs:
            with closing(self.features.batches(epoch, parts)) as batches:
                for batch in batches:
                    self.bar.update(len(batch.index))
                    # The mismatched audio of AVC is another clip's: a batch of one clip has none.
                    if self.task == "avsa" or len(batch.index) > 1:
                        found = True
                        yield self._pairs(batch, epoch)
        if not found:
            shards = self.features.clips.shards
            raise TrainingError(
                f"{shards.where} has no two clips in a batch that can be "
                "read, and so no pairs (`avprep verify` says what is damaged)"
            )

    def read_round(self, number: int) -> Pairs:
        """All pairs of one epoch."""
        with closing(self.read(range(number, number + 1))) as pairs:
            return Pairs.join(list(pairs))

    def _pairs(self, batch: FrozenBatch, epoch: int) -> Pairs:
        networks, video = self.features.networks, batch.features["video"]
        for features in batch.features.values():
            check_finite(features)
        if networks.transformer and self.video_input != "feature":
            predicted = networks.predicted_audio(video, batch.directions).cpu()
            both = self.video_input == "both"
            video = torch.cat([video, predicted], dim=-1) if both else predicted
        audio = batch.features["audio"]
        # For AVC the next clip's audio: no batch has two clips of one source.
        wrong = batch.features["turned"] if self.task == "avsa" else audio.roll(1, dims=0)
        return Pairs(
            torch.cat([video, audio], dim=-1),
            torch.cat([video, wrong], dim=-1),
            batch.index,
            torch.full_like(batch.index, epoch),
        )
