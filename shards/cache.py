"""Local copies of remote shards, shared by all processes that use the same cache folder.

The first read from a shard copies all of it; the copy appears when it is complete. When the cache
is full, shards of other sets that nobody has read for `IDLE_S` are deleted. Shards of the set
itself stay, and its remaining shards are read from the origin: an epoch reads all shards, so
evicting some for others would copy each of them in every epoch.
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
    """A read-only view of ``origin`` whose shards are copied to and read from ``cache_root``.

    ``version`` distinguishes sets that lie at the same URL one after another. ``limit_bytes``
    bounds everything in ``cache_root``, for all users together; a shard that does not fit is read
    from the origin. A full disk has the effect of a smaller limit. Deleted files stay readable
    while they are open, so that processes need not know about each other.
    """

    def __init__(self, origin: Folder, cache_root: Path, version: str, limit_bytes: int) -> None:
        self.origin, self.cache_root, self.limit_bytes = origin, cache_root, limit_bytes
        self._version = version
        try:
            cache_root.mkdir(parents=True, exist_ok=True)
            os.close(os.open(cache_root / _LOCK, os.O_CREAT | os.O_RDWR, 0o666))
        except OSError as error:
            raise ShardError(
                f"the cache {cache_root} cannot be written to ({error.strerror}); "
                "name another folder"
            ) from None
        name = hashlib.sha256(f"{origin}\n{version}".encode()).hexdigest()[:20]
        self._local = LocalFolder(cache_root / name)
        self._touched: dict[str, float] = {}  # cached file -> when its time stamp was last renewed
        self._not_cached: set[str] = set()

    def __str__(self) -> str:
        return str(self.origin)

    def __reduce__(self) -> tuple[Any, ...]:
        return CachedFolder, (self.origin, self.cache_root, self._version, self.limit_bytes)

    def path(self, name: str) -> str:
        return self.origin.path(name)

    def files(self, subfolder: str = "") -> dict[str, int]:
        return self.origin.files(subfolder)

    def read(self, name: str) -> bytes:
        return self.origin.read(name)

    def read_all(self, names: Iterable[str]) -> list[bytes]:
        return self.origin.read_all(names)

    def io_counts(self) -> tuple[int, int, int]:
        """Files opened, reads and bytes read in this process so far, at the origin and locally."""
        remote, local = self.origin.io_counts(), self._local.io_counts()
        return remote[0] + local[0], remote[1] + local[1], remote[2] + local[2]

    def read_range(self, name: str, start: int, end: int) -> bytes:
        now = time.monotonic()
        if name not in self._touched and name not in self._not_cached:
            is_cached = False
            with suppress(PermissionError):  # the copy belongs to another user
                is_cached = self._fetch(name)
            if is_cached:
                self._touched[name] = now
            else:
                self._not_cached.add(name)
        if name in self._touched:
            # Another process may have deleted a file that this one has closed.
            with suppress(FileNotFoundError):
                if now - self._touched[name] > _TOUCH_S:
                    self._touched[name] = now
                    with suppress(PermissionError):
                        os.utime(self._local.root / name)
                return self._local.read_range(name, start, end)
            del self._touched[name]
        return self.origin.read_range(name, start, end)

    def _fetch(self, name: str) -> bool:
        """Copy a file unless it is cached already; whether it is cached now.

        Other processes that want the same file wait meanwhile.
        """
        path = self._local.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path.with_name(f".{path.name}{_LOCK}")) as lock:
            os.truncate(lock, 0)  # drop the reservation of a killed process …
            remove_temporary_files(path.parent, path.name)  # … and its partial copy
            with suppress(FileNotFoundError):
                os.utime(path)  # mark it as in use
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
                return False  # the disk is full, or reading from the origin will raise this again
            finally:
                os.truncate(lock, 0)
            return True

    def _reserve(self, size: int, lock: int) -> bool:
        """Reserve ``size`` bytes of the cache, deleting idle shards of other sets if needed;
        whether that succeeded.

        The reservation is the length of the file's own lock file, which has no content.
        """
        with _locked(self.cache_root / _LOCK):
            reserved = sum(_reserved_bytes(path) for path in self.cache_root.glob(f"*/*/.*{_LOCK}"))
            used, others = 0, []
            for path in self.cache_root.glob("*/*/*.tar"):
                with suppress(FileNotFoundError):
                    status = path.stat()
                    used += status.st_size
                    if path.parent.parent != self._local.root:
                        others.append((status.st_mtime, status.st_size, path))
            free = min(
                self.limit_bytes - used - reserved,
                shutil.disk_usage(self.cache_root).free - reserved,
            )
            for last_use, file_bytes, path in sorted(others):
                if free >= size or size > self.limit_bytes or last_use > time.time() - IDLE_S:
                    break
                path.unlink(missing_ok=True)
                free += file_bytes
            if free >= size:
                os.truncate(lock, size)
            return free >= size


@contextmanager
def _locked(path: Path) -> Iterator[int]:
    """Hold an exclusive lock on a file, open for the block. The lock is released when its process
    ends, however that happens."""
    with open(path, "ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()


def _reserved_bytes(lock: Path) -> int:
    """Bytes that a running copy has reserved. The remains of a killed one are deleted: 0."""
    with open(lock, "rb") as file:
        length = os.fstat(file.fileno()).st_size
        if length:
            with suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                with suppress(PermissionError):  # the file belongs to another user
                    name = lock.name.removeprefix(".").removesuffix(_LOCK)
                    remove_temporary_files(lock.parent, name)
                    os.truncate(lock, 0)
                return 0
        return length
