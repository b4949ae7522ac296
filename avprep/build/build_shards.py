"""Building a shard set: plan the shards, make them in parallel, resume, and finish."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from tqdm import tqdm

from avprep.build.dask_cluster import make_shards_on_cluster
from avprep.build.finish import (
    FAILURES_NAME,
    dropped_before,
    extended,
    finish,
    finished_shards,
    read_dropped,
    read_failures,
    with_extended,
    write_error,
    write_failures,
)
from avprep.build.locks import delete_stale_locks, lock_finish, lock_output
from avprep.build.make_shard import Failures
from avprep.build.options import BuildOptions, RunOptions, Task
from avprep.build.plan import BuildPlan, ShardPlan, plan_build
from avprep.build.prepare_output import base_manifest, is_complete, prepare_output
from avprep.build.state import STATE_NAME, BuildState
from avprep.build.versions import describe_versions, joined_versions, versions_now
from avprep.build.workers import make_shards
from avprep.errors import UserError
from avprep.media.find_ffmpeg import find_ffmpeg
from avprep.recordings.find_clips import FoundClips, ListFiles, find_clips
from avprep.recordings.labelled import FLAT_LAYOUTS
from avprep.recordings.recording import Failure
from avprep.sample.options import ClipOptions
from avprep.workers import Advance, WorkerPool
from shards import __version__
from shards.errors import show
from shards.folders import Folder, open_folder
from shards.manifest import MANIFEST_NAME, read_manifest
from shards.schema import Manifest

_MAX_SHOWN_FAILURES = 20
_MakeShards = Callable[[Folder, list[ShardPlan], ClipOptions, Advance], Iterator[Failures]]
"""Makes shards, in any order, here or on a cluster; yields the failures of each."""


@dataclass(frozen=True)
class BuildResult:
    """The finished set's manifest, and what was left out.

    ``manifest`` is None while ``missing`` shards of other tasks are not finished. ``unlisted``
    clips are in no split list, ``dropped`` ones below a threshold; ``was_complete``: the set was
    finished before.
    """

    manifest: Manifest | None
    failures: tuple[Failure, ...]
    unlisted: int
    dropped: int = 0
    missing: int = 0
    was_complete: bool = False


def build_shards(
    raw: Path, place: Path | str, options: BuildOptions, lists: ListFiles, run: RunOptions
) -> BuildResult:
    """Build the set of the recordings in ``raw`` in a folder or at a URL, or finish a build that
    was interrupted.

    Raises UserError if nothing can be built, or if the folder holds something else.
    """
    if run.scheduler:
        raw = raw.absolute()  # workers of a cluster run in folders of their own
    # First of all, so that a broken ffmpeg or an unknown bucket is reported at once.
    out = open_folder(place)
    versions = versions_now()
    _check(find_ffmpeg().warning)
    try:
        out.files()  # fails if there is no such bucket
        _finish_interrupted_end(out, run.task)
        with WorkerPool(run.workers, options.clip.timeout_s) as pool:
            found = _find_clips(raw, options, lists, pool)
            options = options.for_layout(found.layout)
            _show_findings(found)
            record = options.record()
            base = base_manifest(out, record) if run.append else None
            extends = old = None
            if base is not None:
                old = BuildState.read(out)
                if old is not None:
                    old = with_extended(out, old, base)
                extends = extended(out, base, old)
                found = found.without(
                    {str(clip.get("key")) for clip in dropped_before(out, extends)}
                )
            plan = plan_build(
                found, record, options.clip.seed, options.shard_bytes, options.clip_bytes(), base
            )
            _say_held(found, plan, base)
            is_begun = old is not None or run.task is None
            if is_complete(out, plan, record, base, tries_again=is_begun):
                delete_stale_locks(out)
                return _with_plans_failures(out, plan, base, run.task)
            with lock_output(out, run.task) as check_lock:
                state = BuildState.from_plan(plan, record, versions, extends)
                state, other_versions = prepare_output(out, state, base)
                _check(other_versions)
                make: _MakeShards = partial(make_shards, pool)
                if run.scheduler:
                    make = partial(make_shards_on_cluster, run.scheduler, plan.digest, pool)
                failures = _make_missing(out, plan, options.clip, make, run, check_lock)
                check_lock()
                return _finish_if_last(out, state, failures)
    except OSError as error:
        raise write_error(out, error) from None


def _finish_interrupted_end(out: Folder, task: Task | None) -> None:
    """Do the rest if a build was killed after it had written the manifest."""
    if {STATE_NAME, MANIFEST_NAME} <= out.files().keys():
        state = BuildState.read(out)
        manifest = read_manifest(out)
        if state is None or with_extended(out, state, manifest).finished_plan != manifest.plan:
            return
        with lock_output(out, task), lock_finish(out):
            state = BuildState.read(out)
            if state is not None:
                finish(out, state)


def merge(place: Path | str) -> BuildResult:
    """Finish a build whose tasks have made all shards. Raises UserError if some are missing."""
    out = open_folder(place)
    try:
        state = BuildState.read(out)
        if state is None:
            delete_stale_locks(out)
            return _result(out, 0, was_complete=True)
        merging = {"avprep": __version__}  # nothing is decoded any more
        _check(describe_versions(out, state.versions, merging))
        with lock_output(out, None):
            state = BuildState.read(out)
            if state is None:
                return _result(out, 0, was_complete=True)
            state = replace(state, versions=joined_versions(state.versions, merging))
            missing = finish(out, state)
            if missing:
                raise UserError(
                    f"{len(missing)} of {len(state.shards)} shards of {out} are missing, the first "
                    f"is {missing[0]}; run the tasks that have not finished again"
                )
    except OSError as error:
        raise write_error(out, error) from None
    return _result(out, state.unlisted)


def _find_clips(raw: Path, options: BuildOptions, lists: ListFiles, pool: WorkerPool) -> FoundClips:
    try:
        return find_clips(
            raw,
            options.layout,
            lists,
            options.clip_duration_s,
            options.format_overrides,
            pool.map,
            options.part_s,
        )
    except OSError as error:
        raise UserError(f"{error.filename or raw} cannot be read: {error.strerror}") from None


def _show_findings(found: FoundClips) -> None:
    if found.not_read is not None:
        show(found.not_read, err=True)
    for doubt in found.doubts:
        _check(doubt)
    if found.layout in FLAT_LAYOUTS:
        _say(
            f"{found.layout} holds ordinary videos: each becomes one sample with one view, its "
            "centre, and one audio channel"
        )


def _say_held(found: FoundClips, plan: BuildPlan, base: Manifest | None) -> None:
    """Recordings are known by their names: another one of an earlier one's name is not added."""
    held = len(found.clips) - sum(len(shard.clips) for shard in plan.shards)
    if base is not None and held:
        _say(f"{held} clips are in the set already by name; a new recording needs a new name")


