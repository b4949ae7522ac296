"""Job arrays, clusters, kills, concurrent builds and --append: always the same bytes."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from avprep.build import dask_cluster
from avprep.build.build_shards import build_shards
from avprep.build.locks import lock_output
from avprep.build.options import BuildOptions, RunOptions
from avprep.build.plan import ShardPlan
from avprep.build.state import BuildState
from avprep.errors import UserError
from avprep.formats.decide import FormatOverrides
from avprep.recordings.find_clips import ListFiles
from avprep.sample.options import ClipOptions
from avprep.sphere.viewpoints import RandomViews
from avprep.workers import CRASHED
from shards.folders import open_folder
from shards.manifest import shard_names
from shards.reader import ShardSet
from shards.schema import View
from tests.support.media import FAST, build, contents, write_dot_recording

KILLS = int(os.environ.get("AVPREP_TEST_KILLS", "4"))


def command(raw: Path, out: Path, *arguments: object) -> list[str]:
    start = [sys.executable, "-m", "avprep", "build-shards", str(raw), "--out", str(out)]
    return [*start, *FAST, *map(str, arguments)]


def test_a_job_array_makes_the_same_set_and_its_last_task_finishes_it(
    raw: Path, built: Path, tmp_path: Path
) -> None:
    """Three concurrent tasks, numbered as Slurm numbers an array of 4-8:2."""
    out = tmp_path / "set"
    array = {"SLURM_ARRAY_TASK_COUNT": "3", "SLURM_ARRAY_TASK_MIN": "4"}
    tasks = [
        subprocess.Popen(
            command(raw, out, "--workers", 1),
            env={**os.environ, **array, "SLURM_ARRAY_TASK_ID": i, "SLURM_ARRAY_TASK_STEP": "2"},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for i in ("4", "6", "8")
    ]
    outputs = [task.communicate()[0] for task in tasks]
    assert [task.returncode for task in tasks] == [0, 0, 0]
    assert sorted(output.splitlines()[0] for output in outputs) == [
        f"task {i} of 3" for i in range(3)
    ]
    assert sum("train: 8 clips" in output for output in outputs) >= 1
    assert contents(out) == contents(built)


def test_an_array_of_some_tasks_is_refused(raw: Path, tmp_path: Path) -> None:
    """As of --array=3,7, whose tasks have no numbers from 0 on."""
    array = {"COUNT": "2", "MIN": "3", "ID": "7", "STEP": "1"}
    environment = {f"SLURM_ARRAY_TASK_{name}": value for name, value in array.items()}
    done = subprocess.run(
        command(raw, tmp_path / "set"),
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "submit the whole array again" in done.stderr
    assert not (tmp_path / "set").exists()


def test_merge_finishes_a_build_whose_last_task_was_killed(
    raw: Path, built: Path, tmp_path: Path
) -> None:
    from click.testing import CliRunner

    from avprep.cli.main import main

    out = tmp_path / "set"
    first = build(raw, "--out", out, *FAST, "--task-index", 0, "--task-count", 2)
    assert first.exit_code == 0
    assert "4 shards of other tasks are missing" in first.output
    early = CliRunner().invoke(main, ["merge", str(out)])
    assert early.exit_code == 2
    assert "4 of 8 shards" in early.output
    # As if the second task had been killed between its last shard and the manifest.
    second = build(raw, "--out", out, *FAST, "--task-index", 1, "--task-count", 2)
    assert "train: 8 clips" in second.output
    state = tmp_path / "other"
    build(raw, "--out", state, *FAST, "--task-index", 0, "--task-count", 8)
    (state / ".build.json").rename(out / ".build.json")
    (out / "manifest.json").unlink()
    merged = CliRunner().invoke(main, ["merge", str(out)])
    assert merged.exit_code == 0, merged.output
    assert contents(out) == contents(built)
    assert build(raw, "--out", out, *FAST, "--task-index", 3).exit_code == 2
    assert build(raw, "--out", out, *FAST, "--task-index", 3, "--task-count", 3).exit_code == 2


def test_a_build_that_is_killed_repeatedly_gives_the_same_bytes(
    raw: Path, built: Path, tmp_path: Path
) -> None:
    out = tmp_path / "set"
    rng = random.Random(0)
    for kill in range(KILLS):
        if kill % 4 == 3:
            subprocess.run(["rm", "-rf", str(out)], check=True)
        process = subprocess.Popen(
            command(raw, out, "--workers", 1 + kill % 2),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        time.sleep(rng.uniform(0.3, 2.5))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for tar in out.glob("*/*.tar"):
            assert (tar.read_bytes()[-1024:]) == bytes(1024), "tars are renamed when complete"
    result = build(raw, "--out", out, *FAST)
    assert result.exit_code == 0, result.output
    assert contents(out) == contents(built)


def test_a_second_build_in_the_same_folder_is_refused(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    with lock_output(open_folder(out), None):
        for arguments in ((), ("--task-index", 0, "--task-count", 2)):
            second = build(raw, "--out", out, *FAST, *arguments)
            assert second.exit_code == 2
            assert "another build is running" in second.output
    assert build(raw, "--out", out, *FAST, "--workers", 2).exit_code == 0


def test_a_broken_file_that_is_deleted_fails_no_longer(tmp_path: Path) -> None:
    raw, out = tmp_path / "raw", tmp_path / "set"
    write_dot_recording(raw, "a", seconds=2.0)
    assert build(raw, "--out", out, *FAST).exit_code == 0
    broken = raw / "broken.mp4"
    broken.write_bytes(b"not yet downloaded")
    for _ in range(2):
        found = build(raw, "--out", out, *FAST)
        assert found.exit_code == 1, found.output
        assert "broken.mp4" in (out / "failures.jsonl").read_text()
    broken.unlink()
    found = build(raw, "--out", out, *FAST)
    assert found.exit_code == 0, found.output
    assert not (out / "failures.jsonl").exists()


def test_append_adds_new_recordings_and_keeps_old_shards(tmp_path: Path) -> None:
    raw, out = tmp_path / "raw", tmp_path / "set"
    for name in "abc":
        write_dot_recording(raw, name)
    (raw / "broken.mp4").write_bytes(b"not yet downloaded")
    assert build(raw, "--out", out, *FAST).exit_code == 1
    before = contents(out)
    write_dot_recording(raw, "broken", 10, 10)
    write_dot_recording(raw, "d", 20, 20)
    refused = build(raw, "--out", out, *FAST)
    assert refused.exit_code == 2
    assert "--append" in refused.output
    other = build(raw, "--out", out, *FAST, "--append", "--size", 64)
    assert other.exit_code == 2
    assert "size 112 there, 64 now" in other.output
    grown = build(raw, "--out", out, *FAST, "--append")
    assert grown.exit_code == 0, grown.output
    after = contents(out)
    assert {name: after[name] for name in before if name.startswith("train/")} == {
        name: before[name] for name in before if name.startswith("train/")
    }
    assert not (out / "failures.jsonl").exists()
    assert sorted(ShardSet(out).keys) == ["a-0", "b-0", "broken-0", "c-0", "d-0"]
    again = build(raw, "--out", out, *FAST, "--append")
    assert again.exit_code == 0
    assert "already complete" in again.output
    assert "5 clips are in the set already by name" in again.output
    assert contents(out) == after
    # What fails to be read is said of a complete set too, and no longer once it is gone.
    for name in ("early", "late"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.mp4").write_bytes(b"not yet downloaded")
        refused = build(tmp_path / name, "--out", out, *FAST, "--append")
        assert refused.exit_code == 1, refused.output
        assert "already complete" in refused.output
    write_dot_recording(tmp_path / "late", "more", 30, 30)
    grown = build(tmp_path / "late", "--out", out, *FAST, "--append")
    assert grown.exit_code == 1, grown.output
    failures = [json.loads(line) for line in (out / "failures.jsonl").read_text().splitlines()]
    assert sorted(failure["source"] for failure in failures) == ["early", "late"]
    # A recording stays in its split.
    (raw / "train.txt").write_text("d\n")
    (raw / "test.txt").write_text("a\nlater\n")
    write_dot_recording(raw, "later", seconds=2.0)
    moved = build(raw, "--out", out, *FAST, "--append")
    assert moved.exit_code == 1, moved.output  # those of the other folders still fail
    assert ShardSet(out, "test").keys == ["later-0"]
    write_dot_recording(raw, "a", seconds=4.0)
    moved = build(raw, "--out", out, *FAST, "--append")
    assert moved.exit_code == 2
    assert "clips of a are in split train of the set" in moved.output


def test_a_dask_cluster_makes_the_same_set_when_a_worker_is_killed(
    raw: Path, built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    distributed = pytest.importorskip("distributed")
    out = tmp_path / "set"
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    ) as cluster:
        address = cluster.scheduler_address
        process = subprocess.Popen(
            command(raw, out, "--scheduler", address), stderr=subprocess.PIPE, text=True
        )
        deadline = time.monotonic() + 60
        while not list(out.glob("train/.*.partial")) and time.monotonic() < deadline:
            time.sleep(0.01)
        victim = next(iter(cluster.workers.values()))
        os.kill(victim.pid, signal.SIGKILL)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert contents(out) == contents(built)
    monkeypatch.setattr(dask_cluster, "CONNECT_S", 1)
    nobody = build(raw, "--out", tmp_path / "x", *FAST, "--scheduler", "tcp://127.0.0.1:9")
    assert nobody.exit_code == 2
    assert "no Dask scheduler answers at tcp://127.0.0.1:9" in nobody.output


def test_a_dask_worker_writes_nothing_into_the_folder_of_another_build(
    raw: Path, tmp_path: Path
) -> None:
    """It outlives the command that was killed, and another build may have begun since."""
    folder = open_folder(tmp_path / "set")
    clip = ClipOptions(RandomViews(2, (30.0, 90.0)), 64, 16, 24000, "source", 0, 60)
    shard = ShardPlan("train", *shard_names("train", 0), ())
    with pytest.raises(UserError, match="another one has begun"):
        dask_cluster._make_on_cluster(folder, "plan", shard, clip)
    BuildState("other", {}, {}, (), (), 0).write(folder)
    with pytest.raises(UserError, match="another one has begun"):
        dask_cluster._make_on_cluster(folder, "plan", shard, clip)
    assert list(contents(tmp_path / "set")) == [".build.json"]
    BuildState("plan", {}, {}, (), (), 0).write(folder)
    dask_cluster._make_on_cluster(folder, "plan", shard, clip)
    assert (tmp_path / "set" / shard.file).exists()


@dataclass(frozen=True)
class CrashingViews(RandomViews):
    """Views that kill the process for one clip, as a crash in a decoder does."""

    def draw(
        self, key: str, seed: int, energy: NDArray[np.float64] | None = None
    ) -> tuple[View, ...]:
        if key == "b-2":
            os.kill(os.getpid(), signal.SIGKILL)
        return super().draw(key, seed, energy)


def test_a_clip_that_crashes_its_process_loses_only_itself(raw: Path, tmp_path: Path) -> None:
    clip = ClipOptions(CrashingViews(2, (30.0, 90.0)), 64, 16, 24000, "source", 0, 60)
    options = BuildOptions(clip, FormatOverrides(), "folder", 2.0, 256_000_000)
    result = build_shards(
        raw, tmp_path / "set", options, ListFiles(), RunOptions(2, show_progress=False)
    )
    assert [(f.source, f.reason) for f in result.failures] == [("b", f"b.mp4: {CRASHED}")]
    assert len(ShardSet(tmp_path / "set")) == 7


def test_a_clip_that_crashes_dask_workers_loses_only_itself(raw: Path, tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed")
    clip = ClipOptions(CrashingViews(2, (30.0, 90.0)), 64, 16, 24000, "source", 0, 60)
    options = BuildOptions(clip, FormatOverrides(), "folder", 2.0, 256_000_000)
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=True, dashboard_address=None
    ) as cluster:
        cluster.scheduler.allowed_failures = 0
        run = RunOptions(1, scheduler=cluster.scheduler_address, show_progress=False)
        result = build_shards(raw, tmp_path / "set", options, ListFiles(), run)
    assert [(f.source, f.reason) for f in result.failures] == [("b", f"b.mp4: {CRASHED}")]
    assert len(ShardSet(tmp_path / "set")) == 7
