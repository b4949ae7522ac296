"""The folder that `avprep demo` writes: it holds one world, and a killed command is run again."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from avprep.errors import UserError
from avprep.world.scene import Difficulty
from shards.files import (
    dump_json,
    parse_json,
    read_regular,
    remove_temporary_files,
    write_atomic,
)

MARKER = ".unfinished.json"
"""Names the world that is being written; removed when it is complete."""
README = "README.md"


@dataclass(frozen=True)
class World:
    """What `avprep demo` was asked for, which decides all bytes that it writes."""

    content: Literal["clips", "videos"]
    count: int
    seed: int
    difficulty: Difficulty = "easy"

    def __str__(self) -> str:
        return f"{self.count} {self.content}, seed {self.seed}, difficulty {self.difficulty}"


@contextmanager
def open_world_folder(
    out: Path, world: World, folders: Iterable[str], readme: str
) -> Iterator[None]:
    """Create ``folders`` in ``out``, and mark ``out`` as unfinished until the block has ended.

    ``out`` is new, empty, or holds this world, unfinished or complete: then its README begins with
    ``readme``. Raises UserError for another folder, and while another process writes to it.
    """
    try:
        if out.exists() and not out.is_dir():
            raise _not_this_world(out)
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"The folder {out} cannot be created: {error.strerror}.") from error
    with _lock(out):
        remove_temporary_files(out)
        _check_content(out, world, readme)
        write_atomic(out / MARKER, dump_json(asdict(world)))
        for folder in folders:
            (out / folder).mkdir(parents=True, exist_ok=True)
            remove_temporary_files(out / folder)
        yield
        (out / MARKER).unlink()


def check_numbers(world: World, least: int, workers: int) -> None:
    """Raises UserError if a number is too small, before anything is written."""
    for name, value, minimum in (
        ("clips", world.count, least),
        ("workers", workers, 1),
        ("seed", world.seed, 0),
    ):
        if value < minimum:
            raise UserError(f"The number for {name} must be {minimum} or more, not {value}.")


def _check_content(out: Path, world: World, readme: str) -> None:
    if (out / MARKER).exists():
        try:
            begun = parse_json(read_regular(out / MARKER, 10_000), World)
        except ValueError:
            raise _not_this_world(out) from None
        if begun != world:
            raise UserError(
                f"{out} holds an unfinished world ({begun}), not this one ({world}): name a new "
                "folder, or remove it first."
            )
    elif any(out.iterdir()):
        with suppress(OSError):
            if read_regular(out / README, 1_000_000).startswith(readme.encode()):
                return
        raise _not_this_world(out)


def _not_this_world(out: Path) -> UserError:
    return UserError(
        f"{out} exists and is not an empty folder, nor one with this world: name a new folder, or "
        "remove it first."
    )


@contextmanager
def _lock(out: Path) -> Iterator[None]:
    """Keep other processes from writing to ``out``; the system unlocks it when this one ends."""
    descriptor = os.open(out, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"Another process writes to {out}: wait until it has ended.") from None
        except OSError:  # a file system without locks
            pass
        yield
    finally:
        os.close(descriptor)
