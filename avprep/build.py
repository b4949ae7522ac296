"""Building a shard set: plan the shards, make them in parallel, resume, report."""

from __future__ import annotations

import errno
import hashlib
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tqdm import tqdm

from avprep.clips import Cleaning, ClipOptions
from avprep.cluster import DaskWorkers
from avprep.errors import UserError
from avprep.examine import FLAT_FOV_DEG, Wanted
from avprep.executors import Workers
from avprep.ffmpeg import ffmpeg_version
from avprep.labelled import FLAT_LAYOUTS
from avprep.plan import BuildPlan, Lists, ShardPlan, find_clips, plan_build
from avprep.sources import Failure
from avprep.state import STATE_NAME, State, Task, differing, finishing, locked
from avprep.viewpoints import FixedViews
from shards.errors import ShardError
from shards.files import dump_json, remove_temporary_files, write_atomic
from shards.manifest import MANIFEST_NAME, entry_of, read_index, read_manifest, write_manifest
from shards.schema import Manifest, ShardEntry, View

FAILURES_NAME = "failures.jsonl"
DROPPED_NAME = "dropped.jsonl"
_SAID_AT_ONCE = 20


@dataclass(frozen=True)
class BuildOptions:
    """Options of ``avprep build-shards`` that decide what the set holds."""

    clip: ClipOptions
    wanted: Wanted
    layout: str
    clip_duration_s: float
    shard_bytes: int

    def for_layout(self, layout: str) -> BuildOptions:
        """The options with which the clips of a layout are made: ordinary videos have one view,
        their middle, and one channel of sound."""
        if layout not in FLAT_LAYOUTS:
            return replace(self, layout=layout)
        centre = FixedViews((View(0.0, 0.0, FLAT_FOV_DEG, FLAT_FOV_DEG),))
        clip = replace(self.clip, views=centre, audio="mono", audio_layout="rotated")
        return replace(self, layout=layout, clip=replace(clip, cleaning=Cleaning()))

    def record(self) -> dict[str, Any]:
        """What the manifest keeps: nothing that depends on the machine or the run."""
        value = asdict(self)
        del value["clip"]["timeout_s"]
        return value

    def clip_bytes(self) -> int:
        """About how large a clip becomes (measured on real 112² views and real ambisonics)."""
        views = len(self.clip.views.draw("", 0))
        channels = {"foa": 4, "mono": 1, "stereo": 2}[self.clip.audio]
        channels *= views if self.clip.audio_layout == "rotated" else 1
        picture = views * self.clip.size**2 * self.clip.fps * 0.04
        sound = channels * self.clip.sample_rate * 2 * 0.72
        return round(self.clip_duration_s * (picture + sound))


@dataclass(frozen=True)
class Run:
    """How a build is run; the set is the same for all of these.

    ``task`` makes a part of the shards only; ``append`` adds what a finished set does not hold.
    """

    workers: int = 1
    task: Task | None = None
    append: bool = False
    scheduler: str | None = None
    show_progress: bool = True


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
    raw: Path, out: Path, options: BuildOptions, lists: Lists, run: Run
) -> BuildResult:
    """Build the set of ``raw`` in ``out``, or finish a build that was interrupted.

    Raises UserError where nothing can be built or ``out`` holds something else.
    """
    # Asked before any work, so that a missing ffmpeg is said at once.
    versions = {"avprep": version("avsa360"), "ffmpeg": ffmpeg_version(), "av": version("av")}
    try:
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
            record = options.record()
            base = _base(out, record) if run.append else None
            if base is not None:
                found = found.without({clip["key"] for clip in read_dropped(out)})
            plan = plan_build(
                found, record, options.clip.seed, options.shard_bytes, options.clip_bytes(), base
            )
            if _is_complete(out, plan, record, base):
                return _result(out, plan.unlisted, was_complete=True)
            with locked(out, run.task):
                state = State.of(plan, record, versions)
                _prepare(out, state, base)
                by = DaskWorkers(run.scheduler) if run.scheduler else local
                part = plan.shards
                if run.task is not None:
                    part = plan.shards[run.task.index :: run.task.count]
                failures = _make_shards(out, plan, part, options.clip, by, run.show_progress)
                return _end(out, state, base, run, failures)
    except OSError as error:
        raise _disk_error(out, error) from None


def merge(out: Path) -> BuildResult:
    """End a build whose tasks have made all shards. Raises UserError where some are missing."""
    try:
        state = State.read(out)
        if state is None:
            return _result(out, 0, was_complete=True)
        base = read_manifest(out) if (out / MANIFEST_NAME).exists() else None
        with locked(out, None):
            missing = _missing(out, state)
            if missing:
                raise UserError(
                    f"{len(missing)} of {len(state.shards)} shards of {out} are missing, the first "
                    f"is {missing[0]}; run the tasks that have not ended again"
                )
            _finish(out, state, base)
    except OSError as error:
        raise _disk_error(out, error) from None
    return _result(out, state.unlisted)


def _base(out: Path, record: dict[str, Any]) -> Manifest | None:
    """The finished set that is added to; raises UserError if it was made with other options."""
    if not (out / MANIFEST_NAME).exists():
        return None
    manifest = _manifest(out)
    what = differing(manifest.options, record)
    if what:
        raise UserError(f"{out} was made with other options ({what}); --append must be the same")
    return manifest


def _manifest(out: Path) -> Manifest:
    try:
        return read_manifest(out)
    except ShardError as error:
        raise UserError(f"{error}; or choose another --out") from None