def _check(sentence: str | None) -> None:
    """Ask the user to check something, if there is something."""
    if sentence:
        _say(f"check: {sentence}")


def _say(sentence: str) -> None:
    show(sentence, err=True)


def _make_missing(
    out: Folder,
    plan: BuildPlan,
    options: ClipOptions,
    make: _MakeShards,
    run: RunOptions,
    check_lock: Callable[[], None],
) -> tuple[Failure, ...]:
    """Make the shards of this task that are not finished yet; returns what failed.

    ``check_lock`` raises UserError if the lock is lost; it is called after each clip.
    """
    shards = plan.shards
    if run.task is not None:
        shards = plan.shards[run.task.index :: run.task.count]
    finished = finished_shards(out, ((shard.split, shard.file, shard.index) for shard in shards))
    missing = [shard for shard in shards if shard.file not in finished]
    clips = sum(len(shard.clips) for shard in shards)
    failures: list[Failure] = []
    # smoothing=0: the remaining time follows from the average speed of the whole run.
    with tqdm(
        total=clips,
        initial=clips - sum(len(shard.clips) for shard in missing),
        unit="clip",
        desc="build-shards",
        smoothing=0,
        disable=not run.show_progress,
    ) as bar:
        show_failures = _failure_printer()
        show_failures(plan.failures)

        def advance(clips: int) -> None:
            check_lock()
            bar.update(clips)

        for shard_failures in make(out, missing, options, advance):
            show_failures(shard_failures)
            failures += shard_failures
    return tuple(failures)


def _failure_printer() -> Callable[[tuple[Failure, ...]], None]:
    """A function that prints failures as they occur, up to ``_MAX_SHOWN_FAILURES`` in all."""
    shown = 0

    def show_failures(failures: tuple[Failure, ...]) -> None:
        nonlocal shown
        for failure in failures:
            shown += 1
            if shown <= _MAX_SHOWN_FAILURES:
                show(f"left out: {failure.source}: {failure.reason}")
            elif shown == _MAX_SHOWN_FAILURES + 1:
                show(f"more is left out; {FAILURES_NAME} will list everything")

    return show_failures


def _finish_if_last(out: Folder, state: BuildState, failures: tuple[Failure, ...]) -> BuildResult:
    """Finish the set, unless shards of other tasks are still missing."""
    with lock_finish(out):
        current = BuildState.read(out)
        if current is not None:  # otherwise another task has finished it
            if current.plan != state.plan:
                raise UserError(
                    f"another build has begun in {out}, of other recordings or options; choose "
                    "another --out for one of them"
                )
            versions = joined_versions(current.versions, state.versions)  # those of other tasks too
            missing = finish(out, replace(state, versions=versions))
            if missing:
                return BuildResult(None, failures, state.unlisted, missing=len(missing))
    return _result(out, state.unlisted)


def _with_plans_failures(
    out: Folder, plan: BuildPlan, base: Manifest | None, task: Task | None
) -> BuildResult:
    """The result of a complete set, with the recordings that cannot be planned now. Of a set that
    is extended, those of earlier folders stay; otherwise, all there are were planned now."""
    result = _result(out, plan.unlisted, was_complete=True)
    now = {failure.source for failure in plan.failures}
    earlier = [
        failure
        for failure in result.failures
        if failure.source not in now and (base is not None or failure.stage == "clip")
    ]
    failures = (*plan.failures, *earlier)
    if set(failures) != set(result.failures) and task is None:
        with lock_output(out, task):
            write_failures(out, failures)
    return replace(result, failures=failures)


def _result(out: Folder, unlisted: int, was_complete: bool = False) -> BuildResult:
    dropped = len(read_dropped(out))
    manifest, failures = read_manifest(out), read_failures(out)
    return BuildResult(manifest, failures, unlisted, dropped, was_complete=was_complete)
