"""Action recognition with the video network: fine-tuned as a whole, or a linear probe on it.

Morgado, Li and Vasconcelos (NeurIPS 2020), section 4: the network, dropout and one linear layer
name the action of a short window. Clip@1 is the share of windows that are named right, Video@1 that
of videos by the mean of their windows' probabilities.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from avtrain.config import Config
from avtrain.data.unreadable import LeftOut, sentences
from avtrain.evals.action.classifier import Protocol
from avtrain.evals.action.figure import plot_confusion
from avtrain.evals.action.fold import ActionOptions, Answers, FoldRun, Start
from avtrain.evals.action.videos import Fold, LabelledSet
from avtrain.evals.bootstrap import mean_metric
from avtrain.evals.results import Metric, Network, Result
from avtrain.evals.tables import name_network

CONFUSION = "confusion.png"


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
    left_out = LeftOut(str(videos.root), len(videos.videos))
    for checkpoint in [None, options.checkpoint] if both else [options.checkpoint]:
        networks = Start.of(checkpoint, config, options.seed)
        answers = []
        for fold in folds:
            run = FoldRun(videos, fold, networks, config, protocol, options, left_out)
            answers.append(run.answers())
            states.append(run.progress)
        made = _result(videos, folds, answers, networks.described, protocol, options)
        results.append(replace(made, left_out=sentences(left_out)))
        results[-1].write(options.out)
    name = name_network(networks.described).kind
    plot_confusion(
        _confusion(videos, answers),
        videos.classes,
        f"{protocol.task}, {name}: Video@1 {results[-1].metrics['Video@1'].value:.1%}",
        options.out / f"{protocol.task}-{CONFUSION}",
    )
    for state in states:
        state.delete()
    return results


def _result(
    videos: LabelledSet,
    folds: Sequence[Fold],
    answers: Sequence[Answers],
    described: Network,
    protocol: Protocol,
    options: ActionOptions,
) -> Result:
    tested = np.concatenate([of.positions for of in answers])
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
        test={
            "folds": [fold.name for fold in folds],
            "splits": None if videos.has_folds else [options.train_split, options.test_split],
            "protocol": asdict(protocol),
        },
        details={
            "classes": len(videos.classes),
            "chance": "the largest class's share of the test videos",
            "folds": {
                fold.name: {"train_videos": len(fold.train), "test_videos": len(fold.test)}
                for fold in folds
            },
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
        tested = [of.positions for _, of in group]
        truth = [videos.labels[test] for test in tested]
        origins = [videos.videos[position].origin for position in np.concatenate(tested)]
        weights = np.concatenate([np.full(len(test), 1 / len(test)) for test in tested])
        # Naming one class for all videos is right that often.
        chance = float(np.mean([np.bincount(of).max() / len(of) for of in truth]))
        right = [of.videos == true for (_, of), true in zip(group, truth, strict=True)]
        metrics[f"Video@1{name}"] = mean_metric(np.concatenate(right), origins, chance, weights)
        right = [
            (of.windows == true[:, None]).mean(axis=1)
            for (_, of), true in zip(group, truth, strict=True)
        ]
        metrics[f"Clip@1{name}"] = mean_metric(np.concatenate(right), origins, chance, weights)
    return metrics


def _confusion(videos: LabelledSet, answers: Sequence[Answers]) -> NDArray[np.int64]:
    """Numbers of test videos of each class (rows) that were named as each (columns)."""
    counts = np.zeros((len(videos.classes),) * 2, dtype=np.int64)
    for of in answers:
        np.add.at(counts, (videos.labels[of.positions], of.videos), 1)
    return counts
