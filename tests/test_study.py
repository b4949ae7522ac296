"""`make study`: its jobs, what it says of the results, and its page."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from avprep.demo import clip_truth
from avprep.world import FRAMES, make_clip
from avtrain.report import lines_of
from avtrain.report_figures import read_trainings
from avtrain.results import Result
from avtrain.run_log import read_log
from benchmarks import study
from benchmarks.study_claims import CLAIMS, CONTRARY, HOLDS, UNDECIDED, findings_of
from benchmarks.study_jobs import Job, Study, jobs_of
from benchmarks.study_page import BEGIN, END, write_page, write_summary
from benchmarks.study_run import Records, chosen, held, run_jobs
from tests.made_results import FEATURES, result
from tests.test_report import write_log


def grid(value: Callable[[str, str, bool, int], float], seeds: int = 3) -> list[Result]:
    """The study's networks, with made-up accuracies that scatter by seed."""
    kinds = [("none", False), ("AVC", False), ("AVTS", False)]
    kinds += [(words, on) for words in ("AVSA", "curriculum AVC, AVSA") for on in (False, True)]
    results = []
    for task, views in (("avsa-bin", 1), ("avsa-bin", 4), ("avc-bin", 4), ("localization", 4)):
        for pretraining, transformer in kinds:
            for features in FEATURES:
                for seed in range(seeds):
                    mean = value(pretraining, features, transformer, views)
                    # What a seed's clips are like, all its networks share.
                    noise = 0.05 * np.sin(seed) + 0.004 * np.cos(7 * seed + 100 * mean)
                    results.append(
                        result(pretraining, mean + noise, seed, task, features, transformer, views)
                    )
    return results


def accuracy(pretraining: str, features: str, transformer: bool, views: int) -> float:
    learned = {"none": 0.5, "AVC": 0.55, "AVTS": 0.56, "AVSA, 1 view": 0.6}.get(pretraining, 0.66)
    return learned + 0.04 * (features != FEATURES[0]) - 0.05 * transformer + 0.01 * views


def test_words_follow_the_numbers() -> None:
    lines = lines_of(grid(accuracy))
    verdicts = {
        claim.words: {finding.task: finding.verdict for finding in findings_of(claim, lines)}
        for claim in CLAIMS
    }
    assert verdicts["AVSA beats AVC"] == {"avsa-bin": HOLDS, "localization": HOLDS}
    assert verdicts["intensity beats log-mel alone"]["avc-bin"] == HOLDS
    assert set(verdicts["the transformer beats none"].values()) == {CONTRARY}
    intensity = next(claim for claim in CLAIMS if claim.words.startswith("intensity"))
    settings = findings_of(intensity, lines)[0].settings
    assert len(settings) == 6  # of the trained networks: of random ones it says nothing
    # What a summary shows is with intensity, four views and AVSA, and of one setting alone.
    shown = findings_of(CLAIMS[0], lines)[0].settings[0]
    assert shown.words == "log-mel + intensity; tested with 4 views"
    assert np.mean(list(shown.by_seed.values())) == pytest.approx(0.11, abs=0.01)
    assert verdicts["several views with the transformer beat one view of the same networks"] == {
        "avsa-bin": HOLDS
    }
    # What is no part of the paper is in no answer but its own.
    norm_first = [
        replace(one, network=replace(one.network, norm_first=True, settings="norm first"))
        for one in grid(lambda *setting: 2 - accuracy(*setting))
        if one.network.transformer
    ]
    for claim in CLAIMS:
        findings = findings_of(claim, lines_of([*grid(accuracy), *norm_first]))
        if "normalises first" in claim.words:
            assert {finding.verdict for finding in findings} == {HOLDS}
        else:
            assert findings == findings_of(claim, lines)
    curriculum = "a curriculum (AVC first) beats AVSA alone"
    assert set(verdicts[curriculum].values()) == {UNDECIDED}
    # Differences of one seed or two decide nothing, however large they are.
    few = lines_of(grid(accuracy, seeds=2))
    assert {finding.verdict for finding in findings_of(CLAIMS[0], few)} == {UNDECIDED}


