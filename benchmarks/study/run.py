"""Runs jobs side by side; finished jobs are kept, and a failed job does not stop the others."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import resource
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

from avtrain.run_folder import CHECKPOINT, LOG, read_log
from benchmarks.study.jobs import AVTRAIN, Job
from shards.files import dump_json, write_atomic

# One thread per job: running jobs side by side uses the cores without the cost of threads.
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
_POLL_S = 0.2
_STOP_S = 10.0


def select_jobs(jobs: Sequence[Job], names: set[str]) -> list[Job]:
    """The jobs with these names and all jobs that they need, in the same order."""
    selected = set(names)
    for job in reversed(jobs):
        if job.name in selected:
            selected.update(job.needs)
    return [job for job in jobs if job.name in selected]


class Records:
    """A file per job: its settings, whether it has finished, and how long it took, by the clock and
    in CPU time (0 where it is not known).

    The settings are the job's own command and those of all jobs that it needs, without the path of
    the study's folder.
    """

    def __init__(self, out: Path, jobs: Sequence[Job]) -> None:
        self.folder = out / "jobs"
        self._digests: dict[str, str] = {}
        self._needed_by: defaultdict[str, list[Job]] = defaultdict(list)
        for job in jobs:
            for name in job.needs:
                self._needed_by[name].append(job)
            needed = [self._digests[name] for name in job.needs]
            command = [part.removeprefix(f"{out}{os.sep}") for part in job.command[1:]]
            text = json.dumps([command, needed])
            self._digests[job.name] = hashlib.sha256(text.encode()).hexdigest()

    def path(self, job: Job, ending: str) -> Path:
        return self.folder / f"{job.name.replace('/', '.')}{ending}"

    def read(self, job: Job) -> dict[str, Any]:
        """The record of a job; empty if there is no readable one."""
        try:
            record = json.loads(self.path(job, ".json").read_bytes())
        except (OSError, ValueError):
            return {}
        return record if isinstance(record, dict) else {}

    def settings(self, job: Job) -> str:
        """The digest of a job's settings."""
        return self._digests[job.name]

    def has_results(self, job: Job) -> bool:
        """Whether a job was done with its settings; of a training the log counts as well as the
        network, which archives do not hold."""
        record = self.read(job)
        same = record.get("settings") == self._digests[job.name]
        return same and record.get("finished") is True and job.output.exists()

    def is_finished(self, job: Job) -> bool:
        """Whether a job need not run: it has results, and of a training without its network no
        unfinished job needs the network."""
        if not self.has_results(job):
            return False
        needed_by = self._needed_by[job.name]
        return not _misses_network(job) or all(map(self.is_finished, needed_by))

    def begin(self, job: Job) -> None:
        """Remove output of other settings, and output that the job cannot resume from.

        A set or a network without a record was made by hand: the command continues it, or refuses
        it because its settings are others.
        """
        record = self.read(job)
        same = record.get("settings") == self._digests[job.name]
        by_hand = not record and (job.makes_set or job.trains)
        if not (same or by_hand) or _misses_network(job):
            shutil.rmtree(job.output, ignore_errors=True)
        job.output.parent.mkdir(parents=True, exist_ok=True)
        # A job that resumes counts the time of all its starts.
        spent = record if job.output.exists() else {}
        self._write(job, False, spent.get("seconds", 0.0), spent.get("cpu_seconds", 0.0))

    def add_time(self, job: Job, seconds: float, finished: bool, cpu_seconds: float = 0.0) -> None:
        record = self.read(job)
        seconds += record.get("seconds", 0.0)
        self._write(job, finished, seconds, record.get("cpu_seconds", 0.0) + cpu_seconds)

    def cost_s(self, job: Job) -> float:
        """Seconds that a job took on one core: its CPU time, or else its time by the clock."""
        record = self.read(job)
        return float(record.get("cpu_seconds") or record.get("seconds", 0.0))

    def _write(self, job: Job, finished: bool, seconds: float, cpu_seconds: float) -> None:
        path = self.path(job, ".json")
        path.parent.mkdir(parents=True, exist_ok=True)
        record = {
            "job": job.name,
            "settings": self._digests[job.name],
            "finished": finished,
            "seconds": round(seconds, 2),
            "cpu_seconds": round(cpu_seconds, 2),
            "command": list(job.command[1:]),
        }
        write_atomic(path, dump_json(record, indent=1))


