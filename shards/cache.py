"""Local copies of remote shards, shared by all processes that use the same cache folder.

The first read from a shard copies all of it; the copy appears when it is complete and has the hash
that the manifest states. When the cache is full, shards of other sets that nobody has read for
`IDLE_S` are deleted. Shards of the set itself stay, and its remaining shards are read from the
origin: an epoch reads all shards, so evicting some for others would copy each of them in every
epoch.

A copy that has another size than the manifest states is fetched again when a process first uses
it. Its hash is compared only where something in it does not decode (`drop_damaged`): hashing all
copies would take as long as reading them. Nothing is read, written or deleted through a symbolic
link below the cache's folder.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import shutil
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from shards.errors import ShardError
from shards.files import atomic_file, open_regular_descriptor, remove_temporary_files
from shards.folders import Folder, LocalFolder
from shards.schema import Manifest

IDLE_S = 6 * 3600
_TOUCH_S = 600
_CHUNK_BYTES = 32 << 20
_LOCK = ".lock"
_SET_FOLDER = re.compile("[0-9a-f]{20}")
_WITHOUT_CACHE = (
    *(errno.EACCES, errno.EPERM, errno.EROFS),  # the copy belongs to another user
    *(errno.ENOSPC, errno.EDQUOT),
    *(errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK),  # a file system without locks
)
"""Errors of a cache that is not used then; others say that something is wrong with it."""


class CachedFolder:
    """A read-only view of ``origin``, which holds the set of ``manifest``, whose shards are copied
    to and read from ``cache_root``.

    ``limit_bytes`` bounds everything in ``cache_root``, for all users together; a shard that does
    not fit is read from the origin. A full disk has the effect of a smaller limit. Deleted files
    stay readable while they are open, so that processes need not know about each other.
    """

    def __init__(
        self, origin: Folder, cache_root: Path, manifest: Manifest, limit_bytes: int
    ) -> None:
        self.origin, self.cache_root, self.limit_bytes = origin, cache_root, limit_bytes
        self._manifest = manifest
        try:
            cache_root.mkdir(parents=True, exist_ok=True)
            os.close(_open_lock(cache_root / _LOCK))
        except OSError as error:
            raise ShardError(
                f"the cache {cache_root} cannot be written to ({error.strerror}); "
                "name another folder"
            ) from None
        # The hash distinguishes sets that lie at the same URL one after another.
        self._name = hashlib.sha256(f"{origin}\n{manifest.sha256}".encode()).hexdigest()[:20]
        self._local = LocalFolder(cache_root / self._name)
        self._shards = {
            entry.file: (entry.bytes, entry.sha256)
            for entries in manifest.splits.values()
            for entry in entries
        }
        self._touched: dict[str, float] = {}  # cached file -> when its time stamp was last renewed
        self._not_cached: set[str] = set()
        self._hashed: set[str] = set()

    def __str__(self) -> str:
        return str(self.origin)

    def __reduce__(self) -> tuple[Any, ...]:
        return CachedFolder, (self.origin, self.cache_root, self._manifest, self.limit_bytes)

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
            try:
                is_cached = self._fetch(name)
            except OSError as error:
                if error.errno not in _WITHOUT_CACHE:
                    raise
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
                        os.utime(self._local.root / name, follow_symlinks=False)
                return self._local.read_range(name, start, end)
            del self._touched[name]
        return self.origin.read_range(name, start, end)

    def drop_damaged(self, name: str) -> bool:
        """Delete the copy of a shard if it has another hash than the manifest states; whether it
        had. Asked once in a process for each shard."""
        if name not in self._touched or name in self._hashed:
            return False
        self._hashed.add(name)
        self._local.close(name)  # another process may have fetched it again since it was opened
        size, sha256 = self._shards[name]
        digest = hashlib.sha256()
        try:
            path = self._path(name)
            with _locked(_lock_path(path)):
                for start in range(0, size, _CHUNK_BYTES):
                    end = min(start + _CHUNK_BYTES, size)
                    digest.update(self._local.read_range(name, start, end))
                if digest.hexdigest() == sha256:
                    return False
                path.unlink(missing_ok=True)
        except OSError:  # it belongs to another user, or has been deleted
            self._not_cached.add(name)
        self._local.close(name)
        del self._touched[name]
        return True

    def _path(self, name: str) -> Path:
        """Where the copy of a shard lies. Raises OSError if that leads through a link."""
        return LocalFolder(self.cache_root).own_path(f"{self._name}/{name}")

    def _fetch(self, name: str) -> bool:
        """Copy a shard unless it is cached already; whether it is cached now.

        Other processes that want the same shard wait meanwhile.
        """
        path = self._path(name)
        size, sha256 = self._shards[name]
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(_lock_path(path)) as lock:
            os.ftruncate(lock, 0)  # drop the reservation of a killed process …
            remove_temporary_files(path.parent, path.name)  # … and its partial copy
            if _is_file_of_size(path, size):
                os.utime(path, follow_symlinks=False)  # mark it as in use
                return True
            path.unlink(missing_ok=True)  # a damaged copy, or a link
            if not self._reserve(size, lock):
                return False
            digest = hashlib.sha256()
            try:
                with atomic_file(path) as copy:
                    for start in range(0, size, _CHUNK_BYTES):
                        end = min(start + _CHUNK_BYTES, size)
                        content = self.origin.read_range(name, start, end)
                        digest.update(content)
                        copy.write(content)
                    if digest.hexdigest() != sha256:
                        raise OSError
            except OSError:
                # The disk is full, or reading from the origin will raise this again, or will show
                # the damage, which may have been that of this transfer only.
                return False
            finally:
                os.ftruncate(lock, 0)
            return True

    def _reserve(self, size: int, lock: int) -> bool:
        """Reserve ``size`` bytes of the cache, deleting idle shards of other sets if needed;
        whether that succeeded.

        The reservation is the length of the file's own lock file, which has no content.
        """
        with _locked(self.cache_root / _LOCK):
            reserved, used, others = 0, 0, []
            for path, status in _cached_files(self.cache_root):
                if path.name.startswith(".") and path.name.endswith(_LOCK):
                    reserved += _reserved_bytes(path)
                elif path.name.endswith(".tar"):
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
                os.ftruncate(lock, size)
            return free >= size


def _cached_files(cache_root: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """The files of all cached sets, but none that links lead to."""
    for folder in _entries(cache_root):
        if _SET_FOLDER.fullmatch(folder.name) and folder.is_dir(follow_symlinks=False):
            for split in _entries(folder):
                if split.is_dir(follow_symlinks=False):
                    for file in _entries(split):
                        with suppress(FileNotFoundError):  # renamed or deleted since
                            if file.is_file(follow_symlinks=False):
                                yield Path(file.path), file.stat(follow_symlinks=False)


def _entries(folder: os.PathLike[str]) -> list[os.DirEntry[str]]:
    with suppress(PermissionError, FileNotFoundError), os.scandir(folder) as entries:
        return list(entries)
    return []


def _is_file_of_size(path: Path, size: int) -> bool:
    with suppress(FileNotFoundError):
        status = path.lstat()
        return stat.S_ISREG(status.st_mode) and status.st_size == size
    return False


def _lock_path(copy: Path) -> Path:
    return copy.with_name(f".{copy.name}{_LOCK}")


def _open_lock(path: Path) -> int:
    return open_regular_descriptor(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW)


@contextmanager
def _locked(path: Path) -> Iterator[int]:
    """Hold an exclusive lock on a file, open for the block. The lock is released when its process
    ends, however that happens."""
    descriptor = _open_lock(path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def _reserved_bytes(lock: Path) -> int:
    """Bytes that a running copy has reserved. The remains of a killed one are deleted: 0."""
    descriptor = open_regular_descriptor(lock, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        length = os.fstat(descriptor).st_size
        if length:
            with suppress(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                with suppress(PermissionError):  # the file belongs to another user
                    name = lock.name.removeprefix(".").removesuffix(_LOCK)
                    remove_temporary_files(lock.parent, name)
                    writable = _open_lock(lock)
                    os.ftruncate(writable, 0)
                    os.close(writable)
                return 0
        return length
    finally:
        os.close(descriptor)
