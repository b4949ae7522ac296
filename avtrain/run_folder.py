"""Names of the files in the folder of a run (``OUT``), and how its logs are read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NotRequired, TypedDict, TypeVar

from msgspec import Meta

from shards.files import open_regular, parse_json

CHECKPOINT = "checkpoint.pt"
"""Newest state; ``--resume`` continues from it, and evaluations read its networks."""
KEPT_CHECKPOINTS = "checkpoints"
"""Folder of the older states that ``--keep-last`` and ``--keep-every`` keep."""
CONFIG = "config.json"
"""Settings."""
LOG = "log.jsonl"
"""One line per step."""
CURVES = "curves.png"
"""Loss and accuracies over the steps."""
TENSORBOARD, WANDB, MLFLOW = "tensorboard", "wandb", "mlflow"
"""Folders that ``--report-to`` writes to."""
REPORTED_AS = "run-id.txt"
"""File in the last two: how the service names the run."""
TRACE = "trace.json"
"""What ``--profile`` measured."""
FIRST_STAGE = "avc"
"""Folder of a curriculum's first stage, itself the folder of a run."""
RESULT_ENDING = ".result.json"
"""File of an evaluation's result."""
PROGRESS_ENDING = ".part"
"""State of an evaluation that is not finished."""


def faults(rank: int) -> str:
    """Clips that the process ``rank`` could not read, one line per clip."""
    return f"faults-{rank}.jsonl" if rank else "faults.jsonl"


LONGEST_LINE = 2**16
"""Bytes of the longest line that is read of a log."""
_Count = Annotated[int, Meta(ge=0, le=2**53)]


class NumberedLine(TypedDict):
    """What every line of a run's logs holds."""

    step: Annotated[int, Meta(ge=1, le=2**53)]


class StepLine(NumberedLine):
    """A line of `LOG`. Of what is not required a study's archive keeps nothing."""

    epoch: NotRequired[_Count]
    loss: float
    clip_accuracy: float
    view_accuracy: float | None
    clips: NotRequired[_Count]
    clips_per_s: NotRequired[float]
    data_wait_s: NotRequired[float]


_Line = TypeVar("_Line", bound=NumberedLine)


@dataclass(frozen=True)
class Log:
    """The readable lines of a run's log, and a sentence about the others ("": there are none)."""

    lines: list[StepLine]
    warning: str


def read_log(path: Path) -> Log:
    """Read a run's log. A last line that is still being written does not count.

    Raises OSError, also for a device or a pipe.
    """
    found = [line for _, line in read_lines(path, StepLine)]
    lines = [line for line in found if line is not None]
    return Log(lines, left_out(path, len(found) - len(lines)))


def read_lines(
    path: Path, kind: type[_Line], total: int = 2**53
) -> Iterator[tuple[bytes, _Line | None]]:
    """The complete lines of the first ``total`` steps, as they are and as ``kind``: None for junk,
    such as a machine leaves that fails while writing, and for a step before that of the last line.
    """
    last = 0
    with open_regular(path) as file:
        while text := file.readline(LONGEST_LINE):
            whole = text.endswith(b"\n")
            end = text
            while not end.endswith(b"\n"):
                end = file.readline(LONGEST_LINE)
                if not end:
                    return
            line = _parse(text, kind) if whole else None
            if line is None or line["step"] < last:
                yield text, None
            elif line["step"] <= total:
                last = line["step"]
                yield text, line


def left_out(path: Path, count: int) -> str:
    """A sentence for ``count`` lines of a log that cannot be read; "" for none."""
    return f"warning: {path}: {count} damaged line{'s' * (count > 1)} left out" * (count > 0)


def _parse(text: bytes, kind: type[_Line]) -> _Line | None:
    try:
        return parse_json(text, kind)
    except ValueError:
        return None
