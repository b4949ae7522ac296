"""Atomic writes: a file appears under its final name only when it is complete."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

TEMPORARY_SUFFIX = ".partial"


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file that is renamed to ``path`` when the block ends without an exception.

    Content and rename are flushed to disk, so that a crash leaves either the old file or the
    complete new one. The mode follows the umask, so that a group can read the file.
    """
    # Processes on several machines may write to one folder, so process ids are not unique.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{TEMPORARY_SUFFIX}")
    try:
        with open(temporary, "wb") as file:
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
    for path in folder.glob(f".{name}.*{TEMPORARY_SUFFIX}"):
        path.unlink(missing_ok=True)


def dump_json(value: Any, indent: int | None = None) -> bytes:
    """UTF-8 JSON with deterministic bytes. Raises ValueError for NaN, which JSON does not have."""
    separators = (",", ":") if indent is None else None
    text = json.dumps(
        value, ensure_ascii=False, allow_nan=False, indent=indent, separators=separators
    )
    return text.encode() + b"\n"


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:  # some network file systems cannot sync a folder; the rename is done anyway
        pass
    finally:
        os.close(descriptor)
