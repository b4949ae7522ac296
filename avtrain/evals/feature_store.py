"""What frozen networks make of clips, made once: evaluations of the same networks can share it."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from avtrain.data.batch import Batch
from avtrain.data.clips import Clips, first_info
from avtrain.data.loader import load
from avtrain.data.plan import Plan
from avtrain.data.unreadable import LeftOut
from avtrain.errors import TrainingError
from avtrain.evals.frozen import Networks
from shards.files import atomic_file
from shards.reader import ShardSet

SHARED_VIEWS = 4
"""Evaluations look at so many by default. Where they share, all have so many, and those that ask
for fewer take the first of them."""
BATCH_SIZE = 32
"""As of the protocols of AVC-Bin and AVSA-Bin: what is kept is kept by epochs of batches."""
Part = Literal["video", "audio", "turned"]
PARTS: tuple[Part, ...] = ("video", "audio", "turned")


@dataclass(frozen=True)
class FrozenBatch:
    """Of B clips with V views, on the CPU."""

    index: Tensor
    """(B,) which samples of the set."""
    directions: Tensor
    """(B, V, 3), see `Batch`."""
    features: dict[Part, Tensor]
    """(B, V, D) of pictures, of sound, and of the sound under `Batch.misaligned`."""

    @classmethod
    def of(cls, networks: Networks, batch: Batch, parts: Sequence[Part]) -> FrozenBatch:
        """``parts`` have a sound among them; of one moment."""
        batch = batch.to(networks.device)
        features: dict[Part, Tensor] = {}
        if "video" in parts:
            features["video"] = networks.video(batch).cpu()
        sounds = {"audio": batch.matrices, "turned": batch.misaligned}
        heard = [part for part in parts if part in sounds]
        # As of one clip with more views: its spectra are made once.
        found = networks.audio(batch, torch.cat([sounds[part] for part in heard], dim=2))
        features |= dict(zip(heard, found.cpu().chunk(len(heard), dim=1), strict=True))
        return cls(batch.index.cpu(), batch.directions.cpu(), features)

    def first(self, views: int) -> FrozenBatch:
        """The first ``views`` of each clip."""
        features = {part: of[:, :views] for part, of in self.features.items()}
        return FrozenBatch(self.index, self.directions[:, :views], features)


@dataclass(frozen=True)
class FrozenFeatures:
    """The features of a split's clips at ``views`` views, epoch by epoch. ``folder``: where what is
    made is kept for other evaluations, and looked for first."""

    networks: Networks
    clips: Clips
    plan: Plan
    workers: int
    left_out: LeftOut
    views: int
    folder: Path | None = None

    def batches(self, epoch: int, parts: Sequence[Part]) -> Iterator[FrozenBatch]:
        """Those of an epoch in the plan's order, with ``parts`` at least. Clips that cannot be read
        are left out."""
        if self.folder is None:
            found = self._made(epoch, parts)
        elif (path := self.folder / f"{self._name(epoch)}.pt").exists():
            found = self._read(path)
        else:
            made = list(self._made(epoch, PARTS))
            self._write(path, made)
            found = iter(made)
        for batch in found:
            yield batch.first(self.views)

    def _made(self, epoch: int, parts: Sequence[Part]) -> Iterator[FrozenBatch]:
        epochs, pin = range(epoch, epoch + 1), self.networks.device.type == "cuda"
        found = load(self.clips, self.plan, epochs, 0, self.workers, pin, left_out=self.left_out)
        for _, batch in found:
            yield FrozenBatch.of(self.networks, batch, parts)

    def _name(self, epoch: int) -> str:
        """The same where the same features would be made."""
        clips, plan = self.clips, self.plan
        shards = clips.shards
        settings = [
            asdict(self.networks.described) | {"checkpoint": None},
            asdict(clips.clip),
            asdict(clips.sound),
            asdict(clips.augment),
            [clips.seed, clips.windows, plan.seed, plan.batch_size, plan.clips_per_source, epoch],
            [shards.manifest.sha256, shards.split],
        ]
        return hashlib.sha256(repr(settings).encode()).hexdigest()[:24]

    def _write(self, path: Path, made: list[FrozenBatch]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        batches = [vars(batch) for batch in made]
        buffer = io.BytesIO()
        content: dict[str, Any] = {"batches": batches, "left_out": self.left_out.faults}
        torch.save(content, buffer)
        with atomic_file(path) as file:
            file.write(buffer.getbuffer())

    def _read(self, path: Path) -> Iterator[FrozenBatch]:
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
            self.left_out.add(content["left_out"].items())
            batches = [FrozenBatch(**batch) for batch in content["batches"]]
        except TrainingError:
            raise
        except Exception as error:  # torch has no common error for files it cannot read
            raise TrainingError(
                f"{path} is damaged ({error!r:.80}); delete it, and it is made again"
            ) from None
        yield from batches


def views_read(views: int, shards: ShardSet, folder: Path | None) -> int:
    """Of each clip, for an evaluation that asks for ``views``."""
    if folder is None:
        return views
    return max(views, min(SHARED_VIEWS, len(first_info(shards).views)))
