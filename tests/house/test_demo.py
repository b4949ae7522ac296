"""The rules of `make demo`, with stand-ins for the commands."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.support import ROOT

AVTRAIN = """#!/bin/sh
echo "$1" >> {said}
case "$1" in
pretrain) mkdir -p {demo}/avsa; touch {demo}/avsa/curves.png {demo}/avsa/checkpoint.pt
    [ -e {finish} ] && echo "40 steps" || echo "stopped by SIGTERM" >&2;;
eval) case "$2" in avsa) name=avsa-bin;; *) name=$2;; esac
    touch {demo}/avsa/$name.result.json;;
locate) touch {demo}/avsa/heat.mp4;;
esac
"""
AVPREP = """#!/bin/sh
case "$1" in
demo) mkdir -p "$2"; touch "$2/README.md"; echo place-0 > "$2/test.txt";;
build-shards) mkdir -p "$4"; touch "$4/manifest.json";;
preview) touch {demo}/clip.png;;
esac
"""


def test_a_stopped_training_is_not_evaluated(tmp_path: Path) -> None:
    """The same command continues it, evaluates it once it is finished, and then does nothing."""
    demo, said, finish = tmp_path / "demo", tmp_path / "said", tmp_path / "finish"
    (tmp_path / "venv/bin").mkdir(parents=True)
    for name, text in (("avtrain", AVTRAIN), ("avprep", AVPREP)):
        script = tmp_path / "venv/bin" / name
        script.write_text(text.format(said=said, demo=demo, finish=finish))
        script.chmod(0o755)
    (tmp_path / "venv/.run").touch()
    command = ["make", "demo", f"VENV={tmp_path / 'venv'}", f"DEMO={demo}"]
    # The stand-in of the environment is newer than what it is made from.
    command += ["-o", str(tmp_path / "venv/.run")]
    environment = {name: value for name, value in os.environ.items() if name != "MAKEFLAGS"}

    def make() -> tuple[int, list[str]]:
        said.unlink(missing_ok=True)
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, timeout=60)
        return done.returncode, said.read_text().splitlines()

    for _ in range(2):
        status, commands = make()
        assert status != 0
        assert commands == ["pretrain"]
    finish.touch()
    assert make() == (0, ["pretrain", "eval", "eval", "eval", "locate", "report"])
    assert make() == (0, ["report"])
