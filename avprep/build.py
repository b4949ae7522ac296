"""Building a shard set: plan the shards, make them in parallel, resume, report."""

from __future__ import annotations

import errno
import json
import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any

from tqdm import tqdm

from avprep.clip import ClipOptions, make_sample
from avprep.errors import ClipError, UserError
from avprep.ffmpeg import ffmpeg_version
from avprep.plan import BuildPlan, ShardPlan, find_clips, plan_build
from avprep.sources import Failure
from shards.errors import ShardError
from shards.files import dump_json, remove_temporary_files, write_atomic
from shards.manifest import MANIFEST_NAME, entry_of, read_index, read_manifest, write_manifest
from shards.schema import Manifest, ShardEntry
from shards.writer import open_shard

FAILURES_NAME = "failures.jsonl"
STATE_NAME = ".build.json"
"""Present while a build is unfinished: what it is making."""
_SAID_AT_ONCE = 20


@dataclass(frozen=True)
class BuildOptions:
    """Options of ``avprep build-shards`` that decide what the set holds."""

    clip: ClipOptions
    layout: str
    clip_duration_s: float
    shard_bytes: int

    def record(self) -> dict[str, Any]:
        """What the manifest keeps: nothing that depends on the machine or the run."""
        value = asdict(self)
        del value["clip"]["timeout_s"]
        return value

    def clip_bytes(self) -> int:
        """About how large a clip becomes (measured on real 112² views and real ambisonics)."""
        views = len(self.clip.views.draw("", 0))
        fields = views if self.clip.audio_layout == "rotated" else 1
        picture = views * self.clip.size**2 * self.clip.fps * 0.04
        sound = fields * self.clip.sample_rate * 4 * 2 * 0.72
        return round(self.clip_duration_s * (picture + sound))


@dataclass(frozen=True)
class BuildResult:
    """What a build made: the manifest and what did not go in."""

    manifest: Manifest
    failures: tuple[Failure, ...]
    unlisted: int
    was_complete: bool


def build_shards(
    raw: Path,
    out: Path,
    options: BuildOptions,
    splits_folder: Path | None = None,
    workers: int = 1,
    show_progress: bool = True,
) -> BuildResult:
    """Build the set of ``raw`` in ``out``, or finish a build that was interrupted.

    Raises UserError where nothing can be built or ``out`` holds something else.
    """
    # Asked before any work, so that a missing ffmpeg is said at once.
    versions = {"avprep": version("avsa360"), "ffmpeg": ffmpeg_version(), "av": version("av")}
    try:
        with _executor(workers) as (executor, counter):
            found = find_clips(
                raw, options.layout, splits_folder, options.clip_duration_s, executor
            )
            options = replace(options, layout=found.layout)
            record = options.record()
            plan = plan_build(
                found, record, options.clip.seed, options.shard_bytes, options.clip_bytes()
            )
            complete = _prepare(out, plan, record)
            if not complete:
                _make_shards(out, plan, options.clip, executor, counter, show_progress)
                _finish(out, plan, record, versions)
    except BrokenProcessPool:
        raise UserError(
            "a worker process died, perhaps for want of memory; finished shards are kept: run the "
            "same command again, with fewer --workers"
        ) from None
    except OSError as error:
        raise _disk_error(out, error) from None
    return BuildResult(read_manifest(out), _read_failures(out), plan.unlisted, complete)


def _prepare(out: Path, plan: BuildPlan, record: dict[str, Any]) -> bool:
    """Make the output folder ready; True if it holds this very set, complete.

    Raises UserError if it holds another one, finished or not.
    """
    state = {"plan": plan.digest, "options": record}
    state_file = out / STATE_NAME
    if (out / MANIFEST_NAME).exists():
        try:
            manifest = read_manifest(out)
        except ShardError as error:
            raise UserError(f"{error}; or choose another --out") from None
        _refuse_other(out, manifest.options, state, manifest.plan)
        kept = {entry.file for shards in manifest.splits.values() for entry in shards}
        if all(_is_done(out, shard) for shard in plan.shards if shard.file in kept):
            return True
        (out / MANIFEST_NAME).unlink()  # shards were lost: the set is unfinished again
    elif state_file.exists():
        try:
            old = json.loads(state_file.read_bytes())
            _refuse_other(out, old["options"], state, old["plan"])
        except (ValueError, KeyError):
            raise UserError(
                f"{state_file} is damaged; delete {out} or choose another --out"
            ) from None
    else:
        for folder in sorted({out / shard.split for shard in plan.shards}):
            if any(folder.glob("*.tar")):
                raise UserError(
                    f"{folder} holds tar files that are not of this build; choose another --out"
                )
    for folder in {out / shard.split for shard in plan.shards}:
        folder.mkdir(parents=True, exist_ok=True)
        remove_temporary_files(folder)
    out.mkdir(parents=True, exist_ok=True)
    remove_temporary_files(out)
    write_atomic(state_file, dump_json(state, indent=1))
    return False


def _refuse_other(out: Path, old: dict[str, Any], state: dict[str, Any], old_plan: str) -> None:
    if old_plan == state["plan"]:
        return
    new = json.loads(dump_json(state["options"]))
    differing = [
        f"{name} {_flat(old).get(name)!r} there, {_flat(new).get(name)!r} now"
        for name in sorted(_flat(old).keys() | _flat(new).keys())
        if _flat(old).get(name) != _flat(new).get(name)
    ]
    what = "; ".join(differing) or "other recordings or split lists"
    raise UserError(f"{out} holds another set ({what}); choose another --out or delete it")