def _misses_network(job: Job) -> bool:
    return job.trains and not (job.output / CHECKPOINT).exists()


class _ForkedAvtrain:
    """`avtrain` in a forked process that has torch imported already, which saves a tenth of a job
    of half a minute. It has the methods of Popen that are needed here."""

    def __init__(self, arguments: Sequence[str], log: Path, cpu: Path) -> None:
        import avtrain.pretrain.loop  # noqa: F401, and torch with it

        cpu.unlink(missing_ok=True)
        self._process = get_context("fork").Process(target=_run_avtrain, args=(arguments, log, cpu))
        self._process.start()
        self.terminate, self.kill = self._process.terminate, self._process.kill

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> None:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("avtrain", timeout or 0.0)


def _run_avtrain(arguments: Sequence[str], log: Path, cpu: Path) -> None:
    os.setsid()  # Ctrl-C reaches the driver alone, which stops its jobs
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    with open(os.devnull, "rb") as null, open(log, "wb") as file:
        os.dup2(null.fileno(), 0)
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    torch = sys.modules["torch"]
    torch.set_num_threads(1)
    from avtrain.cli.main import main

    try:
        main(list(arguments), prog_name="avtrain")
    finally:
        used = resource.getrusage(resource.RUSAGE_SELF)
        cpu.write_text(str(used.ru_utime + used.ru_stime))


@dataclass
class _Running:
    job: Job
    process: subprocess.Popen[bytes] | _ForkedAvtrain
    started: float


@contextmanager
def locked(out: Path) -> Iterator[int]:
    """Lock the folder for this run, and yield the lock's file descriptor.

    Jobs inherit the descriptor: after a driver was killed, the next one waits for the jobs that
    still run, because they write to the same files.
    """
    out.mkdir(parents=True, exist_ok=True)
    with open(out / ".lock", "wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(
                f"{out} is in use by another run, or by jobs of a run that was killed: waiting for "
                "them to end",
                file=sys.stderr,
            )
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock.fileno()


def run_jobs(jobs: Sequence[Job], records: Records, max_parallel: int, lock: int) -> dict[str, str]:
    """Run all unfinished jobs. Returns the reason of each failure, by job name.

    The sets are made first, one after the other, each on all cores. A job that needs a failed one
    fails too. Ctrl-C and SIGTERM stop the running jobs; the next run resumes them from their
    checkpoints.
    """
    finished = {job.name for job in jobs if records.is_finished(job)}
    waiting = [job for job in jobs if job.name not in finished]
    failed: dict[str, str] = {}
    running: list[_Running] = []
    tqdm.monitor_interval = 0  # its thread could hold a lock while a job is forked
    bar = tqdm(
        total=len(jobs),
        initial=len(finished),
        unit="job",
        bar_format="{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]",
        mininterval=0.5 if sys.stderr.isatty() else 30.0,
        miniters=0,
    )
    try:
        with _sigterm_as_interrupt():
            while waiting or running:
                for job in [job for job in waiting if any(name in failed for name in job.needs)]:
                    waiting.remove(job)
                    needed = next(name for name in job.needs if name in failed)
                    failed[job.name] = f"needs {needed}, which failed"
                while len(running) < max_parallel:
                    job = _next(waiting, running, finished)
                    if job is None:
                        break
                    waiting.remove(job)
                    running.append(_start(job, records, lock))
                time.sleep(_POLL_S)
                for one in [one for one in running if one.process.poll() is not None]:
                    running.remove(one)
                    reason = _why_unfinished(one, records)
                    if reason is None:
                        finished.add(one.job.name)
                    else:
                        failed[one.job.name] = reason
                    _add_time(one, records, finished=reason is None)
                    bar.update()
                    unfinished = [*waiting, *(one.job for one in running)]
                    left_s = sum(estimate_s(unfinished, jobs, records).values())
                    bar.set_postfix_str(f"{format_hours(left_s / max_parallel)} left")
                bar.update(0)  # show the elapsed time although no job has ended
    finally:
        _stop(running, records)
        bar.close()
    return failed


