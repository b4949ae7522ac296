"""A task that hangs or fails in a worker process loses only itself."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from avprep import workers
from avprep.build.build_shards import build_shards
from avprep.build.options import BuildOptions, RunOptions
from avprep.formats.decide import FormatOverrides
from avprep.processes import Lost, ProcessPool, ReportStep
from avprep.recordings.find_clips import ListFiles
from avprep.sample.options import ClipOptions
from avprep.sphere.viewpoints import RandomViews
from shards.reader import ShardSet
from shards.schema import View
from tests.support.media import write_dot_recording


def _hang_at_three(number: int, report_step: ReportStep) -> int:
    report_step(1)
    if number == 3:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # as a decoder hanging in C
        time.sleep(1000)
    return -number


def test_an_item_that_hangs_is_lost_and_the_others_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("avprep.processes._TERMINATE_S", 0.5)
    pool = ProcessPool(2)
    results = dict(pool.run(_hang_at_three, range(8), 1.0))
    pool.close()
    assert results == {n: Lost(1, timed_out=True) if n == 3 else -n for n in range(8)}


def _wait_for_a_child(folder: Path, number: int, _: ReportStep) -> None:
    child = subprocess.Popen(["sleep", "1000"])
    (folder / f"{number}.pid").write_text(str(child.pid))
    try:
        child.wait()
    finally:
        child.kill()
        child.wait()


def test_a_stopped_worker_ends_the_processes_that_it_started(tmp_path: Path) -> None:
    pool = ProcessPool(1)
    results = list(pool.run(partial(_wait_for_a_child, tmp_path), [7], 1.0))
    pool.close()
    assert results == [(0, Lost(0, timed_out=True))]
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "7.pid").read_text()), 0)


def _fail(number: int, _: ReportStep) -> None:
    raise ValueError(f"number {number}")


def test_exceptions_in_a_worker_are_raised_in_the_parent() -> None:
    pool = ProcessPool(1)
    with pytest.raises(ValueError, match="number 5"):
        list(pool.run(_fail, [5], 60.0))
    pool.close()


@dataclass(frozen=True)
class SlowViews(RandomViews):
    """Views that hang for one clip."""

    def draw(
        self, key: str, seed: int, energy: NDArray[np.float64] | None = None
    ) -> tuple[View, ...]:
        if key == "b-2":
            time.sleep(1000)
        return super().draw(key, seed, energy)


def test_a_clip_that_hangs_loses_only_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "_GRACE_S", 1.0)
    for name in ("a", "b"):
        write_dot_recording(tmp_path / "raw", name, seconds=4.0)
    clip = ClipOptions(SlowViews(2, (30.0, 90.0)), 64, 16, 24000, "source", 0, 4.0)
    options = BuildOptions(clip, FormatOverrides(), "folder", 2.0, 256_000_000)
    result = build_shards(
        tmp_path / "raw", tmp_path / "set", options, ListFiles(), RunOptions(2, show_progress=False)
    )
    assert [failure.source for failure in result.failures] == ["b"]
    assert "reading it took more than 5 s and was stopped" in result.failures[0].reason
    assert sorted(ShardSet(tmp_path / "set").keys) == ["a-0", "a-2", "b-0"]