def _flat(options: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in options.items():
        flat.update(_flat(value) if isinstance(value, dict) else {name: value})
    return flat


def _make_shards(
    out: Path,
    plan: BuildPlan,
    options: ClipOptions,
    executor: ProcessPoolExecutor | None,
    counter: Synchronized[int],
    show_progress: bool,
) -> None:
    missing = [shard for shard in plan.shards if not _is_done(out, shard)]
    done_before = plan.clips - sum(len(shard.clips) for shard in missing)
    # smoothing=0: the time left follows from the average of the whole run.
    with tqdm(
        total=plan.clips,
        initial=done_before,
        unit="clip",
        desc="build-shards",
        smoothing=0,
        disable=not show_progress,
    ) as bar:
        said = 0

        def report(failures: tuple[dict[str, str], ...]) -> None:
            nonlocal said
            for failure in failures:
                said += 1
                if said <= _SAID_AT_ONCE:
                    bar.write(f"left out: {failure['source']}: {failure['reason']}")
                elif said == _SAID_AT_ONCE + 1:
                    bar.write(f"more is left out; {FAILURES_NAME} will list all of it")

        report(tuple(asdict(failure) for failure in plan.failures))
        if executor is None:
            for shard in missing:
                report(make_shard(out, shard, options, bar.update))
            return
        pending = {executor.submit(_make_shard_in_worker, out, s, options) for s in missing}
        try:
            while pending:
                finished, pending = wait(pending, timeout=0.2, return_when=FIRST_COMPLETED)
                bar.update(done_before + counter.value - bar.n)
                for future in finished:
                    report(future.result())
        except BaseException:
            _cancel(pending)
            raise


def _cancel(pending: set[Future[tuple[dict[str, str], ...]]]) -> None:
    for future in pending:
        future.cancel()


def make_shard(
    out: Path, shard: ShardPlan, options: ClipOptions, count: Callable[[], object]
) -> tuple[dict[str, str], ...]:
    """Make one shard; returns the failures among its clips. ``count`` is called after each clip."""
    failures: list[dict[str, str]] = []
    with open_shard(out, shard.file, shard.index) as writer:
        for clip in shard.clips:
            try:
                sample = make_sample(clip, options)
            except (UserError, MemoryError):
                raise
            except Exception as error:
                # Whatever a broken file provokes in a decoder costs this clip alone.
                known = isinstance(error, ClipError)
                reason = str(error) if known else f"unexpected {type(error).__name__}: {error}"
                failure = asdict(Failure(clip.source, "clip", f"{clip.file}: {reason}"))
                writer.add_failure(failure)
                failures.append(failure)
            else:
                writer.add(*sample)
            count()
    return tuple(failures)


def _is_done(out: Path, shard: ShardPlan) -> bool:
    """Whether a shard's index stands and its tar has the size that the index says."""
    index_file, tar = out / shard.index, out / shard.file
    return (
        index_file.exists() and tar.exists() and read_index(index_file).bytes == tar.stat().st_size
    )


def _finish(out: Path, plan: BuildPlan, record: dict[str, Any], versions: dict[str, str]) -> None:
    """Write the failures, then the manifest, then clear away what only the build needed."""
    failures = [asdict(failure) for failure in plan.failures]
    splits: dict[str, list[ShardEntry]] = {}
    leftovers = [out / STATE_NAME]
    for shard in plan.shards:
        index = read_index(out / shard.index)
        failures += index.failures
        if index.samples:
            splits.setdefault(shard.split, []).append(entry_of(index, shard.index))
        else:
            leftovers += [out / shard.file, out / shard.index]
    if failures:
        content = b"".join(dump_json(failure) for failure in failures)
        write_atomic(out / FAILURES_NAME, content)
    else:
        (out / FAILURES_NAME).unlink(missing_ok=True)
    if splits:
        entries = {split: tuple(shards) for split, shards in splits.items()}
        write_manifest(out, Manifest(record, versions, entries, plan.digest))
    for path in leftovers:
        path.unlink(missing_ok=True)
    if not splits:
        raise UserError(f"none of the clips could be built; {out / FAILURES_NAME} says why")


def _read_failures(out: Path) -> tuple[Failure, ...]:
    path = out / FAILURES_NAME
    lines = path.read_bytes().splitlines() if path.exists() else []
    return tuple(Failure(**json.loads(line)) for line in lines)


def _disk_error(out: Path, error: OSError) -> UserError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return UserError(
            f"the disk of {out} is full; finished shards are kept: make room and run the same "
            "command again"
        )
    return UserError(f"{error.filename or out} cannot be written: {error.strerror}")


_counter: Synchronized[int] | None = None


def _set_counter(counter: Synchronized[int]) -> None:
    global _counter
    _counter = counter


def _count_clip() -> None:
    if _counter is not None:
        with _counter.get_lock():
            _counter.value += 1


def _make_shard_in_worker(
    out: Path, shard: ShardPlan, options: ClipOptions
) -> tuple[dict[str, str], ...]:
    return make_shard(out, shard, options, _count_clip)


@contextmanager
def _executor(workers: int) -> Iterator[tuple[ProcessPoolExecutor | None, Synchronized[int]]]:
    """Worker processes that count the clips they finish; none for one worker."""
    context = multiprocessing.get_context("forkserver")
    counter: Synchronized[int] = context.Value("q", 0)
    if workers == 1:
        yield None, counter
        return
    # One process imports the libraries, and the workers are forked from it.
    context.set_forkserver_preload([__name__])
    with ProcessPoolExecutor(workers, context, _set_counter, (counter,)) as executor:
        yield executor, counter
