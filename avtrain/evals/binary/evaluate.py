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

from avtrain.config import Config
from avtrain.data.clips import Clips
from avtrain.data.draws import NO_AUGMENTATION
from avtrain.data.plan import Plan
from avtrain.data.unreadable import LeftOut, sentences
from avtrain.errors import TrainingError
from avtrain.evals.binary.classifier import (
    PairClassifier,
    Pairs,
    Protocol,
    decide,
    train_classifier,
)
from avtrain.evals.bootstrap import mean_metric
from avtrain.evals.feature_store import PARTS, FrozenBatch, FrozenFeatures, Part, views_read
from avtrain.evals.frozen import Networks, load_networks
from avtrain.evals.progress import Progress
from avtrain.evals.results import LEARNED_FROM, Result
from avtrain.runtime.device import default_workers, pick_device
from shards.geometry import ACN_CHANNELS
from shards.reader import ShardSet

CHANCE = 0.5
Binary = Literal["avc", "avsa"]


@dataclass(frozen=True)
class EvalOptions:
    """``checkpoint`` None evaluates a randomly initialised network. Every test clip is tested in
    ``windows`` fixed windows. ``keep_features``: see `FrozenFeatures.folder`."""

    out: Path
    checkpoint: Path | None
    views: int
    train_split: str = "train"
    test_split: str = "test"
    windows: int = 5
    seed: int = 0
    device: str = "auto"
    workers: int | None = None
    keep_features: Path | None = None


@dataclass(frozen=True)
class Encoder:
    """Pairs of features from frozen networks."""

    networks: Networks
    task: Binary

    def pairs(self, batch: FrozenBatch) -> Pairs:
        # With a trained transformer the sound predicted from the pictures replaces their feature.
        video = self.networks.predicted_audio(batch.features["video"], batch.directions).cpu()
        audio = batch.features["audio"]
        # For AVC the next clip's: a batch has no two clips of one source.
        wrong = batch.features["turned"] if self.task == "avsa" else audio.roll(1, dims=0)
        return Pairs(
            torch.cat([video, audio], dim=-1), torch.cat([video, wrong], dim=-1), batch.index
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
    views = views_read(options.views, train, options.keep_features)
    clip = replace(config.clip, views=views, moments=1)
    clips = (
        Clips(train, clip, config.sound, config.augment, options.seed),
        Clips(test, clip, config.sound, NO_AUGMENTATION, options.seed, options.windows),
    )
    plans = (
        Plan(train, options.seed, protocol.batch_size, protocol.clips_per_source),
        Plan(test, options.seed, protocol.batch_size),
    )
    if task == "avc":
        for plan in plans:
            plan.check_batches()
    for of in clips if task == "avsa" else ():
        if of.first.audio.channels != ACN_CHANNELS:
            raise TrainingError(
                f"{of.shards.root} holds no ambisonics, which alone can be turned; build it with "
                "--audio foa"
            )
    networks = load_networks(options.checkpoint, config, train, options.seed, device, workers)
    encoder = Encoder(networks, task)
    unread = LeftOut.of(train), LeftOut.of(test)
    progress = Progress.of(
        options.out,
        f"{task}-bin",
        options.checkpoint,
        {
            "networks": asdict(networks.described),
            "protocol": asdict(protocol),
            "views": (options.views, views),
            "windows": options.windows,
            "seed": options.seed,
            "data": (train.manifest.sha256, options.train_split),
            "test": options.test_split,
        },
        unread,
    )
    if (written := progress.result()) is not None:
        return written
    bar = tqdm(
        desc=f"{task}-bin, reading",
        unit="clip",
        total=plans[0].clips_per_epoch * protocol.rounds + len(test) * options.windows,
        mininterval=0.5 if sys.stderr.isatty() else 30.0,
    )

    features = [
        FrozenFeatures(networks, of, plan, workers, left_out, options.views, options.keep_features)
        for of, plan, left_out in zip(clips, plans, unread, strict=True)
    ]
    parts: tuple[Part, ...] = PARTS if task == "avsa" else ("video", "audio")

    def pairs(epochs: range, *, testing: bool) -> Iterator[Pairs]:
        for epoch in epochs:
            for batch in features[testing].batches(epoch, parts):
                bar.update(len(batch.index))
                if task == "avsa" or len(batch.index) > 1:  # else there is no other clip's sound
                    yield encoder.pairs(batch)

    def pairs_of(round_number: int) -> Pairs:
        rounds = range(round_number, round_number + 1)
        return Pairs.join(list(pairs(rounds, testing=False)))

    torch.manual_seed(options.seed)
    classifier = PairClassifier(networks.dim, protocol.dropout)
    train_classifier(classifier, pairs_of, protocol, options.seed, progress)
    correct, index = decide(classifier, pairs(range(options.windows), testing=True))
    bar.close()
    read_always = unread[True].keeps(index)
    correct, index = correct[read_always], index[read_always]
    tested = np.array(test.sources)[unread[True].rest]
    sources = np.array(test.sources)[index]
    result = Result(
        task=f"{task}-bin",
        network=networks.described,
        metrics={"accuracy": mean_metric(correct, sources, CHANCE)},
        views=options.views,
        seed=options.seed,
        test_clips=len(tested),
        test_sources=len(set(tested)),
        data=test.manifest.sha256,
        test={
            "train_set": train.manifest.sha256,
            "train_split": options.train_split,
            "test_split": options.test_split,
            "windows": options.windows,
            "protocol": asdict(protocol),
        },
        details={
            "decisions": len(correct),
            "train_clips": len(train),
            LEARNED_FROM: len(set(train.sources) & set(test.sources)),
        },
        left_out=sentences(*unread),
    )
    result.write(options.out)
    progress.finish()
    return result