def test_lower_may_be_better() -> None:
    pairs = [
        replace(one, metrics={"error": one.metrics["error"]})
        for seed in range(3)
        for one in (result("AVSA", 0.7 + 0.01 * seed, seed), result("AVC", 0.6, seed))
    ]
    (finding,) = findings_of(CLAIMS[0], lines_of(pairs))
    assert finding.verdict == HOLDS
    assert finding.settings[0].by_seed[0] == pytest.approx(9)


def test_the_direction_of_one_source_is_compared_for_itself() -> None:
    """It is no first metric, and may say the contrary of what the first says."""
    lone = "one source, mean error"
    pairs = []
    for seed in range(3):
        for name, of_all, of_one in (("AVSA", 0.6, 0.8), ("AVC", 0.7, 0.6 + 0.01 * seed)):
            error = result(name, of_all, seed).metrics["error"]
            error_of_one = result(name, of_one, seed).metrics["error"]
            metrics = {"mean error": error, lone: error_of_one}
            pairs.append(replace(result(name, 0.5, seed), task="localization", metrics=metrics))
    findings = {
        finding.task: finding.verdict for finding in findings_of(CLAIMS[0], lines_of(pairs))
    }
    assert findings == {
        "localization": CONTRARY,
        f"localization, {lone}": HOLDS,
    }


def test_what_sound_adds_to_segmentation() -> None:
    values = {"none": 0.5, "audio": 0.4, "audio+context": 0.6}
    results = [
        result("AVSA", value + seed / 100, seed, f"segmentation-{condition}")
        for condition, value in values.items()
        for seed in range(3)
    ]
    verdicts = {
        claim.words: [finding.verdict for finding in findings_of(claim, lines_of(results))]
        for claim in CLAIMS
    }
    assert verdicts["the view's sound helps its segmentation"] == [CONTRARY]
    assert verdicts["sound and context help segmentation"] == [HOLDS]
    assert not verdicts["the transformer beats none"]


FACTS = {"command": "`make`", "written on": "today", "jobs": "all 9"}


