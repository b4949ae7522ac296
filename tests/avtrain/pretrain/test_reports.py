"""`--report-to` writes curves and figures, and does not change the run.

The packages that read them are imported in the tests: they are slow, and every worker of
pytest-xdist imports all modules of tests.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from avtrain.checkpoint import Checkpoint
from avtrain.pretrain import reports
from tests.support.runs import avtrain, refused
from tests.support.tiny_set import make_set

SCALARS = {"loss", "clip_accuracy", "view_accuracy", "data_wait_s"}
FIGURES = ("views and sounds", "what sounds find")


@pytest.fixture(autouse=True)
def nothing_leaves(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_set(tmp_path / "set", {"train": 6}, duration_s=4.0)


def command(root: Path, out: Path, *more: object) -> list[object]:
    return ["pretrain", root, "--batch-size", 3, "--device", "cpu", "--out", out, *more]


def in_two_parts(root: Path, out: Path, *more: object) -> None:
    for steps in (2, 5):
        done = avtrain(*command(root, out, "--steps", steps, "--resume", *more))
        assert done.exit_code == 0, done.output


def test_all_three_get_curves_and_figures_of_the_same_run(root: Path, tmp_path: Path) -> None:
    """A resumed run goes on in the same place; nothing of the training changes."""
    from mlflow.tracking import MlflowClient

    plain, seen = tmp_path / "plain", tmp_path / "seen"
    in_two_parts(root, plain)
    # A loader worker too: it is forked while what reports is running.
    in_two_parts(root, seen, "--report-to", "tensorboard,wandb,mlflow", "--num-workers", 1)
    ours = Checkpoint.load(seen / "checkpoint.pt").model
    for name, value in Checkpoint.load(plain / "checkpoint.pt").model.items():
        assert torch.equal(value, ours[name]), name
    losses = [json.loads(line)["loss"] for line in (seen / "log.jsonl").read_text().splitlines()]

    board = read_board(seen / "tensorboard")
    assert set(board.Tags()["scalars"]) >= SCALARS
    assert [event.step for event in board.Scalars("loss")] == [1, 2, 3, 4, 5]
    for name in FIGURES:
        assert [event.step for event in board.Images(name)] == [2, 4, 5]  # epochs and ends
        assert board.Images(name)[0].width > 200

    identities, found = set(), list[dict[str, Any]]()
    for file in sorted(seen.glob("wandb/offline-run-*/*.wandb")):
        for record in wandb_records(file):
            if record.run.run_id:
                identities.add(record.run.run_id)
                settings = {
                    item.key: json.loads(item.value_json) for item in record.run.config.update
                }
                assert settings["batch_size"] == 3
            items = {(item.key or item.nested_key[0]): item for item in record.history.item}
            found.append({name: json.loads(item.value_json) for name, item in items.items()})
    assert len(identities) == 1
    curve = [(one["step"], one["loss"]) for one in found if "loss" in one]
    assert curve == list(zip(range(1, 6), losses, strict=True))
    for name in FIGURES:
        assert [one["step"] for one in found if name in one] == [2, 4, 5]

    store = seen / "mlflow"
    client = MlflowClient(tracking_uri=f"sqlite:///{store / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("avsa360")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.status, run.info.run_name) == ("FINISHED", "seen")
    assert run.data.params["clip.views"] == "4"
    history = sorted(
        (one.step, one.value) for one in client.get_metric_history(run.info.run_id, "loss")
    )
    assert history == curve
    for name in FIGURES:
        files = [one.path for one in client.list_artifacts(run.info.run_id, name)]
        assert files == [f"{name}/step-{step:08d}.png" for step in (2, 4, 5)]
        assert (
            store / "artifacts" / run.info.run_id / "artifacts" / files[0]
        ).stat().st_size > 5000


def read_board(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(folder))
    board.Reload()
    return board


def wandb_records(path: Path) -> Iterator[Any]:
    """Records of a run's file: LevelDB's log format, after a header of 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, at, record = path.read_bytes(), 7, b""
    while at + 7 <= len(content):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        _, size, kind = struct.unpack_from("<IHB", content, at)
        record += content[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or its last part
            yield Record.FromString(record)
            record = b""


def test_moments_are_drawn_too(root: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    more = ("--task", "avts", "--report-to", "tensorboard", "--steps", 2)
    assert avtrain(*command(root, run, *more)).exit_code == 0
    board = read_board(run / "tensorboard")
    assert [event.step for event in board.Images(FIGURES[0])] == [2]


def test_a_run_outlives_what_it_reports_to(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken:
        def add(self, values: dict[str, float], step: int) -> None:
            if step == 2:
                raise ConnectionError("the server is gone\nand more")

        def show(self, *_: object) -> None:
            raise AssertionError("nothing is reported after a failure")

        close = show

    monkeypatch.setitem(reports.WRITERS, "mlflow", lambda *_: Broken())
    more = ("--steps", 3, "--report-to", "mlflow,tensorboard")
    done = avtrain(*command(root, tmp_path / "run", *more))
    assert done.exit_code == 0, done.output
    sentence = "check: mlflow gets no more reports, and the run goes on: the server is gone\n"
    assert done.stderr.count("check:") == 1
    assert sentence in done.stderr
    board = read_board(tmp_path / "run" / "tensorboard")
    assert len(board.Scalars("loss")) == 3


@pytest.mark.parametrize(
    ("name", "module"), [("wandb", "wandb"), ("mlflow", "mlflow"), ("tensorboard", "tensorboard")]
)
def test_what_is_not_installed_is_named(
    name: str, module: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for one in [key for key in sys.modules if key.partition(".")[0] == module]:
        monkeypatch.delitem(sys.modules, one)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    monkeypatch.setitem(sys.modules, module, None)
    output = refused(*command(root, tmp_path / "run", "--report-to", name))
    assert f"pip install 'avsa360[{name}]'" in output


def test_a_server_that_does_not_answer_is_named_before_the_first_step(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    output = refused(*command(root, tmp_path / "run", "--report-to", "mlflow"))
    assert "mlflow cannot begin" in output
    assert "127.0.0.1" in output
    # The corrected command is no second run.
    done = avtrain(*command(root, tmp_path / "run", "--steps", 1))
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize(("setting", "value"), [("WANDB_MODE", "bogus"), ("WANDB_API_KEY", "junk")])
def test_what_the_environment_says_wrongly_is_one_sentence(
    setting: str, value: str, root: Path, tmp_path: Path
) -> None:
    """In a process of its own: W&B reads its environment once."""
    words = command(root, tmp_path / "run", "--report-to", "wandb", "--steps", 1)
    done = subprocess.run(
        [sys.executable, "-m", "avtrain", *map(str, words)],
        env={**os.environ, setting: value},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "wandb cannot begin" in done.stderr
    assert "Traceback" not in done.stderr


def test_reports_stay_in_the_folder_of_the_run(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("per%cent", "qu?est"):
        output = refused(*command(root, tmp_path / name, "--report-to", "mlflow", "--steps", 1))
        assert "whose name has ? or %" in output
    run, moved = tmp_path / "run", tmp_path / "moved"
    reported = ("--report-to", "mlflow", "--resume")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    assert avtrain(*command(root, run, "--steps", 1, *reported)).exit_code == 0
    run.rename(moved)
    output = refused(*command(root, moved, "--steps", 2, *reported))
    assert "was made in another place" in output
    assert not run.exists()


def test_other_names_are_refused(root: Path, tmp_path: Path) -> None:
    done = avtrain(*command(root, tmp_path / "run", "--report-to", "wandb,comet"))
    assert done.exit_code == 2
    assert "'comet' is not one of tensorboard, wandb, mlflow" in done.stderr
