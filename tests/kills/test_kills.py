"""The ends of --append, killed at every call; `make soak` kills everything that builds do."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.support.package import ROOT


def test_a_build_that_is_killed_at_any_call_ends_in_the_same_bytes() -> None:
    # In a process of its own: it forks, which a test runner's threads would not survive.
    command = [sys.executable, "-m", "tests.kills", "--ends", "--only", "end of append"]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = done.stdout.splitlines()[2:]
    assert [row.strip("| ").split(" | ")[-1] for row in rows] == ["the same bytes"] * 2
    for kind in ("write", "rename", "unlink", "fsync"):
        assert all(f" {kind}" in row for row in rows), rows
