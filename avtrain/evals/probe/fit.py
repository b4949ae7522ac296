"""The probes of one target: fitted to the training items, and measured on the test items."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from avtrain.evals.bootstrap import mean_metric
from avtrain.evals.probe.data import Items
from avtrain.evals.probe.model import Scale, Wanted, fit_hidden, fit_linear, hold_out
from avtrain.evals.probe.targets import Target, balance, measure_errors
from avtrain.evals.results import Metric

LINEAR, HIDDEN_LAYER = "linear", "hidden layer"
PROBES = (LINEAR, HIDDEN_LAYER)


def name_metric(metric: str, features: str, probe: str) -> str:
    """Name of a metric in results."""
    return f"{metric} from {features}, {probe}"


def split_name(name: str) -> tuple[str, str, str]:
    """The metric, the features and the probe that `name_metric` put together."""
    metric, _, rest = name.partition(" from ")
    features, _, probe = rest.rpartition(", ")
    return metric, features, probe


@dataclass(frozen=True)
class Probed:
    """What the probes of one target give: metrics by name, and details for the result."""

    metrics: dict[str, Metric] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    unknown: str = ""
    """Why there are none."""


def probe_target(target: Target, train: Items, test: Items, seed: int) -> Probed:
    """Fit both probes to each input, and test them. Chance is the error of the best constant: the
    mean of the training values, or their most frequent class."""
    learned, tested = target.known(train.truth), target.known(test.truth)
    for found, split in ((learned, "training"), (tested, "test")):
        if not found.any():
            return Probed(unknown=f"no window of the {split} split has {target.needs}")
    sources = train.sources[learned]
    if len(np.unique(sources)) < 2:
        return Probed(
            unknown=f"one recording of the training split has {target.needs}, and none is left to "
            "hold out"
        )
    values, truth = target.values(train.truth)[learned], target.values(test.truth)[tested]
    left_out = 0
    if target.kind == "class":
        classes = np.unique(values)
        if len(classes) < 2:
            return Probed(unknown="all windows of the training split have the same")
        values = np.searchsorted(classes, values)
        is_learned = np.isin(truth, classes)
        left_out = int((~is_learned).sum())
        tested[tested] = is_learned
        if not is_learned.any():
            return Probed(unknown="no window of the test split has a class of the training split")
        truth = np.searchsorted(classes, truth[is_learned])
    wanted = _wanted(target, values)
    held_out, constant = hold_out(sources, seed), _constant(target, values)
    chance = measure_errors(target, np.tile(constant, (len(truth), 1)), truth)
    metrics: dict[str, dict[str, Metric]] = {name: {} for name in target.metrics}
    chosen: dict[str, float] = {}
    medians: dict[str, float] = {}
    mask, test_mask = torch.from_numpy(learned), torch.from_numpy(tested)
    for name, features in train.features.items():
        scale = Scale.fit(features[mask])
        inputs, test_inputs = scale(features[mask]), scale(test.features[name][test_mask])
        linear, chosen[f"ridge, {name}"] = fit_linear(inputs, wanted, held_out)
        hidden, chosen[f"step, {name}"] = fit_hidden(inputs, wanted, held_out, seed)
        for probe, network in ((LINEAR, linear), (HIDDEN_LAYER, hidden)):
            outputs = network(test_inputs).double().numpy()
            for metric, errors in measure_errors(target, outputs, truth).items():
                guess = np.average(chance[metric].values, weights=chance[metric].weights)
                full = name_metric(metric, name, probe)
                if errors.unit == "°":
                    medians[full] = round(float(np.median(errors.values)), 2)
                metrics[metric][full] = mean_metric(
                    errors.values,
                    test.sources[tested],
                    float(guess),
                    errors.weights,
                    errors.unit,
                    errors.better,
                )
    details: dict[str, Any] = {
        "train_items": int(learned.sum()),
        "test_items": int(tested.sum()),
        **chosen,
    }
    details |= {"left_out_unlearned": left_out} if left_out else {}
    details |= {"median_deg": medians} if medians else {}
    return Probed({k: v for part in metrics.values() for k, v in part.items()}, details)


def _wanted(target: Target, values: NDArray[np.generic]) -> Wanted:
    if target.kind == "class":
        numbers = values.astype(np.int64)
        weights = balance(numbers) if target.balanced else np.ones(len(numbers))
        return Wanted(torch.from_numpy(numbers), torch.from_numpy(weights), int(numbers.max()) + 1)
    numbers = values.astype(np.float64)
    outputs = np.log(numbers)[:, None] if target.kind == "quantity" else numbers
    return Wanted(torch.from_numpy(outputs), torch.ones(len(outputs), dtype=torch.float64))


def _constant(target: Target, values: NDArray[np.generic]) -> NDArray[np.float64]:
    """Outputs (K,) of the best constant."""
    if target.kind == "class":
        counts = np.bincount(values.astype(np.int64))
        most_frequent: NDArray[np.float64] = np.eye(len(counts))[int(np.argmax(counts))]
        return most_frequent
    constant: NDArray[np.float64] = _wanted(target, values).values.mean(dim=0).numpy()
    return constant
