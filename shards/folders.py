"""Folders that hold shard sets: local ones, and URLs that fsspec opens (``s3://…``).

Files are named relative to the folder, with ``/``. In both kinds of folder a failure raises an
OSError that names the file (``filename``) and the reason (``strerror``), and a missing file raises
FileNotFoundError.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from shards.errors import ShardError
from shards.files import (
    READ_BYTES,
    atomic_file,
    open_regular,
    open_regular_descriptor,
    read_regular,
    remove_temporary_files,
    write_atomic,
)
from shards.remote import RemoteFolder

_OPEN_FILES = 64
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.:-]*)://(.*)")


class LocalFolder:
    """A folder in a mounted file system. It is created by the first write."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._open_files: dict[str, tuple[int, int]] = {}
        self.opens = self.reads = self.bytes_read = 0  # counters for io_counts()

    def __str__(self) -> str:
        return str(self.root)

    def __reduce__(self) -> tuple[Any, ...]:
        return LocalFolder, (self.root,)  # file descriptors are not sent to other processes

    def __del__(self) -> None:
        for descriptor, _ in self.__dict__.get("_open_files", {}).values():
            os.close(descriptor)

    def path(self, name: str) -> str:
        """A file's full path."""
        return str(self.root / name)

    def absolute(self) -> LocalFolder:
        return LocalFolder(self.root.absolute())

    def files(self, subfolder: str = "") -> dict[str, int]:
        """Names and sizes (bytes) of the files directly in a subfolder; empty if it is missing."""
        sizes: dict[str, int] = {}
        with suppress(FileNotFoundError), os.scandir(self.root / subfolder) as entries:
            for entry in entries:
                # Other processes' temporary files may vanish between the listing and the stat.
                with suppress(FileNotFoundError):
                    if entry.is_file():
                        sizes[entry.name] = entry.stat().st_size
        return sizes

    def read(self, name: str, limit_bytes: int = READ_BYTES) -> bytes:
        """A file's content; raises OSError if it is larger than ``limit_bytes``."""
        return read_regular(self.root / name, limit_bytes)

    def read_all(self, names: Iterable[str], limit_bytes: int = READ_BYTES) -> list[bytes]:
        """The contents of many small files."""
        return [self.read(name, limit_bytes) for name in names]

    def io_counts(self) -> tuple[int, int, int]:
        """Files opened, reads and bytes read by `read_range` in this process so far."""
        return self.opens, self.reads, self.bytes_read

    def read_range(self, name: str, start: int, end: int) -> bytes:
        """Bytes ``start`` to ``end`` (exclusive); fewer if the file is shorter.

        The file stays open for later reads.
        """
        descriptor, size = self._opened(name)
        # Memory is taken for what is asked for, even where the file is shorter.
        content = os.pread(descriptor, max(0, min(end, size) - start), start)
        self.reads += 1
        self.bytes_read += len(content)
        return content

    def _opened(self, name: str) -> tuple[int, int]:
        """A file's descriptor and size."""
        found = self._open_files.get(name)
        if found is None:
            while len(self._open_files) >= _OPEN_FILES:
                os.close(self._open_files.pop(next(iter(self._open_files)))[0])
            descriptor = open_regular_descriptor(self.root / name)
            found = self._open_files[name] = descriptor, os.fstat(descriptor).st_size
            self.opens += 1
        return found

    def close(self, name: str) -> None:
        """Close a file that `read_range` has left open."""
        if name in self._open_files:
            os.close(self._open_files.pop(name)[0])

    def write(self, name: str, content: bytes) -> None:
        """Write a file atomically: readers never see a partial file."""
        path = self.own_path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, content)

    @contextmanager
    def create(self, name: str) -> Iterator[BinaryIO]:
        """Open a file for writing; it appears when the block ends without an exception."""
        path = self.own_path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as file:
            yield file

    def delete(self, name: str) -> None:
        """Delete a file if it is there."""
        self.own_path(name).unlink(missing_ok=True)

    def delete_partial(self, subfolder: str, name: str = "*") -> None:
        """Delete the temporary files that killed processes left in a subfolder; ``name`` restricts
        this to one file's."""
        remove_temporary_files(self.own_path(f"{subfolder}/x" if subfolder else "x").parent, name)

    def own_path(self, name: str) -> Path:
        """The path of a file to write or delete, which must lie in this folder itself: raises
        OSError if a part of ``name`` is a link to another folder."""
        path = self.root / name
        parts = PurePosixPath(name).parts
        if name.startswith("/") or ".." in parts:
            raise OSError(errno.EINVAL, "it lies outside of the folder of the set", str(path))
        for depth in range(1, len(parts)):
            folder = self.root.joinpath(*parts[:depth])
            if folder.is_symlink():
                reason = "it is a symbolic link, through which nothing is written or deleted"
                raise OSError(errno.ELOOP, f"{reason}; replace it by a folder", str(folder))
        return path

    @contextmanager
    def local_file(self, name: str) -> Iterator[Path]:
        """A local path to a file, for programs that only read local files."""
        open_regular(self.root / name).close()
        yield self.root / name


Folder = LocalFolder | RemoteFolder


def open_folder(location: Path | str | Folder) -> Folder:
    """The folder at a path or URL; raises ShardError for a URL without bucket or folder."""
    if isinstance(location, LocalFolder | RemoteFolder):
        return location
    url = _URL.fullmatch(location) if isinstance(location, str) else None
    if url is None:
        return LocalFolder(Path(location))
    if url[1] == "file":
        return LocalFolder(Path(url[2]))
    if not url[2].strip("/"):
        raise ShardError(f"{location} names no bucket or folder; write a URL like s3://bucket/set")
    return RemoteFolder(str(location))
