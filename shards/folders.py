"""Where a shard set lies: a folder of this machine, or one that fsspec reaches (``s3://…``).

Files are named relative to the folder, with ``/``. What fails raises an OSError that says which
file (``filename``) and why (``strerror``), in both kinds of folder; what is not there is a
FileNotFoundError.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from shards.errors import ShardError
from shards.files import atomic_file, remove_temporary_files, write_atomic
from shards.remote import RemoteFolder

_OPEN_FILES = 64
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.:-]*)://(.*)")


class LocalFolder:
    """A folder of this machine's file systems. It need not exist before something is written."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._descriptors: dict[str, int] = {}
        self.opens = self.reads = self.bytes_read = 0  # what was asked of the file system

    def __str__(self) -> str:
        return str(self.root)

    def __reduce__(self) -> tuple[Any, ...]:
        return LocalFolder, (self.root,)  # open files stay in this process

    def __del__(self) -> None:
        for descriptor in self.__dict__.get("_descriptors", {}).values():
            os.close(descriptor)

    def path(self, name: str) -> str:
        """What a file is called outside."""
        return str(self.root / name)

    def absolute(self) -> LocalFolder:
        return LocalFolder(self.root.absolute())

    def files(self, below: str = "") -> dict[str, int]:
        """Names and bytes of the files directly in a subfolder; none where there is no folder."""
        found: dict[str, int] = {}
        with suppress(FileNotFoundError), os.scandir(self.root / below) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):  # others' temporary files come and go
                    if entry.is_file():
                        found[entry.name] = entry.stat().st_size
        return found

    def read(self, name: str) -> bytes:
        return (self.root / name).read_bytes()

    def read_all(self, names: Iterable[str]) -> list[bytes]:
        """The contents of many small files."""
        return [self.read(name) for name in names]

    def io_counts(self) -> tuple[int, int, int]:
        """Files opened, reads and bytes read by `read_range` in this process so far."""
        return self.opens, self.reads, self.bytes_read

    def read_range(self, name: str, start: int, end: int) -> bytes:
        """Bytes start … end; fewer where the file ends before. The file stays open."""
        content = os.pread(self._descriptor(name), end - start, start)
        self.reads += 1
        self.bytes_read += len(content)
        return content

    def _descriptor(self, name: str) -> int:
        if name not in self._descriptors:
            while len(self._descriptors) >= _OPEN_FILES:
                os.close(self._descriptors.pop(next(iter(self._descriptors))))
            self._descriptors[name] = os.open(self.root / name, os.O_RDONLY)
            self.opens += 1
        return self._descriptors[name]

    def write(self, name: str, content: bytes) -> None:
        """Write a file that nobody ever sees a part of."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, content)

    @contextmanager
    def create(self, name: str) -> Iterator[BinaryIO]:
        """A file to write to that stands, whole, when the block ends without an exception."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as file:
            yield file

    def delete(self, name: str) -> None:
        """Delete a file if it is there."""
        (self.root / name).unlink(missing_ok=True)

    def delete_partial(self, below: str, name: str = "*") -> None:
        """Delete what a killed process left half-written of a file (of all) in a subfolder."""
        remove_temporary_files(self.root / below, name)

    @contextmanager
    def local_file(self, name: str) -> Iterator[Path]:
        """A file as this machine's programs read it."""
        yield self.root / name


Folder = LocalFolder | RemoteFolder


def open_folder(place: Path | str | Folder) -> Folder:
    """The folder that a path or a URL names. Raises ShardError for a URL that names none."""
    if isinstance(place, LocalFolder | RemoteFolder):
        return place
    url = _URL.fullmatch(place) if isinstance(place, str) else None
    if url is None:
        return LocalFolder(Path(place))
    if url[1] == "file":
        return LocalFolder(Path(url[2]))
    if not url[2].strip("/"):
        raise ShardError(f"{place} names no bucket or folder; it must be like s3://bucket/set")
    return RemoteFolder(str(place))
