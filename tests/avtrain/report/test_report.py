"""Reports of many runs: runs that differ only in the seed are one line."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import click.testing
import numpy as np
import pytest

from avtrain.cli.main import main
from avtrain.config import tiny
from avtrain.errors import TrainingError
from avtrain.evals.frozen import describe_settings
from avtrain.evals.results import read_results
from avtrain.options import with_options
from avtrain.report.figures import read_trainings
from avtrain.report.lines import make_lines, over_seeds
from shards.files import dump_json
from tests.support.made_results import result, write


def report(*arguments: object) -> click.testing.Result:
    return click.testing.CliRunner().invoke(main, ["report", *map(str, arguments)])


def cells(table: str) -> list[dict[str, str]]:
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in table.splitlines()
        if line.startswith("|")
    ]
    return [dict(zip(rows[0], row, strict=True)) for row in rows[2:]]


def test_seeds_are_one_line(tmp_path: Path) -> None:
    runs = [result("AVSA", value, seed) for seed, value in enumerate((0.70, 0.74, 0.78))]
    runs += [result("AVC", 0.60), result("none", 0.50, 0), result("none", 0.52, 1)]
    # Random networks are evaluated beside each checkpoint: one seed may come twice.
    runs += [result("none", 0.50, 0)]
    folders = write(runs, tmp_path / "runs")
    done = report(*folders, "--out", tmp_path / "out", "--json", tmp_path / "numbers.json")
    assert done.exit_code == 0, done.output
    table = cells(done.stdout)
    accuracy = {row["pretraining"]: row for row in table if row["metric"] == "accuracy (%)"}
    assert list(accuracy) == ["none", "AVC, 2000 steps", "AVSA, 2000 steps"]
    row = accuracy["AVSA, 2000 steps"]
    # 4.303 x 4 / sqrt(3) on either side: Student's t with two degrees of freedom.
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


def test_runs_that_differ_in_more_than_the_seed_are_separate_lines(tmp_path: Path) -> None:
    slow = [result("AVSA", 0.6, seed, settings="slow") for seed in (0, 1)]
    fast = [result("AVSA", 0.7, seed, settings="fast") for seed in (0, 1)]
    other_set = replace(result("AVC", 0.6), data="another")
    results = [*slow, *fast, result("AVC", 0.6), other_set]
    lines = [line for line in make_lines(results) if line.first]
    assert [(line.mark, line.variant, len(line.by_seed)) for line in lines] == [
        ("", "set another", 1),
        ("", "set set", 1),
        ("fast/0", "set set", 2),
        ("slow/0", "set set", 2),
    ]


def test_different_tests_are_separate_lines() -> None:
    """Each line names what differs in its test; a test may have metrics that others lack."""
    one = result("AVSA", 0.6)
    two_folds = {"folds": ["fold 1", "fold 2"], "protocol": {"batch_size": 9, "epochs": 2}}
    more = replace(one, test=two_folds, metrics=one.metrics | {"fold 1": one.metrics["error"]})
    other = replace(one, test=two_folds | {"protocol": {"batch_size": 9, "epochs": 5}})
    lines = [line for line in make_lines([one, more, other]) if line.first]
    assert [line.variant for line in lines] == [
        "windows -, folds ['fold 1', 'fold 2'], batch size 9, epochs 2",
        "windows -, folds ['fold 1', 'fold 2'], batch size 9, epochs 5",
        "windows 5, folds -, batch size -, epochs -",
    ]
    assert [len(line.by_seed) for line in lines] == [1, 1, 1]


def test_a_metric_that_some_seeds_lack_is_that_of_the_others() -> None:
    """Results of an earlier version have fewer metrics, whichever of them is read first."""
    old, new = (result("AVSA", value, seed) for seed, value in enumerate((0.6, 0.8)))
    new = replace(new, metrics={**new.metrics, "new": new.metrics["accuracy"]})
    for results in ([old, new], [new, old]):
        found = {line.metric: line.by_seed for line in make_lines(results)}
        assert found["accuracy"] == {0: 0.6, 1: 0.8}
        assert found["new"] == {1: 0.8}


def test_the_networks_a_run_started_from_are_in_its_title_and_digest() -> None:
    alone, avc = tiny("avsa"), tiny("avc")
    after = alone.initialised_from(replace(avc, seed=1), 500)
    assert after.title == "AVSA after 500 steps of AVC"
    assert after == alone.initialised_from(replace(avc, seed=2), 500)
    digests = {alone.digest, after.digest, alone.initialised_from(avc, 501).digest}
    assert len(digests | {alone.initialised_from(replace(avc, temperature=0.2), 500).digest}) == 4


def test_a_test_without_transformers_belongs_to_the_same_network() -> None:
    with_it = result("AVSA", 0.7, transformer=True, settings="same")
    without = result("AVSA", 0.6, task="segmentation-none", settings="same")
    assert {line.name.label for line in make_lines([with_it, without])} == {
        "AVSA: log-mel, transformer"
    }


def test_names_say_how_transformers_normalise() -> None:
    """If there are any; runs from before the option existed have today's default."""
    last = result("AVSA", 0.7, transformer=True)
    first = replace(last, network=replace(last.network, norm_first=True, settings="first"))
    without = replace(first, network=replace(first.network, transformer=False, settings="without"))
    names = {line.name.label for line in make_lines([last, first, without])}
    transformer = "AVSA: log-mel, transformer"
    assert names == {"AVSA: log-mel", transformer, f"{transformer}, norm first"}
    config = with_options(tiny("avsa"), transformer=True)
    assert config.digest == "10c7df4726f7"
    assert with_options(config, norm_first=True).digest != config.digest


