"""The user's own two commands, where a folder of the data's name is also a package: the root."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT
from tests.support.media import write_dot_recording


def run(clone: Path, *command: object) -> str:
    result = subprocess.run(
        [sys.executable, "-m", *map(str, command)],
        cwd=clone,  # `python -m` then imports the clone's own packages
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_data_lands_beside_the_package_and_leaves_it_alone(tmp_path: Path) -> None:
    clone, raw = tmp_path / "clone", tmp_path / "raw"
    cloned = subprocess.run(
        ["git", "clone", "-q", str(ROOT), str(clone)], capture_output=True, check=False
    )
    if cloned.returncode != 0:
        pytest.skip("this is no git checkout")
    for name in "abcd":
        write_dot_recording(raw, name)
    code = {p: p.read_bytes() for p in (clone / "shards").glob("*.py")}
    for _ in range(2):  # the second time with data beside the package
        run(clone, "avprep", "build-shards", raw, "--out", "shards/", "--clip-duration", 2)
    assert (clone / "shards" / "manifest.json").is_file()
    assert len(list((clone / "shards" / "train").glob("train-*.tar"))) == 4
    run(clone, "avtrain", "pretrain", "shards/", "--steps", 1)
    config = json.loads((clone / "runs" / "avsa-tiny" / "config.json").read_bytes())
    assert config["task"] == "avsa"
    assert {p: p.read_bytes() for p in (clone / "shards").glob("*.py")} == code
    status = subprocess.run(
        ["git", "status", "--porcelain"], cwd=clone, capture_output=True, text=True, check=True
    )
    assert status.stdout == ""
