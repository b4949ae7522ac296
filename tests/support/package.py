"""Copies of the checkout to build packages from, since a build leaves files in its folder."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.support import ROOT

FOLDERS = ("avprep", "avtrain", "benchmarks", "docs", "shards", "tests")
FILES = ("pyproject.toml", "MANIFEST.in", "LICENSE", "Makefile", "constraints.txt", "*.md", "*.cff")


def copy_checkout(to: Path) -> Path:
    """Copy what a package is made of to the new folder ``to``, without what was built or run."""
    to.mkdir()
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, to / folder, ignore=_ignored)
    for file in (path for pattern in FILES for path in ROOT.glob(pattern)):
        shutil.copy(file, to)
    return to


def _ignored(folder: str, names: list[str]) -> set[str]:
    ignored = {"__pycache__"}
    if Path(folder) == ROOT / "shards":  # whose folders are data
        ignored |= {path.name for path in Path(folder).iterdir() if path.is_dir()}
    return ignored & set(names)
