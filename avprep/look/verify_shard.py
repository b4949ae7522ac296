"""Verify that a shard agrees with its index and the manifest, and its samples with their JSON."""

from __future__ import annotations

import hashlib
import os
import tarfile
from dataclasses import dataclass
from typing import BinaryIO

from avprep.look.verify_sample import MOST_FAULTS, Fault, Read, verify_sample
from shards.errors import ShardError
from shards.files import dump_json, open_regular
from shards.folders import Folder
from shards.manifest import read_index
from shards.schema import SampleIndex, ShardEntry, ShardIndex

_CHUNK = 1 << 20
_DURATION_TOLERANCE_S = 0.002  # the last digit of a sum depends on the version of Python


@dataclass(frozen=True)
class Verified:
    """What is wrong with a shard, and the lines that ``dropped.jsonl`` holds because of it."""

    faults: tuple[Fault, ...] = ()
    dropped: tuple[bytes, ...] = ()


def verify_shard(
    root: Folder,
    split: str,
    entry: ShardEntry,
    quick: bool = False,
    stored_bytes: int | None = None,
) -> Verified:
    """Verify one shard: size and hash of the tar and the index and, unless ``quick``, all
    samples. A tar of which ``stored_bytes`` says that it has another size is not read."""
    index, faults = _verify_index(root, entry)
    dropped = () if index is None else tuple(map(dump_json, index.dropped))
    if stored_bytes is not None and stored_bytes != entry.bytes:
        return Verified((*faults, _another_size(entry, stored_bytes)), dropped)
    try:
        with root.local_file(entry.file) as path, open_regular(path) as file:
            faults += _verify_tar(file, entry)
            if index is not None and not quick:
                faults += _verify_content(file, split, entry, index)
    except OSError as error:
        faults.append(Fault(entry.file, f"cannot be read: {error.strerror}"))
    return Verified(tuple(faults), dropped)


def _another_size(entry: ShardEntry, size: int) -> Fault:
    return Fault(entry.file, f"has {size} bytes instead of {entry.bytes}; copy it again")


def _verify_index(root: Folder, entry: ShardEntry) -> tuple[ShardIndex | None, list[Fault]]:
    """A shard's index, None if it cannot be read, and where it differs from the manifest."""
    try:
        index = read_index(root, entry.index)
    except ShardError as error:
        problem = str(error).removeprefix(f"{root.path(entry.index)} ")
        return None, [Fault(entry.index, problem)]
    if entry.index_sha256 is not None and index.index_sha256 != entry.index_sha256:
        return index, [Fault(entry.index, "has changed since it was written; copy it again")]
    pairs = {
        "file": (index.file, entry.file),
        "size": (index.bytes, entry.bytes),
        "hashes": (index.sha256, entry.sha256),
        "duration": (index.duration_s, entry.duration_s),
        "keys": (tuple(sample.key for sample in index.samples), entry.keys),
        "sources": (tuple(sample.source for sample in index.samples), entry.sources),
    }
    differing = [name for name, (found, expected) in pairs.items() if found != expected]
    return index, [
        Fault(entry.index, f"its {name} differ from the manifest's") for name in differing
    ]


def _verify_tar(file: BinaryIO, entry: ShardEntry) -> list[Fault]:
    """Whether a tar has changed, in its members or outside of them."""
    size = os.fstat(file.fileno()).st_size
    if size != entry.bytes:
        return [_another_size(entry, size)]
    if _sha256(file) != entry.sha256:
        return [Fault(entry.file, "has changed since it was written; copy it again")]
    return []


def _sha256(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while block := file.read(_CHUNK):
        digest.update(block)
    return digest.hexdigest()


def _verify_content(
    file: BinaryIO, split: str, entry: ShardEntry, index: ShardIndex
) -> list[Fault]:
    """Faults of the samples at the places where the index says that they are, which is where they
    are read, and of all that lies between and after them."""
    read = _Parts(file)
    faults: list[Fault] = []
    at, duration_s, is_whole = 0, 0.0, True
    for sample in index.samples:
        end, of_headers = _verify_headers(entry.file, sample, at, read)
        sample_s, of_members = verify_sample(entry.file, split, sample, read)
        found = [*of_headers, *of_members]
        faults += found[:MOST_FAULTS]
        if len(found) >= MOST_FAULTS:
            faults.append(Fault(entry.file, "may have more faults than these", sample.key))
        at, duration_s, is_whole = end, duration_s + sample_s, is_whole and not of_members
    if is_whole and abs(duration_s - index.duration_s) > _DURATION_TOLERANCE_S:
        faults.append(Fault(entry.index, f"its samples last {duration_s:.3f} s, not as it says"))
    faults += _verify_end(entry.file, at, read)
    return faults


def _verify_end(shard: str, at: int, read: _Parts) -> list[Fault]:
    """Whether nothing but zeros lies behind a shard's last member, which ends ``at`` an offset."""
    try:
        while at < read.size:
            end = min(at + _CHUNK, read.size)
            if any(read(at, end)):
                return [Fault(shard, "holds more than the samples of its index")]
            at = end
    except ShardError as error:
        return [Fault(shard, str(error))]
    return []


def _verify_headers(
    shard: str, sample: SampleIndex, at: int, read: Read
) -> tuple[int, list[Fault]]:
    """Where a sample's members end, padded, if they begin ``at`` an offset one after another, and
    which of them do not, or have another header than the writer gives them."""
    faults, last = [], ""
    for member, (offset, size) in sample.members.items():
        problem = ""
        try:
            header = tarfile.TarInfo(f"{sample.key}.{member}")
            header.size = size
            begin, end = offset - tarfile.BLOCKSIZE, offset + size
            padded = end + -end % tarfile.BLOCKSIZE
            if begin != at or member <= last:
                problem = "does not begin where the member before it ends"
            elif read(begin, offset) != header.tobuf(tarfile.USTAR_FORMAT) or any(
                read(end, padded)
            ):
                problem = "has another header in the tar than its index says"
            at, last = padded, member
        except (ShardError, ValueError) as error:
            problem = str(error)
        if problem:
            faults.append(Fault(shard, problem, sample.key, member))
    return at, faults


class _Parts:
    """Reads parts of a shard: all together at most twice of what it holds, so that an index whose
    samples share their members does not make work without end of a small shard."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.size = os.fstat(file.fileno()).st_size
        self._left = 2 * self.size

    def __call__(self, begin: int, end: int) -> bytes:
        if not 0 <= begin <= end <= self.size:
            raise ShardError("lies outside its shard")
        self._left -= end - begin
        if self._left < 0:
            raise ShardError("is not verified: its index names more than the shard holds")
        self._file.seek(begin)
        content = self._file.read(end - begin)
        if len(content) != end - begin:
            raise ShardError("is cut off: the shard has become shorter")
        return content
