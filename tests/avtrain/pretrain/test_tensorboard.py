"""`--tensorboard` writes curves and figures, and does not change the run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from avtrain.checkpoint import Checkpoint
from avtrain.cli.main import main
from tests.support.tiny_set import make_set


@pytest.mark.parametrize("task", ["avsa", "avts"])
def test_curves_and_figures_and_the_same_run(tmp_path: Path, task: str) -> None:
    root = make_set(tmp_path / "set", {"train": 6}, duration_s=4.0)
    command = ["pretrain", str(root), "--task", task, "--batch-size", "3", "--device", "cpu"]
    for name, more in (("plain", []), ("seen", ["--tensorboard"])):
        for steps in ("2", "5"):
            out = ["--steps", steps, "--out", str(tmp_path / name), "--resume", *more]
            result = CliRunner().invoke(main, [*command, *out])
            assert result.exit_code == 0, result.output
    found = EventAccumulator(str(tmp_path / "seen" / "tensorboard"))
    found.Reload()
    tags = found.Tags()
    assert {"loss", "clip_accuracy", "view_accuracy", "data_wait_s"} <= set(tags["scalars"])
    assert [event.step for event in found.Scalars("loss")] == [1, 2, 3, 4, 5]
    for name in ("views and sounds", "what sounds find"):
        assert [event.step for event in found.Images(name)] == [2, 4, 5]  # epochs and ends
        assert found.Images(name)[0].width > 200
    plain, seen = (
        Checkpoint.load(tmp_path / name / "checkpoint.pt").model for name in ("plain", "seen")
    )
    for name, value in plain.items():
        assert torch.equal(value, seen[name]), name
