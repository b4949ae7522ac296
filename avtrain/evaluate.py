"""AVC-Bin and AVSA-Bin: what frozen features know about correspondence and spatial alignment.

Morgado, Li and Vasconcelos (NeurIPS 2020): a small classifier on the frozen features of picture
and sound decides whether they belong together. For AVC a mismatched sound is another clip's, for
AVSA the same clip's whole field turned by a random yaw.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from avtrain.checkpoint import Checkpoint
from avtrain.data import NO_AUGMENTATION, Batch, Clips, fit_statistics
from avtrain.device import default_workers, pick_device
from avtrain.features import Features
from avtrain.loader import Plan, load
from avtrain.models import AudioVisual, calibrate_batch_norm
from avtrain.presets import Config, Task
from avtrain.probe import (
    BOOTSTRAP_ROUNDS,
    PairClassifier,
    Pairs,
    Protocol,
    accuracy_interval,
    decide,
    train_classifier,
)
from shards.files import dump_json, write_atomic
from shards.reader import ShardSet

CHANCE = 0.5


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
    """The frozen networks, in evaluation mode."""

    model: AudioVisual
    features: Features
    task: Task
    size: int
    transformer: bool
    """Whether the sound predicted from the pictures replaces the pictures' feature."""

    @torch.no_grad()
    def pairs(self, batch: Batch) -> Pairs:
        video = self.model.embed_video(batch.pictures(self.size))
        if self.transformer:
            video = self.model.predict_audio(video)
        audio = self.model.embed_audio(batch.features(self.features, batch.matrices))
        if self.task == "avsa":
            wrong = self.model.embed_audio(batch.features(self.features, batch.turned))
        else:
            wrong = audio.roll(1, dims=0)  # a batch has no two clips of one source
        return Pairs(
            torch.cat([video, audio], dim=-1).cpu(),
            torch.cat([video, wrong], dim=-1).cpu(),
            batch.index.cpu(),
        )


def evaluate(
    root: Path | str, task: Task, config: Config, protocol: Protocol, options: EvalOptions
) -> dict[str, Any]:
    """Train the classifier on the one split, test it on the other, write and return the result.

    ``config`` describes the networks; they are those of ``options.checkpoint``, which it comes
    from, or random ones. Random networks get statistics for their features and their batch
    normalisation from a pass over the training split: without them their activations would not
    even have a sensible scale, and the comparison would be with a broken network.
    """
    train = ShardSet(root, options.train_split)
    test = ShardSet(root, options.test_split)
    device = pick_device(options.device)
    workers = default_workers(device) if options.workers is None else options.workers
    clip = replace(config.clip, views=options.views)

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

    torch.manual_seed(options.seed)
    model, features = AudioVisual(config.model).to(device), Features(config.sound).to(device)
    if options.checkpoint is not None:
        checkpoint = Checkpoint.load(options.checkpoint)
        model.load_state_dict(checkpoint.model)
        features.load_state_dict(checkpoint.features)
        trained: dict[str, Any] = {
            "path": str(options.checkpoint),
            "task": config.task,
            "steps": checkpoint.total_steps,
            "data": checkpoint.data,
        }
    else:
        fit_statistics(features, train, clip, options.seed)
        inputs = (
            (batch.pictures(clip.size), batch.features(features, batch.matrices))
            for batch in read(train, range(1), testing=False)
        )
        calibrate_batch_norm(model, inputs)
        trained = {"path": "untrained", "seed": options.seed}
    # Only the task avsa trains the transformers; other features are used as they are.
    transformer = config.model.transformer and config.task == "avsa"
    encoder = Encoder(model.eval(), features, task, clip.size, transformer)

    classifier = PairClassifier(config.model.features, protocol.dropout)
    generator = torch.Generator().manual_seed(options.seed)

    def pairs_of(round_number: int) -> Pairs:
        rounds = range(round_number, round_number + 1)
        return Pairs.join([encoder.pairs(batch) for batch in read(train, rounds, testing=False)])

    train_classifier(classifier, pairs_of, protocol, generator)
    correct, index = decide(
        classifier, map(encoder.pairs, read(test, range(options.windows), testing=True))
    )
    bar.close()
    sources = np.array(test.sources)[index]
    accuracy, low, high = accuracy_interval(correct, sources)
    result = {
        "task": f"{task}-bin",
        "accuracy": accuracy,
        "interval_95": None if low is None else [low, high],
        "interval": f"bootstrap over test sources, {BOOTSTRAP_ROUNDS} rounds",
        "chance": CHANCE,
        "test_clips": len(test),
        "test_sources": len(set(test.sources)),
        "decisions": len(correct),
        "windows": options.windows,
        "views": options.views,
        "transformer": transformer,
        "checkpoint": trained,
        "preset": config.preset,
        "intensity": config.sound.intensity,
        "protocol": asdict(protocol),
        "train_clips": len(train),
        "seed": options.seed,
        "data": test.manifest.sha256,
    }
    options.out.mkdir(parents=True, exist_ok=True)
    write_atomic(options.out / f"{task}-bin.json", dump_json(result, indent=2))
    return result
