"""What an output folder holds while a set is built in it: a lock, and the state of the build."""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from avprep.build.lease import LOCK_NAME, lease
from avprep.build.options import Task
from avprep.build.plan import BuildPlan
from avprep.errors import UserError
from avprep.recordings.recording import Failure
from shards.files import dump_json
from shards.folders import Folder, LocalFolder

STATE_NAME = ".build.json"
"""Exists while a build is unfinished."""
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


@dataclass(frozen=True)
class BuildState:
    """An unfinished build: the ``plan``'s digest, the options and versions, all shards as
    (split, tar, index), the recordings that failed before a shard, and the number of clips that
    no split list names."""

    plan: str
    options: dict[str, Any]
    versions: dict[str, str]
    shards: tuple[tuple[str, str, str], ...]
    failures: tuple[Failure, ...]
    unlisted: int

    @classmethod
    def from_plan(
        cls, plan: BuildPlan, options: dict[str, Any], versions: dict[str, str]
    ) -> BuildState:
        shards = tuple((shard.split, shard.file, shard.index) for shard in plan.shards)
        return cls(plan.digest, options, versions, shards, plan.failures, plan.unlisted)

    def write(self, out: Folder) -> None:
        out.write(STATE_NAME, dump_json(asdict(self), indent=1))

    @classmethod
    def read(cls, out: Folder) -> BuildState | None:
        """The unfinished build in ``out``; None if there is none. Raises UserError."""
        try:
            value = json.loads(out.read(STATE_NAME))
            return cls(
                **{name: value[name] for name in ("plan", "options", "versions", "unlisted")},
                shards=tuple((split, file, index) for split, file, index in value["shards"]),
                failures=tuple(Failure(**failure) for failure in value["failures"]),
            )
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (ValueError, KeyError, TypeError):
            path = out.path(STATE_NAME)
            raise UserError(f"{path} is damaged; delete {out} or choose another --out") from None


def describe_differences(old: dict[str, Any], new: dict[str, Any]) -> str:
    """The options that differ, with both values, in words; empty if none do."""
    old, new = _flatten(old), _flatten(json.loads(dump_json(new)))
    return "; ".join(
        f"{name} {old.get(name)!r} there, {new.get(name)!r} now"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    )


def _flatten(options: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in options.items():
        flat.update(_flatten(value) if isinstance(value, dict) else {name: value})
    return flat


@contextmanager
def lock_output(out: Folder, task: Task | None) -> Iterator[Callable[[], None]]:
    """Lock the output folder: exclusively, or as one task of a build that several tasks share.

    The operating system releases the lock when the process ends, however it ends; for folders at
    URLs see `avprep.build.lease`. Raises UserError if another process is building there. Yields a
    function that raises UserError if the lock has been lost since.
    """
    if not isinstance(out, LocalFolder):
        if task is None:
            held = lease(out, "all", ("all.", "task-"), f"in {out}")
        else:
            kind = f"task-{task.index}"
            held = lease(out, kind, ("all.", f"{kind}."), f"in {out} (task {task.index})")
        with held as check:
            yield check
        return
    out.root.mkdir(parents=True, exist_ok=True)
    with ExitStack() as locks:
        path = out.root / LOCK_NAME
        if task is None:
            locks.enter_context(_lock(path, fcntl.LOCK_EX, f"in {out}"))
        else:
            locks.enter_context(_lock(path, fcntl.LOCK_SH, f"in {out}"))
            own = path.with_name(f"{LOCK_NAME}.{task.index}")
            locks.enter_context(_lock(own, fcntl.LOCK_EX, f"on task {task.index} in {out}"))
        yield lambda: None  # a file lock cannot be lost


@contextmanager
def lock_finish(out: Folder) -> Iterator[None]:
    """Hold the right to finish a build; other tasks that are done as well wait here."""
    if isinstance(out, LocalFolder):
        path = out.root / f"{LOCK_NAME}.end"
        with _lock(path, fcntl.LOCK_EX, f"in {out}", wait=True):
            yield
    else:
        with lease(out, "end", ("end.",), f"in {out}", wait=True):
            yield


@contextmanager
def _lock(path: Path, kind: int, where: str, wait: bool = False) -> Iterator[None]:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, kind if wait else kind | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise UserError(
                f"another build is running {where}; wait for it, or choose another --out"
            ) from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                os.close(descriptor)
                raise
            break  # this file system has no locks: continue without one
        # The previous holder may have deleted the file between opening and locking it.
        if _is_open_at(descriptor, path):
            break
        os.close(descriptor)
    try:
        yield
    finally:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the last holder deletes it
            if _is_open_at(descriptor, path):
                path.unlink()
        os.close(descriptor)


def _is_open_at(descriptor: int, path: Path) -> bool:
    """Whether the open file is the one that now lies at ``path``."""
    return path.exists() and path.stat().st_ino == os.fstat(descriptor).st_ino
