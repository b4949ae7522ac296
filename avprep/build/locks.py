"""The locks of an output folder: one build at a time, or the tasks of one build."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from avprep.build.lease import LOCK_NAME, lease
from avprep.build.options import Task
from avprep.errors import UserError
from shards.files import NO_FILE, open_regular_descriptor
from shards.folders import Folder, LocalFolder

_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


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


def delete_stale_locks(out: Folder) -> None:
    """Delete the locks that killed processes left in the folder of a finished set, if no other
    process builds there and the folder can be written to. At a URL this would take a minute; the
    next build does it."""
    if isinstance(out, LocalFolder) and any(n.startswith(LOCK_NAME) for n in out.files()):
        with suppress(UserError, OSError), lock_output(out, None):
            pass


@contextmanager
def _lock(path: Path, kind: int, where: str, wait: bool = False) -> Iterator[None]:
    while True:
        descriptor = _open_lock(path)
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
                # Nobody takes the locks named after this one without holding it.
                for other in path.parent.glob(f"{path.name}.*"):
                    _delete_lock(other)
                path.unlink()
        os.close(descriptor)


def _open_lock(path: Path) -> int:
    """Open a lock file, which is regular and empty: anything else was not made by a build."""
    try:
        descriptor = open_regular_descriptor(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno not in NO_FILE:
            raise
        raise _no_lock(path) from None
    if not _is_lock(os.fstat(descriptor)):
        os.close(descriptor)
        raise _no_lock(path)
    return descriptor


def _is_lock(status: os.stat_result) -> bool:
    return stat.S_ISREG(status.st_mode) and status.st_size == 0


def _no_lock(path: Path) -> UserError:
    return UserError(
        f"{path} is not the empty file that builds use as a lock; remove it, or choose another "
        "--out"
    )


def _delete_lock(path: Path) -> None:
    with suppress(OSError):
        if _is_lock(path.lstat()):
            path.unlink()


def _is_open_at(descriptor: int, path: Path) -> bool:
    """Whether the open file is the one that now lies at ``path``."""
    try:
        return os.path.samestat(path.lstat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
