"""Commands with loader workers end after each kind of failure, and leave no worker."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from avtrain.checkpoint import Checkpoint
from avtrain.cli.main import main
from avtrain.data import loader
from avtrain.data.clips import Clips
from avtrain.data.unreadable import Unreadable
from avtrain.errors import TrainingError
from avtrain.pretrain import loop
from avtrain.pretrain.saving import save
from avtrain.pretrain.trainer import Trainer
from avtrain.runtime import shared_memory, signals
from tests.support.processes import children
from tests.support.ranks import run_ranks, start_ranks
from tests.support.runs import avtrain
from tests.support.tiny_set import make_set

TWO = ["--num-workers", 2, "--device", "cpu"]
RUN = ["--batch-size", 4, "--views", 2, "--steps", 40, "--checkpoint-steps", 1, *TWO]
LIMIT_S, LOADED_S = 20, 60
"""The second for several processes that start on a machine which may be busy."""
Patch = pytest.MonkeyPatch


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("set")
    sources, maps = {"train": 6, "test": 4}, (0.5, 1.5)
    return make_set(folder, sources, views=4, labelled=True, map_times_s=maps)


@contextmanager
def ends_soon() -> Iterator[None]:
    """The block takes less than `LIMIT_S`, and no process is left, though its exception is kept."""
    began = time.monotonic()
    yield
    assert time.monotonic() - began < LIMIT_S
    assert multiprocessing.active_children() == []


def in_step(action: Callable[[Any], Any]) -> Callable[[Patch], None]:
    """``action`` on the loss of the second step."""

    def patch(monkeypatch: Patch) -> None:
        forward, calls = Trainer.forward, []

        def changed(self: Trainer, *arguments: Any) -> Any:
            loss = forward(self, *arguments)
            calls.append(loss)
            return action(loss) if len(calls) == 2 else loss

        monkeypatch.setattr(Trainer, "forward", changed)

    return patch


def interrupt(loss: Any) -> Any:
    raise KeyboardInterrupt


def kill_a_worker(loss: Any) -> Any:
    os.kill(multiprocessing.active_children()[0].pid or 0, signal.SIGKILL)
    time.sleep(1)
    return loss


def unreadable(monkeypatch: Patch) -> None:
    def read(self: Clips, *arguments: object) -> None:
        raise TrainingError("a clip is damaged")

    monkeypatch.setattr(Clips, "read", read)


def no_delivery(monkeypatch: Patch) -> None:
    monkeypatch.setattr(Clips, "read", lambda *arguments: time.sleep(600))
    monkeypatch.setattr(loader, "LONGEST_WAIT_S", 1.5)


def no_delivery_and_a_signal(monkeypatch: Patch) -> None:
    monkeypatch.setattr(Clips, "read", lambda *arguments: time.sleep(600))
    monkeypatch.setattr(signals, "PATIENCE_S", 0.5)
    sent = threading.Event()

    def waits(batches: Any) -> Any:
        if not sent.is_set():
            sent.set()
            os.kill(os.getpid(), signal.SIGTERM)
        return next_batch(batches)

    next_batch = loader._next
    monkeypatch.setattr(loader, "_next", waits)


def little_memory(free: int) -> Callable[[Patch], None]:
    def patch(monkeypatch: Patch) -> None:
        found = SimpleNamespace(f_bavail=free, f_blocks=64_000_000, f_frsize=1)
        monkeypatch.setattr(shared_memory.os, "statvfs", lambda folder: found)

    return patch


def no_delivery_by_torch(monkeypatch: Patch) -> None:
    def allocate(tensor: object) -> None:
        raise RuntimeError("unable to allocate shared memory(shm): No space left on device (28)")

    monkeypatch.setattr("torch.Tensor.share_memory_", allocate)


FAILURES: dict[str, tuple[Callable[[Patch], None], int, str]] = {
    "loss": (in_step(lambda loss: replace(loss, value=loss.value * float("nan"))), 2, "loss of"),
    "Ctrl-C": (in_step(interrupt), 1, "Aborted!"),
    "a killed worker": (in_step(kill_a_worker), 2, "a loader process has ended"),
    "clips": (unreadable, 2, "a clip is damaged"),
    "no delivery": (no_delivery, 2, "have delivered no batch for"),
    "a signal": (no_delivery_and_a_signal, 0, "stopped by SIGTERM after step 0"),
    "little memory": (little_memory(100_000), 2, "/dev/shm has 0 MB free of 64 MB, but 5 batches"),
    "no memory": (no_delivery_by_torch, 2, "shared memory is short (unable to allocate"),
}


@pytest.mark.parametrize("kind", FAILURES)
def test_a_failing_run_ends(root: Path, tmp_path: Path, monkeypatch: Patch, kind: str) -> None:
    patch, status, sentence = FAILURES[kind]
    monkeypatch.setattr("avtrain.pretrain.set_up.fit_statistics", lambda *arguments: None)
    patch(monkeypatch)
    with ends_soon():
        result = avtrain("pretrain", root, "--out", tmp_path / "run", *RUN)
        assert result.exit_code == status, result.output
        assert sentence in result.stderr
        assert "Traceback" not in result.stderr


def test_a_full_disk_ends_a_run(root: Path, tmp_path: Path, monkeypatch: Patch) -> None:
    """The checkpoint does not fit."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def save_to_full_disk(*arguments: Any) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, before[1]))
        save(*arguments)

    monkeypatch.setattr(loop, "save", save_to_full_disk)
    try:
        with ends_soon():
            result = avtrain("pretrain", root, "--out", tmp_path / "run", *RUN)
            assert result.exit_code == 2, result.output
            assert "checkpoint.pt: File too large" in result.stderr
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.name for path in tmp_path.rglob("*.p*")] == []


