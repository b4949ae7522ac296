"""An evaluation interrupted under an earlier version continues: stored settings never change.

The version before the evaluations shared `avtrain.evals.evaluation` wrote the texts below.
"""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from avtrain.data.unreadable import Unreadable
from avtrain.errors import TrainingError
from avtrain.evals.progress import Progress
from avtrain.evals.results import result_path
from shards.reader import ShardSet
from tests.support.made_results import result
from tests.support.runs import avtrain
from tests.support.tiny_set import make_set

NETWORKS = (
    "('networks', {'pretraining': 'none', 'steps': 0, 'features': 'log-mel', 'audio': 'foa', "
    "'transformer': False, 'positions': 'none', 'checkpoint': None, 'data': None, "
    "'preset': 'tiny', 'seed': 0, 'settings': '', 'weights': '', 'norm_first': False})"
)
BINARY = (
    f"[('data', ('SET', 'train')), {NETWORKS}, ('protocol', {{'name': 'tiny', 'epochs': 60, "
    "'rounds': 8, 'learning_rate': 0.001, 'milestones': (40, 52), 'paired': True, "
    "'clips_per_source': None, 'gamma': 0.1, 'batch_size': 32, 'dropout': 0.5, "
    "'weight_decay': 0.0}), ('seed', 0), ('test', 'test'), ('views', (2, 2)), ('windows', 2)]"
)
LOCALIZATION = (
    f"[('data', 'SET'), {NETWORKS}, ('rounds', 2), ('seed', 0), ('split', 'train'), "
    "('test', 'test'), ('views', (2, 2)), ('windows', 2)]"
)
RETRIEVAL = (
    f"[('data', ('SET', 'train')), ('gallery', 3), {NETWORKS}, ('seed', 0), "
    "('test', ('SET', 'test')), ('views', (2, 2)), ('windows', 2)]"
)
SEGMENTATION = (
    f"[('classes', (0, 1, 2, 3, 4)), ('data', ('SET', 'train')), ('maps', 2), {NETWORKS}, "
    "('protocol', {'name': 'tiny', 'epochs': 8, 'batch_size': 1, 'learning_rate': 0.001, "
    "'milestones': (4, 7), 'lateral': 64, 'head': 32, 'clips_per_source': None, "
    "'classes': 'all', 'initial_std': None, 'rounds': 1, 'gamma': 0.1, "
    "'weight_decay': 0.0005}), ('seed', 0), ('test', ('SET', 'test')), ('views', 2)]"
)
TASKS = {
    "avc-bin": (["avc", "--windows", 2], BINARY, 2),
    "avsa-bin": (["avsa", "--windows", 2], BINARY, 2),
    "localization": (["localization", "--windows", 2, "--rounds", 2], LOCALIZATION, 2),
    "retrieval": (["retrieval", "--windows", 2, "--gallery", 3], RETRIEVAL, 1),
    "segmentation-none": (["segmentation", "--maps", 2], SEGMENTATION, 2),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("set")
    maps = (0.5, 1.5)
    return make_set(folder, {"train": 4, "test": 3}, views=2, labelled=True, map_times_s=maps)


@pytest.mark.parametrize("task", TASKS)
def test_a_state_of_the_version_before_is_continued(root: Path, tmp_path: Path, task: str) -> None:
    command, settings, splits = TASKS[task]
    name = f"{task}-untrained"
    state = {
        "finished": True,
        "settings": settings.replace("SET", ShardSet(root).sha256),
        "left_out": [{} for _ in range(splits)],
    }
    torch.save(state, tmp_path / f"{name}.part")
    written = result("none", 0.123, task=task)
    written.details["chance"] = "none"
    written.write(tmp_path)
    given = ["--checkpoint", "untrained", "--out", tmp_path, "--device", "cpu", "--views", 2]
    done = avtrain("eval", command[0], root, *given, *command[1:], "--num-workers", 0)
    assert done.exit_code == 0, done.output
    assert "12.3" in done.stdout  # the result that is there, not one that is made anew
    assert not (tmp_path / f"{name}.part").exists()
    assert result_path(tmp_path, name).exists()


EXAMPLE: dict[str, Any] = {"epoch": 0, "net": {"w": torch.zeros(2)}, "losses": [0.0]}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"epoch": -1}, "it.epoch is -1"),
        ({"epoch": 1.5}, "it.epoch is a float"),
        ({"epoch": True}, "it.epoch is a bool"),
        ({"net": {}}, "it.net has other parts"),
        ({"net": {"w": torch.zeros(3)}}, "it.net.w has the shape (3,), not (2,)"),
        ({"net": {"w": torch.zeros(2).double()}}, "it.net.w has the type torch.float64"),
        ({"net": {"w": torch.tensor([1, math.nan])}}, "it.net.w has values that are not finite"),
        ({"net": {"w": [1]}}, "it.net.w is a list, no tensor"),
        ({"losses": [0.5, "x"]}, "an item of it.losses is a str"),
        ({"more": 1}, "it has other parts"),
    ],
)
def test_a_state_that_does_not_fit_is_named(
    change: dict[str, Any], words: str, tmp_path: Path
) -> None:
    progress = Progress(tmp_path / "x.part", {"seed": 1})
    progress.save(EXAMPLE | {"losses": [1.0, math.nan]})
    state = progress.load()
    assert state is not None
    progress.check(state, EXAMPLE)
    progress.save(EXAMPLE | change)
    state = progress.load()
    assert state is not None
    with pytest.raises(TrainingError, match=re.escape(words)):
        progress.check(state, EXAMPLE)


@pytest.mark.parametrize("left_out", [None, [], [[1]], [{-1: "a"}], [{5: "a"}], [{0: 1}], [{}, {}]])
def test_foreign_faults_are_refused(left_out: object, tmp_path: Path) -> None:
    path = tmp_path / "x.part"
    progress = Progress(path, {"seed": 1}, [Unreadable("the set", 5)])
    progress.save({"epoch": 1})
    torch.save(torch.load(path) | {"left_out": left_out}, path)
    with pytest.raises(TrainingError, match=r"x\.part is damaged .*; delete it to start anew"):
        progress.load()


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.part")
    (tmp_path / "device.part").symlink_to("/dev/zero")
    (tmp_path / "junk.part").write_bytes(b"junk" * 99)
    for path in tmp_path.iterdir():
        with pytest.raises(TrainingError, match=path.name):
            Progress(path, {"seed": 1}).load()
