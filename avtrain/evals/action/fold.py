"""Action recognition on one fold: a recogniser is trained, and names the test's videos."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from avtrain.checkpoint import Checkpoint
from avtrain.config import AugmentConfig, Config
from avtrain.data.draws import NO_AUGMENTATION
from avtrain.data.unreadable import LeftOut
from avtrain.errors import TrainingError
from avtrain.evals.action.classifier import Protocol, Recogniser, decide
from avtrain.evals.action.videos import (
    Fold,
    LabelledSet,
    Places,
    VideoBatch,
    Windows,
    load_videos,
    training_places,
)
from avtrain.evals.frozen import CALIBRATION_CLIPS, describe
from avtrain.evals.progress import Progress
from avtrain.evals.results import UNTRAINED, Network
from avtrain.evals.tables import name_network
from avtrain.networks.models import AudioVisual, calibrating_batch_norm
from avtrain.runtime.device import default_workers, pick_device
from shards.files import remove_temporary_files


@dataclass(frozen=True)
class ActionOptions:
    """``checkpoint`` None evaluates random networks, and with ``baseline`` they are evaluated
    beside the checkpoint's. ``folds`` None: all; the splits are of sets without folds."""

    out: Path
    checkpoint: Path | None
    baseline: bool = True
    folds: tuple[int, ...] | None = None
    train_split: str = "train"
    test_split: str = "test"
    seed: int = 0
    device: str = "auto"
    workers: int | None = None


_ANSWERS = ("positions", "windows", "videos")


@dataclass(frozen=True)
class Answers:
    """Numbers of classes that were named for the fold's test videos at ``positions`` (N,), those
    that could be read: for each window (N, windows) and by all of a video's windows together (N,).
    """

    positions: NDArray[np.int64]
    windows: NDArray[np.int64]
    videos: NDArray[np.int64]


@dataclass(frozen=True)
class Start:
    """The networks that a training begins with; ``weights`` is None for random ones."""

    weights: dict[str, Tensor] | None
    described: Network

    @classmethod
    def of(cls, checkpoint: Path | None, config: Config, seed: int) -> Start:
        content = None if checkpoint is None else Checkpoint.load(checkpoint)
        described = describe(config, checkpoint, content, transformer=False, seed=seed)
        return cls(None if content is None else content.model, described)


