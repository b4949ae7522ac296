"""Action recognition with the video network: fine-tuned as a whole, or a linear probe on it.

Morgado, Li and Vasconcelos (NeurIPS 2020), section 4: the network, dropout and one linear layer
name the action of a short window. Clip@1 is the share of windows that are named right, Video@1 that
of videos by the mean of their windows' probabilities.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from avtrain.checkpoint import Checkpoint
from avtrain.data import NO_AUGMENTATION
from avtrain.device import default_workers, pick_device
from avtrain.errors import TrainingError
from avtrain.frozen import CALIBRATION_CLIPS, describe
from avtrain.models import AudioVisual, measured_batch_norm
from avtrain.plots import plot_confusion
from avtrain.presets import AugmentConfig, Config
from avtrain.progress import Progress
from avtrain.recogniser import Protocol, Recogniser, decide
from avtrain.results import UNTRAINED, Metric, Network, Result, share
from avtrain.videos import Fold, LabelledSet, VideoBatch, Windows, load_videos, training_places
from shards.files import remove_temporary_files

CONFUSION = "confusion.png"


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


@dataclass(frozen=True)
class Answers:
    """Numbers of classes that were named: for each window (N, windows) and by all of a video's
    windows together (N,), in the order of the fold's test videos."""

    windows: NDArray[np.int64]
    videos: NDArray[np.int64]


def recognise(
    root: Path | str, config: Config, protocol: Protocol, options: ActionOptions
) -> list[Result]:
    """Train and test on every fold, write and return the results, the baseline's first.

    An interrupted call is gone on with: the states of its folds stay in ``options.out`` until all
    results are written.
    """
    videos = LabelledSet(root)
    folds = videos.folds(options.folds, options.train_split, options.test_split)
    both = options.baseline and options.checkpoint is not None
    results, states = [], []
    for checkpoint in [None, options.checkpoint] if both else [options.checkpoint]:
        networks = _Start.of(checkpoint, config, options.seed)
        answers = []
        for fold in folds:
            run = _Run(videos, fold, networks, config, protocol, options)
            answers.append(run.answers())
            states.append(run.progress)
        results.append(_result(videos, folds, answers, networks.described, protocol, options))
        results[-1].write(options.out)
    kind = "random networks" if options.checkpoint is None else networks.described.pretraining
    plot_confusion(
        _confusion(videos, folds, answers),
        videos.classes,
        f"{protocol.task}, {kind}: Video@1 {results[-1].metrics['Video@1'].value:.1%}",
        options.out / f"{protocol.task}-{CONFUSION}",
    )
    for state in states:
        state.delete()
    return results


@dataclass(frozen=True)
class _Start:
    """The networks that a training begins with; ``weights`` is None for random ones."""

    weights: dict[str, Tensor] | None
    described: Network

    @classmethod
    def of(cls, checkpoint: Path | None, config: Config, seed: int) -> _Start:
        content = None if checkpoint is None else Checkpoint.load(checkpoint)
        described = describe(config, checkpoint, content, transformer=False, seed=seed)
        return cls(None if content is None else content.model, described)


