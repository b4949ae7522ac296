"""Errors that end a run or refuse to start it, and their messages."""

from __future__ import annotations

import fcntl
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from avtrain.checkpoint import Checkpoint
from avtrain.cli.common import UserErrorExit, one_sentence
from avtrain.config import PRESETS, tiny
from avtrain.pretrain.trainer import Trainer
from avtrain.runtime.device import MOST_WORKERS, default_workers
from shards.errors import ShardError
from tests.support.runs import SMALL, avtrain, refused, steps_of
from tests.support.tiny_set import make_set


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_set(tmp_path_factory.mktemp("set"), {"train": 6, "test": 3}, clips_per_source=2)


def test_mistakes_are_one_sentence(root: Path, tmp_path: Path) -> None:
    out = ["--out", tmp_path / "run", "--device", "cpu"]
    assert "no finished shard set" in refused("pretrain", tmp_path, *out)
    assert "no split 'valid'" in refused("pretrain", root, "--split", "valid", *out)
    for wrong, message in (
        (["--task", "avts", "--views", 2], "avts uses one view"),
        (["--task", "avts", "--moments", 1], "at least 2"),
        (["--views", 1, "--negatives", "hard"], "use at least 2"),
        (["--no-transformer", "--positions", "direction"], "add --transformer"),
        (["--audio", "mono", "--features", "logmel+intensity"], "intensity needs ambisonics"),
        (["--audio", "omni", "--features", "logmel+intensity"], "intensity needs ambisonics"),
        (["--audio", "omni"], "use --task avc or avts"),
        (["--task", "avc", "--shuffle-views"], "it needs --task avsa"),
        (["--views", 1, "--negatives", "easy", "--shuffle-views"], "at least 2 views"),
        (["--task", "avc", "--curriculum"], "a curriculum begins with avc"),
        (["--curriculum-steps", 3], "add --curriculum"),
        (["--task", "avts", "--moments", 3], "4 s are needed"),
        (["--sampling", "clip", "--clips-per-source", 2], "leave out --clips-per-source"),
    ):
        assert message in refused("pretrain", root, *wrong, *out)
    assert "fewer than the 6" in refused("pretrain", root, "--views", 6, *out)
    assert "no multiple of the 16" in refused("pretrain", root, "--preset", "paper", *out)
    lone = make_set(tmp_path / "lone", {"train": 1}, clips_per_source=3)
    assert "3 clips of 1 sources" in refused("pretrain", lone, *out)
    short = make_set(tmp_path / "short", {"train": 2}, duration_s=0.5)
    assert "longer --clip-duration" in refused("pretrain", short, *out)
    torn = tmp_path / "torn.pt"
    torn.write_bytes(b"PK\x03\x04 no checkpoint")
    assert "is no checkpoint" in refused("pretrain", root, "--init-from", torn, *out)
    assert not (tmp_path / "run").exists()
    if not torch.cuda.is_available():
        output = refused("pretrain", root, "--out", tmp_path / "run", "--device", "cuda")
        assert "no CUDA device" in output


def test_a_run_is_neither_overwritten_nor_continued_with_other_settings(
    root: Path, tmp_path: Path
) -> None:
    run = ["--out", tmp_path / "run", *SMALL]
    assert avtrain("pretrain", root, "--steps", 1, *run).exit_code == 0
    assert "holds a run already" in refused("pretrain", root, *run)
    output = refused("pretrain", root, "--resume", "--lr", 0.5, "--seed", 1, *run)
    assert "learning_rate was 0.001 and is 0.5; seed was 0 and is 1" in output
    other = make_set(tmp_path / "other", {"train": 6}, seed=1)
    assert "data was" in refused("pretrain", other, "--resume", *run)


def test_settings_newer_than_a_run_had_their_defaults(root: Path, tmp_path: Path) -> None:
    run = ["pretrain", root, "--out", tmp_path / "run", *SMALL]
    assert avtrain(*run, "--steps", 1).exit_code == 0
    path = tmp_path / "run/checkpoint.pt"
    saved = Checkpoint.load(path)
    model = {name: value for name, value in saved.config["model"].items() if name != "norm_first"}
    replace(saved, config=saved.config | {"model": model}).save(path)
    output = refused(*run, "--steps", 2, "--resume", "--norm-first")
    assert "model.norm_first was False and is True" in output
    assert avtrain(*run, "--steps", 2, "--resume").exit_code == 0


