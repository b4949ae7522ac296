"""Stages of the measurement: each in a process of its own, which may fail, hang or be killed.

A stage writes its results to a file as it finds them, so that whatever ends it, or the whole
measurement, loses nothing. A process of its own also keeps an error of the GPU, after which its
process can do nothing more, from the stages after it.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from shards.files import dump_json, parse_json, write_atomic

LEAST_S = 5.0
"""A stage with less time than this is not started."""
_POLL_S = 0.5
PROCESSES = multiprocessing.get_context("forkserver")
"""Forked from a process that never uses the GPU: a child of one that did could not use it."""


@dataclass(frozen=True)
class Job:
    """What all stages are told. ``ends_at`` (of ``time.monotonic``) is when the stage must end;
    ``folder`` is for its files, ``shards`` a set of paper-size crops, ``peer`` a checkout of the
    published code."""

    device: str
    quick: bool
    folder: Path
    shards: Path
    peer: Path | None = None
    ends_at: float = math.inf


class Notes:
    """Results of one stage, written to a file as they are added."""

    def __init__(self, path: Path, ends_at: float = math.inf) -> None:
        self.path, self.ends_at = path, ends_at
        self.values: dict[str, Any] = {}
        self.error: dict[str, str] = {}

    def add(self, name: str, value: Any) -> None:
        """``value``: a number, a text, a list of rows (dictionaries of these), or None."""
        self.values[name] = value
        self._write()

    def check(self, name: str, value: float, at_most: float) -> None:
        """Add a number with the limit that it must not exceed; NaN exceeds any."""
        self.add(name, {"value": value, "at_most": at_most, "ok": bool(value <= at_most)})

    def fail(self, error: BaseException) -> None:
        """Note the error that ends the stage."""
        words = "".join(traceback.format_exception_only(error)).strip()
        lines = "".join(traceback.format_tb(error.__traceback__)).splitlines()
        self.error = {"error": words[:1000], "traceback": "\n".join(lines[-12:])}
        self._write()

    @property
    def left_s(self) -> float:
        """Seconds until the stage is ended."""
        return self.ends_at - time.monotonic()

    def _write(self) -> None:
        write_atomic(self.path, dump_json(_plain({"results": self.values, **self.error})))


def _plain(value: Any) -> Any:
    """JSON has no numbers that are not finite: these become text."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return repr(value) if isinstance(value, float) and not math.isfinite(value) else value


@dataclass(frozen=True)
class Stage:
    """``run`` is a function of a module; ``most_s`` is the longest that it may take."""

    name: str
    run: Callable[[Job, Notes], None]
    most_s: float


class Record:
    """The JSON file of the whole measurement, always as new as the last `save`."""

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        self.path = path
        self.content: dict[str, Any] = {"version": 1, "settings": settings, "stages": {}}
        self.save()

    def save(self) -> None:
        write_atomic(self.path, dump_json(self.content, indent=1))

    @property
    def wrong(self) -> list[str]:
        """Checks that did not hold, and stages that did not end well; skipped ones are neither."""
        found = []
        for stage, entry in self.content["stages"].items():
            if entry["status"] not in ("done", "skipped"):
                found.append(stage)
            checks = {name: v for name, v in entry["results"].items() if isinstance(v, dict)}
            found += [f"{stage}: {name}" for name, check in checks.items() if not check["ok"]]
        return found


def run_stages(
    stages: Sequence[Stage],
    job: Job,
    record: Record,
    show: Callable[[str, dict[str, Any]], None],
) -> None:
    """Run ``stages`` one after the other until ``job.ends_at``; ``show`` gets each one's entry."""
    for stage in stages:
        left_s = job.ends_at - time.monotonic()
        entry: dict[str, Any] = {"status": "running", "seconds": 0.0, "results": {}}
        record.content["stages"][stage.name] = entry
        if left_s < LEAST_S:
            entry |= {"status": "skipped", "why": f"{max(0.0, left_s):.0f} s were left"}
        else:
            ends_at = time.monotonic() + min(stage.most_s, left_s)
            _run(stage, replace(job, ends_at=ends_at), record, entry)
        record.save()
        show(stage.name, entry)


def _run(stage: Stage, job: Job, record: Record, entry: dict[str, Any]) -> None:
    path, log = job.folder / f"{stage.name}.json", job.folder / f"{stage.name}.log"
    began = time.monotonic()
    process = PROCESSES.Process(target=_begin, args=(stage.run, job, path, log))
    process.start()
    try:
        while process.is_alive() and time.monotonic() < job.ends_at:
            process.join(_POLL_S)
            _take(path, entry)
            entry["seconds"] = round(time.monotonic() - began, 1)
            record.save()
        in_time = not process.is_alive()
    finally:  # with all processes that it started
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid or 0, signal.SIGKILL)
        process.kill()
        process.join()
        _take(path, entry)
        entry["seconds"] = round(time.monotonic() - began, 1)
    if in_time and process.exitcode == 0:
        entry["status"] = "done"
        return
    entry["status"] = "failed" if in_time else "timed out"
    if "error" not in entry:
        how = f"exit status {process.exitcode}" if in_time else f"{entry['seconds']:.0f} s were up"
        tail = log.read_text(errors="replace").splitlines()[-8:] if log.exists() else []
        entry |= {"error": how, "traceback": "\n".join(tail)}


def _take(path: Path, entry: dict[str, Any]) -> None:
    if path.exists():
        entry |= parse_json(path.read_bytes(), dict[str, Any])


def _begin(run: Callable[[Job, Notes], None], job: Job, path: Path, log: Path) -> None:
    os.setsid()  # so that all processes of the stage can be ended at once
    with log.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    notes = Notes(path, job.ends_at)
    try:
        run(job, notes)
    except BaseException as error:
        notes.fail(error)
        traceback.print_exc()
        sys.exit(1)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.killpg(0, signal.SIGKILL)
