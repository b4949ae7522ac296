"""AVC-Bin and AVSA-Bin: a small classifier on frozen features tells matched from mismatched pairs.

Morgado, Li and Vasconcelos (NeurIPS 2020), section 4: for every view, the features of picture and
sound side by side; the views of a clip decide together. For AVC a mismatched sound is another
clip's, for AVSA the same clip's whole field turned by a random yaw.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from tqdm import tqdm

from avtrain.data import Batch, Clips
from avtrain.device import default_workers, pick_device
from avtrain.draws import NO_AUGMENTATION
from avtrain.errors import TrainingError
from avtrain.frozen import Networks, load_networks
from avtrain.loader import Plan, load
from avtrain.presets import Config
from avtrain.probe import PairClassifier, Pairs, Protocol, decide, train_classifier
from avtrain.progress import Progress
from avtrain.results import Result, share
from shards.geometry import ACN_CHANNELS
from shards.reader import ShardSet

CHANCE = 0.5
Binary = Literal["avc", "avsa"]


@dataclass(frozen=True)
class EvalOptions:
    """``checkpoint`` None evaluates a randomly initialised network. Every test clip is tested in
    ``windows`` fixed windows."""

    out: Path
    checkpoint: Path | None
    views: int
    train_split: str = "train"
    test_split: str = "test"
    windows: int = 5
    seed: int = 0
    device: str = "auto"
    workers: int | None = None


@dataclass(frozen=True)
class Encoder:
    """Pairs of features from frozen networks."""

    networks: Networks
    task: Binary

    @torch.no_grad()
    def pairs(self, batch: Batch) -> Pairs:
        networks = self.networks
        # With a trained transformer the sound predicted from the pictures replaces their feature.
        video = networks.predicted_audio(networks.video(batch), batch)
        audio = networks.audio(batch)
        if self.task == "avsa":
            wrong = networks.audio(batch, batch.turned)
        else:
            wrong = audio.roll(1, dims=0)  # a batch has no two clips of one source
        return Pairs(
            torch.cat([video, audio], dim=-1).cpu(),
            torch.cat([video, wrong], dim=-1).cpu(),
            batch.index.cpu(),
        )


def evaluate(
    root: Path | str, task: Binary, config: Config, protocol: Protocol, options: EvalOptions
) -> Result:
    """Train the classifier on the one split, test it on the other, write and return the result.

    ``config`` describes the networks; they are those of ``options.checkpoint``, which it comes
    from, or random ones. An interrupted training of the classifier is gone on with.
    """
    train = ShardSet(root, options.train_split)
    test = ShardSet(root, options.test_split)
    device = pick_device(options.device)
    workers = default_workers(device) if options.workers is None else options.workers
    clip = replace(config.clip, views=options.views, moments=1)
    if task == "avsa" and train.info(0).audio.channels != ACN_CHANNELS:
        raise TrainingError(
            f"{train.root} holds no ambisonics, which alone can be turned; build it with "
            "--audio foa"
        )
    networks = load_networks(options.checkpoint, config, train, options.seed, device, workers)
    encoder = Encoder(networks, task)

    bar = tqdm(
        desc=f"{task}-bin, reading",
        unit="clip",
        total=len(train) * protocol.rounds + len(test) * options.windows,
        mininterval=0.5 if sys.stderr.isatty() else 30.0,
    )

    def read(shards: ShardSet, epochs: range, *, testing: bool) -> Iterator[Batch]:
        windows = options.windows if testing else None
        augment = NO_AUGMENTATION if testing else config.augment
        clips = Clips(shards, clip, config.sound, augment, options.seed, windows)
        per_source = None if testing else protocol.clips_per_source
        plan = Plan(shards, options.seed, protocol.batch_size, per_source)
        if task == "avc":
            plan.check_contrast()
        for _, batch in load(clips, plan, epochs, 0, workers, device.type == "cuda"):
            yield batch.to(device)
            bar.update(len(batch.index))

    def pairs_of(round_number: int) -> Pairs:
        rounds = range(round_number, round_number + 1)
        return Pairs.join([encoder.pairs(batch) for batch in read(train, rounds, testing=False)])

    progress = Progress(
        options.out / f"{task}-bin-{'untrained' if options.checkpoint is None else 'trained'}.part",
        {
            "networks": asdict(networks.described),
            "protocol": asdict(protocol),
            "views": options.views,
            "seed": options.seed,
            "data": train.manifest.sha256,
        },
    )
    torch.manual_seed(options.seed)
    classifier = PairClassifier(networks.dim, protocol.dropout)
    train_classifier(classifier, pairs_of, protocol, options.seed, progress)
    correct, index = decide(
        classifier, map(encoder.pairs, read(test, range(options.windows), testing=True))
    )
    bar.close()
    sources = np.array(test.sources)[index]
    result = Result(
        task=f"{task}-bin",
        network=networks.described,
        metrics={"accuracy": share(correct, sources, CHANCE)},
        views=options.views,
        seed=options.seed,
        test_clips=len(test),
        test_sources=len(set(test.sources)),
        data=test.manifest.sha256,
        details={
            "decisions": len(correct),
            "windows": options.windows,
            "protocol": asdict(protocol),
            "train_clips": len(train),
        },
    )
    result.write(options.out)
    progress.delete()
    return result
