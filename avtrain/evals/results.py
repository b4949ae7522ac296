"""Results of evaluations, and the files that hold them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from avtrain.errors import TrainingError
from avtrain.run_folder import RESULT_ENDING
from shards.files import dump_json, write_atomic

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
