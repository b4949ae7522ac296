"""The pages of `make study`: what they claim follows the numbers, and comes from the archive."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from avprep.world import hard
from avprep.world.generate import make_clip
from avprep.world.scene import FRAMES, WorldClip
from avprep.world.write import clip_truth
from avtrain.evals.results import Result
from avtrain.report.figures import read_trainings
from avtrain.report.lines import Line, make_lines
from benchmarks.study.all_page import write_all_page
from benchmarks.study.claims import (
    ALIGNMENT,
    AVSA_4,
    CLAIMS,
    COLUMNS,
    HEADLINES,
    Finding,
    Measurements,
    added_seeds_findings,
    headline_findings,
    other_findings,
)
from benchmarks.study.jobs import Job, Study, jobs_of
from benchmarks.study.page import _DRAWN, _SHOWN, sentence, summary, write_page
from benchmarks.study.rows import AVC, AVSA, FIRST_SEEDS, ROWS
from benchmarks.study.statistics import BETTER, EQUAL, UNDECIDED, WORSE
from benchmarks.study.world import describe_world
from shards.files import parse_json
from tests.avtrain.report.test_report import write_log
from tests.support import ROOT
from tests.support.made_results import result


def make_study(value: Callable[[str, str], float], seeds: int = 5) -> Measurements:
    """Results of all rows: ``value`` of a row in an evaluation, with noise that all networks of a
    seed share."""
    lines: dict[str, dict[str, list[Line]]] = {}
    for row in ROWS:
        for column in COLUMNS:
            mean, results = value(row.name, column.evaluation), []
            for seed in range(seeds):
                noise = 0.05 * np.sin(seed) + 0.002 * np.cos(7 * seed + len(row.name))
                one = result(row.name, mean + noise, seed)
                if column.metric is not None:
                    metrics = {**one.metrics, column.metric: one.metrics["error"]}
                    one = replace(one, metrics=metrics)
                results.append(one)
            found = lines.setdefault(row.name, {}).setdefault(column.evaluation, [])
            found.extend(make_lines(results))
    return Measurements(lines)


def accuracy(row: str, evaluation: str) -> float:
    learned = {"untrained": 0.5, "avc": 0.55, "curriculum": 0.663, "avsa": 0.66}
    return learned.get(row, 0.6) - 0.1 * evaluation.endswith("view1")


def by_words(findings: list[Finding]) -> dict[str, str]:
    return {finding.claim.words: finding.verdict for finding in findings}


def test_verdicts_follow_the_numbers() -> None:
    measured = make_study(accuracy)
    verdicts = by_words(headline_findings(measured))
    assert verdicts["AVSA against AVC"] == BETTER
    assert verdicts["AVC first, then AVSA, against as many steps of AVSA"] == EQUAL
    assert verdicts["AVSA against no pretraining"] == BETTER
    others = other_findings(measured)
    assert by_words(others[AVSA_4])["four views against one, no transformer"] == BETTER
    (finding,) = (one for one in headline_findings(measured) if one.claim == ALIGNMENT)
    assert finding.difference.mean == pytest.approx(11, abs=0.5)  # points, not shares
    reverse = make_study(lambda *given: 1 - accuracy(*given))
    assert by_words(headline_findings(reverse))["AVSA against AVC"] == WORSE
    few = make_study(accuracy, seeds=2)
    assert set(by_words(headline_findings(few)).values()) == {UNDECIDED}


def test_a_lower_error_counts_as_better() -> None:
    measured = make_study(accuracy, 3)
    lower = {
        row: {
            name: [replace(line, better="lower") for line in lines]
            for name, lines in evaluations.items()
        }
        for row, evaluations in measured.lines.items()
    }
    (finding,) = (one for one in headline_findings(Measurements(lower)) if one.claim == ALIGNMENT)
    assert finding.verdict == WORSE


def test_each_claim_compares_rows_that_exist_and_measure_the_same(tmp_path: Path) -> None:
    planned = {job.name for job in jobs_of(Study(), tmp_path)}
    for claim in CLAIMS:
        assert {claim.row, claim.baseline} <= set(ROWS)
        assert claim.row.views == claim.baseline.views
        assert claim.columns
        for column in claim.columns:
            evaluation = (claim.baseline_column or column).evaluation
            both = [
                seed
                for seed in range(10)
                if f"{claim.row.name}/seed{seed}/{column.evaluation}" in planned
                if f"{claim.baseline.name}/seed{seed}/{evaluation}" in planned
            ]
            assert len(both) >= FIRST_SEEDS, (claim.words, column.name)
    assert len({claim.words for claim in CLAIMS}) == len(CLAIMS)
    assert len(HEADLINES) == 5
    assert all(claim in CLAIMS and column in claim.columns for claim, column in HEADLINES)


def test_the_figure_and_the_table_show_what_the_sentences_are_about() -> None:
    columns = {column for _, column in HEADLINES}
    assert columns <= set(_DRAWN)
    assert columns <= set(_SHOWN)


def test_claims_that_are_not_measured_count_in_the_correction() -> None:
    measured = make_study(accuracy)
    both = Measurements({name: measured.lines[name] for name in (AVC.name, AVSA.name)})
    (alone,) = (one for one in headline_findings(both) if one.measured)
    assert alone.p == pytest.approx(5 * alone.difference.p)
    assert by_words(headline_findings(both))["AVSA against AVC"] == BETTER


def test_the_further_seeds_are_also_shown_by_themselves(tmp_path: Path) -> None:
    """The others had been looked at before."""
    write_pages(tmp_path / "results.md", make_study(accuracy), [])
    assert "further seeds by themselves" not in (tmp_path / "results-all.md").read_text()
    assert "added" not in (tmp_path / "results.md").read_text()
    all_have_nine = make_study(accuracy, seeds=9)
    assert added_seeds_findings(all_have_nine) == []
    more = {row.name: all_have_nine.lines[row.name] for row in (AVC, AVSA)}
    measured = Measurements({**make_study(accuracy).lines, **more})
    (alone, *_) = added_seeds_findings(measured)
    assert (alone.claim, sorted(alone.difference.by_seed)) == (ALIGNMENT, [5, 6, 7, 8])
    text = write_pages(tmp_path / "results.md", measured, [])
    assert "More than 5 seeds: sentence 1. The first 5 alone leave none of them undecided" in text
    assert "the added ones alone decide sentence 1." in text
    text = (tmp_path / "results-all.md").read_text().split("further seeds by themselves")[1]
    assert re.search(r"\| AVSA against AVC +\| AVSA-Bin, % .* \| 4  ", text)


FACTS = {"command": "`make`", "written on": "today", "jobs": "all 9"}


def write_pages(page: Path, measured: Measurements, runs: list[Path], world: str = "") -> str:
    write_page(page, measured, FACTS)
    trainings = {AVSA.name: read_trainings(runs)[0]} if runs else {}
    write_all_page(page, measured, trainings, {AVSA.name: 720.0}, FACTS, world)
    return page.read_text()


def test_the_page_is_one_screen_of_five_sentences_a_figure_and_a_table(tmp_path: Path) -> None:
    text = write_pages(tmp_path / "results.md", make_study(accuracy), [])
    assert len(text.splitlines()) < 50
    assert text.count("![") == 1
    assert re.findall(r"^(\d)\. \*\*", text, re.MULTILINE) == ["1", "2", "3", "4", "5"]
    assert re.search(
        r"1\. \*\*AVSA against AVC: better\.\*\* AVSA-Bin, %: 67\.\d against 56\.", text
    )
    assert re.search(r"a gain of \+11\.\d points \(95 % interval \+\d", text)
    assert "Not decided: none of the five; 0 of the " in text
    assert re.search(r"\| chance .* 50.0 +\|", text)
    assert "](results-all.md)" in text
    assert (tmp_path / "study-results.png").stat().st_size > 10_000
    few = write_pages(tmp_path / "few.md", make_study(accuracy, 2), [])
    assert "(2 seeds; 3 can decide)" in few
    assert "Not decided: sentences 1, 2, 3, 4, 5;" in few


def test_the_pages_of_a_study_without_results_say_so(tmp_path: Path) -> None:
    text = write_pages(tmp_path / "results.md", Measurements({}), [])
    assert text.count("not measured yet") == 5
    assert "Not decided: sentences 1, 2, 3, 4, 5;" in text
    assert "detectable at 5 %" in (tmp_path / "results-all.md").read_text()


def write_truths(world: Path, clips: list[WorldClip]) -> None:
    (world / "truth").mkdir(parents=True)
    for clip in clips:
        audible = [item for item in clip.objects if not item.silent]
        levels = {item.id: np.full(FRAMES, 0.1) for item in audible}
        truth = clip_truth(clip, levels, 0.01, {item.id: 3.0 for item in audible})
        (world / f"truth/{clip.name}.json").write_text(json.dumps(truth))


def test_the_page_states_the_noise_that_the_world_has(tmp_path: Path) -> None:
    """The hard world draws it from ranges of its own, and tells loudness by distance."""
    stated = {}
    for name, make in (("easy", make_clip), ("hard", hard.make_clip)):
        write_truths(tmp_path / name, [make(0, index) for index in range(8)])
        text = describe_world(tmp_path / name)
        found = re.search(r"\| diffuse noise, dB .*?\| (\S+ to \S+) +\| (\S+ to \S+) ", text)
        assert found is not None
        stated[name] = found.groups()
        assert ("tail against the direct sound at 1 m" in text) is (name == "hard")
    assert stated["hard"] == tuple(f"{a:g} to {b:g}" for a, b in hard.NOISE_DB.values())
    assert stated["easy"] == ("-30 to -20", "-28 to -18")


def test_the_second_page_holds_settings_world_power_comparisons_and_training(
    tmp_path: Path,
) -> None:
    write_truths(tmp_path / "world", [make_clip(0, index) for index in range(8)])
    run = write_log(tmp_path / "run")
    (run / "log.jsonl").write_text((run / "log.jsonl").read_text().removesuffix('{"st'))
    world = describe_world(tmp_path / "world")
    write_pages(tmp_path / "results.md", make_study(accuracy), [run], world)
    text = (tmp_path / "results-all.md").read_text()
    assert "- command: `make`" in text
    assert "| places" in text
    assert re.search(r"\| avsa +\| AVSA, 12 clips × 4 views .* 12 +\|", text)  # minutes
    assert re.search(r"\| AVSA against AVC +\| AVSA-Bin, % .*\*\*better\*\*", text)
    assert re.search(r"\| AVSA against AVC +\| segmentation, mIoU % ", text)
    assert (tmp_path / "study-curves.png").stat().st_size > 10_000
    assert "](study-curves.png)" in text


def test_a_result_that_cannot_be_read_is_named_and_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = [
        Job(f"avc/seed{seed}/avsa-view4", "eval x", (), tmp_path / str(seed)) for seed in range(2)
    ]
    for seed, job in enumerate(jobs):
        result("AVC", 0.6, seed).write(job.output)
    (path,) = jobs[0].output.iterdir()
    path.write_text(path.read_text().replace("0.6", "1e99", 1))
    assert Measurements.read(jobs).values("avc", AVSA_4) == {1: pytest.approx(60)}
    assert f"left out: {path}" in capsys.readouterr().err


def test_the_archive_of_the_earlier_study_is_still_read() -> None:
    """Its page is not written anew; its numbers are those of its results."""
    page = (ROOT / "docs/results-2026-11-22.md").read_text()
    with zipfile.ZipFile(ROOT / "docs/study-2026-11-22.zip") as archive:
        names = [name for name in archive.namelist() if name.endswith(".result.json")]
        results = [parse_json(archive.read(name), Result) for name in names]
    assert len(results) == 402 - 36  # the trainings
    for line in make_lines(results):
        if line.first and line.task == "avsa-bin":
            assert f"{100 * line.mean:.1f} (" in page


def test_the_archive_of_the_page_gives_the_page(tmp_path: Path) -> None:
    """What `make study` wrote can be written anew from `docs/study.zip` alone."""
    with zipfile.ZipFile(ROOT / "docs/study.zip") as archive:
        archive.extractall(tmp_path)
    facts = json.loads((tmp_path / "facts.json").read_bytes())
    folders = sorted((tmp_path / "results").glob("*/*/*"))
    jobs = [Job("/".join(folder.parts[-3:]), "eval x", (), folder) for folder in folders]
    measured = Measurements.read(jobs)
    page = (ROOT / "docs/results.md").read_text()
    assert facts["jobs"] in page
    assert summary(measured) in page
    assert all(sentence(finding) in page for finding in headline_findings(measured))
