"""Log of a run: a line per step, a progress bar, and the clips that could not be read."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, TypeVar

from tqdm import tqdm

from avtrain.data.batch import Batch
from avtrain.data.plan import Step
from avtrain.data.shard_sets import Shards
from avtrain.errors import TrainingError
from avtrain.networks.losses import ContrastiveLoss
from avtrain.run_folder import LOG, NumberedLine, StepLine, faults, left_out, read_lines
from avtrain.runtime.distributed import World
from avtrain.runtime.file_lock import release, try_lock
from shards.errors import show
from shards.files import append_regular, write_atomic

_Line = TypeVar("_Line", bound=NumberedLine)


class RunLog:
    """``OUT/log.jsonl`` after step ``total``, and the progress bar. ``last`` is the newest line,
    None before the first; ``clips`` and ``faults`` count this rank's clips since this start."""

    def __init__(self, out: Path, total: int, last_total: int, world: World) -> None:
        self.path = out / LOG
        self.faults_path = out / faults(world.rank)
        self.world = world
        if world.first and self.path.exists():
            with append_regular(self.path) as file:
                _lock(file)  # refused if another run writes there
                release(file)
        self.last = _truncate(self.path, total, StepLine, write=world.first)
        _truncate(self.faults_path, total, NumberedLine, write=True)
        self.clips = self.faults = 0
        self._all_clips = 0
        self._began = time.monotonic()
        self._waited = 0.0
        self._step = total + 1
        self._file: IO[str] | None = None
        self.bar = tqdm(
            total=last_total,
            initial=total,
            unit="step",
            mininterval=0.5 if sys.stderr.isatty() else 30.0,
            disable=not world.first,
        )

    def __enter__(self) -> RunLog:
        if self.world.first:
            self._file = append_regular(self.path)
            _lock(self._file)
        return self

    def begin(self) -> None:
        """Start the clock: what came before is no part of the speed."""
        self._began = time.monotonic()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.bar.close()
        if self._file is not None:
            release(self._file)
            self._file.close()

    def note_faults(self, batch: Batch, shards: Shards) -> None:
        """Count a batch's clips, and write those of ``shards`` that could not be read to a file."""
        self.clips += len(batch.index) + len(batch.faults)
        self.faults += len(batch.faults)
        if batch.faults:
            with append_regular(self.faults_path) as file:
                for index, fault in batch.faults:
                    place = {"shard": shards.shard_file(index), "key": shards.keys[index]}
                    file.write(json.dumps({"step": self._step, **place, "fault": fault}) + "\n")

    def add(
        self,
        total: int,
        step: Step,
        losses: Sequence[ContrastiveLoss],
        seconds: Mapping[str, float],
    ) -> StepLine:
        """Write and return the line of a step: means over its micro-batches."""
        self._step = total + 1
        self._all_clips += len(step.samples)
        elapsed = time.monotonic() - self._began
        accuracies = [loss.view_accuracy for loss in losses]
        line: StepLine = {
            "step": total,
            "epoch": step.epoch,
            "loss": _mean([loss.value for loss in losses]),
            "clip_accuracy": _mean([loss.clip_accuracy for loss in losses]),
            "view_accuracy": None if None in accuracies else _mean(accuracies),
            "clips": len(step.samples),
            "clips_per_s": round(self._all_clips / elapsed, 2),
            "data_wait_s": round(seconds["data"] - self._waited, 4),
        }
        self._waited = seconds["data"]
        self.last = line  # not all lines: they would take ever more memory
        if self._file is not None:
            self._file.write(json.dumps(line) + "\n")
        views, clips = line["view_accuracy"], line["clip_accuracy"]
        texts = {
            "loss": f"{line['loss']:.3f}",
            "accuracy": f"{clips if views is None else views:.1%}",
            "clips/s": f"{line['clips_per_s']:.1f}",
            "data": f"{seconds['data'] / elapsed:.0%}",
        }
        if self.faults:
            texts["unreadable"] = str(self.faults)
        self.bar.set_postfix(texts, refresh=False)
        self.bar.update(1)
        return line

    def flush(self) -> None:
        if self._file is not None:
            self._file.flush()


def _truncate(path: Path, total: int, kind: type[_Line], write: bool) -> _Line | None:
    """The last line of the first ``total`` steps, None if there is none. With ``write``, the file
    is truncated to these steps, without damaged lines, of which standard error tells."""
    if not path.exists():
        return None
    texts, damaged, last = [], 0, None
    for text, line in read_lines(path, kind, total):
        if line is None:
            damaged += 1
        else:
            texts.append(text)
            last = line
    if write:
        if damaged:
            show(left_out(path, damaged), err=True)
        write_atomic(path, b"".join(texts))
    return last


def _lock(file: IO[str]) -> None:
    """Keep other runs from writing the file while it is open. Raises TrainingError if one does."""
    if not try_lock(file):
        raise TrainingError(
            f"{file.name} is being written by another run; wait for it, or choose another --out"
        )


def _mean(values: Sequence[Any]) -> float:
    return float(sum(value.item() for value in values) / len(values))
