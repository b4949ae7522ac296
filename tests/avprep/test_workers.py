"""Calling a function with many files in worker processes."""

from __future__ import annotations

import os
import signal

from avprep.workers import CRASHED, WorkerPool


def _crash_at_three(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    if number == 5:
        raise ValueError("five")
    return -number


def test_results_come_in_order_and_a_sentence_replaces_each_that_is_missing() -> None:
    done: list[int] = []
    with WorkerPool(2) as pool:
        results = pool.map(_crash_at_three, range(8), done.append)
    assert results == [0, -1, -2, CRASHED, -4, "unexpected ValueError: five", -6, -7]
    assert sum(done) == 8
