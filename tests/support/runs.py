"""Runs of `avtrain` in the tests, and what they leave."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from click.testing import CliRunner, Result

from avtrain.checkpoint import Checkpoint
from avtrain.cli.main import main

SMALL = ["--batch-size", "4", "--views", "2", "--device", "cpu", "--features", "logmel+intensity"]
SMALL += ["--transformer", "--dropout", "0.1"]  # it draws from torch's generator, to resume too


def avtrain(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def steps_of(run: Path) -> list[dict[str, object]]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    times = {"clips_per_s", "data_wait_s"}
    return [{k: v for k, v in line.items() if k not in times} for line in lines]


def assert_same_state(a: Path, b: Path) -> None:
    one, other = Checkpoint.load(a / "checkpoint.pt"), Checkpoint.load(b / "checkpoint.pt")
    assert (one.epoch, one.step, one.total_steps) == (other.epoch, other.step, other.total_steps)
    for name, value in one.model.items():
        assert torch.equal(value, other.model[name]), name
    for number, moments in one.optimiser["state"].items():
        for name, value in moments.items():
            assert torch.equal(value, other.optimiser["state"][number][name]), (number, name)
    assert torch.equal(one.rng["cpu"], other.rng["cpu"])


def refused(*arguments: object) -> str:
    result = avtrain(*arguments)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    return result.output
