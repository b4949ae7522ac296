"""Read and write ``manifest.json`` and the index beside each shard."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import PurePosixPath

from shards.errors import ShardError
from shards.files import dump_json
from shards.folders import Folder
from shards.schema import Manifest, ShardEntry, ShardIndex

MANIFEST_NAME = "manifest.json"


def read_manifest(root: Folder) -> Manifest:
    """The manifest of the set in ``root``; raises ShardError if ``root`` has no finished set."""
    path = root.path(MANIFEST_NAME)
    try:
        content = root.read(MANIFEST_NAME)
    except FileNotFoundError:
        raise ShardError(
            f"{root} holds no {MANIFEST_NAME}, so it is no finished shard set; "
            "run the same `avprep build-shards` command again to finish it"
        ) from None
    except OSError as error:
        raise ShardError(f"{path} cannot be read: {error.strerror}") from None
    try:
        return Manifest.from_json(json.loads(content), hashlib.sha256(content).hexdigest())
    except ShardError as error:
        raise ShardError(f"{path}: {error}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ShardError(f"{path} is damaged ({error!r}); copy it again from the set") from None


def write_manifest(root: Folder, manifest: Manifest) -> None:
    root.write(MANIFEST_NAME, dump_json(manifest.to_json(), indent=1))


def shard_names(split: str, number: int) -> tuple[str, str]:
    """Paths of a shard and of its index, relative to the set's folder."""
    stem = f"{split}/{split}-{number:06d}"
    return f"{stem}.tar", f"{stem}.index.json"


def shard_number(file: str) -> int:
    """The number in a shard's file name; raises ValueError for any other file name."""
    return int(PurePosixPath(file).stem.rpartition("-")[2])


def manifest_entry(index: ShardIndex, index_file: str) -> ShardEntry:
    """The manifest's entry for a finished shard."""
    return ShardEntry(
        file=index.file,
        index=index_file,
        bytes=index.bytes,
        sha256=index.sha256,
        duration_s=index.duration_s,
        keys=tuple(sample.key for sample in index.samples),
        sources=tuple(sample.source for sample in index.samples),
    )


def read_index(root: Folder, name: str) -> ShardIndex:
    """A shard's index; raises ShardError if it is missing or damaged."""
    return read_indices(root, [name])[0]


def read_indices(root: Folder, names: Sequence[str]) -> list[ShardIndex]:
    """Indices of many shards; raises ShardError if one is missing or damaged."""
    try:
        contents = root.read_all(names)
    except OSError as error:
        raise ShardError(f"{error.filename} cannot be read: {error.strerror}") from None
    return [
        _parse_index(root.path(name), content)
        for name, content in zip(names, contents, strict=True)
    ]


def _parse_index(path: str, content: bytes) -> ShardIndex:
    try:
        return ShardIndex.from_json(json.loads(content))
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise ShardError(f"{path} is damaged ({error!r}); copy it again from the set") from None
