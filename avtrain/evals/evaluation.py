"""What all evaluations share: options, opened splits, networks, progress, bar and result.

An evaluation is a function of `EvaluationOptions` and the options of its task. It opens the splits,
loads the networks, returns the result that an interrupted command has already written, and else
reads, fits, tests and measures; see `avtrain.evals.binary.evaluate` for a short one.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from avtrain.config import ClipConfig, Config
from avtrain.data.clips import Clips
from avtrain.data.draws import NO_AUGMENTATION
from avtrain.data.unreadable import Unreadable, messages
from avtrain.evals.frozen import Networks, energy_features, load_networks
from avtrain.evals.progress import Progress, delete_progress, progress_path
from avtrain.evals.results import LEARNED_FROM, Metric, Network, Result
from avtrain.own_networks import PAPERS, Factories
from avtrain.runtime.device import default_workers, pick_device
from shards.errors import printable
from shards.reader import ShardSet


@dataclass(frozen=True)
class EvaluationOptions:
    """Options of every evaluation: the set at ``root``, the networks, and where results go.

    ``config`` describes the networks. They are those of ``checkpoint``, from which it comes, or
    randomly initialised ones (None); with ``energy`` there are none, and features are those of
    `avtrain.networks.energy`. ``factories`` make networks of the user's own.
    """

    root: str
    config: Config
    out: Path
    checkpoint: Path | None = None
    train_split: str = "train"
    test_split: str = "test"
    seed: int = 0
    device: str = "auto"
    workers: int | None = None
    energy: bool = False
    factories: Factories = PAPERS


@dataclass(frozen=True)
class Evaluation:
    """One evaluation whose splits are open. If it ``fits``, it learns from the training split;
    else it reads that split for the feature statistics of random networks alone."""

    task: str
    options: EvaluationOptions
    train: ShardSet
    test: ShardSet
    device: torch.device
    workers: int
    fits: bool
    unreadable_train: Unreadable
    unreadable_test: Unreadable

    @property
    def unreadable(self) -> tuple[Unreadable, ...]:
        """Unreadable clips of the splits that the evaluation reads, training first."""
        both = (self.unreadable_train, self.unreadable_test)
        return both if self.fits else both[1:]

    def train_clips(self, clip: ClipConfig, directions: bool = False) -> Clips:
        """Clips of the training split in random windows, augmented as in pretraining.

        ``directions``: labels are directions, so nothing is mirrored by the published conventions,
        which mirror the video alone.
        """
        config = self.options.config
        augment = config.augment
        if directions and config.sound.conventions == "published":
            augment = replace(augment, mirror=False)
        return Clips(self.train, clip, config.sound, augment, self.options.seed)

    def test_clips(self, clip: ClipConfig, windows: int | None = None) -> Clips:
        """Clips of the test split in ``windows`` fixed windows, not augmented."""
        sound, seed = self.options.config.sound, self.options.seed
        return Clips(self.test, clip, sound, NO_AUGMENTATION, seed, windows)

    def load_networks(self, config: Config | None = None) -> Networks:
        """Networks of the checkpoint, random ones, or the energy map; ``config`` replaces that of
        the options."""
        options = self.options
        config = options.config if config is None else config
        if options.energy:
            return energy_features(config, options.seed, self.device)
        return load_networks(
            options.checkpoint,
            config,
            self.train,
            options.seed,
            self.device,
            self.workers,
            options.factories,
        )

    def progress(self, network: Network, settings: dict[str, Any]) -> Progress:
        """Progress of these networks under the ``settings`` of the task, see `Progress`."""
        path = progress_path(self.options.out, self.task, network.kind)
        common = {"networks": asdict(network), "seed": self.options.seed}
        return Progress(path, common | settings, self.unreadable)

    def bar(self, total: int, initial: int = 0) -> tqdm[Any]:
        """Progress bar over clips."""
        return progress_bar(self.task, total, initial=initial)

    def finish(
        self,
        progress: Progress,
        result: Result,
        draw: Callable[[Result, Path], None] | None = None,
    ) -> Result:
        """Draw the figure and write the result, both into ``out``, and return the result."""
        out = self.options.out
        out.mkdir(parents=True, exist_ok=True)
        if draw is not None:
            draw(result, out / f"{result.name}.png")
        result.write(out)
        progress.finish()
        return result

    def result(
        self,
        network: Network,
        metrics: dict[str, Metric],
        views: int,
        test: dict[str, Any],
        details: dict[str, Any],
        tested: NDArray[np.int64] | None = None,
    ) -> Result:
        """Result with the task's metrics, what defines its ``test``, and ``details``.

        ``tested`` are the test's samples (default: all readable clips of the split).
        """
        options = self.options
        tested = self.unreadable_test.readable_clips if tested is None else tested
        test = {"test_split": options.test_split} | test
        if self.fits:
            train_set = self.train.sha256
            test = {"train_set": train_set, "train_split": options.train_split} | test
            learned_from = len(set(self.train.sources) & set(self.test.sources))
            details = {"train_clips": len(self.train), LEARNED_FROM: learned_from} | details
        return Result(
            task=self.task,
            network=network,
            metrics=metrics,
            views=views,
            seed=options.seed,
            test_clips=len(tested),
            test_sources=len({self.test.sources[sample] for sample in tested}),
            data=self.test.sha256,
            test=test,
            details=details,
            left_out=messages(*self.unreadable),
        )


def open_evaluation(
    task: str, options: EvaluationOptions, fits: bool = True, test_root: str | None = None
) -> Evaluation:
    """Open the splits; the test split is that of ``test_root`` if the test is of another set.

    Raises ShardError for a set or a split that does not exist, TrainingError for a device.
    """
    train = ShardSet(options.root, options.train_split)
    test = ShardSet(test_root or options.root, options.test_split)
    device = pick_device(options.device)
    return Evaluation(
        task=task,
        options=options,
        train=train,
        test=test,
        device=device,
        workers=default_workers(device) if options.workers is None else options.workers,
        fits=fits,
        unreadable_train=Unreadable.in_split(train),
        unreadable_test=Unreadable.in_split(test),
    )


def evaluate_with_baseline(
    options: EvaluationOptions, baseline: bool, evaluate: Callable[[EvaluationOptions], Result]
) -> list[Result]:
    """Results of random networks, if there is to be a ``baseline``, and of the checkpoint.

    The checkpoint is evaluated first, since it may not fit the set.
    """
    results = [evaluate(options)]
    if baseline and options.checkpoint is not None:
        results.insert(0, evaluate(replace(options, checkpoint=None)))
    delete_progress(options.out, results)
    return results


def progress_bar(task: str | None, total: int, unit: str = "clip", initial: int = 0) -> tqdm[Any]:
    """Progress bar that writes rarely where its output is no terminal."""
    interval_s = 0.5 if sys.stderr.isatty() else 30.0
    return tqdm(
        desc=printable(task or ""),
        total=total,
        initial=initial,
        unit=unit,
        mininterval=interval_s,
    )
