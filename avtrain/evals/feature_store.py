"""Features of frozen networks, computed once: evaluations of the same networks can share them."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from avtrain.data.batch import Batch
from avtrain.data.clips import Clips, first_info
from avtrain.data.loader import load
from avtrain.data.plan import Plan
from avtrain.data.unreadable import Unreadable, read_faults
from avtrain.errors import TrainingError
from avtrain.evals.frozen import Networks
from avtrain.networks.models import Embeddings
from avtrain.runtime.torch_file import plain, read_torch
from shards.files import atomic_file
from shards.reader import ShardSet

SHARED_VIEWS = 4
"""Views per clip that shared features have, the default of all evaluations; one that needs fewer
takes the first of them."""
BATCH_SIZE = 32
"""Batch size of AVC-Bin and AVSA-Bin, whose protocols set it: features can be shared between
evaluations only in the same batches."""
Part = Literal["video", "audio", "turned"]
PARTS: tuple[Part, ...] = ("video", "audio", "turned")
"""``turned``: the audio rotated by `Batch.misaligned`. Kept files hold these names."""


def check_finite(features: Tensor) -> None:
    """Raise TrainingError for features that are not finite."""
    if not features.isfinite().all():
        raise TrainingError(
            "the network's features are not all finite: its training diverged; take an earlier "
            "checkpoint, or train it again with a lower --lr"
        )


@dataclass(frozen=True, kw_only=True)
class WindowOptions:
    """Options of the evaluations of frozen features: the views of a clip, and the fixed windows of
    a test clip. ``keep_features``: folder that keeps computed features for other evaluations;
    those found there are read."""

    views: int = SHARED_VIEWS
    windows: int = 5
    keep_features: Path | None = None

    def views_to_read(self, shards: ShardSet) -> int:
        """Views per clip to read: more than ``views`` where features are shared."""
        if self.keep_features is None:
            return self.views
        return max(self.views, min(SHARED_VIEWS, len(first_info(shards).views)))


@dataclass(frozen=True)
class FrozenBatch:
    """Features of B clips with V views, on the CPU."""

    index: Tensor
    """(B,), sample of the set."""
    directions: Tensor
    """(B, V, 3), see `Batch`."""
    features: dict[Part, Tensor]
    """(B, V, D) of each part."""

    @classmethod
    def compute(cls, networks: Networks, batch: Batch, parts: Sequence[Part]) -> FrozenBatch:
        """``parts`` include audio or turned audio; ``batch`` has one moment per clip."""
        batch = batch.to(networks.device)
        features: dict[Part, Tensor] = {}
        if "video" in parts:
            features["video"] = networks.video(batch).cpu()
        matrices = {"audio": batch.matrices, "turned": batch.misaligned}
        audio_parts = [part for part in parts if part in matrices]
        # As if the clip had more views: its spectra are computed once.
        joined = torch.cat([matrices[part] for part in audio_parts], dim=2)
        audio = networks.audio(batch, joined).cpu().chunk(len(audio_parts), dim=1)
        features |= dict(zip(audio_parts, audio, strict=True))
        return cls(batch.index.cpu(), batch.directions.cpu(), features)

    def first(self, views: int) -> FrozenBatch:
        """The first ``views`` of each clip."""
        features = {part: values[:, :views] for part, values in self.features.items()}
        return FrozenBatch(self.index, self.directions[:, :views], features)


@dataclass(frozen=True)
class FrozenFeatures:
    """Features of a split's clips, epoch by epoch."""

    networks: Networks
    clips: Clips
    plan: Plan
    workers: int
    unreadable: Unreadable
    options: WindowOptions

    def batches(self, epoch: int, parts: Sequence[Part]) -> Generator[FrozenBatch]:
        """Batches of an epoch in the plan's order, with ``parts`` at least; unreadable clips are
        left out. To be closed, as what `load` returns."""
        folder = self.options.keep_features
        if folder is None:
            batches = self._compute(epoch, parts)
        elif (path := folder / f"{self._name(epoch)}.pt").exists():
            batches = self._read(path)
        else:
            with closing(self._compute(epoch, PARTS)) as running:
                computed = list(running)
            self._write(path, computed)
            batches = (batch for batch in computed)
        with closing(batches):
            for batch in batches:
                yield batch.first(self.options.views)

    def _compute(self, epoch: int, parts: Sequence[Part]) -> Generator[FrozenBatch]:
        epochs, pin = range(epoch, epoch + 1), self.networks.device.type == "cuda"
        unreadable = self.unreadable
        with closing(
            load(self.clips, self.plan, epochs, 0, self.workers, pin, unreadable=unreadable)
        ) as loaded:
            for _, batch in loaded:
                yield FrozenBatch.compute(self.networks, batch, parts)

    def _name(self, epoch: int) -> str:
        """Digest of everything that the features depend on."""
        clips, plan = self.clips, self.plan
        shards = clips.shards
        settings = [
            asdict(self.networks.described) | {"checkpoint": None},
            asdict(clips.clip),
            asdict(clips.sound),
            asdict(clips.augment),
            [clips.seed, clips.windows, plan.seed, plan.batch_size, plan.clips_per_source, epoch],
            [shards.sha256, shards.split],
        ]
        if self.networks.calibrated_on:
            settings.append(list(self.networks.calibrated_on))
        return hashlib.sha256(repr(settings).encode()).hexdigest()[:24]

    def _write(self, path: Path, batches: list[FrozenBatch]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        content: dict[str, Any] = {
            "batches": [vars(batch) for batch in batches],
            "left_out": self.unreadable.faults,
        }
        buffer = io.BytesIO()
        torch.save(content, buffer)
        with atomic_file(path) as file:
            file.write(buffer.getbuffer())

    def _read(self, path: Path) -> Generator[FrozenBatch]:
        count = len(self.clips.shards)
        try:
            content = plain(path, read_torch(path))
            if not isinstance(content, dict) or content.keys() != {"batches", "left_out"}:
                raise ValueError("it does not hold features")
            faults = read_faults(content["left_out"], count)
            if not isinstance(content["batches"], list):
                raise ValueError("its batches are no list")
            batches = [self._checked(batch, count) for batch in content["batches"]]
        except OSError as error:
            raise TrainingError(f"{path} cannot be read: {error.strerror}") from None
        except ValueError as error:
            raise TrainingError(
                f"{path} is damaged ({error}); delete it, and it is computed again"
            ) from None
        self.unreadable.add(faults.items())
        yield from batches

    def _checked(self, batch: Any, count: int) -> FrozenBatch:
        """A batch as `_write` wrote it, of a set of ``count`` clips. Raises ValueError."""
        if not isinstance(batch, dict) or batch.keys() != FrozenBatch.__annotations__.keys():
            raise ValueError("a batch has other parts")
        index, directions, features = batch["index"], batch["directions"], batch["features"]
        if not isinstance(features, dict) or features.keys() != {*PARTS}:
            raise ValueError("a batch has other features")
        if not all(isinstance(part, Tensor) for part in (index, directions, *features.values())):
            raise ValueError("a batch holds something that is no tensor")
        dims = dict.fromkeys(PARTS, self.networks.audio_dim) | {"video": self.networks.video_dim}
        if (
            not index.shape == directions.shape[:1]
            or directions.shape[2:] != (3,)
            or directions.shape[1] < self.options.views
            or any(
                features[part].shape != (*directions.shape[:2], dim) for part, dim in dims.items()
            )
        ):
            raise ValueError("a batch has another shape")
        floats = {part.dtype for part in (directions, *features.values())}
        if index.dtype != torch.int64 or floats != {torch.float32}:
            raise ValueError("a batch has numbers of another type")
        if not ((index >= 0) & (index < count)).all():
            raise ValueError("a batch names clips that the set does not have")
        return FrozenBatch(index, directions, features)


def embed(networks: Networks, batch: FrozenBatch) -> Embeddings:
    """Embeddings of a batch, on the CPU. Raises TrainingError for features that are not finite."""
    features = batch.features
    for values in features.values():
        check_finite(values)
    found = networks.embeddings(features["video"], features["audio"], batch.directions)
    parts = (found.predicted_audio, found.audio, found.predicted_video, found.video)
    return Embeddings(*(part.cpu() for part in parts))


def join(parts: list[tuple[Embeddings, Tensor]]) -> tuple[Embeddings, Tensor]:
    """Embeddings in the order of the set's samples, and the samples (N,)."""
    names = ("predicted_audio", "audio", "predicted_video", "video")
    order = torch.cat([index for _, index in parts])
    place = order.argsort()
    joined = (torch.cat([getattr(part, name) for part, _ in parts])[place] for name in names)
    return Embeddings(*joined), order[place]
