"""Damage to files: links, pipes, folders and devices in their place, and other bytes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from numpy.random import Generator

from tests.fuzz.mutations import mutate

FileRule = Callable[[Generator, Path, Path], str]
"""Changes the file at a path; the folder outside holds what links lead to."""


def _link_outside(rng: Generator, path: Path, outside: Path) -> str:
    """A link to a file of the same content that lies outside."""
    target = outside / f"linked-{path.name}"
    if path.is_file():
        shutil.copyfile(path, target)
    else:
        target.write_bytes(b"somebody's\n")
    return _link(path, target)


def _link_to_victim(rng: Generator, path: Path, outside: Path) -> str:
    return _link(path, outside / "victim.txt")


def _link_to_new(rng: Generator, path: Path, outside: Path) -> str:
    return _link(path, outside / "planted")


def _link_loop(rng: Generator, path: Path, outside: Path) -> str:
    return _link(path, path)


def _link_to_zero(rng: Generator, path: Path, outside: Path) -> str:
    return _link(path, Path("/dev/zero"))


def _link_folder(rng: Generator, path: Path, outside: Path) -> str:
    """The folder that holds the file is a link to a copy of it outside.

    The set, run or cache itself may be a link of the user's, and is written to.
    """
    folder = path.parent
    if folder.parent.name == "inside":
        return _link_outside(rng, path, outside)
    target = outside / f"linked-{folder.name}"
    shutil.copytree(folder, target, symlinks=True, dirs_exist_ok=True)
    shutil.rmtree(folder)
    folder.symlink_to(target)
    return f"its folder is a link to {target.name}"


def _link(path: Path, target: Path) -> str:
    _remove(path)
    path.symlink_to(target)
    return f"a link to {target}"


def _pipe(rng: Generator, path: Path, outside: Path) -> str:
    _remove(path)
    os.mkfifo(path)
    return "a pipe"


def _folder(rng: Generator, path: Path, outside: Path) -> str:
    _remove(path)
    path.mkdir()
    return "a folder"


def _empty(rng: Generator, path: Path, outside: Path) -> str:
    return _write(path, b"", "empty")


def _random(rng: Generator, path: Path, outside: Path) -> str:
    return _write(path, rng.bytes(int(rng.choice([1, 100, 10_000]))), "random bytes")


def _unreadable(rng: Generator, path: Path, outside: Path) -> str:
    path.chmod(0)
    return "without permissions"


def _vast(rng: Generator, path: Path, outside: Path) -> str:
    """A sparse file of 8 GB takes no place on the disk."""
    content = path.read_bytes() if path.is_file() else b""
    with open(path, "wb") as file:
        file.write(content)
        file.truncate(8_000_000_000)
    return "8 GB long"


def _missing(rng: Generator, path: Path, outside: Path) -> str:
    _remove(path)
    return "missing"


def _swap(rng: Generator, path: Path, outside: Path) -> str:
    beside = [p for p in sorted(path.parent.iterdir()) if p.is_file() and p != path]
    if not beside or not path.is_file():
        return _empty(rng, path, outside)
    other = beside[int(rng.integers(len(beside)))]
    mine, theirs = path.read_bytes(), other.read_bytes()
    path.write_bytes(theirs)
    other.write_bytes(mine)
    return f"exchanged with {other.name}"


def damage_bytes(rng: Generator, path: Path, outside: Path) -> str:
    """Bits, numbers and pieces changed inside a file."""
    if not path.is_file() or path.stat().st_size < 2:
        return _random(rng, path, outside)
    before = path.read_bytes()
    for _ in range(10):
        changed, how = mutate(rng, before)
        if changed != before:
            break
    return _write(path, changed, how)


def flip_bit(rng: Generator, path: Path, outside: Path) -> str:
    """One bit."""
    content = bytearray(path.read_bytes())
    place, bit = int(rng.integers(len(content))), int(rng.integers(8))
    content[place] ^= 1 << bit
    return _write(path, bytes(content), f"bit {bit} of byte {place} flipped")


def _write(path: Path, content: bytes, how: str) -> str:
    if path.is_dir() or path.is_symlink():
        _remove(path)
    path.write_bytes(content)
    return how


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


LINKS: tuple[FileRule, ...] = (_link_outside, _link_to_victim, _link_to_new, _link_loop)
LINKS += (_link_to_zero, _link_folder)
KINDS: tuple[FileRule, ...] = (_pipe, _folder, _empty, _random, _unreadable, _vast, _missing, _swap)
FILE_RULES: tuple[FileRule, ...] = (*LINKS, *KINDS, damage_bytes, damage_bytes, damage_bytes)


def damage_file(rng: Generator, path: Path, outside: Path) -> str:
    """Change one file by a rule."""
    rule = FILE_RULES[int(rng.integers(len(FILE_RULES)))]
    return f"{path.name}: {rule(rng, path, outside)}"
