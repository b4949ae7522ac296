"""What an evaluation cannot read: it goes on without, and says so."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from avtrain.errors import TrainingError
from shards.errors import ShardError
from shards.reader import ShardSet

FEWEST = 10
LARGEST_SHARE = 0.01
Fault = tuple[int, str]
"""The number of a clip, and a sentence that says what is wrong with it."""


class LeftOut:
    """Clips of a set that could not be read: ``faults``, by their numbers.

    Up to ten are tolerated, or 1 %: more is another test, on what happens to be left.
    """

    def __init__(self, where: str, count: int) -> None:
        """Of ``count`` clips; ``where`` names the set."""
        self.where, self.count = where, count
        self.faults: dict[int, str] = {}

    @classmethod
    def of(cls, shards: ShardSet) -> LeftOut:
        return cls(f"split {shards.split!r} of {shards.root}", len(shards))

    def add(self, faults: Iterable[Fault]) -> None:
        """Raises TrainingError where they are too many."""
        for number, fault in faults:
            self.faults[number] = fault
        found = len(self.faults)
        if found == self.count or found > max(FEWEST, LARGEST_SHARE * self.count):
            last = list(self.faults.values())[-1]
            raise TrainingError(
                f"{found} of the {self.count} clips of {self.where} cannot be read; mend the set "
                f"(`avprep verify` says what is damaged). The last one: {last}"
            )

    def keeps(self, numbers: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of these clips were read whenever they were asked for."""
        return ~np.isin(numbers, list(self.faults))

    @property
    def rest(self) -> NDArray[np.int64]:
        """The numbers of all others."""
        every = np.arange(self.count)
        return every[self.keeps(every)]


def sentences(*parts: LeftOut) -> list[str]:
    """What results say of them."""
    return [fault for part in parts for _, fault in sorted(part.faults.items())]


@dataclass(frozen=True)
class Unreadable:
    """In the place of an item."""

    fault: Fault


@dataclass(frozen=True)
class Tolerant(Dataset[Any]):
    """The items of a dataset, and `Unreadable` where it raises what is wrong with one."""

    dataset: Dataset[Any]

    def __getitem__(self, place: tuple[int, ...]) -> Any:
        try:
            return self.dataset[place]
        except (ShardError, TrainingError) as error:
            return Unreadable((place[1], str(error)))


@dataclass(frozen=True)
class JoinRest:
    """Joins the readable items (None: there is none), and hands on what is wrong with the rest."""

    join: Callable[[list[Any]], Any]

    def __call__(self, items: list[Any]) -> tuple[Any, list[Fault]]:
        faults = [item.fault for item in items if isinstance(item, Unreadable)]
        rest = [item for item in items if not isinstance(item, Unreadable)]
        return self.join(rest) if rest else None, faults
