"""The end of a build: checking its shards, writing the failures and the manifest.

A process may be killed before any of its steps. Each can be repeated: what they write follows from
the state and the indices, and the state, which says from which set the build began, goes last.
"""

from __future__ import annotations

import errno
import io
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

from avprep.build.state import (
    STATE_NAME,
    BuildState,
    Extended,
    is_begun_from,
    manifest_there,
)
from avprep.build.versions import joined_versions
from avprep.errors import UserError
from avprep.recordings.recording import Failure
from shards.errors import ShardError
from shards.files import dump_json, parse_json
from shards.folders import Folder, LocalFolder
from shards.manifest import MANIFEST_NAME, manifest_entry, read_index, read_indices, write_manifest
from shards.schema import Manifest, ShardEntry, ShardIndex

FAILURES_NAME = "failures.jsonl"
DROPPED_NAME = "dropped.jsonl"
Dropped = dict[str, str | int | float | bool | None]
"""A line of ``dropped.jsonl``."""

_MOST_LINES = 2_000_000
"""A million dropped clips take 256 MB; as many bytes of short lines would fill the memory."""

_Line = TypeVar("_Line")


@dataclass(frozen=True)
class _Keyed:
    key: str


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


def finish(out: Folder, state: BuildState) -> list[str]:
    """Finish the build of ``state`` from any point at which it was interrupted; returns the tars
    that are missing, without which nothing is done.

    Write the failures, then the manifest, then delete what only the build needed. Raises UserError
    if shards are truncated, if the set would be empty, or if the folder holds another set.
    """
    manifest = manifest_there(out)
    state = with_extended(out, state, manifest)
    if manifest is not None and manifest.plan == state.finished_plan:
        listed = _listed(manifest)
        shards = [shard for shard in state.shards if shard[1] in listed]
        finished = finished_shards(out, shards)
        lost = [file for _, file, _ in shards if file not in finished]
        if not lost:
            _clean_up(out, state, listed)
        return lost
    if not is_begun_from(state, manifest):
        raise other_set(out)
    missing = missing_shards(out, state)
    if not missing:
        if state.version == 0:
            state = replace(state, version=1)
            state.write(out)
        _write_end(out, state, manifest)
    return missing


def other_set(out: Folder) -> UserError:
    return UserError(
        f"{out.path(STATE_NAME)} is of another set than {out.path(MANIFEST_NAME)}; delete the first"
    )


def with_extended(out: Folder, state: BuildState, manifest: Manifest | None) -> BuildState:
    """The state with what it extends, which a build that an earlier version began did not say."""
    if state.version > 0 or manifest is None:
        return state
    if manifest.plan == state.plan or not _listed(manifest).isdisjoint(
        f for _, f, _ in state.shards
    ):
        return replace(state, plan=manifest.plan)  # it was killed after the manifest
    return replace(state, extends=extended(out, manifest, None))


def extended(out: Folder, manifest: Manifest, old: BuildState | None) -> Extended:
    """What a build that extends a finished set has to remember of it, if the ``old`` state is that
    of an unfinished one, which may have written dropped clips already."""
    if old is not None and old.extends is not None:
        return old.extends
    return Extended(manifest.sha256, manifest.plan, len(read_dropped(out)))


def _listed(manifest: Manifest) -> set[str]:
    return {entry.file for entries in manifest.splits.values() for entry in entries}


def _write_end(out: Folder, state: BuildState, base: Manifest | None) -> None:
    failures = [asdict(failure) for failure in state.failures]
    dropped = dropped_before(out, state.extends)
    splits: dict[str, list[ShardEntry]] = {}
    versions = state.versions
    if base is not None:
        versions = joined_versions(base.versions, versions)
        splits = {split: list(shards) for split, shards in base.splits.items()}
    indices = read_indices(out, [index for _, _, index in state.shards])
    _check_sizes(out, state, indices)
    for (split, _, index_file), index in zip(state.shards, indices, strict=True):
        failures += index.failures
        dropped += index.dropped
        if index.samples:
            splits.setdefault(split, []).append(manifest_entry(index, index_file))
    if base is not None:  # those of the folders that the set was built from before
        now = {failure["source"] for failure in failures}
        now |= {sample.source for index in indices for sample in index.samples}
        failures += [asdict(one) for one in read_failures(out) if one.source not in now]
    _write_lines(out, FAILURES_NAME, failures)
    _write_lines(out, DROPPED_NAME, dropped)
    entries = {split: tuple(splits[split]) for split in sorted(splits)}
    manifest = Manifest(state.options, versions, entries, state.finished_plan)
    if any(index.samples for index in indices):  # else the set that is extended stays as it is
        write_manifest(out, manifest)
    _clean_up(out, state, _listed(manifest))
    if not splits:
        files = ((FAILURES_NAME, failures), (DROPPED_NAME, dropped))
        why = " and ".join(out.path(name) for name, lines in files if lines)
        raise UserError(f"no clip could be put into the set; {why} says why")


def _clean_up(out: Folder, state: BuildState, listed: set[str]) -> None:
    """Delete shards without samples, partial files, and at last the state."""
    names = {
        f"{split}/{name}" for split in {s for s, _, _ in state.shards} for name in out.files(split)
    }
    for _, file, index_file in state.shards:
        # The index goes last: it says that the tar may go.
        if file not in listed and index_file in names and not read_index(out, index_file).samples:
            out.delete(file)
            out.delete(index_file)
    for folder in {"", *(split for split, _, _ in state.shards)}:
        out.delete_partial(folder)
    out.delete(STATE_NAME)


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


def write_failures(out: Folder, failures: Iterable[Failure]) -> None:
    """Replace the file of failures; without any there is no file."""
    _write_lines(out, FAILURES_NAME, [asdict(failure) for failure in failures])


def _write_lines(out: Folder, name: str, lines: list[dict[str, Any]]) -> None:
    if lines:
        out.write(name, b"".join(map(dump_json, lines)))
    else:
        out.delete(name)


def read_failures(out: Folder) -> tuple[Failure, ...]:
    """The recordings and clips that failed, of a finished set. Raises UserError."""
    return tuple(_read_lines(out, FAILURES_NAME, Failure))


def read_dropped(out: Folder) -> list[Dropped]:
    """The clips that a finished set left out on purpose, with their measurements. Raises
    UserError."""
    _read_lines(out, DROPPED_NAME, _Keyed)
    return _read_lines(out, DROPPED_NAME, Dropped)


def dropped_before(out: Folder, extends: Extended | None) -> list[Dropped]:
    """The clips that the set left out before a build began to extend it."""
    return [] if extends is None else read_dropped(out)[: extends.dropped]


def _read_lines(out: Folder, name: str, kind: type[_Line]) -> list[_Line]:
    try:
        content = out.read(name)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(f"{out.path(name)} cannot be read: {error.strerror}") from None
    if content.count(b"\n") > _MOST_LINES:
        raise UserError(f"{out.path(name)} has more than {_MOST_LINES:,} lines; mend or delete it")
    read = []
    for number, line in enumerate(io.BytesIO(content), 1):
        try:
            read.append(parse_json(line, kind))
        except ValueError as error:
            raise UserError(
                f"line {number} of {out.path(name)} is not what builds write there ({error}); "
                "mend or delete it, or choose another --out"
            ) from None
    return read


def write_error(out: Folder, error: OSError) -> UserError:
    """An error of the output folder as a sentence for the user."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return UserError(
            f"the disk of {out} is full; finished shards are kept: make room and run the same "
            "command again"
        )
    return UserError(f"{error.filename or out} cannot be written: {error.strerror}")