def _is_complete(out: Path, plan: BuildPlan, record: dict[str, Any], base: Manifest | None) -> bool:
    """Whether this very set stands in ``out``; raises UserError if it is another finished one."""
    if base is not None:
        return not plan.shards
    if not (out / MANIFEST_NAME).exists():
        return False
    manifest = _manifest(out)
    if manifest.plan != plan.digest:
        what = differing(manifest.options, record) or "other recordings or split lists"
        raise UserError(
            f"{out} holds another set ({what}); choose another --out, or add new recordings to it "
            "with --append"
        )
    kept = {entry.file for shards in manifest.splits.values() for entry in shards}
    return all(_is_done(out, s.file, s.index) for s in plan.shards if s.file in kept)


def _prepare(out: Path, state: State, base: Manifest | None) -> None:
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
                (out / file).unlink(missing_ok=True)
                (out / index).unlink(missing_ok=True)
        old = None
    if old is None:
        if base is None and (out / MANIFEST_NAME).exists():
            (out / MANIFEST_NAME).unlink()  # shards were lost: the set is unfinished again
        else:
            for split in sorted({split for split, _, _ in state.shards}):
                if any(f"{split}/{tar.name}" not in listed for tar in (out / split).glob("*.tar")):
                    raise UserError(
                        f"{out / split} holds tar files that are not of this build; choose another "
                        "--out"
                    )
        state.write(out)
    for split in {split for split, _, _ in state.shards}:
        (out / split).mkdir(parents=True, exist_ok=True)


def _make_shards(
    out: Path,
    plan: BuildPlan,
    part: tuple[ShardPlan, ...],
    options: ClipOptions,
    by: Workers | DaskWorkers,
    show_progress: bool,
) -> tuple[Failure, ...]:
    """Make those of ``part`` that are missing; returns what did not go in."""
    missing = [shard for shard in part if not _is_done(out, shard.file, shard.index)]
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
            bar.update(done)

        for more in by.make(out, missing, options, advance):
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
    out: Path, state: State, base: Manifest | None, run: Run, failures: tuple[Failure, ...]
) -> BuildResult:
    with finishing(out):
        missing = _missing(out, state)
        if missing:
            return BuildResult(None, failures, state.unlisted, missing=len(missing))
        if State.read(out) is not None:  # else another task has ended it
            _finish(out, state, base)
    return _result(out, state.unlisted)


def _missing(out: Path, state: State) -> list[str]:
    return [file for _, file, index in state.shards if not _is_done(out, file, index)]


def _is_done(out: Path, file: str, index: str) -> bool:
    """Whether a shard's index stands and its tar has the size that the index says."""
    try:
        return read_index(out / index).bytes == (out / file).stat().st_size
    except (ShardError, FileNotFoundError):
        return False


def _finish(out: Path, state: State, base: Manifest | None) -> None:
    """Write the failures, then the manifest, then clear away what only the build needed."""
    failures = [asdict(failure) for failure in state.failures]
    dropped = list(read_dropped(out)) if base is not None else []
    splits: dict[str, list[ShardEntry]] = {}
    plan = state.plan
    if base is not None:
        splits = {split: list(shards) for split, shards in base.splits.items()}
        plan = hashlib.sha256(f"{base.plan} {plan}".encode()).hexdigest()
    leftovers = [out / STATE_NAME]
    for split, file, index_file in state.shards:
        index = read_index(out / index_file)
        failures += index.failures
        dropped += index.dropped
        if index.samples:
            splits.setdefault(split, []).append(entry_of(index, index_file))
        else:
            leftovers += [out / file, out / index_file]
    for name, lines in ((FAILURES_NAME, failures), (DROPPED_NAME, dropped)):
        if lines:
            write_atomic(out / name, b"".join(map(dump_json, lines)))
        else:
            (out / name).unlink(missing_ok=True)
    if splits:
        entries = {split: tuple(splits[split]) for split in sorted(splits)}
        write_manifest(out, Manifest(state.options, state.versions, entries, plan))
    for path in leftovers:
        path.unlink(missing_ok=True)
    for folder in {out, *(out / split for split, _, _ in state.shards)}:
        remove_temporary_files(folder)
    if not splits:
        why = " and ".join(
            str(out / name)
            for name, lines in ((FAILURES_NAME, failures), (DROPPED_NAME, dropped))
            if lines
        )
        raise UserError(f"none of the clips went into a set; {why} says why")


def _result(out: Path, unlisted: int, was_complete: bool = False) -> BuildResult:
    dropped = len(read_dropped(out))
    manifest, failures = read_manifest(out), _read_failures(out)
    return BuildResult(manifest, failures, unlisted, dropped, was_complete=was_complete)


def _read_failures(out: Path) -> tuple[Failure, ...]:
    return tuple(Failure(**line) for line in _read_lines(out / FAILURES_NAME))


def read_dropped(out: Path) -> list[dict[str, Any]]:
    """The clips that a finished set left out on purpose, with their numbers."""
    return _read_lines(out / DROPPED_NAME)


def _read_lines(path: Path) -> list[dict[str, Any]]:
    lines = path.read_bytes().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines]


def _disk_error(out: Path, error: OSError) -> UserError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return UserError(
            f"the disk of {out} is full; finished shards are kept: make room and run the same "
            "command again"
        )
    return UserError(f"{error.filename or out} cannot be written: {error.strerror}")
