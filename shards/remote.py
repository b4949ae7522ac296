"""A folder that fsspec reaches: in an object store, or on another machine.

fsspec is imported when such a folder is first touched, so that local sets need none of it.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, cast

from shards.errors import ShardError

_REMOTE_EXTRA_PACKAGES = ("fsspec", "s3fs")
# s3fs holds this many parts of 50 MB in memory while it uploads, and each worker uploads.
_S3_PARTS_AT_ONCE = 2


class RemoteFolder:
    """A folder named by a URL. Object stores show an object only when it is whole; what is no
    object store (sftp, …) may show a part of a file while it is written.

    Instances can be sent to other processes and survive a fork: a connection is of one process.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._opened: tuple[int, Any, str] | None = None
        self.reads = self.bytes_read = 0  # what was asked of the store

    def __str__(self) -> str:
        return self.url

    def __reduce__(self) -> tuple[Any, ...]:
        return RemoteFolder, (self.url,)

    def path(self, name: str) -> str:
        """What a file is called outside."""
        return f"{self.url}/{name}" if name else self.url

    def absolute(self) -> RemoteFolder:
        return self

    def files(self, below: str = "") -> dict[str, int]:
        """Names and bytes of the files directly in a subfolder, by one listing; none where there
        is no folder."""
        with self._access(below) as (store, path):
            store.invalidate_cache()  # other processes write here too
            try:
                entries = store.ls(path, detail=True)
            except FileNotFoundError as error:
                if _bucket_is_missing(error):
                    raise
                return {}
            found = {}
            for entry in entries:
                folder, _, name = entry["name"].rpartition("/")
                if entry["type"] == "file" and folder.strip("/") == path.strip("/"):
                    found[name] = int(entry["size"])
            return found

    def read(self, name: str) -> bytes:
        with self._access(name) as (store, path):
            # From 0 on: s3fs asks for the size first where no range is given.
            return bytes(store.cat_file(path, start=0))

    def read_all(self, names: Iterable[str]) -> list[bytes]:
        """The contents of many small files, read at the same time."""
        names = list(names)
        contents: list[bytes] = []
        with self._access("") as (store, root):
            found = store.cat_ranges([f"{root}/{name}" for name in names], 0, None)
        for name, content in zip(names, found, strict=True):
            with self._access(name):
                if isinstance(content, Exception):
                    raise content
            contents.append(bytes(content))
        return contents

    def io_counts(self) -> tuple[int, int, int]:
        """Files opened (none), requests and bytes of `read_range` in this process so far."""
        return 0, self.reads, self.bytes_read

    def read_range(self, name: str, start: int, end: int) -> bytes:
        """Bytes start … end; fewer where the file ends before."""
        if start == end:
            return b""
        with self._access(name) as (store, path):
            content = bytes(store.cat_file(path, start=start, end=end))
        self.reads += 1
        self.bytes_read += len(content)
        return content

    def write(self, name: str, content: bytes) -> None:
        """Write a file that nobody ever sees a part of."""
        self._upload(name, lambda store, path: store.pipe_file(path, content))

    @contextmanager
    def create(self, name: str) -> Iterator[BinaryIO]:
        """A file to write to that stands, whole, when the block ends without an exception.

        It is made in a temporary file of this machine that has no name, so that a killed process
        leaves none behind, and then uploaded. Where an upload is killed, a store may keep the parts
        that arrived, unseen: what drops them is the bucket's own rule for incomplete uploads.
        """
        with tempfile.TemporaryFile() as file:
            try:
                yield cast("BinaryIO", file)
                file.seek(0)
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                what = f"{tempfile.gettempdir()} is full, where it is made; set TMPDIR to another"
                raise OSError(errno.EIO, what, self.path(name)) from None
            by_number = f"/dev/fd/{file.fileno()}"
            self._upload(name, lambda store, path: store.put_file(by_number, path))

    def delete(self, name: str) -> None:
        """Delete a file if it is there."""
        with self._access(name) as (store, path), suppress(FileNotFoundError):
            store.rm_file(path)

    def delete_partial(self, below: str, name: str = "*") -> None:
        """Nothing: what is half-written never stands here."""

    @contextmanager
    def local_file(self, name: str) -> Iterator[Path]:
        """A file as this machine's programs read it: a copy that is deleted afterwards."""
        with tempfile.TemporaryDirectory(prefix="avsa360-") as folder:
            local = Path(folder) / Path(name).name
            with self._access(name) as (store, path):
                store.get_file(path, str(local))
            yield local

    def _upload(self, name: str, send: Callable[[Any, str], object]) -> None:
        with self._access(name) as (store, path):
            try:
                send(store, path)
            except FileNotFoundError as error:
                if _bucket_is_missing(error):  # which is its owner's to make
                    raise
                # Object stores have no folders; elsewhere they must be there first.
                store.makedirs(path.rpartition("/")[0], exist_ok=True)
                send(store, path)

    @contextmanager
    def _access(self, name: str) -> Iterator[tuple[Any, str]]:
        """The file system and a file's path in it; what is raised inside becomes an OSError of
        that file."""
        store, root = self._open()
        try:
            yield store, f"{root}/{name}" if name else root
        except FileNotFoundError as error:
            if _bucket_is_missing(error):
                raise OSError(errno.EIO, str(error), self.url) from error
            reason = os.strerror(errno.ENOENT)
            raise FileNotFoundError(errno.ENOENT, reason, self.path(name)) from error
        except Exception as error:  # each store has errors of its own, not all of them OSErrors
            code = error.errno if isinstance(error, OSError) and error.errno else errno.EIO
            raise OSError(code, _in_words(error), self.path(name)) from error

    def _open(self) -> tuple[Any, str]:
        process = os.getpid()
        if self._opened is None or self._opened[0] != process:
            self._opened = (process, *_connect(self.url))
        return self._opened[1:]


def _connect(url: str) -> tuple[Any, str]:
    try:
        import fsspec

        options = {"max_concurrency": _S3_PARTS_AT_ONCE} if url.startswith("s3") else {}
        store, root = fsspec.url_to_fs(url, **options)
    except ImportError as error:
        # fsspec says in its own words what it lacks; the name is in what it caught.
        cause = error.__cause__ or error
        package = cause.name if isinstance(cause, ImportError) and cause.name else str(error)
        what = "avsa360[remote]" if package in _REMOTE_EXTRA_PACKAGES else package
        raise ShardError(f"{url} needs {package}; `pip install '{what}'` brings it") from None
    except Exception as error:
        raise ShardError(f"{url} cannot be opened: {_in_words(error)}") from None
    return store, str(root).rstrip("/")


def _in_words(error: Exception) -> str:
    """One line for the user; other packages' errors with their names, to search for."""
    text = " ".join(str(getattr(error, "strerror", None) or error).split())
    return text if isinstance(error, OSError) and text else f"{type(error).__name__}: {text}"


def _bucket_is_missing(error: FileNotFoundError) -> bool:
    """Whether a bucket is missing rather than a file in it."""
    return any(word in str(error).lower() for word in ("bucket does not", "container does not"))