class _Run:
    """One fold: its training, whose state is saved after every epoch, and its test."""

    def __init__(
        self,
        videos: LabelledSet,
        fold: Fold,
        start: _Start,
        config: Config,
        protocol: Protocol,
        options: ActionOptions,
    ) -> None:
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
        )

    def answers(self) -> Answers:
        """Of the trained network for the test videos."""
        remove_temporary_files(self.options.out, self.progress.path.name)
        earlier = self.progress.load() or {}
        if "videos" in earlier:
            return Answers(earlier["windows"].numpy(), earlier["videos"].numpy())
        torch.manual_seed(self.options.seed)
        model = self.config.model
        networks = AudioVisual(model)
        if self.start.weights is not None:
            networks.load_state_dict(self.start.weights)
        classes = len(self.videos.classes)
        net = Recogniser(networks.video, model.features, classes, self.protocol).to(self.device)
        name = f"{self.protocol.task}, {self.start.described.pretraining}, {self.fold.name}"
        trained = self.protocol.epochs * len(self.fold.train)
        with tqdm(
            desc=name.replace("none", UNTRAINED),
            unit="video",
            total=trained + len(self.fold.test),
            mininterval=0.5 if sys.stderr.isatty() else 30.0,
        ) as bar:
            if self.start.weights is None and "epoch" not in earlier:
                self._calibrate(net)
            self._train(net, earlier, bar)
            answers = self._test(net, bar)
        windows, videos = torch.from_numpy(answers.windows), torch.from_numpy(answers.videos)
        self.progress.save({"windows": windows, "videos": videos})
        return answers

    def _windows(self, augment: AugmentConfig, windows: int | None = None) -> Windows:
        return Windows(self.videos, self.config.clip, augment, self.options.seed, windows)

    def _epoch(self, epoch: int) -> list[list[tuple[int, int]]]:
        size, seed = self.protocol.batch_size, self.options.seed
        return training_places(self.videos, self.fold.train, seed, epoch, size)

    def _pictures(self, batch: VideoBatch) -> Tensor:
        return batch.pictures(self.config.clip.size, self.device)

    def _calibrate(self, net: Recogniser) -> None:
        """Without statistics a random network's activations would not have a sensible scale."""
        places = self._epoch(0)[: -(-CALIBRATION_CLIPS // self.protocol.batch_size)]
        dataset = self._windows(NO_AUGMENTATION)
        with measured_batch_norm(net.video):
            for batch in load_videos(dataset, places, self.workers, self.device.type == "cuda"):
                net.video(self._pictures(batch))

    def _train(self, net: Recogniser, earlier: dict[str, Any], bar: tqdm[Any]) -> None:
        protocol, seed = self.protocol, self.options.seed
        learning = [p for p in net.parameters() if p.requires_grad]
        optimiser = torch.optim.Adam(learning, lr=protocol.learning_rate)
        schedule = torch.optim.lr_scheduler.MultiStepLR(
            optimiser, list(protocol.milestones), protocol.gamma
        )
        first = earlier.get("epoch", 0)
        if first:
            net.load_state_dict(earlier["network"])
            optimiser.load_state_dict(earlier["optimiser"])
            schedule.load_state_dict(earlier["schedule"])
            bar.update(first * len(self.fold.train))
        labels = torch.from_numpy(self.videos.labels)
        epochs = [self._epoch(epoch) for epoch in range(first, protocol.epochs)]
        every = [place for epoch in epochs for place in epoch]
        dataset = self._windows(protocol.augment)
        batches = load_videos(dataset, every, self.workers, self.device.type == "cuda")
        net.train()
        for epoch, places in enumerate(epochs, start=first):
            # Randomness is a function of the epoch, so that a run goes on as it would have.
            torch.manual_seed(seed * 10_007 + epoch)
            for _, batch in zip(places, batches, strict=False):
                logits = net(self._pictures(batch))
                loss = F.cross_entropy(logits, labels[batch.position].to(self.device))
                if not torch.isfinite(loss):
                    raise TrainingError(
                        f"the loss of epoch {epoch + 1} is {loss.item()}; nothing of this epoch "
                        "was saved: are the checkpoint's weights sound?"
                    )
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                bar.update(len(batch.position))
            schedule.step()
            self.progress.save(
                {
                    "epoch": epoch + 1,
                    "network": net.state_dict(),
                    "optimiser": optimiser.state_dict(),
                    "schedule": schedule.state_dict(),
                }
            )

    @torch.no_grad()
    def _test(self, net: Recogniser, bar: tqdm[Any]) -> Answers:
        net.eval()
        dataset = self._windows(NO_AUGMENTATION, self.protocol.windows)
        places = [[(0, int(position))] for position in self.fold.test]
        windows, videos = [], []
        for batch in load_videos(dataset, places, self.workers, self.device.type == "cuda"):
            named, together = decide(net(self._pictures(batch)))
            windows.append(named)
            videos.append(together)
            bar.update(1)
        return Answers(torch.stack(windows).numpy(), torch.stack(videos).numpy())


def _result(
    videos: LabelledSet,
    folds: Sequence[Fold],
    answers: Sequence[Answers],
    described: Network,
    protocol: Protocol,
    options: ActionOptions,
) -> Result:
    tested = np.concatenate([fold.test for fold in folds])
    origins = [videos.videos[position].origin for position in tested]
    truth = videos.labels[tested]
    named = np.concatenate([of.videos for of in answers])
    of_class = {
        label: float((named[truth == number] == number).mean())
        for number, label in enumerate(videos.classes)
        if (truth == number).any()
    }
    return Result(
        task=protocol.task,
        network=described,
        metrics=measure(videos, folds, answers),
        views=1,
        seed=options.seed,
        test_clips=len(set(tested.tolist())),
        test_sources=len(set(origins)),
        data=videos.manifest.sha256,
        details={
            "classes": len(videos.classes),
            "chance": "the largest class's share of the test videos",
            "windows": protocol.windows,
            "folds": {
                fold.name: {"train_videos": len(fold.train), "test_videos": len(fold.test)}
                for fold in folds
            },
            "protocol": asdict(protocol),
            "video@1_by_class": of_class,
        },
    )


def measure(
    videos: LabelledSet, folds: Sequence[Fold], answers: Sequence[Answers]
) -> dict[str, Metric]:
    """Video@1 and Clip@1: their means over the folds, whatever their sizes, then those of each."""
    metrics = {}
    parts = list(zip(folds, answers, strict=True))
    groups = {"": parts}
    if len(parts) > 1:
        groups |= {f", {fold.name}": [(fold, of)] for fold, of in parts}
    for name, group in groups.items():
        tested = [fold.test for fold, _ in group]
        truth = [videos.labels[test] for test in tested]
        origins = [videos.videos[position].origin for position in np.concatenate(tested)]
        weights = np.concatenate([np.full(len(test), 1 / len(test)) for test in tested])
        # Naming one class for all videos is right that often.
        chance = float(np.mean([np.bincount(of).max() / len(of) for of in truth]))
        right = [of.videos == true for (_, of), true in zip(group, truth, strict=True)]
        metrics[f"Video@1{name}"] = share(np.concatenate(right), origins, chance, weights)
        right = [
            (of.windows == true[:, None]).mean(axis=1)
            for (_, of), true in zip(group, truth, strict=True)
        ]
        metrics[f"Clip@1{name}"] = share(np.concatenate(right), origins, chance, weights)
    return metrics


def _confusion(
    videos: LabelledSet, folds: Sequence[Fold], answers: Sequence[Answers]
) -> NDArray[np.int64]:
    """Numbers of test videos of each class (rows) that were named as each (columns)."""
    counts = np.zeros((len(videos.classes),) * 2, dtype=np.int64)
    for fold, of in zip(folds, answers, strict=True):
        np.add.at(counts, (videos.labels[fold.test], of.videos), 1)
    return counts
