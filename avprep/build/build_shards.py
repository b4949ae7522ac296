"""Building a shard set: plan the shards, make them in parallel, resume, report."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import av
from tqdm import tqdm

from avprep.build.dask_cluster import make_shards_on_cluster
from avprep.build.finish import (
    FAILURES_NAME,
    disk_error,
    finish,
    missing_shards,
    read_dropped,
    read_failures,
    standing,
)
from avprep.build.make_shard import Failures
from avprep.build.options import BuildOptions, Run
from avprep.build.plan import BuildPlan, ShardPlan, plan_build
from avprep.build.state import State, differing, finishing, locked
from avprep.build.workers import make_shards
from avprep.errors import UserError
from avprep.media.ffmpeg import ffmpeg_version
from avprep.recordings.find_clips import Lists, find_clips
from avprep.recordings.labelled import FLAT_LAYOUTS
from avprep.recordings.recording import Failure
from avprep.sample.options import ClipOptions
from avprep.workers import Advance, Workers
from shards import __version__
from shards.errors import ShardError
from shards.folders import Folder, open_folder
from shards.manifest import MANIFEST_NAME, read_manifest
from shards.schema import Manifest

_SAID_AT_ONCE = 20
_Make = Callable[[Folder, list[ShardPlan], ClipOptions, Advance], Iterator[Failures]]
"""Makes shards, in any order, here or on a cluster; yields the failures of each."""


@dataclass(frozen=True)
class BuildResult:
    """What stands in the folder: the manifest (None while shards of other tasks are ``missing``)
    and what did not go in."""

    manifest: Manifest | None
    failures: tuple[Failure, ...]
    unlisted: int
    dropped: int = 0
    missing: int = 0
    was_complete: bool = False


def build_shards(
    raw: Path, place: Path | str, options: BuildOptions, lists: Lists, run: Run
) -> BuildResult:
    """Build the set of ``raw`` in a folder or at a URL, or finish a build that was interrupted.

    Raises UserError where nothing can be built or something else lies there.
    """
    # Asked before any work, so that a missing ffmpeg or an unknown bucket is said at once.
    out = open_folder(place)
    versions = {"avprep": __version__, "ffmpeg": ffmpeg_version(), "av": av.__version__}
    try:
        out.files()  # whether there is such a place
        with Workers(run.workers, options.clip.timeout_s) as local:
            found = find_clips(
                raw,
                options.layout,
                lists,
                options.clip_duration_s,
                options.wanted,
                local.ask,
            )
            for doubt in found.doubts:
                tqdm.write(f"check: {doubt}", file=sys.stderr)
            options = options.for_layout(found.layout)
            if found.layout in FLAT_LAYOUTS:
                tqdm.write(
                    f"{found.layout} holds ordinary videos: each is one sample with one view, its "
                    "middle, and one channel of sound",
                    file=sys.stderr,
                )
            record = options.record()
            base = _base(out, record) if run.append else None
            if base is not None:
                found = found.without({clip["key"] for clip in read_dropped(out)})
            plan = plan_build(
                found, record, options.clip.seed, options.shard_bytes, options.clip_bytes(), base
            )
            if _is_complete(out, plan, record, base):
                return _result(out, plan.unlisted, was_complete=True)
            with locked(out, run.task) as check:
                state = State.of(plan, record, versions)
                _prepare(out, state, base)
                make: _Make = partial(make_shards, local)
                if run.scheduler:
                    make = partial(make_shards_on_cluster, run.scheduler, local)
                part = plan.shards
                if run.task is not None:
                    part = plan.shards[run.task.index :: run.task.count]
                failures = _make_shards(
                    out, plan, part, options.clip, make, run.show_progress, check
                )
                check()
                return _end(out, state, base, run, failures)
    except OSError as error:
        raise disk_error(out, error) from None


def merge(place: Path | str) -> BuildResult:
    """End a build whose tasks have made all shards. Raises UserError where some are missing."""
    out = open_folder(place)
    try:
        state = State.read(out)
        if state is None:
            return _result(out, 0, was_complete=True)
        base = read_manifest(out) if MANIFEST_NAME in out.files() else None
        with locked(out, None):
            missing = missing_shards(out, state)
            if missing:
                raise UserError(
                    f"{len(missing)} of {len(state.shards)} shards of {out} are missing, the first "
                    f"is {missing[0]}; run the tasks that have not ended again"
                )
            finish(out, state, base)
    except OSError as error:
        raise disk_error(out, error) from None
    return _result(out, state.unlisted)


def _base(out: Folder, record: dict[str, Any]) -> Manifest | None:
    """The finished set that is added to; raises UserError if it was made with other options."""
    if MANIFEST_NAME not in out.files():
        return None
    manifest = _manifest(out)
    what = differing(manifest.options, record)
    if what:
        raise UserError(f"{out} was made with other options ({what}); --append must be the same")
    return manifest


def _manifest(out: Folder) -> Manifest:
    try:
        return read_manifest(out)
    except ShardError as error:
        raise UserError(f"{error}; or choose another --out") from None


def _is_complete(
    out: Folder, plan: BuildPlan, record: dict[str, Any], base: Manifest | None
) -> bool:
    """Whether this very set stands in ``out``; raises UserError if it is another finished one."""
    if base is not None:
        return not plan.shards
    if MANIFEST_NAME not in out.files():
        return False
    manifest = _manifest(out)
    if manifest.plan != plan.digest:
        what = differing(manifest.options, record) or "other recordings or split lists"
        raise UserError(
            f"{out} holds another set ({what}); choose another --out, or add new recordings to it "
            "with --append"
        )
    kept = {entry.file for shards in manifest.splits.values() for entry in shards}
    shards = [(s.split, s.file, s.index) for s in plan.shards if s.file in kept]
    return len(standing(out, shards)) == len(shards)


def _prepare(out: Folder, state: State, base: Manifest | None) -> None:
    """Make the output folder ready; raises UserError if another unfinished set lies in it."""
    old = State.read(out)
    listed = set() if base is None else {e.file for es in base.splits.values() for e in es}
    if old is not None and old.plan != state.plan:
        if base is None:
            what = differing(old.options, state.options) or "other recordings or split lists"
            raise UserError(
                f"{out} holds another unfinished set ({what}); choose another --out or delete it"
            )
        for _, file, index in old.shards:  # an unfinished --append of other recordings
            if file not in listed:
                out.delete(index)
                out.delete(file)
        old = None
    if old is None:
        if base is None and MANIFEST_NAME in out.files():
            out.delete(MANIFEST_NAME)  # shards were lost: the set is unfinished again
        else:
            for split in sorted({split for split, _, _ in state.shards}):
                tars = [name for name in out.files(split) if name.endswith(".tar")]
                if any(f"{split}/{name}" not in listed for name in tars):
                    raise UserError(
                        f"{out.path(split)} holds tar files that are not of this build; choose "
                        "another --out"
                    )
        state.write(out)


def _make_shards(
    out: Folder,
    plan: BuildPlan,
    part: tuple[ShardPlan, ...],
    options: ClipOptions,
    make: _Make,
    show_progress: bool,
    check: Callable[[], None],
) -> tuple[Failure, ...]:
    """Make those of ``part`` that are missing; returns what did not go in. ``check`` raises what
    must end the build, and is called often."""
    there = standing(out, ((shard.split, shard.file, shard.index) for shard in part))
    missing = [shard for shard in part if shard.file not in there]
    clips = sum(len(shard.clips) for shard in part)
    failures: list[Failure] = []
    # smoothing=0: the time left follows from the average of the whole run.
    with tqdm(
        total=clips,
        initial=clips - sum(len(shard.clips) for shard in missing),
        unit="clip",
        desc="build-shards",
        smoothing=0,
        disable=not show_progress,
    ) as bar:
        report = _reporter(bar.write)
        report(plan.failures)

        def advance(done: int) -> None:
            check()
            bar.update(done)

        for more in make(out, missing, options, advance):
            report(more)
            failures += more
    return tuple(failures)


def _reporter(write: Callable[[str], object]) -> Callable[[tuple[Failure, ...]], None]:
    """Says failures as they come, up to some."""
    said = 0

    def report(failures: tuple[Failure, ...]) -> None:
        nonlocal said
        for failure in failures:
            said += 1
            if said <= _SAID_AT_ONCE:
                write(f"left out: {failure.source}: {failure.reason}")
            elif said == _SAID_AT_ONCE + 1:
                write(f"more is left out; {FAILURES_NAME} will list all of it")

    return report


def _end(
    out: Folder, state: State, base: Manifest | None, run: Run, failures: tuple[Failure, ...]
) -> BuildResult:
    with finishing(out):
        missing = missing_shards(out, state)
        if missing:
            return BuildResult(None, failures, state.unlisted, missing=len(missing))
        if State.read(out) is not None:  # else another task has ended it
            finish(out, state, base)
    return _result(out, state.unlisted)


def _result(out: Folder, unlisted: int, was_complete: bool = False) -> BuildResult:
    dropped = len(read_dropped(out))
    manifest, failures = read_manifest(out), read_failures(out)
    return BuildResult(manifest, failures, unlisted, dropped, was_complete=was_complete)
