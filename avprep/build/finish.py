"""The end of a build: checking its shards, writing the failures and the manifest."""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from avprep.build.state import STATE_NAME, BuildState
from avprep.build.versions import joined_versions
from avprep.errors import UserError
from avprep.recordings.recording import Failure
from shards.errors import ShardError
from shards.files import dump_json
from shards.folders import Folder, LocalFolder
from shards.manifest import manifest_entry, read_index, read_indices, write_manifest
from shards.schema import Manifest, ShardEntry, ShardIndex

FAILURES_NAME = "failures.jsonl"
DROPPED_NAME = "dropped.jsonl"


def finished_shards(out: Folder, shards: Iterable[tuple[str, str, str]]) -> set[str]:
    """The tars of those shards, given as (split, tar, index), that are finished: the index exists,
    and the tar has the size recorded in it."""
    shards = list(shards)
    sizes = _sizes(out, {split for split, _, _ in shards})
    pairs = [(file, index) for _, file, index in shards if file in sizes and index in sizes]
    if not isinstance(out, LocalFolder):
        # An object store lists a tar only when it is whole, and indices are written after tars:
        # one listing finds thousands of shards. `finish` compares the sizes once.
        return {file for file, _ in pairs}
    return {file for file, index in pairs if _recorded_size(out, index) == sizes[file]}


def missing_shards(out: Folder, state: BuildState) -> list[str]:
    """The tars of a build that are not finished."""
    finished = finished_shards(out, state.shards)
    return [file for _, file, _ in state.shards if file not in finished]


def _sizes(out: Folder, splits: Iterable[str]) -> dict[str, int]:
    return {f"{split}/{name}": size for split in splits for name, size in out.files(split).items()}


def _recorded_size(out: Folder, index: str) -> int | None:
    try:
        return read_index(out, index).bytes
    except ShardError:
        return None


def finish(out: Folder, state: BuildState, base: Manifest | None) -> None:
    """Write the failures, then the manifest, then delete what only the build needed.

    With ``base``, the shards are added to that manifest. Raises UserError if shards are truncated
    or the set would be empty.
    """
    failures = [asdict(failure) for failure in state.failures]
    dropped = read_dropped(out) if base is not None else []
    splits: dict[str, list[ShardEntry]] = {}
    plan, versions = state.plan, state.versions
    if base is not None:
        versions = joined_versions(base.versions, versions)
        splits = {split: list(shards) for split, shards in base.splits.items()}
        plan = hashlib.sha256(f"{base.plan} {plan}".encode()).hexdigest()
    leftovers = [STATE_NAME]
    indices = read_indices(out, [index for _, _, index in state.shards])
    _check_sizes(out, state, indices)
    for (split, file, index_file), index in zip(state.shards, indices, strict=True):
        failures += index.failures
        dropped += index.dropped
        if index.samples:
            splits.setdefault(split, []).append(manifest_entry(index, index_file))
        else:
            leftovers += [file, index_file]
    for name, lines in ((FAILURES_NAME, failures), (DROPPED_NAME, dropped)):
        if lines:
            out.write(name, b"".join(map(dump_json, lines)))
        else:
            out.delete(name)
    if splits:
        entries = {split: tuple(splits[split]) for split in sorted(splits)}
        write_manifest(out, Manifest(state.options, versions, entries, plan))
    for name in leftovers:
        out.delete(name)
    for folder in {"", *(split for split, _, _ in state.shards)}:
        out.delete_partial(folder)
    if not splits:
        left_out = ((FAILURES_NAME, failures), (DROPPED_NAME, dropped))
        why = " and ".join(out.path(name) for name, lines in left_out if lines)
        raise UserError(f"no clip could be put into the set; {why} says why")


def _check_sizes(out: Folder, state: BuildState, indices: list[ShardIndex]) -> None:
    sizes = _sizes(out, {split for split, _, _ in state.shards})
    truncated = [
        (file, index_file)
        for (_, file, index_file), index in zip(state.shards, indices, strict=True)
        if sizes.get(file) != index.bytes
    ]
    for _, index_file in truncated:
        out.delete(index_file)  # so that the shard counts as missing
    if truncated:
        raise UserError(
            f"{len(truncated)} shards of {out} are truncated, the first is {truncated[0][0]}; run "
            "the same command again to make them again"
        )


def read_failures(out: Folder) -> tuple[Failure, ...]:
    """The recordings and clips that failed, of a finished set."""
    return tuple(Failure(**line) for line in _read_lines(out, FAILURES_NAME))


def read_dropped(out: Folder) -> list[dict[str, Any]]:
    """The clips that a finished set left out on purpose, with their measurements."""
    return _read_lines(out, DROPPED_NAME)


def _read_lines(out: Folder, name: str) -> list[dict[str, Any]]:
    try:
        lines = out.read(name).splitlines()
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in lines]


def write_error(out: Folder, error: OSError) -> UserError:
    """An error of the output folder as a sentence for the user."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return UserError(
            f"the disk of {out} is full; finished shards are kept: make room and run the same "
            "command again"
        )
    return UserError(f"{error.filename or out} cannot be written: {error.strerror}")