def test_names_say_how_the_intensity_is_scaled() -> None:
    """Runs from before the gain existed keep their name and digest."""
    scaled = with_options(tiny("avsa"), features="logmel+intensity")
    before = with_options(scaled, features="logmel+intensity", intensity_gain=1.0)
    assert before.digest == "f603def64201"
    names = [describe_settings(config, False).features for config in (before, scaled)]
    assert names == ["log-mel + intensity", "log-mel + intensity × 8"]
    assert scaled.digest != before.digest
    with pytest.raises(TrainingError, match="--intensity-gain needs"):
        with_options(tiny("avsa"), intensity_gain=2.0)
    assert with_options(scaled, intensity_gain=2.0).sound.intensity_gain == 2
    assert with_options(scaled, features="logmel") == tiny("avsa")


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
    # The last line is not complete yet.
    (out / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"st')
    return out


def test_logs_become_curves(tmp_path: Path) -> None:
    runs = [write_log(tmp_path / f"avsa{seed}", seed=seed) for seed in (0, 1)]
    runs += [write_log(tmp_path / "curriculum", curriculum=True)]
    write_log(tmp_path / "curriculum/avc", task="avc")
    trainings, left_out = read_trainings(runs)
    assert left_out == []
    assert [(training.pretraining, training.seed) for training in trainings] == [
        ("AVSA", 0),
        ("AVSA", 1),
        ("AVC of a curriculum", 0),
        ("curriculum AVC, AVSA", 0),
    ]
    assert trainings[0].digest == trainings[1].digest
    assert [len(training.columns["loss"]) for training in trainings] == [60] * 4
    for run in runs:
        result("AVSA", 0.7).write(run)
    assert report(*runs, "--out", tmp_path / "out").exit_code == 0
    (runs[0] / "config.json").write_text("{}")
    done = report(*runs, "--out", tmp_path / "out")
    assert done.exit_code == 1
    assert f"left out: {runs[0] / 'config.json'} does not hold the settings of a run" in done.output
    assert (tmp_path / "out/report.png").exists()


BAD_RESULTS: list[tuple[tuple[str, ...], object, str]] = [
    (("metrics",), {}, "field metrics: expected object of length >= 1"),
    (("metrics", "accuracy", "value"), [{}], "field metrics[...].value: expected float"),
    (("metrics", "accuracy", "value"), 1e300, "field metrics[...].value"),
    (("metrics", "accuracy", "value"), float("nan"), "it is not JSON"),
    (("metrics", "accuracy", "interval_95"), [1], "interval_95: expected array of length 2"),
    (("metrics", "accuracy", "better"), "louder", "field metrics[...].better"),
    (("network", "seed"), -1, "field network.seed: expected int >= 0"),
    (("network", "steps"), "2000", "field network.steps: expected int, got str"),
    (("network", "pretraining"), None, "field network.pretraining: expected str, got null"),
    (("task",), "../../task", "field task"),
    (("task",), "", "field task"),
    (("views",), 10**30, "field views"),
    (("left_out",), "none", "field left_out: expected array"),
    (("details",), {"a": [[[[[[1]]]]]]}, "field details"),
    (("test",), [], "field test: expected object"),
]


@pytest.mark.parametrize(("place", "value", "words"), BAD_RESULTS)
def test_a_bad_result_costs_itself(
    place: tuple[str, ...], value: object, words: str, tmp_path: Path
) -> None:
    result("AVSA", 0.7).write(tmp_path / "good")
    path = result("AVSA", 0.6, seed=1).write(tmp_path / "bad")
    content = json.loads(path.read_bytes())
    part = content
    for name in place[:-1]:
        part = part[name]
    part[place[-1]] = value
    path.write_text(json.dumps(content))
    done = report(tmp_path, "--out", tmp_path / "out")
    assert done.exit_code == 1, done.output
    assert f"left out: {path} is no result of `avtrain eval`: " in done.output
    assert words in done.output
    assert "70.0" in done.output
    alone = report(tmp_path / "bad")
    assert alone.exit_code == 2
    assert alone.output.count("\n") == 1


def test_files_that_are_no_files_or_too_large_cost_themselves(tmp_path: Path) -> None:
    write_log(tmp_path / "good")
    result("AVSA", 0.7).write(tmp_path / "good")
    for name in ("fifo", "folder", "device", "large", "deep"):
        (tmp_path / name).mkdir()
    for file in ("avsa-bin.result.json", "config.json", "log.jsonl"):
        os.mkfifo(tmp_path / "fifo" / file)
        (tmp_path / "folder" / file).mkdir()
        (tmp_path / "device" / file).symlink_to("/dev/zero")
        (tmp_path / "deep" / file).write_text("[" * 100_000)
        with (tmp_path / "large" / file).open("wb") as large:
            large.truncate(10**12)
    done = report(tmp_path, "--out", tmp_path / "out")
    assert done.exit_code == 1, (done.output, done.exception)
    assert done.output.count("left out: ") == 10
    assert done.output.count("it is not a regular file") == 6
    assert done.output.count("it is larger than") == 2


def test_old_results_are_read(tmp_path: Path) -> None:
    path = result("AVSA", 0.7).write(tmp_path)
    content = json.loads(path.read_bytes())
    del content["network"]["seed"], content["network"]["settings"]
    path.write_text(json.dumps(content))
    assert read_results([tmp_path])[0][0].network.seed == 0
