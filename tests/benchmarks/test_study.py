"""`make study`: its jobs, the claims that it tests, and its page."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from avprep.world.generate import make_clip
from avprep.world.scene import FRAMES
from avprep.world.write import clip_truth
from avtrain.evals.results import Result, read_results
from avtrain.report.figures import read_trainings
from avtrain.report.lines import make_lines
from avtrain.run_folder import read_log
from benchmarks.study import main as study
from benchmarks.study.archive import read_archive, write_archive
from benchmarks.study.claims import CLAIMS, HOLDS, REVERSED, UNDECIDED, compare, findings_of
from benchmarks.study.jobs import EVALUATIONS, PRETRAININGS, Job, Study, jobs_of
from benchmarks.study.page import summary, write_page
from benchmarks.study.run import SETS, TRAINING, Records, locked, run_jobs, select_jobs
from shards.reader import ShardSet
from tests.avtrain.report.test_report import write_log
from tests.support import ROOT
from tests.support.made_results import FEATURES, result
from tests.support.tiny_set import make_set


def grid(value: Callable[[str, str, bool, int], float], seeds: int = 3) -> list[Result]:
    """Results of the study's networks, with made-up accuracies that scatter by seed."""
    kinds = [("none", False), ("AVC", False), ("AVTS", False)]
    kinds += [(words, on) for words in ("AVSA", "curriculum AVC, AVSA") for on in (False, True)]
    results = []
    for task, views in (("avsa-bin", 1), ("avsa-bin", 4), ("avc-bin", 4), ("localization", 4)):
        for pretraining, transformer in kinds:
            for features in FEATURES:
                for seed in range(seeds):
                    mean = value(pretraining, features, transformer, views)
                    # All networks of a seed share the noise of its clips.
                    noise = 0.05 * np.sin(seed) + 0.004 * np.cos(7 * seed + 100 * mean)
                    results.append(
                        result(pretraining, mean + noise, seed, task, features, transformer, views)
                    )
    return results


def accuracy(pretraining: str, features: str, transformer: bool, views: int) -> float:
    learned = {"none": 0.5, "AVC": 0.55, "AVTS": 0.56, "AVSA, 1 view": 0.6}.get(pretraining, 0.66)
    return learned + 0.04 * (features != FEATURES[0]) - 0.05 * transformer + 0.01 * views


def test_verdicts_follow_the_numbers() -> None:
    lines = make_lines(grid(accuracy))
    verdicts = {
        claim.words: {finding.task: finding.verdict for finding in findings_of(claim, lines)}
        for claim in CLAIMS
    }
    assert verdicts["AVSA beats AVC"] == {"avsa-bin": HOLDS, "localization": HOLDS}
    assert verdicts["intensity beats log-mel alone"]["avc-bin"] == HOLDS
    assert set(verdicts["networks with the transformer beat those without"].values()) == {REVERSED}
    intensity = next(claim for claim in CLAIMS if claim.words.startswith("intensity"))
    settings = findings_of(intensity, lines)[0].settings
    assert len(settings) == 6  # the trained networks; untrained ones are not compared
    # The summary shows one setting: with intensity, four views and AVSA.
    shown = findings_of(CLAIMS[0], lines)[0].settings[0]
    assert shown.words == "log-mel + intensity; tested with 4 views"
    assert np.mean(list(shown.by_seed.values())) == pytest.approx(0.11, abs=0.01)
    assert verdicts["with the transformer, several views beat one view of the same networks"] == {
        "avsa-bin": HOLDS
    }
    curriculum = "a curriculum (AVC first) beats AVSA alone"
    assert set(verdicts[curriculum].values()) == {UNDECIDED}
    # Differences over one or two seeds decide nothing, however large they are.
    few = make_lines(grid(accuracy, seeds=2))
    assert {finding.verdict for finding in findings_of(CLAIMS[0], few)} == {UNDECIDED}


def test_a_curriculum_is_compared_with_avc() -> None:
    def worse(pretraining: str, features: str, transformer: bool, views: int) -> float:
        loss = 0.3 * pretraining.startswith("curriculum")
        return accuracy(pretraining, features, transformer, views) - loss

    words = "AVC followed by AVSA, 1.5 times as many steps, beats AVC"
    claim = next(claim for claim in CLAIMS if claim.words == words)
    for value, verdict in ((accuracy, HOLDS), (worse, REVERSED)):
        findings = findings_of(claim, make_lines(grid(value)))
        assert {finding.verdict for finding in findings} == {verdict}


def test_a_lower_error_counts_as_better() -> None:
    pairs = [
        replace(one, metrics={"error": one.metrics["error"]})
        for seed in range(3)
        for one in (result("AVSA", 0.7 + 0.01 * seed, seed), result("AVC", 0.6, seed))
    ]
    (finding,) = findings_of(CLAIMS[0], make_lines(pairs))
    assert finding.verdict == HOLDS
    assert finding.settings[0].by_seed[0] == pytest.approx(9)


