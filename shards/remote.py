"""A folder that fsspec opens: in an object store, or on another machine.

fsspec is imported when such a folder is first used, so that local sets do not need it.
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
from shards.files import READ_BYTES, bounded

_EXTRAS = {"fsspec": "remote", "s3fs": "remote", "gcsfs": "gs", "adlfs": "az"}
_EXTRAS |= {"huggingface_hub": "hf"}
"""The extra that brings a package."""
# s3fs keeps this many parts of 50 MB in memory during an upload, and each worker uploads.
_S3_PARTS_AT_ONCE = 2


class RemoteFolder:
    """A folder at a URL.

    Object stores show an object only when it is complete; other stores (sftp, …) may show a partial
    file while it is written. Instances can be pickled and survive a fork: each process opens its
    own connection.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._opened: tuple[int, Any, str] | None = None
        self.reads = self.bytes_read = 0  # counters for io_counts()

    def __str__(self) -> str:
        return self.url

    def __reduce__(self) -> tuple[Any, ...]:
        return RemoteFolder, (self.url,)

    def path(self, name: str) -> str:
        """A file's URL."""
        return f"{self.url}/{name}" if name else self.url

    def absolute(self) -> RemoteFolder:
        return self

    def files(self, subfolder: str = "") -> dict[str, int]:
        """Names and sizes (bytes) of the files directly in a subfolder, from one listing; empty if
        it is missing."""
        with self._access(subfolder) as (store, path):
            store.invalidate_cache()  # other processes may have written files since
            try:
                entries = store.ls(path, detail=True)
            except FileNotFoundError as error:
                if _bucket_is_missing(error):
                    raise
                return {}
            sizes = {}
            for entry in entries:
                folder, _, name = entry["name"].rpartition("/")
                if entry["type"] == "file" and folder.strip("/") == path.strip("/"):
                    sizes[name] = int(entry["size"])
            return sizes

    def read(self, name: str, limit_bytes: int = READ_BYTES) -> bytes:
        """A file's content; raises OSError if it is larger than ``limit_bytes``."""
        with self._access(name) as (store, path):
            # With a range: s3fs makes a further request for the size if none is given.
            content = bytes(store.cat_file(path, start=0, end=limit_bytes + 1))
            return bounded(content, limit_bytes, self.path(name))

    def read_all(self, names: Iterable[str], limit_bytes: int = READ_BYTES) -> list[bytes]:
        """The contents of many small files, read concurrently."""
        names = list(names)
        contents: list[bytes] = []
        with self._access("") as (store, root):
            paths = [f"{root}/{self._checked(name)}" for name in names]
            results = store.cat_ranges(paths, 0, limit_bytes + 1)
        for name, content in zip(names, results, strict=True):
            with self._access(name):
                if isinstance(content, Exception):
                    raise content
                contents.append(bounded(bytes(content), limit_bytes, self.path(name)))
        return contents

    def io_counts(self) -> tuple[int, int, int]:
        """Files opened (always 0), requests and bytes of `read_range` in this process so far."""
        return 0, self.reads, self.bytes_read

    def read_range(self, name: str, start: int, end: int) -> bytes:
        """Bytes ``start`` to ``end`` (exclusive); fewer if the file is shorter."""
        if start == end:
            return b""
        with self._access(name) as (store, path):
            content = bytes(store.cat_file(path, start=start, end=end))
        self.reads += 1
        self.bytes_read += len(content)
        return content

    def write(self, name: str, content: bytes) -> None:
        """Write a file atomically: readers never see a partial object."""
        self._upload(name, lambda store, path: store.pipe_file(path, content))

    @contextmanager
    def create(self, name: str) -> Iterator[BinaryIO]:
        """Open a file for writing; it is uploaded when the block ends without an exception.

        The content is collected in a local temporary file without a name, so that a killed process
        leaves nothing behind. If an upload is killed, the store may keep the parts it received,
        invisibly; the bucket's own rule for incomplete uploads deletes them.
        """
        with tempfile.TemporaryFile() as file:
            try:
                yield cast("BinaryIO", file)
                file.seek(0)
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                reason = (
                    f"the temporary folder {tempfile.gettempdir()} is full; set TMPDIR to another"
                )
                raise OSError(errno.EIO, reason, self.path(name)) from None
            descriptor_path = f"/dev/fd/{file.fileno()}"
            self._upload(name, lambda store, path: store.put_file(descriptor_path, path))

    def delete(self, name: str) -> None:
        """Delete a file if it is there."""
        with self._access(name) as (store, path), suppress(FileNotFoundError):
            store.rm_file(path)

    def delete_partial(self, subfolder: str, name: str = "*") -> None:
        """Nothing to do: partial files are never visible here."""

    @contextmanager
    def local_file(self, name: str) -> Iterator[Path]:
        """A local copy of a file, for programs that only read local files; deleted afterwards."""
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
                if _bucket_is_missing(error):  # creating buckets is left to the owner
                    raise
                # Object stores have no folders; other stores need the parent folder first.
                store.makedirs(path.rpartition("/")[0], exist_ok=True)
                send(store, path)

    @contextmanager
    def _access(self, name: str) -> Iterator[tuple[Any, str]]:
        """The fsspec file system and a file's path in it; any exception inside the block becomes an
        OSError that names the file."""
        store, root = self._open()
        try:
            yield store, f"{root}/{self._checked(name)}" if name else root
        except FileNotFoundError as error:
            if _bucket_is_missing(error):
                raise OSError(errno.EIO, str(error), self.url) from error
            reason = os.strerror(errno.ENOENT)
            raise FileNotFoundError(errno.ENOENT, reason, self.path(name)) from error
        except Exception as error:  # each store has its own exceptions, not all of them OSErrors
            code = error.errno if isinstance(error, OSError) and error.errno else errno.EIO
            raise OSError(code, _one_line(error), self.path(name)) from error

    def _checked(self, name: str) -> str:
        """A file's name, which must lie in this folder; raises OSError."""
        if name.startswith("/") or ".." in name.split("/"):
            reason = "it lies outside of the folder of the set"
            raise OSError(errno.EINVAL, reason, self.path(name))
        return name

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
        # fsspec's own message does not name the missing package; its cause does.
        cause = error.__cause__ or error
        package = cause.name if isinstance(cause, ImportError) and cause.name else str(error)
        requirement = f"avsa360[{_EXTRAS[package]}]" if package in _EXTRAS else package
        raise ShardError(
            f"{url} needs {package}; `pip install '{requirement}'` brings it"
        ) from None
    except Exception as error:
        raise ShardError(f"{url} cannot be opened: {_one_line(error)}") from None
    return store, str(root).rstrip("/")


def _one_line(error: Exception) -> str:
    """An error as one line for the user; exceptions of other packages keep their class name, which
    the user can search for."""
    text = " ".join(str(getattr(error, "strerror", None) or error).split())
    return text if isinstance(error, OSError) and text else f"{type(error).__name__}: {text}"


def _bucket_is_missing(error: FileNotFoundError) -> bool:
    """Whether the bucket is missing, not only a file in it."""
    return any(word in str(error).lower() for word in ("bucket does not", "container does not"))
