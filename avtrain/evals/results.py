"""Results of evaluations, and the files that hold them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from msgspec import Meta

from avtrain.errors import TrainingError
from avtrain.run_folder import RESULT_ENDING
from shards.files import dump_json, parse_json, read_regular, write_atomic

_LARGEST_FILE = 20_000_000
_Number = Annotated[float, Meta(ge=-1e9, le=1e9)]
_Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
_Words = Annotated[str, Meta(max_length=1000)]
# It becomes part of the names of files.
_Task = Annotated[str, Meta(pattern=r"^[^/\\\0]{1,100}$")]
if TYPE_CHECKING:
    _Values = Any
else:  # settings and details, nested as deep as protocols are
    _Value = int | float | str | bool | None
    _Values1 = _Value | list[_Value] | dict[str, _Value]
    _Values2 = _Value | list[_Values1] | dict[str, _Values1]
    _Values3 = _Value | list[_Values2] | dict[str, _Values2]
    _Values = _Value | list[_Values3] | dict[str, _Values3]
UNTRAINED, ENERGY = "untrained", "energy"
"""Words for `--checkpoint`, in names of files, and in tables: random networks, and none at all
(`avtrain.networks.energy`)."""
SHARE = "label_share"
"""Key in the test: share of the training recordings whose labels were learned."""
LEARNED_FROM = "test_sources_learned_from"
"""Key in the details: number of the test's sources that are in the training split too."""


@dataclass(frozen=True)
class Metric:
    """A value with its 95 % interval (None with only one source) and the value of guessing,
    ``chance`` (None if it has none). Shares are 0 to 1 with the unit ``%``; ``better`` is
    ``higher`` or ``lower``."""

    value: _Number
    interval_95: tuple[_Number, _Number] | None
    chance: _Number | None
    unit: Annotated[str, Meta(max_length=20)] = "%"
    better: Annotated[str, Meta(pattern="^(higher|lower)$")] = "higher"


@dataclass(frozen=True)
class Network:
    """Record of the evaluated networks. ``pretraining`` is ``none`` for random networks, and
    `ENERGY` where there is no network.

    ``seed`` is that of the pretraining, or of the random networks. ``settings`` is the
    `Config.digest` of the pretraining, and ``weights`` the SHA-256 of its weights; both are empty
    for random networks.
    """

    pretraining: _Words
    steps: _Count
    features: _Words
    audio: _Words
    transformer: bool
    positions: _Words
    checkpoint: Annotated[str, Meta(max_length=10_000)] | None
    data: _Words | None
    preset: _Words
    seed: _Count = 0
    settings: _Words = ""
    weights: _Words = ""
    norm_first: bool = False

    @property
    def kind(self) -> str:
        """The pretraining, `UNTRAINED` or `ENERGY`."""
        if self.checkpoint is not None or self.pretraining == ENERGY:
            return self.pretraining
        return UNTRAINED


@dataclass(frozen=True)
class Result:
    """Result of one evaluation. The first metric is the one that summaries show.

    ``test`` defines the test together with the task, the views and the set (its splits, the
    training of a classifier, …): only results of the same test compare. ``left_out`` are sentences
    about unreadable clips, which test and training left out.
    """

    task: _Task
    network: Network
    metrics: Annotated[dict[_Words, Metric], Meta(min_length=1, max_length=10_000)]
    views: _Count
    seed: _Count
    test_clips: _Count
    test_sources: _Count
    data: _Words
    details: dict[str, _Values]
    test: dict[str, _Values] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Name of its file, without the ending."""
        return file_name(self.task, self.network.kind)

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
            return parse_json(read_regular(path, _LARGEST_FILE), cls)
        except OSError as error:
            raise TrainingError(f"{path} cannot be read: {error.strerror}") from None
        except ValueError as error:
            raise TrainingError(f"{path} is no result of `avtrain eval`: {error}") from None


def file_name(task: str, kind: str) -> str:
    """Name of a result's file without the ending: the task, and the `Network.kind` unless it is a
    trained one."""
    return f"{task}-{kind}" if kind in (UNTRAINED, ENERGY) else task


def result_path(out: Path, name: str) -> Path:
    """Path of the result ``name``, see `file_name`."""
    return out / f"{name}{RESULT_ENDING}"


def read_results(runs: Sequence[Path]) -> tuple[list[Result], list[str]]:
    """All results in these folders and their subfolders, and a sentence about each file that is
    left out because it is damaged.

    Raises TrainingError for a folder without a file of a result, and if all of them are damaged.
    """
    results: list[Result] = []
    left_out: list[str] = []
    for run in runs:
        paths = sorted(run.rglob(f"*{RESULT_ENDING}"))
        if not paths:
            raise TrainingError(f"{run} holds no result; run `avtrain eval … --out {run}` first")
        for path in paths:
            try:
                results.append(Result.read(path))
            except TrainingError as error:
                left_out.append(str(error))
    if not results:
        raise TrainingError(left_out[0])
    return results, left_out
