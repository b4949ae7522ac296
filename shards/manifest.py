"""Read and write ``manifest.json`` and the index beside each shard."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import PurePosixPath
from typing import TypeVar

import msgspec
import numpy as np

from shards.errors import ShardError
from shards.files import dump_json, parse_json
from shards.folders import Folder, LocalFolder
from shards.schema import (
    FORMAT_NAME,
    FORMAT_VERSION,
    INDEX_BYTES,
    LABEL_MAP_SUFFIX,
    MANIFEST_BYTES,
    Manifest,
    Options,
    ShardEntry,
    ShardIndex,
    Totals,
    check_shard_names,
    distinct_sources,
    totals,
)

MANIFEST_NAME = "manifest.json"
_Record = TypeVar("_Record")
_END = b"\n}\n"
_CHECKSUM = re.compile(rb',\n "checksum": "([0-9a-f]{64})"\n}\n')
_CHECKSUM_BYTES = len(b',\n "checksum": ""\n}\n') + 64
_MAX_VALUES = 8_000_000  # each takes up to 120 bytes of memory, and 3 of the file
_SMALL_BYTES = 1_000_000
_DURATION_TOLERANCE_S = 0.002  # the last digit of a sum depends on the version of Python


@dataclass(frozen=True)
class _SplitRecord(Totals):
    """A split in the file."""

    shards: tuple[ShardEntry, ...]


@dataclass(frozen=True)
class _Head:
    """The members of the file that say how to read it."""

    format: str = ""
    version: int = 0
    minor_version: int = 0
    checksum: str | None = None


@dataclass(frozen=True)
class _Members:
    """The other members of the file."""

    options: msgspec.Raw
    versions: msgspec.Raw
    plan: str
    totals: Totals
    splits: dict[str, _SplitRecord]


def read_manifest(root: Folder) -> Manifest:
    """The manifest of the set in ``root``; raises ShardError if ``root`` has no finished set."""
    path = root.path(MANIFEST_NAME)
    try:
        content = root.read(MANIFEST_NAME, MANIFEST_BYTES)
    except FileNotFoundError:
        if isinstance(root, LocalFolder) and not root.root.exists():
            raise ShardError(f"{root} does not exist; check the path") from None
        raise ShardError(
            f"{root} holds no {MANIFEST_NAME}, so it is no finished shard set; name a folder that "
            "`avprep build-shards` has written, or run that command again if it was stopped"
        ) from None
    except OSError as error:
        raise ShardError(f"{path} cannot be read: {error.strerror}") from None
    try:
        return _parse_manifest(content)
    except ShardError as error:
        raise ShardError(f"{path}: {error}") from None
    except ValueError as error:
        raise ShardError(f"{path} is damaged ({error}); copy it again from the set") from None


def _parse_manifest(content: bytes) -> Manifest:
    """Raises ShardError for another format or version and for another checksum, ValueError for
    anything else."""
    _check_values(content)
    head = parse_json(content, _Head)
    if head.format != FORMAT_NAME:
        raise ShardError(f"its format is {head.format!r:.80}, not {FORMAT_NAME!r}")
    if head.version != FORMAT_VERSION:
        raise ShardError(
            f"its format version is {head.version}, but this program reads version "
            f"{FORMAT_VERSION}; read it with the version that wrote it, or build it again"
        )
    # SHA-256 of the bytes before the last member, and then of the whole file.
    digest = hashlib.sha256(memoryview(content)[:-_CHECKSUM_BYTES])
    if head.minor_version >= 1 or head.checksum is not None:
        _check_checksum(content, digest.hexdigest())
    digest.update(content[-_CHECKSUM_BYTES:])
    members = parse_json(content, _Members)
    sources: set[str] = set()
    for split, record in members.splits.items():
        for entry in record.shards:
            check_shard_names(split, entry.file, entry.index)
        own_sources = distinct_sources(record.shards)
        _check_totals(f"split {split}", record, totals(record.shards, own_sources))
        sources |= own_sources
    everything = tuple(entry for record in members.splits.values() for entry in record.shards)
    _check_totals("the set", members.totals, totals(everything, sources))
    if len({entry.file for entry in everything}) != len(everything):
        raise ValueError("it names a shard twice")
    if _names_a_clip_twice(everything, members.totals.samples):
        raise ValueError("it names a clip twice")
    return Manifest(
        _parse_small("options", members.options, Options),
        _parse_small("versions", members.versions, dict[str, str]),
        {split: record.shards for split, record in members.splits.items()},
        members.plan,
        minor_version=head.minor_version,
        sha256=digest.hexdigest(),
    )


def _names_a_clip_twice(entries: tuple[ShardEntry, ...], count: int) -> bool:
    # The hashes of a million keys are sorted in a third of the time that a set of them takes.
    keys = chain.from_iterable(entry.keys for entry in entries)
    hashes = np.sort(np.fromiter(map(hash, keys), np.int64, count))
    if not (hashes[1:] == hashes[:-1]).any():
        return False
    return len(set().union(*(entry.keys for entry in entries))) < count


def _check_values(content: bytes) -> None:
    """Raises ValueError for JSON that is small, but would take much memory."""
    if content.count(b",") > _MAX_VALUES:
        raise ValueError(f"it holds more than {_MAX_VALUES:,} values")


def _parse_small(name: str, raw: msgspec.Raw, kind: type[_Record]) -> _Record:
    content = bytes(raw)
    if len(content) > _SMALL_BYTES:
        raise ValueError(f"its {name} are larger than {_SMALL_BYTES:,} bytes")
    try:
        return parse_json(content, kind)
    except ValueError as error:
        raise ValueError(f"its {name}: {error}") from None


def _check_checksum(content: bytes, expected: str) -> None:
    found = _CHECKSUM.fullmatch(content, max(0, len(content) - _CHECKSUM_BYTES))
    if found is None or found[1].decode() != expected:
        raise ShardError(
            "it has been damaged or edited since it was written; copy it again from the set"
        )


def _check_totals(name: str, stated: Totals, actual: Totals) -> None:
    deviation_s = abs(stated.duration_s - actual.duration_s)
    if replace(actual, duration_s=0) != Totals(stated.samples, stated.sources, stated.bytes, 0) or (
        deviation_s > _DURATION_TOLERANCE_S
    ):
        raise ValueError(f"the totals of {name} are not those of its shards")


def write_manifest(root: Folder, manifest: Manifest) -> None:
    """Write the manifest, whose last member is the checksum of all bytes before it."""
    content = dump_json(manifest.to_json(), indent=1).removesuffix(_END)
    checksum = hashlib.sha256(content).hexdigest()
    root.write(MANIFEST_NAME, content + f',\n "checksum": "{checksum}"'.encode() + _END)


def find_sample(root: Folder, manifest: Manifest, key: str | None) -> tuple[str, int]:
    """The split of the sample with a key and its number in it; without a key, the set's first one.

    ``manifest`` is that of the set in ``root``. Raises ShardError if there is none.
    """
    first = ""
    for split, entries in manifest.splits.items():
        number = 0
        for entry in entries:
            if entry.keys and key is None:
                return split, 0
            if key in entry.keys:
                return split, number + entry.keys.index(key)
            first = first or next(iter(entry.keys), "")
            number += len(entry.keys)
    if not first:
        raise ShardError(f"{root} has no samples")
    raise ShardError(f"{root} has no sample {key!r}; its keys are like {first!r}")


def shard_names(split: str, number: int) -> tuple[str, str]:
    """Paths of a shard and of its index, relative to the set's folder."""
    stem = f"{split}/{split}-{number:06d}"
    return f"{stem}.tar", f"{stem}.index.json"


