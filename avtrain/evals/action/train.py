"""Action recognition on one fold: a classifier is trained, and predicts the test videos."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from avtrain.checkpoint import Checkpoint
from avtrain.config import AugmentConfig
from avtrain.data.draws import NO_AUGMENTATION
from avtrain.data.unreadable import Unreadable
from avtrain.errors import TrainingError
from avtrain.evals.action.data import Places, VideoBatch, VideoWindows, load_videos, training_places
from avtrain.evals.action.folds import Fold, LabelledSet
from avtrain.evals.action.metrics import Predictions
from avtrain.evals.action.model import ActionClassifier, classify_video
from avtrain.evals.action.protocol import ActionProtocol
from avtrain.evals.evaluation import EvaluationOptions, progress_bar
from avtrain.evals.frozen import CALIBRATION_CLIPS, describe
from avtrain.evals.progress import Progress
from avtrain.evals.results import UNTRAINED, Network
from avtrain.evals.tables import name_network
from avtrain.networks.models import calibrating_batch_norm
from avtrain.own_networks import build_networks
from avtrain.run_folder import PROGRESS_ENDING
from avtrain.runtime.device import default_workers, pick_device
from shards.files import remove_temporary_files

_PREDICTIONS = ("positions", "windows", "videos")


@dataclass(frozen=True)
class InitialNetwork:
    """Checkpoint from which training starts, None for random networks."""

    content: Checkpoint | None
    described: Network

    @classmethod
    def load(cls, common: EvaluationOptions) -> InitialNetwork:
        path = common.checkpoint
        content = None if path is None else Checkpoint.load(path)
        described = describe(common.config, path, content, transformer=False, seed=common.seed)
        return cls(content, described)


class FoldRun:
    """Training, saved after every epoch, and test on one fold."""

    def __init__(
        self,
        videos: LabelledSet,
        fold: Fold,
        initial: InitialNetwork,
        common: EvaluationOptions,
        protocol: ActionProtocol,
        unreadable: Unreadable,
    ) -> None:
        self.videos, self.fold, self.initial = videos, fold, initial
        self.common, self.protocol, self.unreadable = common, protocol, unreadable
        self.clip = common.config.clip
        self.device = pick_device(common.device)
        given = common.workers
        self.workers = default_workers(self.device) if given is None else given
        kind = UNTRAINED if initial.content is None else "trained"
        fold_name = fold.name.replace(" ", "")
        self.progress = Progress(
            common.out / f"{protocol.task}-{kind}-{fold_name}{PROGRESS_ENDING}",
            {
                "networks": asdict(initial.described),
                "clip": asdict(self.clip),
                "protocol": asdict(protocol),
                "fold": [fold.name, fold.train.tolist(), fold.test.tolist()],
                "seed": common.seed,
                "data": videos.manifest.sha256,
            },
            [unreadable],
        )

    def predictions(self) -> Predictions:
        """Train, and predict the test videos; or return the predictions that are saved."""
        remove_temporary_files(self.common.out, self.progress.path.name)
        state = self.progress.load() or {}
        if "videos" in state:
            return self._saved(state)
        torch.manual_seed(self.common.seed)
        config = self.common.config
        networks = build_networks(config, self.common.factories)
        if self.initial.content is not None:
            self.initial.content.check_networks(networks)
            networks.load_state_dict(self.initial.content.model)
        classes = len(self.videos.classes)
        net = ActionClassifier(networks.video, config.model.video_dim, classes, self.protocol)
        net = net.to(self.device)
        name = name_network(self.initial.described).kind
        shown = self.protocol.epochs * self.protocol.turns * len(self.fold.train)
        with progress_bar(
            f"{self.protocol.task}, {name}, {self.fold.name}", shown + len(self.fold.test), "video"
        ) as bar:
            if self.initial.content is None and "epoch" not in state:
                self._calibrate(net)
            self._train(net, state, bar)
            found = self._test(net, bar)
        self.progress.save({name: torch.from_numpy(getattr(found, name)) for name in _PREDICTIONS})
        return found

    def _saved(self, state: dict[str, Any]) -> Predictions:
        count = len(state["videos"]) if isinstance(state["videos"], Tensor) else 0
        shapes = {"positions": (count,), "windows": (count, self.protocol.windows)}
        shapes |= {"videos": (count,)}
        self.progress.check(
            state,
            {name: torch.zeros(shape, dtype=torch.int64) for name, shape in shapes.items()},
        )
        found = Predictions(**{name: state[name].numpy() for name in _PREDICTIONS})
        classes = max(found.windows.max(initial=0), found.videos.max(initial=0))
        tested = np.isin(found.positions, self.fold.test).all()
        if not count or classes >= len(self.videos.classes) or not tested:
            raise TrainingError(
                f"{self.progress.path} is damaged (it holds predictions of other videos); delete "
                "it to start anew"
            )
        return found

    def _windows(self, augment: AugmentConfig, windows: int | None = None) -> VideoWindows:
        protocol = self.protocol
        part = protocol.smallest_part if augment is protocol.augment else None
        seed, middle = self.common.seed, protocol.middle
        return VideoWindows(self.videos, self.clip, augment, seed, windows, part, middle)

    def _load(self, dataset: VideoWindows, places: Places) -> Generator[VideoBatch | None]:
        pin = self.device.type == "cuda"
        return load_videos(dataset, places, self.workers, pin, self.unreadable)

    def _epoch(self, epoch: int) -> Places:
        size, seed, passes = self.protocol.batch_size, self.common.seed, self.protocol.turns
        return [
            places
            for number in range(epoch * passes, (epoch + 1) * passes)
            for places in training_places(self.videos, self.fold.train, seed, number, size)
        ]

    def _network_input(self, batch: VideoBatch) -> Tensor:
        return batch.video_input(self.clip.size, self.device)

    def _calibrate(self, net: ActionClassifier) -> None:
        """Measure batch normalisation: the activations of random networks have no sensible scale
        without it."""
        places = self._epoch(0)[: -(-CALIBRATION_CLIPS // self.protocol.batch_size)]
        dataset = self._windows(NO_AUGMENTATION)
        with calibrating_batch_norm(net.video), closing(self._load(dataset, places)) as loaded:
            for batch in loaded:
                if batch is not None:
                    net.video(self._network_input(batch))

    def _train(self, net: ActionClassifier, state: dict[str, Any], bar: tqdm[Any]) -> None:
        protocol, seed = self.protocol, self.common.seed
        learning = [p for p in net.parameters() if p.requires_grad]
        optimiser = torch.optim.Adam(learning, lr=protocol.learning_rate, fused=True)
        schedule = torch.optim.lr_scheduler.MultiStepLR(
            optimiser, list(protocol.milestones), protocol.gamma
        )
        first = state.get("epoch", 0)
        if first:
            self.progress.check(
                state,
                {
                    "epoch": 0,
                    "network": net.state_dict(),
                    "optimiser": optimiser,
                    "schedule": schedule.state_dict(),
                },
            )
            net.load_state_dict(state["network"])
            optimiser.load_state_dict(state["optimiser"])
            schedule.load_state_dict(state["schedule"])
            bar.update(first * protocol.turns * len(self.fold.train))
        rounds = protocol.rounds or protocol.epochs
        order = [epoch % rounds for epoch in range(first, protocol.epochs)]
        epochs = {number: self._epoch(number) for number in order}
        every = [places for epoch in epochs.values() for places in epoch]
        kept: dict[int, Iterable[tuple[Tensor, Tensor]]] = {}
        net.train()
        with closing(self._load(self._windows(protocol.augment), every)) as batches:
            for epoch, number in enumerate(order, start=first):
                # Randomness is a function of the epoch, so that a resumed training ends the same.
                torch.manual_seed(seed * 10_007 + epoch)
                if number not in kept:
                    steps = self._steps(net, batches, len(epochs[number]))
                    kept[number] = steps if protocol.rounds is None else list(steps)
                for inputs, labels in kept[number]:
                    logits = net(inputs) if protocol.rounds is None else net.head(inputs)
                    loss = F.cross_entropy(logits, labels)
                    if not torch.isfinite(loss):
                        raise TrainingError(
                            f"the loss of epoch {epoch + 1} is {loss.item()}; nothing of this "
                            "epoch was saved: are the checkpoint's weights sound?"
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
        self, net: ActionClassifier, batches: Iterator[VideoBatch | None], count: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Inputs, or features if they are kept, and labels of the next ``count`` batches."""
        labels = torch.from_numpy(self.videos.labels)
        for batch in islice(batches, count):
            if batch is None:
                continue
            inputs = self._network_input(batch)
            if self.protocol.rounds is not None:
                with torch.no_grad():
                    inputs = net.video(inputs)
            yield inputs, labels[batch.position].to(self.device)

    @torch.no_grad()
    def _test(self, net: ActionClassifier, bar: tqdm[Any]) -> Predictions:
        net.eval()
        dataset = self._windows(NO_AUGMENTATION, self.protocol.windows)
        places = [[(0, int(position))] for position in self.fold.test]
        positions, windows, videos = [], [], []
        with closing(self._load(dataset, places)) as loaded:
            for batch in loaded:
                bar.update(1)
                if batch is not None:
                    window_classes, video_class = classify_video(net(self._network_input(batch)))
                    positions.append(batch.position[0])
                    windows.append(window_classes)
                    videos.append(video_class)
        if not positions:
            raise TrainingError(f"no test video of {self.fold.name} can be read")
        return Predictions(*(torch.stack(part).numpy() for part in (positions, windows, videos)))
