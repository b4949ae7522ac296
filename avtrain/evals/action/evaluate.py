"""Action recognition with the video network: fine-tuned as a whole, or a linear probe on it.

Morgado, Li and Vasconcelos (NeurIPS 2020), section 4: the network, dropout and one linear layer
predict the action of a short window. Clip@1 is the share of windows that are predicted right,
Video@1 that of videos, by the mean of their windows' probabilities.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from avtrain.data.unreadable import Unreadable, messages
from avtrain.evals.action.figure import plot_confusion
from avtrain.evals.action.folds import Fold, LabelledSet
from avtrain.evals.action.metrics import (
    Predictions,
    accuracy_by_class,
    action_metrics,
    confusion_matrix,
)
from avtrain.evals.action.protocol import ActionProtocol
from avtrain.evals.action.train import FoldRun, InitialNetwork
from avtrain.evals.evaluation import EvaluationOptions
from avtrain.evals.results import LEARNED_FROM, Network, Result
from avtrain.evals.tables import name_network

CONFUSION = "confusion.png"


@dataclass(frozen=True)
class ActionOptions:
    """With ``baseline``, random networks are evaluated beside the checkpoint's. ``folds`` None: all
    folds; a set without folds is tested on its test split."""

    protocol: ActionProtocol
    folds: tuple[int, ...] | None = None
    baseline: bool = True


def evaluate_action(common: EvaluationOptions, options: ActionOptions) -> list[Result]:
    """Train and test on every fold, write and return the results, that of the baseline first.

    An interrupted call resumes: the states of its folds stay in ``out`` until all results are
    written.
    """
    videos, protocol = LabelledSet(common.root), options.protocol
    folds = videos.folds(options.folds, common.train_split, common.test_split)
    both = options.baseline and common.checkpoint is not None
    results, states = [], []
    unreadable = Unreadable(str(videos.root), len(videos.videos))
    for checkpoint in [None, common.checkpoint] if both else [common.checkpoint]:
        one = replace(common, checkpoint=checkpoint)
        initial = InitialNetwork.load(one)
        predictions = []
        for fold in folds:
            run = FoldRun(videos, fold, initial, one, protocol, unreadable)
            predictions.append(run.predictions())
            states.append(run.progress)
        result = _result(videos, folds, predictions, initial.described, one, protocol)
        results.append(replace(result, left_out=messages(unreadable)))
        results[-1].write(common.out)
    name = name_network(results[-1].network).kind
    plot_confusion(
        confusion_matrix(videos, predictions),
        videos.classes,
        f"{protocol.task}, {name}: Video@1 {results[-1].metrics['Video@1'].value:.1%}",
        common.out / f"{protocol.task}-{CONFUSION}",
    )
    for state in states:
        state.delete()
    return results


def _result(
    videos: LabelledSet,
    folds: Sequence[Fold],
    predictions: Sequence[Predictions],
    network: Network,
    common: EvaluationOptions,
    protocol: ActionProtocol,
) -> Result:
    tested = np.concatenate([found.positions for found in predictions])
    learned_from = set[str]()
    for fold in folds:
        train, test = (
            {videos.videos[at].origin for at in part} for part in (fold.train, fold.test)
        )
        learned_from |= train & test
    return Result(
        task=protocol.task,
        network=network,
        metrics=action_metrics(videos, folds, predictions),
        views=1,
        seed=common.seed,
        test_clips=len(set(tested.tolist())),
        test_sources=len({videos.videos[position].origin for position in tested}),
        data=videos.manifest.sha256,
        test={
            "folds": [fold.name for fold in folds],
            "splits": None if videos.has_folds else [common.train_split, common.test_split],
            "protocol": asdict(protocol),
        },
        details={
            "classes": len(videos.classes),
            LEARNED_FROM: len(learned_from),
            "chance": "the largest class's share of the test videos",
            "folds": {
                fold.name: {"train_videos": len(fold.train), "test_videos": len(fold.test)}
                for fold in folds
            },
            "video@1_by_class": accuracy_by_class(videos, predictions),
        },
    )
