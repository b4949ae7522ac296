"""Results of evaluations: intervals, the files they are kept in, and tables of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from avtrain.errors import TrainingError
from avtrain.run_folder import RESULT_ENDING
from shards.files import dump_json, write_atomic

BOOTSTRAP_ROUNDS = 10_000
_MOST_DRAWS = 20_000_000
"""Of rounds times sources: 160 MB."""
UNTRAINED = "untrained"
LEARNED_FROM = "test_sources_learned_from"
"""Among the details: how many of the test's recordings the classifier or head has learned from."""


@dataclass(frozen=True)
class Metric:
    """A number with its 95 % interval (None where there is only one source) and what guessing
    gives (None where that has no number). Shares are 0 to 1 and have the unit ``%``; others are
    shown as they are."""

    value: float
    interval_95: tuple[float, float] | None
    chance: float | None
    unit: str = "%"
    better: str = "higher"


@dataclass(frozen=True)
class Network:
    """What was evaluated: ``pretraining`` in words (none for random networks), and how.

    ``seed`` is that of the pretraining, or of the random networks; ``settings`` the `digest` of all
    the pretraining's other settings and ``weights`` the SHA-256 of its weights, empty for random
    ones.
    """

    pretraining: str
    steps: int
    features: str
    audio: str
    transformer: bool
    positions: str
    checkpoint: str | None
    data: str | None
    preset: str
    seed: int = 0
    settings: str = ""
    weights: str = ""
    norm_first: bool = False

    @property
    def kind_of_transformer(self) -> str:
        """As tables say it."""
        if not self.transformer:
            return "no"
        return "norm first" if self.norm_first else "yes"


@dataclass(frozen=True)
class Result:
    """One evaluation. The first metric is the one that tables show first.

    ``test`` says, beside the task, the views and the set, what test it is (its splits, what a
    classifier was trained on and how, …): only results of one test compare. ``details`` hold what
    else is worth keeping, ``left_out`` what is wrong with clips that could not be read, which the
    test (or the training before it) was made without."""

    task: str
    network: Network
    metrics: dict[str, Metric]
    views: int
    seed: int
    test_clips: int
    test_sources: int
    data: str
    details: dict[str, Any]
    test: dict[str, Any] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Of its file."""
        return file_name(self.task, self.network.checkpoint)

    def write(self, out: Path) -> Path:
        """Atomically, in place of an earlier one."""
        out.mkdir(parents=True, exist_ok=True)
        path = result_path(out, self.name)
        write_atomic(path, dump_json(asdict(self), indent=2))
        return path

    @classmethod
    def read(cls, path: Path) -> Result:
        """Raises TrainingError for a file that is no result."""
        try:
            content = json.loads(path.read_bytes())
            metrics = {name: _metric(value) for name, value in content["metrics"].items()}
            if not metrics:
                raise ValueError("no metrics")
            network = Network(**content["network"])
            return cls(**{**content, "network": network, "metrics": metrics})
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise TrainingError(f"{path} is no result of `avtrain eval` ({error!r})") from None


def file_name(task: str, checkpoint: object | None) -> str:
    """The task, and whether the networks were random."""
    return f"{task}-{UNTRAINED}" if checkpoint is None else task


def result_path(out: Path, name: str) -> Path:
    return out / f"{name}{RESULT_ENDING}"


def _metric(content: dict[str, Any]) -> Metric:
    interval = content["interval_95"]
    return Metric(**{**content, "interval_95": None if interval is None else tuple(interval)})


def read_results(runs: Sequence[Path]) -> list[Result]:
    """The results that evaluations left in these folders, and in folders in them.

    Raises TrainingError for a folder without one, or with a damaged one.
    """
    results: list[Result] = []
    for run in runs:
        paths = sorted(run.rglob(f"*{RESULT_ENDING}"))
        if not paths:
            raise TrainingError(f"{run} holds no result; run `avtrain eval … --out {run}` first")
        results += [Result.read(path) for path in paths]
    return results


def as_table(results: Sequence[Result]) -> str:
    """A table in Markdown, one line for each metric of each result."""
    return markdown(
        [
            _cells(result, name, metric)
            for result in results
            for name, metric in result.metrics.items()
        ]
    )


def markdown(lines: Sequence[dict[str, str]]) -> str:
    """A table of lines that have the same columns, at least one."""
    widths = {name: max(len(name), *(len(line[name]) for line in lines)) for name in lines[0]}
    rows = [
        list(widths),
        ["-" * width for width in widths.values()],
        *(list(line.values()) for line in lines),
    ]
    return "\n".join(
        "| "
        + " | ".join(cell.ljust(width) for cell, width in zip(row, widths.values(), strict=True))
        + " |"
        for row in rows
    )


def _cells(result: Result, name: str, metric: Metric) -> dict[str, str]:
    interval = "-"
    if metric.interval_95 is not None:
        interval = " to ".join(in_words(value, metric.unit) for value in metric.interval_95)
    return {
        "task": result.task,
        **network_cells(result.network),
        "views": str(result.views),
        "metric": name if metric.unit == "" else f"{name} ({metric.unit})",
        "value": in_words(metric.value, metric.unit),
        "95 % interval": interval,
        "chance": "-" if metric.chance is None else in_words(metric.chance, metric.unit),
        "test clips": str(result.test_clips),
        "sources": str(result.test_sources),
    }


def network_cells(network: Network) -> dict[str, str]:
    """The columns that tables have of a network."""
    steps = f", {network.steps} steps" if network.steps else ""
    return {
        "pretraining": network.pretraining + steps,
        "features": network.features if network.audio == "foa" else f"{network.audio} log-mel",
        "transformer": network.kind_of_transformer,
    }


def in_words(value: float, unit: str) -> str:
    """A metric's value as tables show it."""
    return f"{100 * value:.1f}" if unit == "%" else f"{value:.1f}"