def shard_number(file: str) -> int:
    """The number in a shard's file name; raises ValueError for any other file name."""
    return int(PurePosixPath(file).stem.rpartition("-")[2])


def manifest_entry(index: ShardIndex, index_file: str) -> ShardEntry:
    """The manifest's entry for a finished shard, whose files are named by ``index_file``."""
    return ShardEntry(
        file=index_file.removesuffix(".index.json") + ".tar",
        index=index_file,
        bytes=index.bytes,
        sha256=index.sha256,
        duration_s=index.duration_s,
        keys=tuple(sample.key for sample in index.samples),
        sources=tuple(sample.source for sample in index.samples),
        index_sha256=index.index_sha256,
    )


def read_index(root: Folder, name: str) -> ShardIndex:
    """A shard's index; raises ShardError if it is missing or damaged."""
    return read_indices(root, [name])[0]


def read_indices(root: Folder, names: Sequence[str]) -> list[ShardIndex]:
    """Indices of many shards; raises ShardError if one is missing or damaged."""
    try:
        contents = root.read_all(names, INDEX_BYTES)
    except OSError as error:
        raise ShardError(f"{error.filename} cannot be read: {error.strerror}") from None
    return [
        _parse_index(root.path(name), content)
        for name, content in zip(names, contents, strict=True)
    ]


def _parse_index(path: str, content: bytes) -> ShardIndex:
    try:
        _check_values(content)
        index = parse_json(content, ShardIndex)
    except ValueError as error:
        raise ShardError(f"{path} is damaged ({error}); copy it again from the set") from None
    return replace(index, index_sha256=hashlib.sha256(content).hexdigest())


class MemberRanges:
    """Byte ranges of a sample's members. Samples may have hundreds of label maps; these are stored
    compactly, to save memory."""

    def __init__(self, members: dict[str, tuple[int, int]]) -> None:
        self._others = {
            suffix: found
            for suffix, found in members.items()
            if not suffix.endswith(LABEL_MAP_SUFFIX)
        }
        maps = sorted(members.keys() - self._others.keys())
        self._map_suffixes = "\n".join(maps)
        self._map_ranges = np.array([members[suffix] for suffix in maps], dtype=np.int64)

    def get(self, suffix: str) -> tuple[int, int] | None:
        """(offset, size) in bytes of a member; None if there is none with this suffix."""
        if not suffix.endswith(LABEL_MAP_SUFFIX):
            return self._others.get(suffix)
        suffixes = self._map_suffixes.split("\n")
        if suffix not in suffixes:
            return None
        offset, size = self._map_ranges[suffixes.index(suffix)].tolist()
        return offset, size
