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
"""Key in the details: number of the test's sources that are in the training split too."""


@dataclass(frozen=True)
class Metric:
    """A value with its 95 % interval (None with only one source) and the value of guessing,
    ``chance`` (None if it has none). Shares are 0 to 1 with the unit ``%``; ``better`` is
    ``higher`` or ``lower``."""

    value: float
    interval_95: tuple[float, float] | None
    chance: float | None
    unit: str = "%"
    better: str = "higher"


@dataclass(frozen=True)
class Network:
    """Record of the evaluated networks. ``pretraining`` is ``none`` for random networks.

    ``seed`` is that of the pretraining, or of the random networks. ``settings`` is the
    `Config.digest` of the pretraining, and ``weights`` the SHA-256 of its weights; both are empty
    for random networks.
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
    """Result of one evaluation. The first metric is the one that summaries show.

    ``test`` defines the test together with the task, the views and the set (its splits, the
    training of a classifier, …): only results of the same test compare. ``left_out`` are sentences
    about unreadable clips, which test and training left out.
    """

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
        """Name of its file, without the ending."""
        return file_name(self.task, self.network.checkpoint)

    def write(self, out: Path) -> Path:
        """Write the file atomically, replacing an earlier one, and return its path."""
        out.mkdir(parents=True, exist_ok=True)
        path = result_path(out, self.name)
        write_atomic(path, dump_json(asdict(self), indent=2))
        return path

    @classmethod
    def read(cls, path: Path) -> Result:
        """Read a file; raises TrainingError if it is no result."""
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
    """Name of a result's file without the ending: the task, and whether networks were random."""
    return f"{task}-{UNTRAINED}" if checkpoint is None else task


def result_path(out: Path, name: str) -> Path:
    """Path of the result ``name``, see `file_name`."""
    return out / f"{name}{RESULT_ENDING}"


def _metric(content: dict[str, Any]) -> Metric:
    interval = content["interval_95"]
    return Metric(**{**content, "interval_95": None if interval is None else tuple(interval)})


def read_results(runs: Sequence[Path]) -> list[Result]:
    """All results in these folders and their subfolders.

    Raises TrainingError for a folder without a result, or with a damaged one.
    """
    results: list[Result] = []
    for run in runs:
        paths = sorted(run.rglob(f"*{RESULT_ENDING}"))
        if not paths:
            raise TrainingError(f"{run} holds no result; run `avtrain eval … --out {run}` first")
        results += [Result.read(path) for path in paths]
    return results
