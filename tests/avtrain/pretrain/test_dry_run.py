"""`--dry-run` and `--profile` measure what a step costs and leave nothing behind."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.support.runs import avtrain
from tests.support.tiny_set import make_set

SMALL = ["--batch-size", "4", "--views", "2", "--device", "cpu"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_set(tmp_path_factory.mktemp("set"), {"train": 8}, clips_per_source=5)


def test_a_dry_run_prints_the_plan_and_writes_nothing(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    result = avtrain("pretrain", root, "--dry-run", "--out", out, "--epochs", 7, *SMALL)
    assert result.exit_code == 0, result.output
    assert not out.exists()
    assert "40 clips of 8 sources in 1 shards" in result.output
    plan = (
        "an epoch shows 40 clips in 10 steps, 7 epochs; 4 clips x 2 views per step; steps 1 to 70"
    )
    assert plan in result.output
    megabytes, reads = re.findall(r"a step reads: ([\d.]+) MB in (\d+) reads", result.output)[0]
    audio = 48_000  # bytes of a second of four channels, at 4 bits per sample
    assert 4 * audio < 1e6 * float(megabytes) < (root / "train" / "train-000000.tar").stat().st_size
    assert int(reads) >= 4 * 3  # per clip the video of two views, and the audio
    shares = [int(share) for share in re.findall(r"(\d+)% ", result.output)]
    assert 95 <= sum(shares) <= 103


def test_a_dry_run_ignores_an_existing_run(root: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    result = avtrain("pretrain", root, "--dry-run", "--out", tmp_path, "--epochs", 7, *SMALL)
    assert result.exit_code == 0, result.output
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_an_existing_curriculum_can_be_rehearsed(root: Path, tmp_path: Path) -> None:
    run = ["pretrain", root, "--curriculum", "--out", tmp_path / "run", "--epochs", 7, *SMALL]
    assert avtrain(*run, "--curriculum-steps", 1, "--steps", 1).exit_code == 0
    result = avtrain(*run, "--resume", "--dry-run")
    assert result.exit_code == 0, result.output
    assert "steps 2 to 70 remain" in result.output


def test_a_profile_writes_a_trace_and_prints_shares_of_time(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    options = ["--batch-size", 4, "--views", 2, "--device", "cpu", "--epochs", 9]
    result = avtrain("pretrain", root, "--profile", "--num-workers", 1, "--out", out, *options)
    assert result.exit_code == 0, result.output
    assert [path.name for path in out.iterdir()] == ["trace.json"]
    events = json.loads((out / "trace.json").read_text())["traceEvents"]
    names = [event.get("name") for event in events]
    for part in ("data", "features", "networks", "optimiser"):
        assert names.count(part) >= 20
    assert re.match(r"20 steps: \d+% waiting for data, .*1 loader processes", result.output)


def test_too_short_a_run_is_refused(root: Path, tmp_path: Path) -> None:
    options = ["--dry-run", "--epochs", 1, "--batch-size", 20, "--device", "cpu"]
    result = avtrain("pretrain", root, "--out", tmp_path / "run", *options)
    assert result.exit_code == 2
    assert "takes 8 steps" in result.output
