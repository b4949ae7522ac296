"""Runs jobs beside each other; what is finished is kept, what fails does not stop the rest."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from types import FrameType
from typing import Any

from tqdm import tqdm

from benchmarks.study.jobs import AVTRAIN, Job
from shards.files import dump_json, write_atomic

# Jobs share the cores by running beside each other, which costs nothing; threads inside do.
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
SETS = ("world", "shards")
TRAINING = "pretrain "
_POLL_S = 0.2
_STOP_S = 10.0


def chosen(jobs: Sequence[Job], wanted: set[str]) -> list[Job]:
    """The jobs of these names and those that they need, in the same order."""
    kept = set(wanted)
    for job in reversed(jobs):
        if job.name in kept:
            kept.update(job.needs)
    return [job for job in jobs if job.name in kept]


class Records:
    """A file for each job: with which settings it was begun, whether it was finished, and how long
    it took. Settings are the job's own command and those of all jobs that it needs, wherever the
    study lies."""

    def __init__(self, out: Path, jobs: Sequence[Job]) -> None:
        self.folder = out / "jobs"
        self._stamps: dict[str, str] = {}
        self._needed_by: defaultdict[str, list[Job]] = defaultdict(list)
        for job in jobs:
            for name in job.needs:
                self._needed_by[name].append(job)
            needed = [self._stamps[name] for name in job.needs]
            command = [part.removeprefix(f"{out}{os.sep}") for part in job.command[1:]]
            text = json.dumps([command, needed])
            self._stamps[job.name] = hashlib.sha256(text.encode()).hexdigest()

    def path(self, job: Job, ending: str) -> Path:
        return self.folder / f"{job.name.replace('/', '.')}{ending}"

    def read(self, job: Job) -> dict[str, Any]:
        """Empty where there is none that can be read."""
        try:
            record = json.loads(self.path(job, ".json").read_bytes())
        except (OSError, ValueError):
            return {}
        return record if isinstance(record, dict) else {}

    def settings(self, job: Job) -> str:
        """A digest of them."""
        return self._stamps[job.name]

    def is_finished(self, job: Job) -> bool:
        """A training whose network is not there (see `study_archive`) is if nothing needs it."""
        record = self.read(job)
        same = record.get("settings") == self._stamps[job.name]
        if not (same and record.get("finished") is True and job.makes.exists()):
            return False
        needed_by = self._needed_by[job.name]
        return not _lacks_network(job) or all(map(self.is_finished, needed_by))

    def begin(self, job: Job) -> None:
        """Make room: what was made with other settings goes, and what cannot be gone on with."""
        record = self.read(job)
        same = record.get("settings") == self._stamps[job.name]
        if not same or not job.resumes or _lacks_network(job):
            shutil.rmtree(job.makes, ignore_errors=True)
        job.makes.parent.mkdir(parents=True, exist_ok=True)
        # Of several starts that a job needs, all count.
        spent = record.get("seconds", 0.0) if job.makes.exists() else 0.0
        self._write(job, False, spent)

    def note(self, job: Job, seconds: float, finished: bool) -> None:
        self._write(job, finished, self.read(job).get("seconds", 0.0) + seconds)

    def _write(self, job: Job, finished: bool, seconds: float) -> None:
        path = self.path(job, ".json")
        path.parent.mkdir(parents=True, exist_ok=True)
        record = {
            "job": job.name,
            "settings": self._stamps[job.name],
            "finished": finished,
            "seconds": round(seconds, 2),
            "command": list(job.command[1:]),
        }
        write_atomic(path, dump_json(record, indent=1))


def _lacks_network(job: Job) -> bool:
    return job.kind.startswith(TRAINING) and not (job.makes / "checkpoint.pt").exists()


class _Forked:
    """`avtrain` in a process of its own, which begins with torch imported: of jobs of half a minute
    that is a tenth. As far as it is needed here, it is a Popen."""

    def __init__(self, arguments: Sequence[str], log: Path) -> None:
        import avtrain.pretrain.loop  # noqa: F401, and torch with it

        self._process = get_context("fork").Process(target=_run_avtrain, args=(arguments, log))
        self._process.start()
        self.terminate, self.kill = self._process.terminate, self._process.kill

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> None:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("avtrain", timeout or 0.0)


def _run_avtrain(arguments: Sequence[str], log: Path) -> None:
    os.setsid()  # Ctrl-C is for the driver, which ends its jobs
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    with open(os.devnull, "rb") as nothing, open(log, "wb") as file:
        os.dup2(nothing.fileno(), 0)
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    torch = sys.modules["torch"]
    torch.set_num_threads(1)
    from avtrain.cli.main import main

    main(list(arguments), prog_name="avtrain")


@dataclass
class _Running:
    job: Job
    process: subprocess.Popen[bytes] | _Forked
    began: float


@contextmanager
def held(out: Path) -> Iterator[int]:
    """The folder for this run alone: yields the lock's file descriptor.

    Jobs inherit it: what a driver that was killed outright left running is waited for, as it writes
    to the same files.
    """
    out.mkdir(parents=True, exist_ok=True)
    with open(out / ".lock", "wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(
                f"{out} is being worked on by another run, or by jobs that a killed one left: "
                "waiting for them",
                file=sys.stderr,
            )
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock.fileno()


def run_jobs(jobs: Sequence[Job], records: Records, at_a_time: int, lock: int) -> dict[str, str]:
    """Run what is not finished; returns why jobs failed, by their names.

    The sets are made first, one after the other with all cores. A job that needs a failed one
    fails as well. Ctrl-C and SIGTERM end the jobs that run; they go on from their checkpoints the
    next time.
    """
    finished = {job.name for job in jobs if records.is_finished(job)}
    waiting = [job for job in jobs if job.name not in finished]
    seconds: defaultdict[str, list[float]] = defaultdict(list)
    for job in jobs:
        if job.name in finished:
            seconds[job.kind].append(records.read(job).get("seconds", 0.0))
    failed: dict[str, str] = {}
    running: list[_Running] = []
    tqdm.monitor_interval = 0  # its thread could hold a lock at the moment of a fork
    bar = tqdm(
        total=len(jobs),
        initial=len(finished),
        unit="job",
        bar_format="{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]",
        mininterval=0.5 if sys.stderr.isatty() else 30.0,
        miniters=0,
    )
    try:
        with _stopping():
            while waiting or running:
                for job in [job for job in waiting if any(name in failed for name in job.needs)]:
                    waiting.remove(job)
                    needed = next(name for name in job.needs if name in failed)
                    failed[job.name] = f"needs {needed}, which failed"
                while len(running) < at_a_time:
                    job = _next(waiting, running, finished)
                    if job is None:
                        break
                    waiting.remove(job)
                    running.append(_start(job, records, lock))
                time.sleep(_POLL_S)
                for one in [one for one in running if one.process.poll() is not None]:
                    running.remove(one)
                    spent = time.monotonic() - one.began
                    if one.process.poll() == 0:
                        finished.add(one.job.name)
                        records.note(one.job, spent, True)
                        seconds[one.job.kind].append(spent)
                    else:
                        failed[one.job.name] = _why(records.path(one.job, ".log"))
                        records.note(one.job, spent, False)
                    bar.update()
                left = [*waiting, *(one.job for one in running)]
                bar.set_postfix_str(_left(left, seconds, at_a_time), refresh=False)
                bar.update(0)  # the time goes on where no job ends
    finally:
        _end(running, records)
        bar.close()
    return failed


def _next(waiting: list[Job], running: list[_Running], finished: set[str]) -> Job | None:
    """The first job whose needs are there; sets use all cores, and run alone."""
    if any(one.job.kind.endswith(SETS) for one in running):
        return None
    ready = (job for job in waiting if all(name in finished for name in job.needs))
    job = next(ready, None)
    return None if job is None or (running and job.kind.endswith(SETS)) else job


def _start(job: Job, records: Records, lock: int) -> _Running:
    records.begin(job)
    if job.command[: len(AVTRAIN)] == tuple(AVTRAIN):
        arguments = [*job.command[len(AVTRAIN) :], *job.machine]
        return _Running(job, _Forked(arguments, records.path(job, ".log")), time.monotonic())
    with open(records.path(job, ".log"), "wb") as log:
        process = subprocess.Popen(
            [*job.command, *job.machine],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=os.environ | ({} if job.kind.endswith(SETS) else ONE_THREAD),
            pass_fds=[lock],
            start_new_session=True,  # Ctrl-C is for the driver, which ends its jobs
        )
    return _Running(job, process, time.monotonic())


def _end(running: list[_Running], records: Records) -> None:
    for one in running:
        one.process.terminate()
    for one in running:
        try:
            one.process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            one.process.kill()
            one.process.wait()
        records.note(one.job, time.monotonic() - one.began, False)


@contextmanager
def _stopping() -> Iterator[None]:
    """SIGTERM ends the loop as Ctrl-C does."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _left(left: Sequence[Job], seconds: dict[str, list[float]], at_a_time: int) -> str:
    """How long the jobs may take: each as those of its kind, or else as all so far."""
    every = [value for values in seconds.values() for value in values]
    if not left or not every:
        return ""
    mean = statistics.fmean(every)
    sum_s = sum(
        statistics.fmean(known) if (known := seconds.get(job.kind)) else mean for job in left
    )
    minutes = round(sum_s / at_a_time / 60)
    return f"about {minutes // 60} h {minutes % 60:02d} min left"


def _why(log: Path) -> str:
    """The last line that a job wrote, without its progress bars."""
    text = log.read_bytes().decode(errors="replace").replace("\r", "\n")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return f"{lines[-1] if lines else 'it wrote nothing'} (see {log})"
