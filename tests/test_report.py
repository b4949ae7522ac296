"""Reports of many runs and the study's driver: seeds are one line, and words follow numbers."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import click.testing
import numpy as np
import pytest

from avprep.demo import clip_truth
from avprep.world import FRAMES, make_clip
from avtrain.cli import main
from avtrain.presets import tiny, with_options
from avtrain.report import lines_of, over_seeds
from avtrain.report_figures import read_trainings
from avtrain.results import Metric, Network, Result, read_results
from benchmarks import study
from benchmarks.study_claims import CLAIMS, CONTRARY, HOLDS, UNDECIDED, findings_of
from benchmarks.study_jobs import Job, Study, jobs_of
from benchmarks.study_page import BEGIN, END, write_page, write_summary
from benchmarks.study_run import Records, chosen, held, run_jobs
from shards.files import dump_json

FEATURES = ("log-mel", "log-mel + intensity")


def result(
    pretraining: str,
    value: float,
    seed: int = 0,
    task: str = "avsa-bin",
    features: str = FEATURES[0],
    transformer: bool = False,
    views: int = 4,
    folder: str = "",
    settings: str | None = None,
) -> Result:
    """What an evaluation would write, with an accuracy and an angle."""
    trained = pretraining != "none"
    named = f"{pretraining}-{features}-{transformer}".replace(" ", "")
    network = Network(
        pretraining=pretraining,
        steps=2000 if trained else 0,
        features=features,
        audio="foa",
        transformer=transformer,
        positions="none",
        checkpoint=f"{folder or named}/{seed}/checkpoint.pt" if trained else None,
        data="d" if trained else None,
        preset="tiny",
        seed=seed,
        settings=(named if settings is None else settings) if trained else "",
        weights=f"of seed {seed}" if trained else "",
    )
    metrics = {
        "accuracy": Metric(value, (value - 0.04, value + 0.04), 0.5),
        "error": Metric(90 * (1 - value), None, 90.0, "°", "lower"),
    }
    # The seed of the evaluation is not that of the network.
    return Result(task, network, metrics, views, 0, 40, 10, "set", {"windows": 5})


def report(*arguments: object) -> click.testing.Result:
    return click.testing.CliRunner().invoke(main, ["report", *map(str, arguments)])


def write(results: list[Result], root: Path) -> list[Path]:
    folders = [root / f"{number:03d}" for number in range(len(results))]
    for one, folder in zip(results, folders, strict=True):
        one.write(folder)
    return folders


def cells(table: str) -> list[dict[str, str]]:
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in table.splitlines()
        if line.startswith("|")
    ]
    return [dict(zip(rows[0], row, strict=True)) for row in rows[2:]]


def test_seeds_are_put_together(tmp_path: Path) -> None:
    runs = [result("AVSA", value, seed) for seed, value in enumerate((0.70, 0.74, 0.78))]
    runs += [result("AVC", 0.60), result("none", 0.50, 0), result("none", 0.52, 1)]
    # Random networks stand beside each checkpoint: the same seed twice is one seed.
    runs += [result("none", 0.50, 0)]
    folders = write(runs, tmp_path / "runs")
    done = report(*folders, "--out", tmp_path / "out", "--json", tmp_path / "numbers.json")
    assert done.exit_code == 0, done.output
    table = cells(done.stdout)
    accuracy = {row["pretraining"]: row for row in table if row["metric"] == "accuracy (%)"}
    assert list(accuracy) == ["none", "AVC, 2000 steps", "AVSA, 2000 steps"]
    row = accuracy["AVSA, 2000 steps"]
    # 4.303 x 4 / sqrt(3) to either side: Student's t of two degrees of freedom.
    assert (row["mean"], row["over seeds"], row["seeds"]) == ("74.0", "64.1 to 83.9", "3")
    assert row["over sources"] == "70.0 to 78.0"
    assert accuracy["none"]["over seeds"] == "50.0 to 52.0 (range)"
    assert accuracy["none"]["seeds"] == "2"
    assert (accuracy["AVC, 2000 steps"]["over seeds"], accuracy["none"]["chance"]) == ("-", "50.0")
    written = json.loads((tmp_path / "out/report.json").read_bytes())
    assert written == json.loads((tmp_path / "numbers.json").read_bytes())
    assert written["lines"][0]["by_seed"] == {"0": 0.5, "1": 0.52}
    assert cells((tmp_path / "out/report.md").read_text()) == table
    assert (tmp_path / "out/report.png").stat().st_size > 10_000


def test_what_differs_in_more_than_the_seed_is_told_apart(tmp_path: Path) -> None:
    slow = [result("AVSA", 0.6, seed, folder="slow", settings="slow") for seed in (0, 1)]
    fast = [result("AVSA", 0.7, seed, folder="fast", settings="fast") for seed in (0, 1)]
    other_set = replace(result("AVC", 0.6), data="another")
    lines = [line for line in lines_of([*slow, *fast, result("AVC", 0.6), other_set]) if line.first]
    assert [(line.mark, line.protocol, len(line.by_seed)) for line in lines] == [
        ("", "set another", 1),
        ("", "set set", 1),
        ("fast/0", "set set", 2),
        ("slow/0", "set set", 2),
    ]


def test_a_test_without_the_transformers_is_of_the_same_network() -> None:
    with_it = result("AVSA", 0.7, transformer=True, settings="same")
    without = result("AVSA", 0.6, task="segmentation-none", settings="same")
    assert {line.name for line in lines_of([with_it, without])} == {"AVSA: log-mel, transformer"}


@pytest.mark.parametrize("content", [None, "{}"])
def test_a_folder_without_results_is_named(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "avsa-bin.result.json").write_text(content)
    done = report(tmp_path, "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert done.output.startswith("Error: ")
    assert str(tmp_path) in done.output
    assert len(done.output.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_intervals_over_seeds() -> None:
    assert over_seeds([0.5]) is None
    assert over_seeds([0.7, 0.5]) == (0.5, 0.7)
    rng = np.random.default_rng(0)
    for count in (3, 5, 20):
        intervals = [over_seeds(rng.normal(0, 1, count).tolist()) for _ in range(2000)]
        inside = np.mean([low < 0 < high for low, high in filter(None, intervals)])
        assert 0.94 < inside < 0.965


def write_log(out: Path, steps: int = 60, **options: object) -> Path:
    """A run's log and settings, of AVSA unless ``task`` says otherwise."""
    config = with_options(tiny(options.pop("task", "avsa")), **options)  # type: ignore[arg-type]
    out.mkdir(parents=True)
    (out / "config.json").write_bytes(dump_json(config.to_dict()))
    slots = config.task != "avc"
    rng = np.random.default_rng(config.seed)
    lines = [
        {
            "step": step + 1,
            "loss": 3 * np.exp(-step / steps) + 0.2 * rng.random(),
            "clip_accuracy": 0.5 + 0.3 * step / steps + 0.1 * rng.random(),
            "view_accuracy": 0.3 + 0.3 * step / steps + 0.1 * rng.random() if slots else None,
        }
        for step in range(steps)
    ]
    # The last line is being written.
    (out / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"st')
    return out


def test_logs_become_curves(tmp_path: Path) -> None:
    runs = [write_log(tmp_path / f"avsa{seed}", seed=seed) for seed in (0, 1)]
    runs += [write_log(tmp_path / "curriculum", curriculum=True)]
    write_log(tmp_path / "curriculum/avc", task="avc")
    trainings = read_trainings(runs)
    assert [(of.pretraining, of.seed) for of in trainings] == [
        ("AVSA", 0),
        ("AVSA", 1),
        ("AVC of a curriculum", 0),
        ("curriculum AVC, AVSA", 0),
    ]
    assert trainings[0].digest == trainings[1].digest
    assert [len(of.columns["loss"]) for of in trainings] == [60] * 4
    for run in runs:
        result("AVSA", 0.7).write(run)
    assert report(*runs, "--out", tmp_path / "out").exit_code == 0
    (runs[0] / "config.json").write_text("{}")
    done = report(*runs, "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert str(runs[0] / "config.json") in done.output


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
    assert verdicts["several views with the transformer beat one view of the same networks"] == {
        "avsa-bin": HOLDS
    }
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
    assert finding.by_seed[0] == pytest.approx(9)


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
    trainings = read_trainings([write_log(tmp_path / "run")])
    facts = {"clips": "8"}
    write_page(page, lines_of(grid(accuracy)), trainings, tmp_path / "world", facts)
    text = page.read_text()
    for name in ("study-results.png", "study-curves.png"):
        assert f"]({name})" in text
        assert (page.parent / name).stat().st_size > 10_000
    assert "- clips: 8" in text
    assert "| places" in text
    assert "localization: **holds**" in text
    # The other way round, the same sentences say the contrary.
    write_page(page, lines_of(grid(lambda *a: 1 - accuracy(*a))), [], tmp_path / "none", facts)
    assert "localization: **does not hold**" in page.read_text()


def test_plan_begins_with_one_seed_of_everything(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert study.main(["--plan", "--out", str(tmp_path / "s"), "--seeds", "2"]) == 0
    names = [line.split()[2].rstrip(":") for line in capsys.readouterr().out.splitlines()[:-1]]
    seeds = ["seed1" in name for name in names]
    assert seeds == sorted(seeds)
    assert names[0] == "world"
    assert "curriculum-transformer/logmel/seed1/avsa-view4" in names
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


def test_old_results_are_read(tmp_path: Path) -> None:
    path = result("AVSA", 0.7).write(tmp_path)
    content = json.loads(path.read_bytes())
    del content["network"]["seed"], content["network"]["settings"]
    path.write_text(json.dumps(content))
    assert read_results([tmp_path])[0].network.seed == 0
