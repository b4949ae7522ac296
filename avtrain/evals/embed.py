"""Features of all views of all clips of a split, in one file."""

from __future__ import annotations

import tempfile
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from avtrain.config import Config
from avtrain.data.clips import Clips
from avtrain.data.draws import NO_AUGMENTATION, Draw
from avtrain.data.loader import load
from avtrain.data.plan import Plan
from avtrain.data.unreadable import Unreadable, messages
from avtrain.errors import TrainingError
from avtrain.evals.evaluation import progress_bar
from avtrain.evals.frozen import load_networks
from avtrain.own_networks import PAPERS, Factories
from avtrain.runtime.device import default_workers, pick_device
from shards.errors import ShardError
from shards.files import atomic_file
from shards.reader import ShardSet

BATCH_SIZE = 16
EMBEDDINGS = ("video", "predicted_video", "audio", "predicted_audio")


@dataclass(frozen=True)
class EmbedOptions:
    """``checkpoint`` None embeds with random networks. Each clip is embedded in ``windows`` fixed
    windows."""

    out: Path
    checkpoint: Path | None
    split: str = "train"
    windows: int = 1
    seed: int = 0
    device: str = "auto"
    workers: int | None = None
    factories: Factories = PAPERS


class AllViews(Clips):
    """Clips in fixed windows, with all views in the order of the set, and no augmentation."""

    def draw(self, epoch: int, index: int) -> Draw:
        views = np.arange(len(self.shards.info(index).views))
        return replace(super().draw(epoch, index), views=views)


def embed_split(
    root: Path | str, config: Config, options: EmbedOptions
) -> tuple[dict[str, NDArray[np.generic]], list[str]]:
    """Write features as npz to ``options.out``. Return its arrays, and a sentence for each clip
    that cannot be read and is left out.

    Arrays of N clips, W windows, V views and D features: ``keys`` and ``sources`` (N,);
    ``start_s`` (N, W), start of a window's second of audio in the clip, which the frames lie in;
    ``azimuth_deg`` and ``elevation_deg`` (N, V); ``video`` and ``audio`` (N, W, V, D), features of
    the backbones; and (N, W, V, E) of length 1, which pretraining compares: ``video_embedding``
    with ``predicted_video_embedding`` (from the audio), and ``audio_embedding`` with
    ``predicted_audio_embedding`` (from the video).

    ``config`` describes the networks, see `load_networks`.
    """
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=options.out.parent):
        pass  # a folder that cannot be written to is an error before the work
    shards = ShardSet(root, options.split)
    device = pick_device(options.device)
    workers = default_workers(device) if options.workers is None else options.workers
    unreadable = Unreadable.in_split(shards)
    views = _count_views(shards, unreadable)
    clip = replace(config.clip, views=views, moments=1)
    if options.checkpoint is None:  # a trained network's task decides which of its parts are used
        config = replace(config, clip=clip)
    networks = load_networks(
        options.checkpoint, config, shards, options.seed, device, workers, options.factories
    )
    clips = AllViews(shards, clip, config.sound, NO_AUGMENTATION, options.seed, options.windows)
    plan = Plan(shards, options.seed, BATCH_SIZE)
    sizes = {"video": networks.video_dim, "audio": networks.audio_dim}
    sizes |= {f"{name}_embedding": config.model.embedding for name in EMBEDDINGS}
    shape = (len(shards), options.windows, views)
    arrays = {name: np.zeros((*shape, size), np.float32) for name, size in sizes.items()}
    start_s = np.zeros(shape[:2])
    pin = device.type == "cuda"
    with (
        closing(
            load(clips, plan, range(options.windows), 0, workers, pin, unreadable=unreadable)
        ) as batches,
        progress_bar(None, len(shards) * options.windows) as bar,
    ):
        for step, batch in batches:
            rows = batch.index.numpy()
            batch = batch.to(device)
            found = {"video": networks.video(batch), "audio": networks.audio(batch)}
            compared = networks.embeddings(found["video"], found["audio"], batch.directions)
            found |= {f"{name}_embedding": getattr(compared, name) for name in EMBEDDINGS}
            for name, value in found.items():
                arrays[name][rows, step.epoch] = value.cpu().numpy()
            for row in rows.tolist():
                start_s[row, step.epoch] = clips.starts_s(row, clips.draw(step.epoch, row))[0]
            bar.update(len(rows))
    kept = unreadable.readable_clips
    if unreadable.faults:
        arrays = {name: array[kept] for name, array in arrays.items()}
    directions = [shards.info(int(index)).views for index in kept]
    content: dict[str, NDArray[np.generic]] = {
        "keys": np.array(shards.keys)[kept],
        "sources": np.array(shards.sources)[kept],
        "start_s": start_s[kept],
        "azimuth_deg": np.array([[view.azimuth_deg for view in clip] for clip in directions]),
        "elevation_deg": np.array([[view.elevation_deg for view in clip] for clip in directions]),
        **arrays,
    }
    with atomic_file(options.out) as file:
        np.savez(file, **content)  # type: ignore[arg-type]
    return content, messages(unreadable)


def _count_views(shards: ShardSet, unreadable: Unreadable) -> int:
    """Number of views of each clip; faults of records are added to ``unreadable``.

    Raises TrainingError where clips differ in it.
    """
    counts = set()
    for index in range(len(shards)):
        try:
            counts.add(len(shards.info(index).views))
        except ShardError as error:
            unreadable.add([(index, str(error))])
    if len(counts) > 1:
        raise TrainingError(
            f"clips of {shards.root} have {min(counts)} to {max(counts)} views, which do not fit "
            "into one array; build the set with the same --views for all"
        )
    return counts.pop()
