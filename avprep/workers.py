"""Calling a function with many files side by side, in worker processes on this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from math import inf
from typing import TypeVar

from avprep.errors import UserError, one_sentence
from avprep.processes import Lost, ProcessPool, ReportStep

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

CRASHED = "decoding it crashed the process; it is damaged (or memory is short): download it again"
_GRACE_S = 30.0
"""Added to the time limit, so that ffmpeg's own limit comes first: its message says more."""
Advance = Callable[[int], object]
"""Called with the number of items that were finished since the last call."""


class WorkerPool:
    """Worker processes on this machine. A file or clip that crashes its process, or takes longer
    than ``timeout_s``, loses only its own result."""

    def __init__(self, count: int, timeout_s: float = inf) -> None:
        self._processes = ProcessPool(count)
        self._limit_s = timeout_s + _GRACE_S

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, *_: object) -> None:
        self._processes.close()

    def map(
        self,
        function: Callable[[_Item], _Result],
        items: Sequence[_Item],
        advance: Advance = lambda _: None,
    ) -> list[_Result | str]:
        """The function's results in the order of the items. A sentence that says why takes the
        place of a result that could not be had."""
        results: list[_Result | str] = [""] * len(items)
        for number, result in self.run(partial(_call, function), items):
            advance(1)
            results[number] = self.reason(result) if isinstance(result, Lost) else result
        return results

    def run(
        self,
        function: Callable[[_Item, ReportStep], _Result],
        items: Sequence[_Item],
        on_step: Callable[[int, int], object] = lambda number, step: None,
    ) -> Iterator[tuple[int, _Result | Lost]]:
        """As `ProcessPool.run`, with this pool's time limit for each step."""
        return self._processes.run(function, items, self._limit_s, on_step)

    def reason(self, lost: Lost) -> str:
        """Why a result was lost, in one sentence."""
        if not lost.timed_out:
            return CRASHED
        return (
            f"reading it took more than {self._limit_s:g} s and was stopped; the file may be "
            "broken, or allow more with --clip-timeout"
        )


def _call(function: Callable[[_Item], _Result], item: _Item, _: ReportStep) -> _Result | str:
    try:
        return function(item)
    except UserError:
        raise
    except Exception as error:
        return one_sentence(error)