def test_the_error_for_a_single_source_has_a_verdict_of_its_own() -> None:
    """It is not the first metric, and its verdict may differ from that of the first."""
    single = "one source, mean error"
    pairs = []
    for seed in range(3):
        for name, of_all, of_one in (("AVSA", 0.6, 0.8), ("AVC", 0.7, 0.6 + 0.01 * seed)):
            error = result(name, of_all, seed).metrics["error"]
            error_of_one = result(name, of_one, seed).metrics["error"]
            metrics = {"mean error": error, single: error_of_one}
            pairs.append(replace(result(name, 0.5, seed), task="localization", metrics=metrics))
    findings = {
        finding.task: finding.verdict for finding in findings_of(CLAIMS[0], make_lines(pairs))
    }
    assert findings == {
        "localization": REVERSED,
        f"localization, {single}": HOLDS,
    }


def test_segmentation_with_audio_is_compared_with_segmentation_without() -> None:
    values = {"none": 0.5, "audio": 0.4, "audio+context": 0.6}
    results = [
        result("AVSA", value + seed / 100, seed, f"segmentation-{condition}")
        for condition, value in values.items()
        for seed in range(3)
    ]
    verdicts = {
        claim.words: [finding.verdict for finding in findings_of(claim, make_lines(results))]
        for claim in CLAIMS
    }
    assert verdicts["the view's audio improves segmentation"] == [REVERSED]
    assert verdicts["audio and context improve segmentation"] == [HOLDS]
    assert not verdicts["networks with the transformer beat those without"]


FACTS = {"command": "`make`", "written on": "today", "jobs": "all 9"}


def test_the_summary_shows_means_with_intervals_or_the_number_of_seeds() -> None:
    values = {"AVC": (0.6, 0.62, 0.64), "none": (0.5, 0.5, 0.5)}
    results = [
        result(name, value, seed)
        for name, by_seed in values.items()
        for seed, value in enumerate(by_seed)
    ]
    text = summary(make_lines(results))
    assert text.count("62.0 (57.0 to 67.0)") == 1
    assert re.search(r"\| chance .* 50.0 +\|$", text)
    results = [one for one in results if one.network.seed < 2]
    assert "61.0 (n=2)" in summary(make_lines(results))


def test_the_page_begins_with_the_command_and_the_summary(tmp_path: Path) -> None:
    page = tmp_path / "results.md"
    write_page(page, make_lines([result("AVC", 0.6)]), [], tmp_path / "none", FACTS)
    text = page.read_text()
    assert re.match(r"# Results\n\n```bash\nmake study ", text)
    assert "60.0 (n=1)" in text
    assert "`make`, today; jobs: all 9." in text


def test_the_page_holds_all_results_and_verdicts(tmp_path: Path) -> None:
    (tmp_path / "world/truth").mkdir(parents=True)
    for index in range(8):
        clip = make_clip(0, index)
        levels = {item.id: np.full(FRAMES, 0.1) for item in clip.objects if not item.silent}
        truth = clip_truth(clip, levels, 0.01)
        (tmp_path / f"world/truth/{clip.name}.json").write_text(json.dumps(truth))
    page = tmp_path / "docs/results.md"
    run = write_log(tmp_path / "run")
    (run / "log.jsonl").write_text((run / "log.jsonl").read_text().removesuffix('{"st'))
    facts = {**FACTS, "clips": "8"}
    write_page(
        page, make_lines(grid(accuracy)), read_trainings([run])[0], tmp_path / "world", facts
    )
    text = page.read_text()
    for name in ("study-results.png", "study-curves.png"):
        assert f"]({name})" in text
        assert (page.parent / name).stat().st_size > 10_000
    assert "- clips: 8" in text
    views = np.mean([line["view_accuracy"] for line in read_log(run / "log.jsonl").lines[-6:]])
    assert re.search(rf"\| AVSA +\| log-mel +\| 60 +\| 1 .* {views:.1%} +\| 25.0% +\|", text)
    assert "| places" in text
    assert re.search(r"\| AVSA beats AVC +\| localization .*\*\*holds\*\*", text)
    # With the numbers the other way round, the verdict is the opposite.
    write_page(page, make_lines(grid(lambda *a: 1 - accuracy(*a))), [], tmp_path / "none", facts)
    text = page.read_text()
    assert re.search(r"\| AVSA beats AVC +\| localization .*\*\*reversed\*\*", text)


