"""Evaluations of a set with damaged clips: they continue without them, and name them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avtrain.data.unreadable import Unreadable, messages
from avtrain.errors import TrainingError
from avtrain.evals.binary import evaluate as binary
from avtrain.evals.progress import Progress
from avtrain.evals.results import Result
from tests.support.runs import avtrain
from tests.support.tiny_set import damage, make_set, write_over_record

QUICK = ["--checkpoint", "untrained", "--device", "cpu", "--views", 2]
TASKS = {
    "avsa": ["--windows", 2],
    "avc": ["--windows", 2],
    "retrieval": ["--windows", 2, "--gallery", 3, "--num-workers", 1],
    "localization": ["--windows", 2, "--rounds", 2],
    "segmentation": ["--epochs", 2, "--maps", 2],
}


@pytest.mark.parametrize("task", TASKS)
def test_an_evaluation_continues_without_damaged_clips(tmp_path: Path, task: str) -> None:
    maps = (0.5, 1.5)
    root = make_set(
        tmp_path / "set", {"train": 8, "test": 6}, views=2, labelled=True, map_times_s=maps
    )
    keys = {split: damage(root, 2, split) for split in ("train", "test")}
    write_over_record(root, 3, b'"gain":1', b'"gain":0')
    done = avtrain("eval", task, root, "--out", tmp_path / "run", *QUICK, *TASKS[task])
    assert done.exit_code == 1, done.output
    assert "Traceback" not in done.output
    assert "| 5 " in done.output  # of six test clips
    (path,) = (tmp_path / "run").glob("*.result.json")
    result = Result.read(path)
    assert (result.test_clips, result.test_sources) == (5, 5)
    assert any(f"test-000000.tar: {keys['test']}." in fault for fault in result.left_out)
    if task != "retrieval":  # it trains nothing
        assert any(f"train-000000.tar: {keys['train']}." in fault for fault in result.left_out)
        assert any("train003.json is not a sample record" in fault for fault in result.left_out)
    for fault in result.left_out:
        assert f"left out: {fault}\n" in done.output
    for metric in result.metrics.values():
        assert np.isfinite(metric.value)
    if task in ("avsa", "avc"):
        assert result.details["decisions"] == 5 * 2 * 2
    assert not list((tmp_path / "run").glob("*.part"))


def test_too_many_damaged_clips_end_it_with_one_sentence(tmp_path: Path) -> None:
    root = make_set(tmp_path / "set", {"train": 2, "test": 2}, views=2)
    for sample in range(2):
        damage(root, sample, "test")
    done = avtrain("eval", "retrieval", root, "--out", tmp_path / "run", *QUICK)
    assert done.exit_code == 2
    assert f"2 of the 2 clips of split 'test' of {root} cannot be read" in done.output
    assert "`avprep verify` says what is damaged" in done.output
    assert not list((tmp_path / "run").glob("*.result.json"))
    many = Unreadable("a set", 2000)
    many.add((number, "damaged") for number in range(20))
    with pytest.raises(TrainingError, match="21 of the 2000 clips of a set"):
        many.add([(99, "damaged")])


def test_clips_left_out_before_a_kill_are_named_after_it(tmp_path: Path) -> None:
    before, after = Unreadable("a set", 9), Unreadable("a set", 9)
    before.add([(4, "four"), (2, "two")])
    Progress(tmp_path / "x.part", {"seed": 1}, [before]).save({"epoch": 3})
    assert Progress(tmp_path / "x.part", {"seed": 1}, [after]).load() == {"epoch": 3}
    assert messages(after) == ["two", "four"]
    assert after.readable_clips.tolist() == [0, 1, 3, 5, 6, 7, 8]
    assert after.readable(np.array([4, 5])).tolist() == [False, True]


def test_a_kill_in_the_second_evaluation_keeps_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_set(tmp_path / "set", {"train": 4, "test": 2}, views=2)
    trained = avtrain(
        *("pretrain", root, "--steps", 1, "--batch-size", 4, "--views", 2, "--device", "cpu"),
        *("--out", tmp_path / "run"),
    )
    assert trained.exit_code == 0, trained.output
    checkpoint = tmp_path / "run/checkpoint.pt"
    command = ["eval", "avsa", root, "--checkpoint", checkpoint, "--device", "cpu", "--views", 2]
    whole = avtrain(*command, "--out", tmp_path / "whole")
    assert whole.exit_code == 0, whole.output

    decided: list[object] = []
    decide = binary.decide_pairs

    def killed_at_the_second(*arguments: Any) -> Any:
        if len(decided) == 1:
            raise KeyboardInterrupt
        decided.append(0)
        return decide(*arguments)

    monkeypatch.setattr(binary, "decide_pairs", killed_at_the_second)
    assert avtrain(*command, "--out", tmp_path / "out").exit_code != 0
    first = tmp_path / "out/avsa-bin.result.json"
    written = first.stat().st_mtime_ns
    monkeypatch.setattr(binary, "decide_pairs", lambda *a: decided.append(1) or decide(*a))
    again = avtrain(*command, "--out", tmp_path / "out")
    assert again.exit_code == 0, again.output
    assert decided == [0, 1]
    assert first.stat().st_mtime_ns == written
    for name in ("avsa-bin", "avsa-bin-untrained"):
        results = [
            json.loads((tmp_path / out / f"{name}.result.json").read_bytes())
            for out in ("out", "whole")
        ]
        assert results[0] == results[1]
    assert again.stdout == whole.stdout
    assert not list((tmp_path / "out").glob("*.part"))
    # A finished command evaluates anew when it is run again.
    assert avtrain(*command, "--out", tmp_path / "out", "--no-baseline").exit_code == 0
    assert len(decided) == 3


def test_a_test_on_training_sources_is_warned_about(tmp_path: Path) -> None:
    root = make_set(tmp_path / "set", {"train": 4, "test": 2}, views=2)
    command = ["eval", "avsa", root, "--out", tmp_path / "run", *QUICK]
    warning = "4 of the test's recordings are in the training split too"
    assert warning not in avtrain(*command).output
    assert warning in avtrain(*command, "--test-split", "train").output


def test_a_test_without_pairs_is_one_sentence(tmp_path: Path) -> None:
    """AVC takes the wrong audio from another clip of the batch: two of the three are damaged."""
    root = make_set(tmp_path / "set", {"train": 4, "test": 3}, views=2)
    for sample in (0, 2):
        damage(root, sample, "test")
    done = avtrain("eval", "avc", root, "--out", tmp_path / "run", *QUICK, *TASKS["avc"])
    assert done.exit_code == 2, done.output
    assert "Traceback" not in done.output
    assert "has no two clips in a batch that can be read, and so no pairs" in done.output
