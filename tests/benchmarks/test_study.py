"""`make study`: its jobs and their order, what a kill keeps, and the archive."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from avtrain.evals.results import read_results
from avtrain.report.figures import read_trainings
from benchmarks.study import main as study
from benchmarks.study.archive import read_archive, write_archive
from benchmarks.study.jobs import Job, Study, jobs_of
from benchmarks.study.rows import AVC, BLOCKS, FURTHER, ROWS, UNTRAINED, missing_rows
from benchmarks.study.run import Records, estimate_s, locked, run_jobs, select_jobs
from shards.reader import ShardSet
from tests.avtrain.report.test_report import write_log
from tests.support.made_results import result
from tests.support.tiny_set import make_set


def names_of(text: str) -> list[str]:
    return [line.split()[2].rstrip(":") for line in text.splitlines()[:-1]]


def test_the_plan_runs_a_block_with_all_seeds_before_the_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """So that an interrupted study has decided the first claims."""
    assert (
        study.main(["--plan", "--out", str(tmp_path / "s"), "--seeds", "2", "--more-seeds", "3"])
        == 0
    )
    text = capsys.readouterr().out
    names = names_of(text)
    assert names[:2] == ["world", "narrow-shards"]
    order = list(dict.fromkeys(tuple(name.split("/")[:2]) for name in names if "/" in name))
    rows = [[row.name for row in block if row.name not in missing_rows()] for block in BLOCKS]
    blocks = [(row, f"seed{seed}") for block in rows for seed in (0, 1) for row in block]
    # Rows that are evaluated in all tasks go on with further seeds.
    further = [(row.name, f"seed{seed}") for seed in (2, 3, 4) for row in FURTHER]
    assert order == blocks + further
    # A set is made only when the first job needs it.
    wide = names.index("wide-shards")
    assert names[wide + 1].startswith("wide-")
    assert re.fullmatch(r"\d+ jobs, 0 of them done; \d+\.\d core-hours, .*", text.splitlines()[-1])
    assert not (tmp_path / "s").exists()
    only = ["--plan", "--out", str(tmp_path / "s"), "--only", "^avc/seed0/avc-view4$"]
    assert study.main(only) == 0
    # One evaluation keeps the features that the others read.
    jobs = ["pretrain", "avsa-view4", "avc-view4"]
    expected = ["world", "narrow-shards", *(f"avc/seed0/{job}" for job in jobs)]
    assert names_of(capsys.readouterr().out) == expected
    assert study.main([*only[:-1], "nothing so named"]) == 2


def test_rows_differ_in_one_thing_and_have_as_many_steps(tmp_path: Path) -> None:
    jobs = {job.name: job for job in jobs_of(Study(steps=10), tmp_path)}
    words = " ".join(jobs["curriculum/seed0/pretrain"].command)
    assert "--steps 5" in words
    assert "--curriculum-steps 5" in words
    assert jobs["avsa/seed0/pretrain"].steps == 10
    for row in ROWS:
        if row.checkpoint or row.name in missing_rows():
            continue
        command = jobs[f"{row.name}/seed3/pretrain"].command
        assert command[4].endswith(f"{row.views}-shards")
        assert command[command.index("--seed") + 1] == "3"
    untrained = jobs[f"{UNTRAINED.name}/seed0/avsa-view4"]
    assert "untrained --features logmel+intensity" in " ".join(untrained.command)


def test_what_costs_most_is_planned_for_the_last_seeds(tmp_path: Path) -> None:
    """Only rows with further seeds have it, so each difference has five seeds of both rows."""
    names = [job.name.split("/") for job in jobs_of(Study(), tmp_path) if "/" in job.name]
    for evaluation in ("action", "probe"):
        planned = {(row, seed) for row, seed, name in names if name == evaluation}
        assert planned == {(row.name, f"seed{seed}") for row in FURTHER for seed in range(5, 10)}


def test_worlds_and_trainings_can_have_other_options(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = ["--plan", "--out", str(tmp_path), "--only", "^avsa/seed0/pretrain"]
    assert study.main([*plan, "--difficulty", "easy", "--train=--lr 0.0005"]) == 0
    easy = capsys.readouterr().out
    assert "--difficulty" not in easy
    assert "--features logmel+intensity --lr 0.0005" in easy
    assert study.main(plan) == 0
    hard = capsys.readouterr().out
    assert "--clips 2400 --difficulty hard" in hard
    assert "--lr" not in hard


def test_costs_follow_the_sizes(tmp_path: Path) -> None:
    whole = {job.name: job.cost_s for job in jobs_of(Study(), tmp_path)}
    half = {job.name: job.cost_s for job in jobs_of(Study(clips=1200), tmp_path)}
    few = {job.name: job.cost_s for job in jobs_of(Study(videos=240), tmp_path)}
    for name in ("world", "wide-shards", "avc/seed0/avsa-view4"):
        assert (half[name], few[name]) == (whole[name] / 2, whole[name])
    for name in ("actions-world", "actions-shards", "avc/seed9/action"):
        assert (half[name], few[name]) == (whole[name], pytest.approx(whole[name] / 10))


def test_the_page_states_what_differs_from_the_plain_command(tmp_path: Path) -> None:
    """Who runs the commands that it states gets the same results."""
    facts = study._facts(Study(videos=30, seld_steps=7), tmp_path, {}, 1, 0)
    assert "--videos 30`" in facts["command"]
    assert "`seld --labels 0.05 --steps 7`" in facts["evaluations"]
    assert facts["actions"] == "`avprep demo --actions --clips 30 --difficulty hard`"
    assert "--videos" not in study._facts(Study(), tmp_path, {}, 1, 0)["command"]


def test_estimates_take_what_was_measured(tmp_path: Path) -> None:
    jobs = jobs_of(Study(), tmp_path)
    records = Records(tmp_path, jobs)
    first, second = (job for job in jobs if job.name in ("avc/seed8/action", "avc/seed9/action"))
    assert estimate_s([second], jobs, records) == {second.name: second.cost_s}
    first.output.mkdir(parents=True)
    records.add_time(first, 100, True, cpu_seconds=30)
    assert estimate_s([second], jobs, records) == {second.name: 30}
    assert estimate_s([jobs[0]], jobs, records) == {jobs[0].name: jobs[0].cost_s}


def test_a_change_of_settings_makes_its_jobs_unfinished(tmp_path: Path) -> None:
    def records(settings: Study) -> tuple[Records, list[Job]]:
        jobs = select_jobs(jobs_of(settings, tmp_path), {"avc/seed0/avc-view4"})
        return Records(tmp_path, jobs), jobs

    first, jobs = records(Study())
    for job in jobs:
        first.begin(job)
        job.output.mkdir(exist_ok=True, parents=True)
        assert not first.is_finished(job)
        first.add_time(job, 1, finished=True)
    assert all(map(first.is_finished, jobs))
    same, jobs = records(Study(seeds=5, device="cpu"))
    assert all(map(same.is_finished, jobs))
    longer, jobs = records(Study(steps=9))
    assert [longer.is_finished(job) for job in jobs] == [True, True, False, False, False]
    larger, jobs = records(Study(clips=9))
    assert not any(map(larger.is_finished, jobs))


def python(name: str, makes: Path, code: str, *needs: str) -> Job:
    command = (sys.executable, "-c", f"import pathlib; p = pathlib.Path({str(makes)!r}); {code}")
    return Job(name, "eval x", command, makes, needs)


def test_a_failure_stops_only_the_jobs_that_need_it(tmp_path: Path) -> None:
    count = "p.mkdir(exist_ok=True); open(p / 'runs', 'a').write('x')"
    jobs = [
        python("good", tmp_path / "good", count),
        python("bad", tmp_path / "bad", "raise SystemExit('the disk is full')"),
        python("after bad", tmp_path / "after bad", count, "bad"),
        python("after good", tmp_path / "after good", count, "good"),
    ]
    records = Records(tmp_path, jobs)
    for _ in range(2):  # finished jobs do not run again
        with locked(tmp_path) as lock:
            failed = run_jobs(jobs, records, 2, lock)
        assert set(failed) == {"bad", "after bad"}
        assert failed["bad"].startswith("the disk is full")
        assert failed["after bad"] == "needs bad, which failed"
        assert (tmp_path / "good/runs").read_text() == "x"
        assert (tmp_path / "after good/runs").read_text() == "x"


_STOPPED = """
import os, pathlib, signal
run = pathlib.Path({run!r})
run.mkdir(exist_ok=True)
with open(run / "log.jsonl", "a") as log:
    for step in {steps}:
        line = '{{"step": %d, "loss": 1.0, "clip_accuracy": 0.5, "view_accuracy": null}}'
        log.write(line % step + chr(10))
