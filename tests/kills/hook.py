"""Kills a process at its n-th call that changes something in a folder."""

from __future__ import annotations

import builtins
import fcntl
import io
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


class Hook:
    """Counts calls of this process that open files for writing, write, flush, rename, delete or
    lock them in ``folder``, and ends it before call number ``kill_at``: as SIGKILL does, at once.

    Of a write, half is done. ``calls`` are the kinds and names of all calls so far.
    """

    def __init__(self, folder: Path, kill_at: int | None) -> None:
        self.calls: list[tuple[str, str]] = []
        self._folder, self._kill_at = str(folder), kill_at

    def install(self) -> None:
        """Replace the functions for the rest of the process' life."""
        for module, name, kind in (
            (os, "replace", "rename"),
            (os, "rename", "rename"),
            (os, "unlink", "unlink"),
            (os, "remove", "unlink"),
            (os, "rmdir", "unlink"),
            (os, "mkdir", "mkdir"),
            (os, "truncate", "write"),
            (os, "ftruncate", "write"),
            (fcntl, "flock", "flock"),
        ):
            setattr(module, name, self._counted(kind, getattr(module, name)))
        # What SIGKILL leaves does not depend on it.
        os.fsync = self._counted("fsync", lambda _: None)
        os_open = os.open

        def counted_os_open(path: Any, flags: int, *args: Any, **more: Any) -> int:
            if flags & _WRITING and self._is_inside(path):
                self._count("open", str(path))
            return os_open(path, flags, *args, **more)

        python_open = builtins.open

        def counted_open(file: Any, mode: str = "r", *args: Any, **more: Any) -> Any:
            is_written = bool(set(mode) & set("wax+")) and self._is_inside(file)
            if is_written:
                self._count("open", str(file))
            opened = python_open(file, mode, *args, **more)
            return _CountedFile(opened, str(file), self) if is_written else opened

        os.open = counted_os_open
        builtins.open = counted_open
        io.open = counted_open  # type: ignore[assignment]

    def count_write(self, name: str, half: Callable[[], object]) -> None:
        self._count("write", name, half)

    def _counted(self, kind: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def counted(target: Any, *args: Any, **more: Any) -> Any:
            if isinstance(target, int):
                target_path = str(Path(f"/proc/self/fd/{target}").readlink())
            else:
                target_path = os.fspath(target)
            if self._is_inside(target_path):
                self._count(kind, str(target_path))
            return function(target, *args, **more)

        return counted

    def _is_inside(self, path: Any) -> bool:
        return not isinstance(path, int) and os.fspath(path).startswith(self._folder)

    def _count(self, kind: str, name: str, half: Callable[[], object] = lambda: None) -> None:
        self.calls.append((kind, name.removeprefix(f"{self._folder}/")))
        if len(self.calls) == self._kill_at:
            half()
            os.kill(os.getpid(), signal.SIGKILL)


class _CountedFile:
    """A file that is written to."""

    def __init__(self, file: Any, name: str, hook: Hook) -> None:
        self._file, self._name, self._hook = file, name, hook

    def write(self, content: Any) -> Any:
        def half() -> None:
            self._file.write(content[: len(content) // 2])
            self._file.flush()

        self._hook.count_write(self._name, half)
        return self._file.write(content)

    def __enter__(self) -> _CountedFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)