class FoldRun:
    """One fold: its training, whose state is saved after every epoch, and its test."""

    def __init__(
        self,
        videos: LabelledSet,
        fold: Fold,
        start: Start,
        config: Config,
        protocol: Protocol,
        options: ActionOptions,
        left_out: LeftOut,
    ) -> None:
        self.left_out = left_out
        self.videos, self.fold, self.start = videos, fold, start
        self.config, self.protocol, self.options = config, protocol, options
        self.device = pick_device(options.device)
        given = options.workers
        self.workers = default_workers(self.device) if given is None else given
        kind = UNTRAINED if start.weights is None else "trained"
        self.progress = Progress(
            options.out / f"{protocol.task}-{kind}-{fold.name.replace(' ', '')}.part",
            {
                "networks": asdict(start.described),
                "clip": asdict(config.clip),
                "protocol": asdict(protocol),
                "fold": [fold.name, fold.train.tolist(), fold.test.tolist()],
                "seed": options.seed,
                "data": videos.manifest.sha256,
            },
            [left_out],
        )

    def answers(self) -> Answers:
        """Of the trained network for the test videos."""
        remove_temporary_files(self.options.out, self.progress.path.name)
        earlier = self.progress.load() or {}
        if "videos" in earlier:
            return Answers(**{name: earlier[name].numpy() for name in _ANSWERS})
        torch.manual_seed(self.options.seed)
        model = self.config.model
        networks = AudioVisual(model)
        if self.start.weights is not None:
            networks.load_state_dict(self.start.weights)
        classes = len(self.videos.classes)
        net = Recogniser(networks.video, model.features, classes, self.protocol).to(self.device)
        name = name_network(self.start.described).kind
        trained = self.protocol.epochs * self.protocol.turns * len(self.fold.train)
        with tqdm(
            desc=f"{self.protocol.task}, {name}, {self.fold.name}",
            unit="video",
            total=trained + len(self.fold.test),
            mininterval=0.5 if sys.stderr.isatty() else 30.0,
        ) as bar:
            if self.start.weights is None and "epoch" not in earlier:
                self._calibrate(net)
            self._train(net, earlier, bar)
            answers = self._test(net, bar)
        self.progress.save({name: torch.from_numpy(getattr(answers, name)) for name in _ANSWERS})
        return answers

    def _windows(self, augment: AugmentConfig, windows: int | None = None) -> Windows:
        protocol = self.protocol
        part = protocol.smallest_part if augment is protocol.augment else None
        seed, middle = self.options.seed, protocol.middle
        return Windows(self.videos, self.config.clip, augment, seed, windows, part, middle)

    def _load(self, dataset: Windows, places: Places) -> Iterator[VideoBatch | None]:
        pin = self.device.type == "cuda"
        return load_videos(dataset, places, self.workers, pin, self.left_out)

    def _epoch(self, epoch: int) -> list[list[tuple[int, int]]]:
        size, seed, turns = self.protocol.batch_size, self.options.seed, self.protocol.turns
        return [
            places
            for turn in range(epoch * turns, (epoch + 1) * turns)
            for places in training_places(self.videos, self.fold.train, seed, turn, size)
        ]

    def _pictures(self, batch: VideoBatch) -> Tensor:
        return batch.pictures(self.config.clip.size, self.device)

    def _calibrate(self, net: Recogniser) -> None:
        """Without statistics a random network's activations would not have a sensible scale."""
        places = self._epoch(0)[: -(-CALIBRATION_CLIPS // self.protocol.batch_size)]
        dataset = self._windows(NO_AUGMENTATION)
        with calibrating_batch_norm(net.video):
            for batch in self._load(dataset, places):
                if batch is not None:
                    net.video(self._pictures(batch))

    def _train(self, net: Recogniser, earlier: dict[str, Any], bar: tqdm[Any]) -> None:
        protocol, seed = self.protocol, self.options.seed
        learning = [p for p in net.parameters() if p.requires_grad]
        optimiser = torch.optim.Adam(learning, lr=protocol.learning_rate, fused=True)
        schedule = torch.optim.lr_scheduler.MultiStepLR(
            optimiser, list(protocol.milestones), protocol.gamma
        )
        first = earlier.get("epoch", 0)
        if first:
            net.load_state_dict(earlier["network"])
            optimiser.load_state_dict(earlier["optimiser"])
            schedule.load_state_dict(earlier["schedule"])
            bar.update(first * protocol.turns * len(self.fold.train))
        rounds = protocol.rounds or protocol.epochs
        order = [epoch % rounds for epoch in range(first, protocol.epochs)]
        epochs = {number: self._epoch(number) for number in order}
        every = [places for epoch in epochs.values() for places in epoch]
        batches = self._load(self._windows(protocol.augment), every)
        kept: dict[int, Iterable[tuple[Tensor, Tensor]]] = {}
        net.train()
        for epoch, number in enumerate(order, start=first):
            # Randomness is a function of the epoch, so that a run goes on as it would have.
            torch.manual_seed(seed * 10_007 + epoch)
            if number not in kept:
                steps = self._steps(net, batches, len(epochs[number]))
                kept[number] = steps if protocol.rounds is None else list(steps)
            for inputs, labels in kept[number]:
                logits = net(inputs) if protocol.rounds is None else net.head(inputs)
                loss = F.cross_entropy(logits, labels)
                if not torch.isfinite(loss):
                    raise TrainingError(
                        f"the loss of epoch {epoch + 1} is {loss.item()}; nothing of this epoch "
                        "was saved: are the checkpoint's weights sound?"
                    )
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                bar.update(len(labels))
            schedule.step()
            self.progress.save(
                {
                    "epoch": epoch + 1,
                    "network": net.state_dict(),
                    "optimiser": optimiser.state_dict(),
                    "schedule": schedule.state_dict(),
                }
            )

    def _steps(
        self, net: Recogniser, batches: Iterator[VideoBatch | None], count: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Of the next ``count`` batches the pictures, or the features where they are kept, and the
        labels."""
        labels = torch.from_numpy(self.videos.labels)
        for batch in islice(batches, count):
            if batch is None:
                continue
            inputs = self._pictures(batch)
            if self.protocol.rounds is not None:
                with torch.no_grad():
                    inputs = net.video(inputs)
            yield inputs, labels[batch.position].to(self.device)

    @torch.no_grad()
    def _test(self, net: Recogniser, bar: tqdm[Any]) -> Answers:
        net.eval()
        dataset = self._windows(NO_AUGMENTATION, self.protocol.windows)
        places = [[(0, int(position))] for position in self.fold.test]
        positions, windows, videos = [], [], []
        for batch in self._load(dataset, places):
            bar.update(1)
            if batch is not None:
                named, together = decide(net(self._pictures(batch)))
                positions.append(batch.position[0])
                windows.append(named)
                videos.append(together)
        if not positions:
            raise TrainingError(f"of {self.fold.name} no test video can be read")
        return Answers(*(torch.stack(of).numpy() for of in (positions, windows, videos)))
