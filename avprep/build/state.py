"""What an output folder holds while a set is being made in it: a lock, and what is being made."""

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

from avprep.build.lease import LOCK_NAME, leased
from avprep.build.options import Task
from avprep.build.plan import BuildPlan
from avprep.errors import UserError
from avprep.recordings.recording import Failure
from shards.files import dump_json
from shards.folders import Folder, LocalFolder

STATE_NAME = ".build.json"
"""Present while a build is unfinished: what it is making."""
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


@dataclass(frozen=True)
class State:
    """An unfinished build: its ``plan`` (digest), options and versions, its shards as (split, tar,
    index) and what of the recordings did not get as far as a shard."""

    plan: str
    options: dict[str, Any]
    versions: dict[str, str]
    shards: tuple[tuple[str, str, str], ...]
    failures: tuple[Failure, ...]
    unlisted: int

    @classmethod
    def of(cls, plan: BuildPlan, options: dict[str, Any], versions: dict[str, str]) -> State:
        shards = tuple((shard.split, shard.file, shard.index) for shard in plan.shards)
        return cls(plan.digest, options, versions, shards, plan.failures, plan.unlisted)

    def write(self, out: Folder) -> None:
        out.write(STATE_NAME, dump_json(asdict(self), indent=1))

    @classmethod
    def read(cls, out: Folder) -> State | None:
        """The unfinished build in ``out``, None if there is none. Raises UserError."""
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


def differing(there: dict[str, Any], here: dict[str, Any]) -> str:
    """How recorded options differ from those of now, in words; empty where they do not."""
    old, new = _flat(there), _flat(json.loads(dump_json(here)))
    return "; ".join(
        f"{name} {old.get(name)!r} there, {new.get(name)!r} now"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    )


def _flat(options: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in options.items():
        flat.update(_flat(value) if isinstance(value, dict) else {name: value})
    return flat


@contextmanager
def locked(out: Folder, task: Task | None) -> Iterator[Callable[[], None]]:
    """Hold the output folder: alone, or as one task among others of the same build.

    The system drops the lock when the process ends, however it ends; for a folder elsewhere see
    `avprep.build.lease`. Raises UserError where another process is at work, and gives a function
    that raises it if the lock was lost meanwhile.
    """
    if not isinstance(out, LocalFolder):
        if task is None:
            lease = leased(out, "all", ("all.", "task-"), f"in {out}")
        else:
            kind = f"task-{task.index}"
            lease = leased(out, kind, ("all.", f"{kind}."), f"in {out} (task {task.index})")
        with lease as check:
            yield check
        return
    out.root.mkdir(parents=True, exist_ok=True)
    with ExitStack() as held:
        path = out.root / LOCK_NAME
        if task is None:
            held.enter_context(_lock(path, fcntl.LOCK_EX, f"in {out}"))
        else:
            held.enter_context(_lock(path, fcntl.LOCK_SH, f"in {out}"))
            own = path.with_name(f"{LOCK_NAME}.{task.index}")
            held.enter_context(_lock(own, fcntl.LOCK_EX, f"on task {task.index} in {out}"))
        yield lambda: None  # the system keeps it


@contextmanager
def finishing(out: Folder) -> Iterator[None]:
    """Hold the right to end a build; of several tasks that are done, the others wait."""
    if isinstance(out, LocalFolder):
        path = out.root / f"{LOCK_NAME}.end"
        with _lock(path, fcntl.LOCK_EX, f"in {out}", wait=True):
            yield
    else:
        with leased(out, "end", ("end.",), f"in {out}", wait=True):
            yield


@contextmanager
def _lock(path: Path, kind: int, what: str, wait: bool = False) -> Iterator[None]:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, kind if wait else kind | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise UserError(
                f"another build is at work {what}; wait for it, or choose another --out"
            ) from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                os.close(descriptor)
                raise
            break  # a file system without locks: nothing is worse than before
        # Whoever held the lock before may have deleted the file when it was done.
        if _is_at(descriptor, path):
            break
        os.close(descriptor)
    try:
        yield
    finally:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the last one cleans up
            if _is_at(descriptor, path):
                path.unlink()
        os.close(descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    return path.exists() and path.stat().st_ino == os.fstat(descriptor).st_ino
