"""Copies of remote shards on a disk of this machine, shared by all processes that read there.

A shard is copied whole when something of it is first read, and appears when it is complete. Where
there is no room for more, shards of other sets that nobody has read for `IDLE_S` make it; those of
the set itself stay, and the rest of it is read from where it is: an epoch reads all of them, so
that each would else be copied again and again.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from shards.errors import ShardError
from shards.files import atomic_file, remove_temporary_files
from shards.folders import Folder, LocalFolder

IDLE_S = 6 * 3600
_TOUCH_S = 600
_CHUNK_BYTES = 32 << 20
_LOCK = ".lock"


class CachedFolder:
    """A folder that is only read, whose shards are read from ``place``.

    ``version`` tells sets apart that lie at the same URL one after another. ``limit_bytes`` bounds
    all that lies in ``place``, whoever uses it; a shard that does not fit is read from where it is.
    A full disk is as a smaller limit. Open files stay readable when they are deleted, so that
    processes need not know of each other.
    """

    def __init__(self, origin: Folder, place: Path, version: str, limit_bytes: int) -> None:
        self.origin, self.place, self.limit_bytes = origin, place, limit_bytes
        self._version = version
        try:
            place.mkdir(parents=True, exist_ok=True)
            os.close(os.open(place / _LOCK, os.O_CREAT | os.O_RDWR, 0o666))
        except OSError as error:
            raise ShardError(
                f"the cache {place} cannot be written to ({error.strerror}); name another folder"
            ) from None
        name = hashlib.sha256(f"{origin}\n{version}".encode()).hexdigest()[:20]
        self._local = LocalFolder(place / name)
        self._touched: dict[str, float] = {}  # copies that are there, and when this was noted
        self._elsewhere: set[str] = set()

    def __str__(self) -> str:
        return str(self.origin)

    def __reduce__(self) -> tuple[Any, ...]:
        return CachedFolder, (self.origin, self.place, self._version, self.limit_bytes)

    def path(self, name: str) -> str:
        return self.origin.path(name)

    def files(self, below: str = "") -> dict[str, int]:
        return self.origin.files(below)

    def read(self, name: str) -> bytes:
        return self.origin.read(name)

    def read_all(self, names: Iterable[str]) -> list[bytes]:
        return self.origin.read_all(names)

    def io_counts(self) -> tuple[int, int, int]:
        """Files opened, reads and bytes read in this process so far, to make copies and of them."""
        there, here = self.origin.io_counts(), self._local.io_counts()
        return there[0] + here[0], there[1] + here[1], there[2] + here[2]

    def read_range(self, name: str, start: int, end: int) -> bytes:
        now = time.monotonic()
        if name not in self._touched and name not in self._elsewhere:
            there = False
            with suppress(PermissionError):  # it is another user's
                there = self._fetch(name)
            if there:
                self._touched[name] = now
            else:
                self._elsewhere.add(name)
        if name in self._touched:
            # Somebody may have deleted a file that this process has closed.
            with suppress(FileNotFoundError):
                if now - self._touched[name] > _TOUCH_S:
                    self._touched[name] = now
                    with suppress(PermissionError):
                        os.utime(self._local.root / name)
                return self._local.read_range(name, start, end)
            del self._touched[name]
        return self.origin.read_range(name, start, end)

    def _fetch(self, name: str) -> bool:
        """Whether the file is here, now; others that want it wait meanwhile."""
        path = self._local.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path.with_name(f".{path.name}{_LOCK}")) as lock:
            os.truncate(lock, 0)  # what a killed process wanted
            remove_temporary_files(path.parent, path.name)  # and had of it
            with suppress(FileNotFoundError):
                os.utime(path)  # it is in use
                return True
            folder, _, file = name.rpartition("/")
            size = self.origin.files(folder).get(file)
            if size is None or not self._reserve(size, lock):
                return False
            try:
                with atomic_file(path) as copy:
                    for start in range(0, size, _CHUNK_BYTES):
                        end = min(start + _CHUNK_BYTES, size)
                        copy.write(self.origin.read_range(name, start, end))
                    if copy.tell() != size:
                        raise OSError
            except OSError:
                return False  # the disk is full, or the origin says the same when it is read
            finally:
                os.truncate(lock, 0)
            return True

    def _reserve(self, size: int, lock: int) -> bool:
        """Make room for ``size`` bytes, by deleting what other sets have not used for long, and
        take it: as the length, without content, of the file's own lock."""
        with _locked(self.place / _LOCK):
            copied = sum(_being_copied(path) for path in self.place.glob(f"*/*/.*{_LOCK}"))
            taken, idle = 0, []
            for path in self.place.glob("*/*/*.tar"):
                with suppress(FileNotFoundError):
                    status = path.stat()
                    taken += status.st_size
                    if path.parent.parent != self._local.root:
                        idle.append((status.st_mtime, status.st_size, path))
            room = min(
                self.limit_bytes - taken - copied, shutil.disk_usage(self.place).free - copied
            )
            for used, of_bytes, path in sorted(idle):
                if room >= size or size > self.limit_bytes or used > time.time() - IDLE_S:
                    break
                path.unlink(missing_ok=True)
                room += of_bytes
            if room >= size:
                os.truncate(lock, size)
            return room >= size


@contextmanager
def _locked(path: Path) -> Iterator[int]:
    """One process at a time, with the open file; a lock ends with its process, however that
    ends."""
    with open(path, "ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()


def _being_copied(lock: Path) -> int:
    """What a process that copies has taken. Of one that was killed nothing is left."""
    with open(lock, "rb") as file:
        length = os.fstat(file.fileno()).st_size
        if length:
            with suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                with suppress(PermissionError):  # another user's
                    name = lock.name.removeprefix(".").removesuffix(_LOCK)
                    remove_temporary_files(lock.parent, name)
                    os.truncate(lock, 0)
                return 0
        return length
