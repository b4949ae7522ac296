"""Clips that an evaluation cannot read: it continues without them, and its result names them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from avtrain.data.shard_sets import Shards
from avtrain.errors import TrainingError
from shards.errors import ShardError

TOLERATED_CLIPS = 10
TOLERATED_SHARE = 0.01
Fault = tuple[int, str]
"""Number of a clip, and a sentence that says why it cannot be read."""


class Unreadable:
    """Clips of a set that could not be read: ``faults``, by their numbers.

    Up to ten clips, or 1 %, are tolerated: without more of them it would be a different test, on
    whatever happens to be left.
    """

    def __init__(self, where: str, count: int) -> None:
        """``where`` names the set in messages; ``count`` is its number of clips."""
        self.where, self.count = where, count
        self.faults: dict[int, str] = {}

    @classmethod
    def in_split(cls, shards: Shards) -> Unreadable:
        """None so far of the clips of ``shards``."""
        return cls(shards.where, len(shards))

    def add(self, faults: Iterable[Fault]) -> None:
        """Raises TrainingError where they become too many."""
        for number, fault in faults:
            self.faults[number] = fault
        found = len(self.faults)
        if found == self.count or found > max(TOLERATED_CLIPS, TOLERATED_SHARE * self.count):
            last = list(self.faults.values())[-1]
            raise TrainingError(
                f"{found} of the {self.count} clips of {self.where} cannot be read; mend the set "
                f"(`avprep verify` says what is damaged). The last one: {last}"
            )

    def readable(self, numbers: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Mask of the clips ``numbers`` that were readable whenever they were read."""
        return ~np.isin(numbers, list(self.faults))

    @property
    def readable_clips(self) -> NDArray[np.int64]:
        """Numbers of all other clips."""
        every = np.arange(self.count)
        return every[self.readable(every)]


def read_faults(value: Any, count: int) -> dict[int, str]:
    """Faults that a file holds, of a set of ``count`` clips. Raises ValueError for other values."""
    if not isinstance(value, dict) or len(value) > count:
        raise ValueError("its unreadable clips are not those of the set")
    for number, fault in value.items():
        if type(number) is not int or not 0 <= number < count or type(fault) is not str:
            raise ValueError("its unreadable clips are not those of the set")
    return value


def messages(*parts: Unreadable) -> list[str]:
    """Sentences of all faults, part by part, in the order of the clips."""
    return [fault for part in parts for _, fault in sorted(part.faults.items())]


@dataclass(frozen=True)
class UnreadableItem:
    """Stands in for a clip that could not be read."""

    fault: Fault


@dataclass(frozen=True)
class CatchUnreadable(Dataset[Any]):
    """The items of ``dataset``, and an `UnreadableItem` for each that raises an error."""

    dataset: Dataset[Any]

    def __getitem__(self, place: tuple[int, ...]) -> Any:
        try:
            return self.dataset[place]
        except (ShardError, TrainingError) as error:
            return UnreadableItem((place[1], str(error)))


@dataclass(frozen=True)
class CollateReadable:
    """Joins the readable items to a batch (None: there is none), and returns the faults with it."""

    join: Callable[[list[Any]], Any]

    def __call__(self, items: list[Any]) -> tuple[Any, list[Fault]]:
        faults = [item.fault for item in items if isinstance(item, UnreadableItem)]
        readable = [item for item in items if not isinstance(item, UnreadableItem)]
        return self.join(readable) if readable else None, faults