def test_a_damaged_shard_is_named_by_a_worker(root: Path, tmp_path: Path) -> None:
    damaged = make_set(tmp_path / "set", {"train": 4})
    tar = damaged / "train" / "train-000000.tar"
    tar.write_bytes(tar.read_bytes()[: tar.stat().st_size // 2])
    out = ["--out", tmp_path / "run", "--num-workers", 1, *SMALL]
    output = refused("pretrain", damaged, *out)
    assert "train-000000.tar" in output
    assert len(output.splitlines()) == 1


def test_a_loss_that_is_not_finite_names_the_clips(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PRESETS, "tiny", lambda task: replace(tiny(task), learning_rate=1e30))
    output = refused("pretrain", root, "--out", tmp_path / "run", *SMALL)
    assert "the loss of step" in output
    assert "train0" in output


def test_too_little_memory_is_explained(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def backward(*arguments: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(Trainer, "backward_and_step", backward)
    output = refused("pretrain", root, "--out", tmp_path / "run", *SMALL)
    assert "lower --batch-size, raise --pieces" in output


def test_weights_that_are_not_finite_are_not_saved(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backward_and_step, steps = Trainer.backward_and_step, []

    def diverge(trainer: Trainer, *arguments: Any) -> None:
        backward_and_step(trainer, *arguments)
        steps.append(1)
        if len(steps) == 2:
            next(trainer.model.parameters()).data.fill_(torch.nan)

    monkeypatch.setattr(Trainer, "backward_and_step", diverge)
    out = tmp_path / "run"
    output = refused("pretrain", root, "--out", out, "--checkpoint-steps", 1, *SMALL)
    assert "after step 2 weights are not finite" in output
    assert Checkpoint.load(out / "checkpoint.pt").total_steps == 1


def test_a_run_with_an_incomplete_log_resumes(root: Path, tmp_path: Path) -> None:
    """After a failure of the machine, steps are repeated from the checkpoint on, and junk costs
    its line."""
    out = tmp_path / "run"
    run = ("pretrain", root, "--out", out, *SMALL)
    assert avtrain(*run, "--steps", 2).exit_code == 0
    (out / "faults.jsonl").write_text('{"step": 2}\n{"step": 3}\n')
    first, second = (out / "log.jsonl").read_bytes().splitlines(keepends=True)
    (out / "log.jsonl").write_bytes(first + b"\xff\0[\n" + second + b'{"step": 3, "los\0\0')
    result = avtrain(*run, "--steps", 4, "--resume")
    assert result.exit_code == 0, result.output
    assert result.output.count("log.jsonl: 1 damaged line left out") == 1
    assert [line["step"] for line in steps_of(out)] == [1, 2, 3, 4]
    assert (out / "faults.jsonl").read_text() == '{"step": 2}\n'


def test_a_run_in_progress_is_left_alone(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert avtrain("pretrain", root, "--out", out, "--steps", 1, *SMALL).exit_code == 0
    before = (out / "log.jsonl").read_bytes()
    with (out / "log.jsonl").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        output = refused("pretrain", root, "--out", out, "--resume", *SMALL)
    assert "is being written by another run" in output
    assert (out / "log.jsonl").read_bytes() == before


def test_a_workers_error_is_printed_whole() -> None:
    message = "a.tar cannot be read: ClientError: An error occurred (403): Forbidden"
    text = "Original Traceback (most recent call last):\n  x\n"
    text += f"shards.errors.ShardError: {message}\n"
    with pytest.raises(UserErrorExit) as shown, one_sentence():
        raise ShardError(f"Caught ShardError in DataLoader worker process 0.\n{text}")
    assert shown.value.message == message


def test_ranks_of_a_machine_share_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(32)))
    gpu = torch.device("cuda")
    assert default_workers(gpu) == MOST_WORKERS
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert default_workers(gpu) == 7
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "32")
    assert default_workers(gpu) == 1
    assert default_workers(torch.device("cpu")) == 0


@pytest.mark.parametrize("name", ["log.jsonl", "faults.jsonl"])
@pytest.mark.parametrize("kind", ["link", "dangling", "fifo"])
def test_logs_are_written_to_files_only(name: str, kind: str, root: Path, tmp_path: Path) -> None:
    """In the folder of a stranger's run, a log may be a link to any file of the user."""
    out, outside = tmp_path / "run", tmp_path / "outside"
    assert avtrain("pretrain", root, "--out", out, "--steps", 1, *SMALL).exit_code == 0
    (out / name).unlink(missing_ok=True)
    if kind == "fifo":
        os.mkfifo(out / name)
    else:
        (out / name).symlink_to(outside)
    if kind == "link":
        outside.write_text("mine\n")
    done = avtrain("pretrain", root, "--out", out, "--steps", 2, "--resume", *SMALL)
    assert isinstance(done.exception, SystemExit | None), done.exception
    assert name == "faults.jsonl" or "it is not a regular file" in done.output
    assert outside.exists() == (kind == "link")
    assert kind != "link" or outside.read_text() == "mine\n"


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("avc", ["--curriculum"]),
        *((name, ["--report-to", name]) for name in ("tensorboard", "wandb", "mlflow")),
    ],
)
def test_no_folder_of_a_run_is_written_through_a_link(
    name: str, more: list[str], root: Path, tmp_path: Path
) -> None:
    out, outside = tmp_path / "run", tmp_path / "outside"
    out.mkdir()
    outside.mkdir()
    (out / name).symlink_to(outside)
    output = refused("pretrain", root, "--out", out, "--steps", 1, "--resume", *more, *SMALL)
    assert f"{name} is a link" in output
    assert list(outside.iterdir()) == []


def test_kept_checkpoints_are_neither_written_nor_deleted_through_a_link(
    root: Path, tmp_path: Path
) -> None:
    out, outside = tmp_path / "run", tmp_path / "outside"
    out.mkdir()
    outside.mkdir()
    (outside / "step-00000001.pt").write_text("mine")
    (out / "checkpoints").symlink_to(outside)
    output = refused("pretrain", root, "--out", out, "--steps", 1, "--keep-last", 2, *SMALL)
    assert "checkpoints is a link" in output
    assert [path.read_text() for path in outside.iterdir()] == ["mine"]


def test_a_run_from_before_the_gain_is_resumed_with_a_gain_of_1(root: Path, tmp_path: Path) -> None:
    begin = ("pretrain", root, "--out", tmp_path, *SMALL, "--num-workers", 0)
    first = avtrain(*begin, "--intensity-gain", 1, "--steps", 1)
    assert first.exit_code == 0, first.output
    assert "; add --intensity-gain 1" in refused(*begin, "--resume", "--steps", 2)
    again = avtrain(*begin, "--resume", "--steps", 2, "--intensity-gain", 1)
    assert again.exit_code == 0, again.output
