"""What an output folder holds before a build: nothing, an unfinished set, or a finished one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from avprep.build.finish import finished_shards, other_set, read_failures, with_extended
from avprep.build.locks import lock_finish
from avprep.build.plan import BuildPlan
from avprep.build.state import (
    BuildState,
    describe_differences,
    is_begun_from,
    manifest_there,
)
from avprep.build.versions import describe_versions, joined_versions
from avprep.errors import UserError
from shards.errors import ShardError
from shards.folders import Folder, LocalFolder
from shards.manifest import MANIFEST_NAME, read_manifest
from shards.schema import Manifest

_OTHERWISE = (
    "other recordings or split lists, or formats that another version recognised differently"
)


def base_manifest(out: Folder, record: dict[str, Any]) -> Manifest | None:
    """The manifest of the finished set that --append extends; None if there is none yet. Raises
    UserError if it was built with other options."""
    if MANIFEST_NAME not in out.files():
        return None
    manifest = _read_manifest(out)
    differences = describe_differences(manifest.options, record)
    if differences:
        raise UserError(
            f"{out} was built with other options ({differences}); --append needs the same ones"
        )
    return manifest


def _read_manifest(out: Folder) -> Manifest:
    try:
        return read_manifest(out)
    except ShardError as error:
        raise UserError(f"{error}; or choose another --out") from None


def is_complete(
    out: Folder,
    plan: BuildPlan,
    record: dict[str, Any],
    base: Manifest | None,
    tries_again: bool = True,
) -> bool:
    """Whether ``out`` holds exactly the planned set; raises UserError if it holds another one.

    Clips of recordings that failed are not planned anew unless ``tries_again``: a task that comes
    late would begin another build with them, which the tasks that are done would not finish.
    """
    if base is not None:
        failed = set() if tries_again else {failure.source for failure in read_failures(out)}
        return all(clip.source in failed for shard in plan.shards for clip in shard.clips)
    if MANIFEST_NAME not in out.files():
        return False
    manifest = _read_manifest(out)
    if manifest.plan != plan.digest:
        differences = describe_differences(manifest.options, record)
        # --append needs the same options.
        remedy = "" if differences else ", or add new recordings to it with --append"
        raise UserError(
            f"{out} holds another set ({differences or _OTHERWISE}); choose another --out{remedy}"
        )
    listed = {entry.file for entries in manifest.splits.values() for entry in entries}
    shards = [(s.split, s.file, s.index) for s in plan.shards if s.file in listed]
    return len(finished_shards(out, shards)) == len(shards)


def prepare_output(
    out: Folder, state: BuildState, base: Manifest | None
) -> tuple[BuildState, str | None]:
    """Make the output folder ready for a build.

    Returns the state with all versions that make the set, and a sentence if there are several.
    Raises UserError if it holds another unfinished set.
    """
    if isinstance(out, LocalFolder):
        for split in sorted({split for split, _, _ in state.shards}):
            out.own_path(f"{split}/{split}")
    old = BuildState.read(out)
    now, before = state.versions, {} if base is None else base.versions
    listed = set() if base is None else {e.file for es in base.splits.values() for e in es}
    if old is not None and old.plan != state.plan:
        _abandon(out, old, state, base)
        old = None
    manifest = manifest_there(out) if base is None else None
    if old is not None:
        before = joined_versions(before, old.versions)
        state = replace(state, versions=joined_versions(old.versions, state.versions))
        if state.versions != old.versions or state.version != old.version:
            with lock_finish(out):
                if BuildState.read(out) is not None:  # otherwise another task has finished it
                    state.write(out)
    elif manifest is not None:
        before = manifest.versions
        state = replace(state, versions=joined_versions(before, state.versions))
        state.write(out)
    else:
        for split in sorted({split for split, _, _ in state.shards}):
            tars = [name for name in out.files(split) if name.endswith(".tar")]
            if any(f"{split}/{name}" not in listed for name in tars):
                raise UserError(
                    f"{out.path(split)} holds tar files that are not part of this build; "
                    "choose another --out"
                )
        read_failures(out)  # raises UserError for a file of this name that no build wrote
        state.write(out)
    if manifest is not None:
        out.delete(MANIFEST_NAME)  # shards were lost: the set is unfinished again
    return state, describe_versions(out, before, now)


def _abandon(out: Folder, old: BuildState, state: BuildState, base: Manifest | None) -> None:
    """Delete the shards of an unfinished --append of other recordings. Raises UserError if the
    unfinished build is another one."""
    if base is None:
        differences = describe_differences(old.options, state.options)
        raise UserError(
            f"{out} holds another unfinished set "
            f"({differences or _OTHERWISE}); choose another --out or "
            "delete it"
        )
    old = with_extended(out, old, base)
    if not is_begun_from(old, base) and old.finished_plan != base.plan:
        raise other_set(out)
    listed = {entry.file for entries in base.splits.values() for entry in entries}
    for _, file, index in old.shards:
        if file not in listed:
            out.delete(index)
            out.delete(file)
