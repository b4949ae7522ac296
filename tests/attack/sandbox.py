"""A folder in which one command runs, what lies beside it, and what has changed there."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from pathlib import Path

Snapshot = dict[str, str]
"""What is known of each file, by its path."""


class Sandbox:
    """``inside`` is the command's working folder; whatever lies beside it is somebody else's.

    The folder for temporary files and the home folder count as beside.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.inside, self.outside = root / "inside", root / "outside"
        self.home, self.temporary = root / "home", root / "tmp"
        for folder in (self.inside, self.outside, self.home, self.temporary):
            folder.mkdir(parents=True)
        (self.outside / "victim.txt").write_text("the user's own\n")
        (self.home / "victim.txt").write_text("the user's own\n")
        (self.outside / "zero").symlink_to("/dev/zero")
        (root / "victim.txt").write_text("the user's own\n")
        for folder in (self.outside / "train", root / "train"):
            folder.mkdir()
            for name in ("train-000000.tar", "train-000000.index.json", ".train-000000.tar.a.tmp"):
                (folder / name).write_bytes(b"the user's own\n")

    def variables(self) -> dict[str, str]:
        """Variables of the environment that differ from the user's."""
        return {
            "HOME": str(self.home),
            "TMPDIR": str(self.temporary),
            "XDG_CACHE_HOME": str(self.home / ".cache"),
        }

    def snapshot(self, writable: tuple[str, ...]) -> Snapshot:
        """Everything but what is in the named files and folders inside. The user's own files in
        them, ``notes*``, count all the same."""
        allowed = [os.fspath(self.inside / name) for name in writable]
        found: Snapshot = {}
        for folder, folders, files in os.walk(self.root):
            for name in (*folders, *files):
                path = f"{folder}{os.sep}{name}"
                in_output = any(path == a or path.startswith(a + os.sep) for a in allowed)
                if path.startswith(f"{self.temporary}{os.sep}torchinductor_"):
                    continue  # torch's own, by user: it stays
                if not in_output or name.startswith("notes"):
                    found[path] = _describe(path)
        return found

    def remove(self) -> None:
        _make_removable(self.root)
        shutil.rmtree(self.root)


def _describe(path: str) -> str:
    status = os.lstat(path)
    kind = stat.S_IFMT(status.st_mode)
    if kind == stat.S_IFLNK:
        return f"link to {Path(path).readlink()}"
    if kind == stat.S_IFREG:
        said = f"file {status.st_mode:o} {status.st_size} {status.st_mtime_ns}"
        if status.st_size <= 1_000_000 and status.st_mode & 0o400:
            with open(path, "rb") as file:
                said += f" {hashlib.sha256(file.read()).hexdigest()[:12]}"
        return said
    return f"{kind:o} {status.st_mode:o}"


def changes(before: Snapshot, after: Snapshot) -> list[str]:
    """A sentence for each file that appeared, vanished or changed."""
    found = [f"appeared: {path}" for path in after if path not in before]
    found += [f"vanished: {path}" for path in before if path not in after]
    return found + [
        f"changed: {path} ({before[path]} -> {after[path]})"
        for path in before
        if path in after and before[path] != after[path]
    ]


def _make_removable(root: Path) -> None:
    for folder, folders, _ in os.walk(root):
        for name in folders:
            path = Path(folder) / name
            if not path.is_symlink():
                path.chmod(0o700)
