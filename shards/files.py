"""Files that are read and written safely.

Writes are atomic: a file appears under its final name only when it is complete. Reads are bounded:
only regular files are opened, up to a stated size, and JSON is read into a stated type.
"""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TextIO, TypeVar

import msgspec

TEMPORARY_SUFFIX = ".partial"
READ_BYTES = 256_000_000
"""The largest file that is read whole, unless a smaller limit is stated."""
_TOKEN = "[0-9a-f]" * 8
"""A glob pattern of what makes the names of temporary files unique."""

_Record = TypeVar("_Record")
NO_FILE = (errno.EINVAL, errno.ELOOP, errno.ENXIO, errno.EISDIR)
"""Errors of `open_regular_descriptor` that, with O_NOFOLLOW and for writing, mean a device, a link,
a pipe or a folder."""
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_AT = re.compile(r"^(.*?)(?: - at `\$?(?:key in )?(.*)`)?$", re.DOTALL)


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file that is renamed to ``path`` when the block ends without an exception.

    Content and rename are flushed to disk, so that a crash leaves either the old file or the
    complete new one. The mode follows the umask, so that a group can read the file.
    """
    # Processes on several machines may write to one folder, so process ids are not unique.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{TEMPORARY_SUFFIX}")
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)  # errors from write() do not name the file
        raise
    _sync_folder(path.parent)


def write_atomic(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path``; readers never see a partial file."""
    with atomic_file(path) as file:
        file.write(content)


def remove_temporary_files(folder: Path, name: str = "*") -> None:
    """Delete the temporary files that killed processes left in ``folder``.

    ``name`` restricts this to one file's; a glob pattern.
    """
    for path in folder.glob(f".{name}.{_TOKEN}{TEMPORARY_SUFFIX}"):
        path.unlink(missing_ok=True)


def dump_json(value: Any, indent: int | None = None) -> bytes:
    """UTF-8 JSON with deterministic bytes. Raises ValueError for NaN, which JSON does not have."""
    separators = (",", ":") if indent is None else None
    text = json.dumps(
        value, ensure_ascii=False, allow_nan=False, indent=indent, separators=separators
    )
    return text.encode() + b"\n"


def open_regular(path: Path | str) -> BinaryIO:
    """Open a file for reading, following links.

    Raises OSError, also for a device, a pipe or a folder, which could be endless.
    """
    return os.fdopen(open_regular_descriptor(path), "rb")


def open_regular_descriptor(path: Path | str, flags: int = os.O_RDONLY) -> int:
    """The same as a file descriptor, with further flags of `os.open`."""
    # Opening a pipe would wait for its writer; O_NONBLOCK has no effect on regular files.
    descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def append_regular(path: Path) -> TextIO:
    """Open a file for appending text, creating it. Raises OSError, also for what is neither a
    regular file nor missing: nothing is written through links."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
    try:
        descriptor = open_regular_descriptor(path, flags)
    except OSError as error:
        if error.errno in NO_FILE:
            raise OSError(errno.EINVAL, "it is not a regular file", str(path)) from None
        raise
    return os.fdopen(descriptor, "a", encoding="utf-8")


def read_regular(path: Path | str, limit_bytes: int) -> bytes:
    """The content of a regular file. Raises OSError, also if it is larger than ``limit_bytes``."""
    with open_regular(path) as file:
        return bounded(file.read(limit_bytes + 1), limit_bytes, str(path))


def bounded(content: bytes, limit_bytes: int, path: str) -> bytes:
    """The content of a file, of which ``limit_bytes`` + 1 bytes were asked for. Raises OSError if
    it has as many."""
    if len(content) > limit_bytes:
        raise OSError(errno.EFBIG, f"it is larger than {limit_bytes / 1e6:g} MB", path)
    return content


def parse_json(content: bytes | str, kind: type[_Record]) -> _Record:
    """Read JSON into ``kind``: a dataclass or any other type that msgspec knows. Members that
    ``kind`` lacks are skipped; NaN and infinities are refused. Some editors write a byte order mark
    before it.

    Raises ValueError: one sentence that names the field.
    """
    if isinstance(content, bytes) and content.startswith(_BYTE_ORDER_MARK):
        content = content.removeprefix(_BYTE_ORDER_MARK)
    try:
        return msgspec.json.decode(content, type=kind)
    except RecursionError:
        raise ValueError("its JSON is nested too deeply") from None
    except UnicodeDecodeError:
        raise ValueError("its text is not UTF-8") from None
    except msgspec.ValidationError as error:
        raise _named(error) from None
    except msgspec.DecodeError as error:
        raise ValueError(f"it is not JSON: {error}") from None


def parse_value(value: Any, kind: type[_Record]) -> _Record:
    """`parse_json` for what another format than JSON has delivered."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise _named(error) from None


def _named(error: msgspec.ValidationError) -> ValueError:
    fault, field = _AT.fullmatch(str(error)).groups()  # type: ignore[union-attr]
    where = f"its field {field.lstrip('.')}: " if field else ""
    return ValueError(where + fault[:1].lower() + fault[1:].replace("`", ""))


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:  # some network file systems cannot sync a folder; the rename is done anyway
        pass
    finally:
        os.close(descriptor)
