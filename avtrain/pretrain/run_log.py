"""What a run tells while it goes: a line for every step, a bar, and what could not be read."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from tqdm import tqdm

from avtrain.data.batch import Batch
from avtrain.data.plan import Step
from avtrain.errors import TrainingError
from avtrain.networks.losses import ContrastiveLoss
from avtrain.run_folder import LOG, faults
from avtrain.runtime.distributed import World
from avtrain.runtime.file_lock import hold, let_go
from shards.files import write_atomic
from shards.reader import ShardSet


class RunLog:
    """``OUT/log.jsonl`` from step ``total`` on, and the bar. ``last`` is the newest line, None
    before the first; ``clips`` and ``faults`` are counted in this process, since this start."""

    def __init__(self, out: Path, total: int, last_total: int, world: World) -> None:
        self.path = out / LOG
        self.faults_path = out / faults(world.rank)
        self.world = world
        if world.first and self.path.exists():
            with self.path.open("a") as file:
                _hold(file)  # which another run that writes there has
                let_go(file)
        before = _cut(self.path, total, write=world.first)
        _cut(self.faults_path, total, write=True)
        self.last: dict[str, Any] | None = json.loads(before[-1]) if before else None
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
            self._file = self.path.open("a")
            _hold(self._file)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.bar.close()
        if self._file is not None:
            let_go(self._file)
            self._file.close()

    def note_faults(self, batch: Batch, shards: ShardSet) -> None:
        """Count a batch's clips, and write down those of ``shards`` that could not be read."""
        self.clips += len(batch.index) + len(batch.faults)
        self.faults += len(batch.faults)
        if batch.faults:
            with self.faults_path.open("a") as file:
                for index, fault in batch.faults:
                    place = {"shard": shards.shard_file(index), "key": shards.keys[index]}
                    file.write(json.dumps({"step": self._step, **place, "fault": fault}) + "\n")

    def add(
        self,
        total: int,
        place: Step,
        contrasts: Sequence[ContrastiveLoss],
        seconds: Mapping[str, float],
    ) -> dict[str, Any]:
        """Write and return the line of a step, of the means over its pieces."""
        self._step = total + 1
        self._all_clips += len(place.samples)
        elapsed = time.monotonic() - self._began
        views = [contrast.view_accuracy for contrast in contrasts]
        line = {
            "step": total,
            "epoch": place.epoch,
            "loss": _mean([contrast.loss for contrast in contrasts]),
            "clip_accuracy": _mean([contrast.clip_accuracy for contrast in contrasts]),
            "view_accuracy": None if None in views else _mean(views),
            "clips": len(place.samples),
            "clips_per_s": round(self._all_clips / elapsed, 2),
            "data_wait_s": round(seconds["data"] - self._waited, 4),
        }
        self._waited = seconds["data"]
        self.last = line  # not all: they would grow for as long as the run lasts
        if self._file is not None:
            self._file.write(json.dumps(line) + "\n")
        accuracy = "clip_accuracy" if line["view_accuracy"] is None else "view_accuracy"
        texts = {
            "loss": f"{line['loss']:.3f}",
            "accuracy": f"{line[accuracy]:.1%}",
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


def read_log(path: Path) -> list[dict[str, Any]]:
    """All lines that a run has written."""
    return [json.loads(text) for text in path.read_text().splitlines()]


def _cut(path: Path, total: int, write: bool) -> list[str]:
    """The lines of the first ``total`` steps, up to one that is not whole; ``write``: and the file
    cut to them."""
    if not path.exists():
        return []
    lines = []
    for text in path.read_text(errors="replace").splitlines():
        try:
            if json.loads(text)["step"] > total:
                break
        except (ValueError, KeyError, TypeError):  # a machine that failed had not written all
            break
        lines.append(text)
    if write:
        write_atomic(path, "".join(f"{line}\n" for line in lines).encode())
    return lines


def _hold(file: IO[str]) -> None:
    """Keep other runs away, while the file is open. Raises TrainingError where one is there."""
    if not hold(file):
        raise TrainingError(
            f"{file.name} is being written by another run; wait for it, or choose another --out"
        )


def _mean(values: Sequence[Any]) -> float:
    return float(sum(value.item() for value in values) / len(values))
