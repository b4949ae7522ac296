"""The measurement for GPU machines, rehearsed on a CPU: its file, its failures, its clock."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu.machine import missing_packages
from benchmarks.gpu.stages import Job, Notes, Record, Stage, run_stages
from shards.reader import ShardSet
from tests.support import ROOT


def finds(job: Job, notes: Notes) -> None:
    notes.add("number", 3.5)
    notes.check("small enough", 1.0, 2.0)


def fails(job: Job, notes: Notes) -> None:
    notes.add("before", math.inf)
    raise ZeroDivisionError("no such number")


def dies(job: Job, notes: Notes) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def hangs(job: Job, notes: Notes) -> None:
    sleeper = subprocess.Popen(["sleep", "600"])
    notes.add("sleeper", sleeper.pid)
    sleeper.wait()


def exceeds(job: Job, notes: Notes) -> None:
    notes.check("too large", math.nan, 2.0)


def test_what_fails_hangs_or_dies_is_recorded_and_the_rest_goes_on(tmp_path: Path) -> None:
    stages = [
        *(Stage("fails", fails, 60), Stage("dies", dies, 60), Stage("hangs", hangs, 6)),
        *(Stage("exceeds", exceeds, 60), Stage("finds", finds, 60)),
    ]
    record = Record(tmp_path / "gpu.json", {})
    shown: list[str] = []
    ends_at = time.monotonic() + 600
    job = Job("cpu", True, tmp_path, tmp_path, ends_at=ends_at)
    run_stages(stages, job, record, lambda name, entry: shown.append(name))
    run_stages(
        [Stage("late", finds, 60)],
        Job("cpu", True, tmp_path, tmp_path, ends_at=0),
        record,
        lambda *_: None,
    )

    found: dict[str, Any] = json.loads((tmp_path / "gpu.json").read_text())["stages"]
    assert shown == ["fails", "dies", "hangs", "exceeds", "finds"]
    status = {name: entry["status"] for name, entry in found.items()}
    assert status == {
        **{"fails": "failed", "dies": "failed", "hangs": "timed out"},
        **{"exceeds": "done", "finds": "done", "late": "skipped"},
    }
    assert found["fails"]["error"] == "ZeroDivisionError: no such number"
    assert "in fails" in found["fails"]["traceback"]
    assert found["fails"]["results"] == {"before": "inf"}
    assert found["dies"]["error"] == f"exit status -{int(signal.SIGSEGV)}"
    sleeper = Path(f"/proc/{found['hangs']['results']['sleeper']}/stat")
    assert not sleeper.exists() or " Z " in sleeper.read_text()  # as its parent is gone, too
    assert found["late"]["why"] == "0 s were left"
    check = {"value": 1.0, "at_most": 2.0, "ok": True}
    assert found["finds"]["results"] == {"number": 3.5, "small enough": check}
    assert record.wrong == ["fails", "dies", "hangs", "exceeds: too large"]


def test_a_rehearsal_on_a_cpu_writes_what_it_finds(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    command = [sys.executable, "-m", "benchmarks.gpu", "--device", "cpu", "--quick"]
    command += ["--out", str(out), "--stages", "machine", "memory"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    record = json.loads(out.read_text())
    assert record["version"] == 1
    assert record["settings"]["device"] == "cpu"
    stages = record["stages"]
    assert [entry["status"] for entry in stages.values()] == ["done"] * 2
    assert stages["machine"]["results"]["cores"] >= 1
    rows = stages["memory"]["results"]["memory"]
    assert {(row["clips"], row["step"]) for row in rows} >= {(2, "fp32"), (4, "bf16")}
    assert all(row["clips per s"] > 0 for row in rows)
    assert "== memory: done" in done.stdout
    assert "all checks hold" in done.stdout


def test_what_is_missing_is_said_before_anything_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from benchmarks.gpu import machine
    from benchmarks.gpu.main import main

    assert missing_packages(has_peer=False) == []
    monkeypatch.setitem(machine.NEEDED, "no_such_module", "no-such-package")
    with pytest.raises(SystemExit, match="2"):
        main(["--device", "cpu", "--out", str(tmp_path / "gpu.json")])
    assert "no-such-package is not installed" in capsys.readouterr().err
    assert not (tmp_path / "gpu.json").exists()


def test_the_small_set_is_one(tmp_path: Path) -> None:
    from benchmarks.gpu.small_set import write_set

    shards = ShardSet(write_set(tmp_path / "set", seconds=1, recordings=2), "train")
    assert len(shards) == 2
    assert len(set(shards.sources)) == 2
    assert shards.info(0).video.height == 112