@pytest.mark.parametrize("task", ["avsa", "retrieval", "localization", "segmentation", "embed"])
def test_a_failing_evaluation_ends(
    root: Path, tmp_path: Path, monkeypatch: Patch, task: str
) -> None:
    """After the random networks are calibrated, in the loop of the task."""
    began = []

    def add(self: Unreadable, faults: object) -> None:
        began.append(multiprocessing.active_children())
        if len(began) > 3:
            raise TrainingError("too many of them")

    monkeypatch.setattr(Unreadable, "add", add)
    monkeypatch.setattr("avtrain.evals.feature_store.BATCH_SIZE", 2)
    monkeypatch.setattr("avtrain.evals.embed.BATCH_SIZE", 2)
    command = ["embed", root] if task == "embed" else ["eval", task, root]
    with ends_soon():
        result = avtrain(*command, "--checkpoint", "untrained", "--out", tmp_path / "out", *TWO)
        assert result.exit_code == 2, result.output
        assert "too many of them" in result.stderr
    assert began[-1]


def run_avtrain(*arguments: object) -> None:
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as end:
        if end.code:
            raise


def lose_a_loss(*arguments: object) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        FAILURES["loss"][0](monkeypatch)
        run_avtrain(*arguments)


def test_a_failing_job_of_two_ranks_ends(root: Path, tmp_path: Path) -> None:
    command = ["pretrain", root, "--out", tmp_path / "run", *RUN]
    began = time.monotonic()
    ranks = run_ranks(2, tmp_path, lose_a_loss, *command)
    assert time.monotonic() - began < LOADED_S
    for rank in ranks:
        assert rank.status == 2, rank.stderr
        assert "Error: the loss of step 2 is nan" in rank.stderr
        assert "Traceback" not in rank.stderr


def test_a_signal_at_any_moment_ends_a_run(root: Path, tmp_path: Path) -> None:
    """Also to its workers, as to a process group, and also while they start."""
    jobs = []
    for number in range(4):
        folder = tmp_path / str(number)
        folder.mkdir()
        out = folder / "run"
        (job,) = start_ranks(1, folder, run_avtrain, "pretrain", root, "--out", out, *RUN)
        jobs.append(job)
    for number, job in enumerate(jobs):
        pid = job.pid or 0
        if number % 2:  # while workers start
            while job.is_alive() and not children(pid):
                time.sleep(0.001)
        else:
            time.sleep(0.3)
        for process in [pid, *map(int, children(pid))] if job.is_alive() else ():
            os.kill(process, signal.SIGTERM)
        job.join(LOADED_S)
        assert job.exitcode in (0, -signal.SIGTERM), (
            tmp_path / str(number) / "stderr-0"
        ).read_text()
        if number % 2 and job.exitcode == 0:
            assert Checkpoint.load(tmp_path / str(number) / "run/checkpoint.pt").total_steps > 0
