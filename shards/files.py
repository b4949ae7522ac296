"""Files that appear under their final name only when they are complete."""

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
    """Open a temporary file that becomes ``path`` when the block ends without an exception.

    The content and the rename are flushed to the disk, so that a crash leaves either the old
    file or the whole new one. The mode follows the umask, so that a group can read the file.
    """
    # Processes of several machines may write to one folder, so that their ids are not enough.
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
            error.filename = str(path)  # writes do not say which file they were of
        raise
    _sync_folder(path.parent)


def write_atomic(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` so that no reader ever sees a part of it."""
    with atomic_file(path) as file:
        file.write(content)


def remove_temporary_files(folder: Path, name: str = "*") -> None:
    """Delete what a killed process left half-written of ``name`` (of everything) in ``folder``."""
    for path in folder.glob(f".{name}.*{TEMPORARY_SUFFIX}"):
        path.unlink(missing_ok=True)


def dump_json(value: Any, indent: int | None = None) -> bytes:
    """UTF-8 JSON that is the same for the same value; NaN is refused (it is no JSON)."""
    separators = (",", ":") if indent is None else None
    text = json.dumps(
        value, ensure_ascii=False, allow_nan=False, indent=indent, separators=separators
    )
    return text.encode() + b"\n"


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:  # some network file systems cannot sync a folder; the rename stands
        pass
    finally:
        os.close(descriptor)