def bootstrap_rounds(sources: int) -> int:
    """`BOOTSTRAP_ROUNDS`, of thousands of sources fewer."""
    return min(BOOTSTRAP_ROUNDS, max(1000, _MOST_DRAWS // sources))


def resampled(sources: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64] | None]:
    """For a bootstrap over sources: the number of each item's source (items,), and how often each
    source is drawn in each round (rounds, sources); None for one source.

    Items of one source are not independent: whole sources are drawn with replacement.
    """
    names, number = np.unique(np.asarray(sources, dtype=str), return_inverse=True)
    if len(names) < 2:
        return number, None
    equal = np.full(len(names), 1 / len(names))
    times = np.random.default_rng(0).multinomial(
        len(names), equal, size=bootstrap_rounds(len(names))
    )
    return number, times


def interval_of(values: NDArray[np.float64]) -> tuple[float, float]:
    """The middle 95 % of a statistic's values over the rounds of a bootstrap."""
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return float(low), float(high)


def share(
    right: ArrayLike,
    sources: ArrayLike,
    chance: float | None,
    weights: ArrayLike | None = None,
    unit: str = "%",
    better: str = "higher",
) -> Metric:
    """The mean of ``right`` (items,), weighted if ``weights`` (items,) are given."""
    right = np.asarray(right, dtype=np.float64)
    weight = np.ones(len(right)) if weights is None else np.asarray(weights, dtype=np.float64)
    number, times = resampled(sources)
    value = float((weight @ right) / weight.sum())
    if times is None:
        return Metric(value, None, chance, unit, better)
    above, below = np.bincount(number, weight * right), np.bincount(number, weight)
    return Metric(value, interval_of((times @ above) / (times @ below)), chance, unit, better)


def middle(
    values: ArrayLike, sources: ArrayLike, chance: float | None, unit: str, better: str = "lower"
) -> Metric:
    """The median of ``values`` (items,)."""
    values = np.asarray(values, dtype=np.float64)
    number, times = resampled(sources)
    value = float(np.median(values))
    if times is None:
        return Metric(value, None, chance, unit, better)
    order = np.argsort(values, kind="stable")
    ordered, whose = values[order], number[order]
    medians = []
    for drawn in times[:: len(times) // 1000]:
        reached = np.cumsum(drawn[whose])
        medians.append(ordered[np.searchsorted(reached, reached[-1] / 2)])
    return Metric(value, interval_of(np.array(medians)), chance, unit, better)
