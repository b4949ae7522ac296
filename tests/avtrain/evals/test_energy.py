"""``--checkpoint energy``: a result of its own, never one of random networks."""

from __future__ import annotations

from pathlib import Path

import pytest

from avtrain.evals.results import Result
from tests.support.runs import avtrain, refused
from tests.support.tiny_set import make_set

QUICK = ["--windows", 1, "--num-workers", 0, "--checkpoint"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("set")
    return make_set(folder, {"train": 4, "test": 3}, views=4, labelled=True)


@pytest.mark.parametrize("task", ["avsa", "localization"])
def test_every_evaluation_of_frozen_features_takes_it(
    root: Path, tmp_path: Path, task: str
) -> None:
    result = avtrain("eval", task, root, *QUICK, "energy", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    name = "avsa-bin" if task == "avsa" else task
    assert [path.name for path in tmp_path.glob("*.result.json")] == [f"{name}-energy.result.json"]
    network = Result.read(tmp_path / f"{name}-energy.result.json").network
    assert (network.pretraining, network.checkpoint, network.weights) == ("energy", None, "")
    assert {row.split("|")[2].strip() for row in result.stdout.splitlines()[2:]} == {"energy"}


def test_it_is_never_mistaken_for_random_networks(root: Path, tmp_path: Path) -> None:
    keep = ["--keep-features", tmp_path / "kept"]
    arguments = ["eval", "retrieval", root, "--out", tmp_path, *QUICK]
    energy, kept, read = (avtrain(*arguments, "energy", *more) for more in ((), keep, keep))
    untrained = avtrain(*arguments, "untrained", *keep)
    assert untrained.exit_code == 0, untrained.output
    assert energy.stdout == kept.stdout == read.stdout != untrained.stdout
    rows = avtrain("report", tmp_path).stdout.splitlines()[2:]
    assert {row.split("|")[2].strip() for row in rows} == {"none", "energy"}


def test_it_is_refused_where_networks_are_needed(root: Path, tmp_path: Path) -> None:
    for command in (["eval", "segmentation"], ["eval", "action"], ["embed"]):
        arguments = [*command, root, "--checkpoint", "energy", "--out", tmp_path / "out"]
        assert "no network, which this command needs" in refused(*arguments)
    for option in (["--features", "logmel"], ["--audio", "mono"], ["--video-network", "a:b"]):
        arguments = ["eval", "avsa", root, *QUICK, "energy", *option, "--out", tmp_path / "out"]
        assert "leave --features, --audio and options of networks out" in refused(*arguments)
    assert not (tmp_path / "out").exists()
