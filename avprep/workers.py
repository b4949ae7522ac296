"""Asking many files side by side, in worker processes of this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from math import inf
from typing import TypeVar

from avprep.errors import UserError, in_a_sentence
from avprep.processes import Crew, Lost, Starting

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

DEADLY = "decoding it ended the process; it is damaged (or memory is short): download it again"
_GRACE_S = 30.0
"""ffmpeg's own time limit comes first, since it says more."""
Advance = Callable[[int], object]
"""Called with a number of items that were done since the last call."""


class Workers:
    """Processes of this machine. What ends one of them, or takes longer than ``timeout_s`` for one
    file or clip, costs nothing but itself."""

    def __init__(self, count: int, timeout_s: float = inf) -> None:
        self._crew = Crew(count)
        self._limit_s = timeout_s + _GRACE_S

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self._crew.close()

    def ask(
        self,
        question: Callable[[_Item], _Result],
        items: Sequence[_Item],
        advance: Advance = lambda _: None,
    ) -> list[_Result | str]:
        """The answers in order; a sentence where there is none."""
        answers: list[_Result | str] = [""] * len(items)
        for number, answer in self.run(partial(_answer, question), items):
            advance(1)
            answers[number] = self.reason(answer) if isinstance(answer, Lost) else answer
        return answers

    def run(
        self,
        function: Callable[[_Item, Starting], _Result],
        items: Sequence[_Item],
        on_step: Callable[[int, int], object] = lambda number, step: None,
    ) -> Iterator[tuple[int, _Result | Lost]]:
        """Call a function for all items, as `Crew.run` does, with this pool's time limit a step."""
        return self._crew.run(function, items, self._limit_s, on_step)

    def reason(self, lost: Lost) -> str:
        """Why there is no result."""
        if not lost.late:
            return DEADLY
        return (
            f"reading it took more than {self._limit_s:g} s and was stopped; the file may be "
            "broken, or allow more with --clip-timeout"
        )


def _answer(question: Callable[[_Item], _Result], item: _Item, _: Starting) -> _Result | str:
    try:
        return question(item)
    except UserError:
        raise
    except Exception as error:
        return in_a_sentence(error)