"""


def test_what_was_made_by_hand_is_continued_and_what_has_other_settings_is_made_anew(
    tmp_path: Path,
) -> None:
    """`avprep` and `avtrain` refuse a folder of other settings; an evaluation would replace it."""
    jobs = {job.name: job for job in jobs_of(Study(), tmp_path)}
    by_hand = ("world", "narrow-shards", "avc/seed0/pretrain")
    for name, kept in (*((name, True) for name in by_hand), ("avc/seed9/action", False)):
        job = jobs[name]
        job.output.mkdir(parents=True)
        (job.output / "checkpoint.pt").write_bytes(b"network")
        Records(tmp_path, list(jobs.values())).begin(job)
        assert job.output.exists() is kept
    changed = {job.name: job for job in jobs_of(Study(steps=9, clips=9), tmp_path)}
    for name in by_hand:
        Records(tmp_path, list(changed.values())).begin(changed[name])
        assert not changed[name].output.exists()


def test_a_training_that_is_stopped_alone_is_not_finished(tmp_path: Path) -> None:
    """A signal to it ends it with status 0, and the next run of the study continues it."""
    run = tmp_path / "run"

    def training(steps: list[int]) -> Job:
        code = _STOPPED.format(run=str(run), steps=steps)
        return Job("t", "pretrain x", (sys.executable, "-c", code), run, steps=3)

    stopped = training([1, 2])
    for job, done in ((stopped, False), (replace(stopped, command=training([3]).command), True)):
        records = Records(tmp_path, [job])
        with locked(tmp_path) as lock:
            failed = run_jobs([job], records, 1, lock)
        assert (failed == {}) is done
        assert records.read(job)["finished"] is done
        assert done or "was stopped" in failed["t"]
        (run / "checkpoint.pt").write_bytes(b"")


def test_a_study_continues_from_an_archive(tmp_path: Path) -> None:
    """Results are copied; a network that is needed again is trained again."""
    shards = make_set(tmp_path / "set", {"train": 4, "test": 2})
    settings = replace(study.QUICK, blocks=((UNTRAINED, AVC),))

    def with_sets(out: Path) -> tuple[list[Job], Records]:
        jobs = jobs_of(settings, out)
        records = Records(out, jobs)
        for job in jobs:
            if job.makes_set:
                shutil.copytree(shards, job.output, dirs_exist_ok=True)
                records.add_time(job, 1, finished=True)
        return jobs, records

    first = tmp_path / "first"
    jobs, records = with_sets(first)
    for job in jobs:
        if job.trains:
            log = write_log(job.output) / "log.jsonl"
            log.write_text(log.read_text().removesuffix('{"st'))
            (job.output / "checkpoint.pt").write_bytes(b"large")
        elif job.kind.startswith("eval"):
            one = result("AVC", 0.6, 0)
            one = replace(one, data=ShardSet(shards).sha256)
            network = replace(one.network, checkpoint=f"{first}/networks/checkpoint.pt")
            replace(one, network=network).write(job.output)
        if job.name != "avc/seed0/action":
            records.add_time(job, 2, finished=True)
    archive = tmp_path / "study.zip"
    write_archive(archive, first, jobs, records)
    content = archive.read_bytes()
    write_archive(archive, first, jobs, records)
    assert archive.read_bytes() == content
    with zipfile.ZipFile(archive) as read:
        texts = [read.read(name).decode() for name in read.namelist()]
    assert not any(str(tmp_path) in text for text in texts)

    second = tmp_path / "second"
    jobs, records = with_sets(second)
    made = [job for job in jobs if not job.makes_set]
    there = len(made) - 1
    assert read_archive(archive, second, jobs, records) == (there, there)
    left = [job.name for job in jobs if not records.is_finished(job)]
    # One evaluation is missing, and needs its network.
    assert left == ["avc/seed0/pretrain", "avc/seed0/action"]
    assert len(read_results([second / "results"])[0]) == len(made) - 2
    ((training,), _) = read_trainings([second / "networks"])
    ((before,), _) = read_trainings([first / "networks"])
    np.testing.assert_allclose(training.columns["loss"], before.columns["loss"], rtol=1e-3)
    # The training must run again, and its log is kept until it does.
    assert records.has_results(made[[job.name for job in made].index(left[0])])
    write_archive(second / "study.zip", second, jobs, records)
    assert zipfile.ZipFile(second / "study.zip").namelist() == zipfile.ZipFile(archive).namelist()
    # Once it is done, nothing needs the network any more.
    (missing,) = (job for job in jobs if job.name == left[1])
    records.add_time(missing, 2, finished=True)
    missing.output.mkdir(parents=True)
    assert all(map(records.is_finished, jobs))
    # Results of other settings or of another set are not copied.
    settings = replace(settings, steps=7)
    third = tmp_path / "third"
    jobs, records = with_sets(third)
    untrained = sum(job.name.startswith("untrained/") for job in jobs)
    assert read_archive(archive, third, jobs, records) == (untrained, there)
    shards = make_set(tmp_path / "other", {"train": 4, "test": 3})
    jobs, records = with_sets(tmp_path / "fourth")
    assert read_archive(archive, tmp_path / "fourth", jobs, records) == (0, there)


def test_a_file_that_is_not_an_archive_is_refused_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text").write_text("no archive")
    for name in ("nowhere", "text"):
        begin = ["--begin-with", str(tmp_path / name)]
        assert study.main(["--quick", "--out", str(tmp_path / "s"), *begin]) == 2
        assert "holds no results of a study" in capsys.readouterr().err
    assert not (tmp_path / "s").exists()


_FORKED = """
import sys
from pathlib import Path
from benchmarks.study.jobs import AVTRAIN, Job
from benchmarks.study.run import Records, locked, run_jobs

out = Path(sys.argv[1])
jobs = [
    Job("good", "eval a", (*AVTRAIN, "--help"), out),
    Job("bad", "eval a", (*AVTRAIN, "eval", "avc", "nowhere", "--checkpoint", "untrained", "--out",
        str(out / "bad")), out / "bad"),
]
with locked(out) as lock:
    failed = run_jobs(jobs, Records(out, jobs), 2, lock)
print(failed)
"""


def test_the_log_of_a_job_holds_the_output_of_avtrain(tmp_path: Path) -> None:
    # In a process of its own: jobs are forked, and the test process has threads.
    done = subprocess.run(
        [sys.executable, "-c", _FORKED, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert "Usage: avtrain" in (tmp_path / "jobs/good.log").read_text()
    assert json.loads((tmp_path / "jobs/good.json").read_text())["finished"]
    assert done.stdout.startswith("{'bad': 'Error: nowhere")
    assert "Traceback" not in (tmp_path / "jobs/bad.log").read_text()
