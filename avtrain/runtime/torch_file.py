"""Files of ``torch.save`` that may be a stranger's: read within the memory that their size
promises, and into plain values and tensors.

``weights_only`` alone runs no code, but allocates whatever a file declares, and reads beyond the
end of a record that is shorter than the tensor in it.
"""

from __future__ import annotations

import io
import os
import pickletools
import zipfile
from pathlib import Path
from typing import IO, Any, BinaryIO

import torch
from torch import Tensor

from shards.files import open_regular

_LARGEST_PICKLE = 4_000_000
"""Bytes for the structure around the tensors, which Python reads byte by byte; larger files may
have `_SHARE_OF_PICKLE` of their size more."""
_SHARE_OF_PICKLE = 0.01
_MOST_RECORDS = 1_000_000
_DEEPEST = 12
_DTYPES = ["Double", "Float", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool"]
_GLOBALS = {
    "collections Counter",
    "collections OrderedDict",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
    *(f"torch {name}Storage" for name in _DTYPES),
}
_FOREIGN = ("STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4")
_PICKLES_BEFORE_TENSORS = 5  # in the format of PyTorch before 1.6


class ForeignObjectError(ValueError):
    """A file holds more than plain values and tensors; the message names it."""


def read_torch(path: Path) -> Any:
    """The content of a file, whose tensors are parts of it, unchecked: see `plain`.

    Raises OSError, ForeignObjectError, and ValueError for a file that is damaged.
    """
    with open_regular(path) as file:
        zipped = file.read(4) == b"PK\x03\x04"
        try:
            _check_zip(file) if zipped else _check_pickles(file)
            file.seek(0)
            # Mapped, a tensor reads what lies in the file where its record should be, nothing else.
            # The descriptor cannot have become another file, as a path can.
            where: Any = f"/dev/fd/{file.fileno()}" if zipped else file
            if zipped:  # a Mac opens that name at the place where the descriptor is, not at 0
                os.lseek(file.fileno(), 0, os.SEEK_SET)
            return torch.load(where, map_location="cpu", weights_only=True, mmap=zipped)
        except (MemoryError, OSError, ForeignObjectError):
            raise
        except Exception as error:  # torch has many errors for bad files
            raise ValueError(f"{error!r:.80}") from None


def plain(path: Path, value: Any) -> Any:
    """A copy of what `read_torch` read in ``path``: dictionaries, lists, tuples, numbers, text and
    ordinary tensors, which do not depend on the file.

    Raises ValueError for anything else, and for more than there is room for in the file.
    """
    return _Copy(path.stat().st_size).copy(value, "it", 0)


class _Copy:
    """``size`` bounds the bytes of all tensors and the number of values: each takes a byte."""

    def __init__(self, size: int) -> None:
        self._bytes_left = self._values_left = size

    def copy(self, value: Any, name: str, depth: int) -> Any:
        self._values_left -= 1
        if depth > _DEEPEST or self._values_left < 0:
            raise ValueError(f"{name} holds too many values in each other")
        if isinstance(value, Tensor):
            return self._tensor(value, name)
        if value is None or type(value) in (bool, int, float, str):
            return value
        if isinstance(value, dict):
            for key in value:
                if type(key) not in (str, int):
                    raise ValueError(f"{name} has a key that is neither text nor a number")
            return {
                key: self.copy(item, f"{key}" if name == "it" else f"{name}.{key}", depth + 1)
                for key, item in value.items()
            }
        if type(value) in (list, tuple):
            return type(value)(
                self.copy(item, f"{name}.{number}", depth + 1) for number, item in enumerate(value)
            )
        raise ValueError(f"{name} is a {type(value).__name__}")

    def _tensor(self, value: Tensor, name: str) -> Tensor:
        size = value.numel() * value.element_size()
        self._bytes_left -= size
        if size > value.untyped_storage().nbytes() or self._bytes_left < 0:
            raise ValueError(f"{name} is a tensor of {size} bytes, of which the file has fewer")
        return value.detach().clone()


def _check_zip(file: BinaryIO) -> None:
    """Raise ValueError unless a zip is laid out as torch writes it: nothing is compressed, nothing
    is there twice, and the records have room in the file."""
    size = _size(file)
    with zipfile.ZipFile(file) as archive:
        records = archive.infolist()
        names = {record.filename.lower() for record in records}  # torch ignores the case
        if len(records) > _MOST_RECORDS or len(names) < len(records):
            raise ValueError("it has too many records")
        if any(one.filename != one.orig_filename for one in records):
            raise ValueError("its records have no proper names")
        if archive.comment or any(one.compress_type != zipfile.ZIP_STORED for one in records):
            raise ValueError("its records are compressed")
        if sum(one.file_size for one in records) > size:
            raise ValueError("its records are larger than the file")
        for record in records:
            if record.filename.lower().endswith(".pkl"):
                with archive.open(record) as content:
                    # Into memory first, since its check reads a byte at a time.
                    read = content.read(_longest_pickle(size) + 2)
                _check_pickle(io.BytesIO(read), size)


def _check_pickles(file: BinaryIO) -> None:
    file.seek(0)
    for _ in range(_PICKLES_BEFORE_TENSORS):
        _check_pickle(file, _size(file))


def _check_pickle(file: IO[bytes], size: int) -> None:
    """Raise ForeignObjectError if a pickle in a file of ``size`` names anything that ordinary
    tensors do not need, and ValueError if it is too long.

    Among what `weights_only` allows are functions that take any amount of memory.
    """
    most = _longest_pickle(size)
    for code, argument, place in pickletools.genops(file):
        if code.name in _FOREIGN:
            raise ValueError("it holds objects")
        if code.name == "GLOBAL" and argument not in _GLOBALS:
            raise ForeignObjectError(str(argument).replace(" ", ".")[:80])
        if (place or 0) > most:
            raise ValueError("it has too many values")


def _longest_pickle(size: int) -> int:
    return round(_LARGEST_PICKLE + size * _SHARE_OF_PICKLE)


def _size(file: IO[bytes]) -> int:
    return os.fstat(file.fileno()).st_size
