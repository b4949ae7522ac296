"""Where do sounds come from? A linear probe on the frozen audio feature of each view.

The probe gives one Cartesian vector per class in the frame of the view: the direction of the class,
of length 1 if it sounds and 0 if not (ACCDOA; Shimada et al., ICASSP 2021). It is the solution of
least squares with a little ridge: there is nothing to tune. In the test the vectors of a clip's
views are rotated back to the recording's frame and averaged. The truth are the ``events`` of the
set: the mean direction of each source over the moments of the window at which it sounds.

One vector cannot give two directions: a class with several sources in a window is neither fitted
nor tested there; the result counts how many were left out.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from tqdm import tqdm

from avtrain.data.plan import Plan
from avtrain.errors import TrainingError
from avtrain.evals.evaluation import EvaluationOptions, open_evaluation
from avtrain.evals.feature_store import BATCH_SIZE, FrozenFeatures, WindowOptions
from avtrain.evals.localization.data import Windows, find_classes, label_windows
from avtrain.evals.localization.figure import plot_directions
from avtrain.evals.localization.metrics import Estimates, localization_metrics, match_sources
from avtrain.evals.localization.model import LeastSquares
from avtrain.evals.results import Result

TASK = "localization"


@dataclass(frozen=True, kw_only=True)
class LocalizationOptions(WindowOptions):
    """The probe is fitted to ``rounds`` passes over the training split, each with windows, views
    and augmentation of its own."""

    rounds: int = 8


def evaluate_localization(common: EvaluationOptions, options: LocalizationOptions) -> Result:
    """Fit the probe on one split, test it on the other, draw a figure, write and return the result.

    Raises TrainingError for a set that does not say where its sounds come from.
    """
    run = open_evaluation(TASK, common)
    views = options.views_to_read(run.train)
    clip = replace(common.config.clip, views=views, moments=1)
    if options.keep_features is None:
        clip = replace(clip, frames=1)  # no video is needed: the fewer frames are read the better
    classes = find_classes(run.train)
    find_classes(run.test)
    networks = run.load_networks()
    progress = run.progress(
        networks.described,
        {
            "views": (options.views, views),
            "rounds": options.rounds,
            "windows": options.windows,
            "data": run.train.sha256,
            "split": common.train_split,
            "test": common.test_split,
        },
    )
    if (written := progress.finished_result()) is not None:
        return written

    fit = LeastSquares()
    if (state := progress.load()) is not None:
        progress.check(state, LeastSquares.example(len(classes), networks.audio_dim))
        fit.state = state
    rounds = range(fit.state["rounds"], options.rounds)
    bar = run.bar(len(run.train) * len(rounds) + len(run.test) * options.windows)
    clips = run.train_clips(clip, directions=True), run.test_clips(clip, options.windows)
    plans = (Plan(split, common.seed, BATCH_SIZE) for split in (run.train, run.test))
    train_features, test_features = (
        FrozenFeatures(networks, split, plan, run.workers, unreadable, options)
        for split, plan, unreadable in zip(clips, plans, run.unreadable, strict=True)
    )
    for number in rounds:
        fit.add(_read(train_features, range(number, number + 1), classes, bar))
        progress.save(fit.state)
    windows = _read(test_features, range(options.windows), classes, bar)
    bar.close()
    windows = windows.select(run.unreadable_test.readable(windows.index.numpy()))
    by_class, lone = match_sources(windows, fit.solve().directions(windows))
    if not len(by_class.index):
        raise TrainingError(
            f"no window of {run.test.where} has a single source of a "
            f"class of split {run.train.split!r}; there is nothing to test"
        )
    sources = np.array(run.test.sources)
    metrics = localization_metrics("", by_class, sources)
    if len(lone.index):
        metrics |= localization_metrics("one source, ", lone, sources)
    result = run.result(
        networks.described,
        metrics,
        options.views,
        test={"rounds": options.rounds, "windows": options.windows},
        details=_details(windows, by_class, lone, classes),
    )
    return run.finish(progress, result, partial(plot_directions, by_class))


def _read(
    features: FrozenFeatures, epochs: range, classes: tuple[int, ...], bar: tqdm[Any]
) -> Windows:
    parts = []
    for epoch in epochs:
        with closing(features.batches(epoch, ("audio",))) as batches:
            for batch in batches:
                audio = batch.features["audio"]
                parts.append(label_windows(features.clips, epoch, batch.index, audio, classes))
                bar.update(len(batch.index))
    return Windows.join(parts)


def _details(
    windows: Windows, by_class: Estimates, lone: Estimates, classes: tuple[int, ...]
) -> dict[str, Any]:
    return {
        "probe": "linear, least squares",
        "classes": list(classes),
        "sources": len(by_class.index),
        "left_out_of_one_class": int(windows.sources[windows.sources > 1].sum()),
        "left_out_unlearned": int(windows.others.sum()),
        "one_source_windows": len(lone.index),
        "median_error_deg_by_class": {
            str(name): round(float(np.median(by_class.error_deg[by_class.kind == kind])), 2)
            for kind, name in enumerate(classes)
            if (by_class.kind == kind).any()
        },
    }