def test_the_plan_lists_intensity_first_and_then_the_seeds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert study.main(["--plan", "--out", str(tmp_path / "s"), "--seeds", "2"]) == 0
    names = [line.split()[2].rstrip(":") for line in capsys.readouterr().out.splitlines()[:-1]]
    assert names[0] == "world"
    kinds = list(dict.fromkeys(tuple(name.split("/")[1:3]) for name in names if "/" in name))
    both = ("logmel+intensity", "logmel")
    assert kinds == [(features, f"seed{seed}") for features in both for seed in (0, 1)]
    assert "curriculum-transformer/logmel/seed1/avsa-view4" in names
    assert not (tmp_path / "s").exists()
    only = ["--plan", "--out", str(tmp_path / "s"), "--only", "^avc/logmel/seed0/avc-view1$"]
    assert study.main(only) == 0
    names = [line.split()[2].rstrip(":") for line in capsys.readouterr().out.splitlines()[:-1]]
    # One evaluation keeps the features that the others read.
    jobs = ["pretrain", "avsa-view4", "avc-view1"]
    assert names == ["world", "shards", *(f"avc/logmel/seed0/{job}" for job in jobs)]
    assert study.main([*only[:-1], "nothing so named"]) == 2


def test_a_change_of_settings_makes_its_jobs_unfinished(tmp_path: Path) -> None:
    def records(settings: Study) -> tuple[Records, list[Job]]:
        jobs = select_jobs(jobs_of(settings, tmp_path), {"avc/logmel/seed0/avc-view1"})
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


def test_a_study_continues_from_an_archive(tmp_path: Path) -> None:
    """Results are copied; a network that is needed again is trained again."""
    shards = make_set(tmp_path / "set", {"train": 4, "test": 2})
    settings = replace(study.QUICK, pretrainings=PRETRAININGS[:1])

    def with_sets(out: Path) -> tuple[list[Job], Records]:
        jobs = jobs_of(settings, out)
        records = Records(out, jobs)
        for job in jobs:
            if job.kind.endswith(SETS):
                shutil.copytree(shards, job.output, dirs_exist_ok=True)
                records.add_time(job, 1, finished=True)
        return jobs, records

    first = tmp_path / "first"
    jobs, records = with_sets(first)
    for job in jobs:
        if job.kind.startswith(TRAINING):
            log = write_log(job.output) / "log.jsonl"
            log.write_text(log.read_text().removesuffix('{"st'))
            (job.output / "checkpoint.pt").write_bytes(b"large")
        elif job.kind.startswith("eval"):
            one = result("AVC", 0.6, 0)
            one = replace(one, data=ShardSet(shards).manifest.sha256)
            network = replace(one.network, checkpoint=f"{first}/networks/checkpoint.pt")
            replace(one, network=network).write(job.output)
        if job.name != "avc/logmel+intensity/seed0/action":
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
    there = len(jobs) - len(SETS) * 2 - 1
    assert read_archive(archive, second, jobs, records) == (there, there)
    left = [job.name for job in jobs if not records.is_finished(job)]
    # One evaluation is missing, and needs its network.
    assert left == ["avc/logmel+intensity/seed0/pretrain", "avc/logmel+intensity/seed0/action"]
    assert len(read_results([second / "results"])[0]) == len(jobs) - len(SETS) * 2 - 2
    ((training,), _) = read_trainings([second / "networks"])
    ((before,), _) = read_trainings([first / "networks"])
    np.testing.assert_allclose(training.columns["loss"], before.columns["loss"], rtol=1e-3)
    # Once it is done, nothing needs the network any more.
    records.add_time(jobs[-1], 2, finished=True)
    jobs[-1].output.mkdir(parents=True)
    assert all(map(records.is_finished, jobs))
    # Results of other settings or of another set are not copied.
    settings = replace(settings, steps=7)
    third = tmp_path / "third"
    jobs, records = with_sets(third)
    untrained = len(EVALUATIONS)
    assert read_archive(archive, third, jobs, records) == (untrained, there)
    shards = make_set(tmp_path / "other", {"train": 4, "test": 3})
    jobs, records = with_sets(tmp_path / "fourth")
    assert read_archive(archive, tmp_path / "fourth", jobs, records) == (0, there)


def test_the_archive_of_the_page_continues_and_gives_the_tables_of_the_page(
    tmp_path: Path,
) -> None:
    jobs = jobs_of(Study(bf16=True), tmp_path)
    records = Records(tmp_path, jobs)
    with zipfile.ZipFile(ROOT / "docs/study.zip") as archive:
        archive.extractall(tmp_path)
    made = [job for job in jobs if not job.kind.endswith(SETS)]
    assert len(made) == 402
    for job in made:  # these settings are what a continued study compares
        record = json.loads((tmp_path / f"jobs/{job.name}.json").read_bytes())
        assert record["settings"] == records.settings(job), job.name
    outputs = [job.output for job in made if job.kind.startswith("eval ")]
    lines = make_lines(read_results(outputs)[0])
    page = (ROOT / "docs/results.md").read_text()
    assert summary(lines) in page
    assert compare(CLAIMS, lines) in page
    assert len(read_trainings([tmp_path / "networks"])[0]) == 48  # a curriculum has two each


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