def _next(waiting: list[Job], running: list[_Running], finished: set[str]) -> Job | None:
    """The first job whose needs are finished. Sets use all cores, so they run alone."""
    if any(one.job.makes_set for one in running):
        return None
    ready = (job for job in waiting if all(name in finished for name in job.needs))
    job = next(ready, None)
    return None if job is None or (running and job.makes_set) else job


def _start(job: Job, records: Records, lock: int) -> _Running:
    records.begin(job)
    if job.command[: len(AVTRAIN)] == tuple(AVTRAIN):
        arguments = [*job.command[len(AVTRAIN) :], *job.machine]
        process = _ForkedAvtrain(arguments, records.path(job, ".log"), records.path(job, ".cpu"))
        return _Running(job, process, time.monotonic())
    with open(records.path(job, ".log"), "wb") as log:
        started = subprocess.Popen(
            [*job.command, *job.machine],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=os.environ | ({} if job.makes_set else ONE_THREAD),
            pass_fds=[lock],
            start_new_session=True,  # Ctrl-C reaches the driver alone, which stops its jobs
        )
    return _Running(job, started, time.monotonic())


def _why_unfinished(one: _Running, records: Records) -> str | None:
    """Why a job that has ended is not finished; None if it is."""
    if one.process.poll() != 0:
        return _last_line(records.path(one.job, ".log"))
    if one.job.steps and _last_step(one.job) < one.job.steps:
        # A signal to the job alone: it saves, and ends with status 0.
        return "it was stopped; run the same command again to continue it"
    return None


def _last_step(job: Job) -> int:
    try:
        lines = read_log(job.output / LOG).lines
    except FileNotFoundError:
        return 0
    return lines[-1]["step"] if lines else 0


def _add_time(one: _Running, records: Records, finished: bool) -> None:
    spent_s = time.monotonic() - one.started
    try:
        cpu_s = float(records.path(one.job, ".cpu").read_text())
    except (OSError, ValueError):  # it was killed, or is no `avtrain`
        cpu_s = 0.0
    records.add_time(one.job, spent_s, finished, cpu_s)


def _stop(running: list[_Running], records: Records) -> None:
    for one in running:
        one.process.terminate()
    for one in running:
        try:
            one.process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            one.process.kill()
            one.process.wait()
        _add_time(one, records, finished=False)


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """SIGTERM raises KeyboardInterrupt, as Ctrl-C does."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def estimate_s(some: Sequence[Job], jobs: Sequence[Job], records: Records) -> dict[str, float]:
    """Seconds that each of some jobs takes on one core, by its name: the mean of the finished
    ``jobs`` of its kind, or else what is stated."""
    measured: defaultdict[str, list[float]] = defaultdict(list)
    for job in jobs:
        if not job.makes_set and records.has_results(job):
            measured[job.kind].append(records.cost_s(job))
    return {
        job.name: statistics.fmean(known) if (known := measured.get(job.kind)) else job.cost_s
        for job in some
    }


def format_hours(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"about {minutes // 60} h {minutes % 60:02d} min"


def _last_line(log: Path) -> str:
    """The last line of a job's log, without progress bars."""
    text = log.read_bytes().decode(errors="replace").replace("\r", "\n")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return f"{lines[-1] if lines else 'it wrote nothing'} (see {log})"