def test_the_summary_stands_between_its_marks(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n\n{BEGIN}\nold\n{END}\n\nafter\n")
    values = {"AVC": (0.6, 0.62, 0.64), "none": (0.5, 0.5, 0.5)}
    results = [result(name, v, seed) for name, of in values.items() for seed, v in enumerate(of)]
    for _ in range(2):
        write_summary(readme, lines_of(results), FACTS)
    text = readme.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert text.count("62.0 (57.0 to 67.0)") == 1
    results = [one for one in results if one.network.seed < 2]
    write_summary(readme, lines_of(results), FACTS)
    assert "61.0 (n=2)" in readme.read_text()
    assert "`make`, today; jobs: all 9." in text
    assert re.search(r"\| chance .* 50.0 +\|\n", text)
    readme.write_text("no marks")
    with pytest.raises(ValueError, match="lacks the marks"):
        write_summary(readme, lines_of(results), FACTS)


def test_the_page_says_what_came_out(tmp_path: Path) -> None:
    (tmp_path / "world/truth").mkdir(parents=True)
    for index in range(8):
        clip = make_clip(0, index)
        levels = {item.id: np.full(FRAMES, 0.1) for item in clip.objects if not item.silent}
        truth = clip_truth(clip, levels, 0.01)
        (tmp_path / f"world/truth/{clip.name}.json").write_text(json.dumps(truth))
    page = tmp_path / "docs/study.md"
    run = write_log(tmp_path / "run")
    (run / "log.jsonl").write_text((run / "log.jsonl").read_text().removesuffix('{"st'))
    facts = {"clips": "8"}
    write_page(page, lines_of(grid(accuracy)), read_trainings([run]), tmp_path / "world", facts)
    text = page.read_text()
    for name in ("study-results.png", "study-curves.png"):
        assert f"]({name})" in text
        assert (page.parent / name).stat().st_size > 10_000
    assert "- clips: 8" in text
    views = np.mean([line["view_accuracy"] for line in read_log(run / "log.jsonl")[-6:]])
    assert re.search(rf"\| AVSA +\| log-mel +\| 60 +\| 1 .* {views:.1%} +\| 25.0% +\|", text)
    assert "| places" in text
    assert re.search(r"\| AVSA beats AVC +\| localization .*\*\*holds\*\*", text)
    # The other way round, the same sentences say the contrary.
    write_page(page, lines_of(grid(lambda *a: 1 - accuracy(*a))), [], tmp_path / "none", facts)
    text = page.read_text()
    assert re.search(r"\| AVSA beats AVC +\| localization .*\*\*does not hold\*\*", text)


def test_plan_begins_with_one_seed_of_everything(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert study.main(["--plan", "--out", str(tmp_path / "s"), "--seeds", "2"]) == 0
    names = [line.split()[2].rstrip(":") for line in capsys.readouterr().out.splitlines()[:-1]]
    seeds = [int(found[1]) if (found := re.search(r"seed(\d)", name)) else 0 for name in names]
    assert seeds == sorted(seeds)
    assert names[0] == "world"
    assert "curriculum-transformer/logmel/seed1/avsa-view4" in names
    more = [name for name in names if "seed2" in name or "seed3" in name]
    assert {name.split("/")[0] for name in more} == {"untrained", "avc", "avsa"}
    assert {name.split("/")[1] for name in more} == {"logmel+intensity"}
    assert {name.split("/")[3] for name in more} == {
        "pretrain",
        "avsa-view1",
        "avsa-view4",
        "localization",
    }
    assert not any("seed4" in name for name in names)
    assert not (tmp_path / "s").exists()
    only = ["--plan", "--out", str(tmp_path / "s"), "--only", "^avc/logmel/seed0/avc-view1$"]
    assert study.main(only) == 0
    names = [line.split()[2].rstrip(":") for line in capsys.readouterr().out.splitlines()[:-1]]
    assert names == ["world", "shards", "avc/logmel/seed0/pretrain", "avc/logmel/seed0/avc-view1"]
    assert study.main([*only[:-1], "nothing so named"]) == 2


def test_jobs_with_other_settings_are_other_jobs(tmp_path: Path) -> None:
    def records(settings: Study) -> tuple[Records, list[Job]]:
        jobs = chosen(jobs_of(settings, tmp_path), {"avc/logmel/seed0/avc-view1"})
        return Records(tmp_path, jobs), jobs

    first, jobs = records(Study())
    for job in jobs:
        first.begin(job)
        job.makes.mkdir(exist_ok=True, parents=True)
        assert not first.is_finished(job)
        first.note(job, 1, finished=True)
    assert all(map(first.is_finished, jobs))
    same, jobs = records(Study(seeds=5, device="cpu"))
    assert all(map(same.is_finished, jobs))
    longer, jobs = records(Study(steps=9))
    assert [longer.is_finished(job) for job in jobs] == [True, True, False, False]
    larger, jobs = records(Study(clips=9))
    assert not any(map(larger.is_finished, jobs))


def python(name: str, makes: Path, code: str, *needs: str) -> Job:
    command = (sys.executable, "-c", f"import pathlib; p = pathlib.Path({str(makes)!r}); {code}")
    return Job(name, "eval x", command, makes, needs)


def test_failures_stop_what_needs_them_alone(tmp_path: Path) -> None:
    count = "p.mkdir(exist_ok=True); open(p / 'runs', 'a').write('x')"
    jobs = [
        python("good", tmp_path / "good", count),
        python("bad", tmp_path / "bad", "raise SystemExit('the disk is full')"),
        python("after bad", tmp_path / "after bad", count, "bad"),
        python("after good", tmp_path / "after good", count, "good"),
    ]
    records = Records(tmp_path, jobs)
    for _ in range(2):  # what is finished is not done again
        with held(tmp_path) as lock:
            failed = run_jobs(jobs, records, 2, lock)
        assert set(failed) == {"bad", "after bad"}
        assert failed["bad"].startswith("the disk is full")
        assert failed["after bad"] == "needs bad, which failed"
        assert (tmp_path / "good/runs").read_text() == "x"
        assert (tmp_path / "after good/runs").read_text() == "x"
