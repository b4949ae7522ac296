"""Features of all views of all clips, in one file."""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from avtrain.config import Config
from avtrain.data.clips import Clips
from avtrain.data.draws import NO_AUGMENTATION, Draw
from avtrain.data.loader import load
from avtrain.data.plan import Plan
from avtrain.data.unreadable import LeftOut, sentences
from avtrain.errors import TrainingError
from avtrain.evals.frozen import load_networks
from avtrain.runtime.device import default_workers, pick_device
from shards.errors import ShardError
from shards.files import atomic_file
from shards.reader import ShardSet

BATCH_SIZE = 16
EMBEDDINGS = ("video", "predicted_video", "audio", "predicted_audio")


@dataclass(frozen=True)
class EmbedOptions:
    """``checkpoint`` None: random networks. Every clip is embedded in ``windows`` fixed windows."""

    out: Path
    checkpoint: Path | None
    split: str = "train"
    windows: int = 1
    seed: int = 0
    device: str = "auto"
    workers: int | None = None


class AllViews(Clips):
    """Clips in fixed windows, with all views in the order of the set, and no augmentation."""

    def draw(self, epoch: int, index: int) -> Draw:
        views = np.arange(len(self.shards.info(index).views))
        return replace(super().draw(epoch, index), views=views)


def embed(
    root: Path | str, config: Config, options: EmbedOptions
) -> tuple[dict[str, NDArray[np.generic]], list[str]]:
    """Write features as npz to ``options.out``, and return its arrays, for N clips, W windows, V
    views and D features, and what is wrong with clips that cannot be read, which are left out:

    ``keys`` and ``sources`` (N,); ``start_s`` (N, W), where in the clip a window's second of sound
    begins, which its pictures lie in; ``azimuth_deg`` and ``elevation_deg`` (N, V); ``video`` and
    ``audio`` (N, W, V, D), the backbones' features; and what pretraining compares, (N, W, V, E) of
    length 1: ``video_embedding`` with ``predicted_video_embedding``, which the sounds say, and
    ``audio_embedding`` with ``predicted_audio_embedding``, which the pictures say.

    ``config`` describes the networks, see `load_networks`.
    """
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=options.out.parent):
        pass  # what cannot be written is said before the work
    shards = ShardSet(root, options.split)
    device = pick_device(options.device)
    workers = default_workers(device) if options.workers is None else options.workers
    unread = LeftOut.of(shards)
    views = _views_of_all(shards, unread)
    clip = replace(config.clip, views=views, moments=1)
    if options.checkpoint is None:  # how others were trained decides what of them is used
        config = replace(config, clip=clip)
    networks = load_networks(options.checkpoint, config, shards, options.seed, device, workers)
    clips = AllViews(shards, clip, config.sound, NO_AUGMENTATION, options.seed, options.windows)
    plan = Plan(shards, options.seed, BATCH_SIZE)
    sizes = {"video": networks.dim, "audio": networks.dim}
    sizes |= {f"{name}_embedding": config.model.embedding for name in EMBEDDINGS}
    shape = (len(shards), options.windows, views)
    arrays = {name: np.zeros((*shape, size), np.float32) for name, size in sizes.items()}
    start_s = np.zeros(shape[:2])
    pin = device.type == "cuda"
    batches = load(clips, plan, range(options.windows), 0, workers, pin, left_out=unread)
    with tqdm(
        total=len(shards) * options.windows,
        unit="clip",
        mininterval=0.5 if sys.stderr.isatty() else 30.0,
    ) as bar:
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
    kept = unread.rest
    if unread.faults:
        arrays = {name: array[kept] for name, array in arrays.items()}
    places = [shards.info(int(index)).views for index in kept]
    content: dict[str, NDArray[np.generic]] = {
        "keys": np.array(shards.keys)[kept],
        "sources": np.array(shards.sources)[kept],
        "start_s": start_s[kept],
        "azimuth_deg": np.array([[view.azimuth_deg for view in of] for of in places]),
        "elevation_deg": np.array([[view.elevation_deg for view in of] for of in places]),
        **arrays,
    }
    with atomic_file(options.out) as file:
        np.savez(file, **content)  # type: ignore[arg-type]
    return content, sentences(unread)


def _views_of_all(shards: ShardSet, left_out: LeftOut) -> int:
    """How many views the clips have, all the same; what is wrong with records goes to ``left_out``.
    Raises TrainingError."""
    counts = set()
    for index in range(len(shards)):
        try:
            counts.add(len(shards.info(index).views))
        except ShardError as error:
            left_out.add([(index, str(error))])
    if len(counts) > 1:
        raise TrainingError(
            f"clips of {shards.root} have from {min(counts)} to {max(counts)} views, which make no "
            "one array; build the set with the same --views for all"
        )
    return counts.pop()
