"""Names of files, metrics and messages reach the terminal without their control characters."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import torch

from avtrain.cli.main import main
from tests.support.made_results import result
from tests.support.tiny_set import make_set
from tests.terminal import HOSTILE, UNDECODABLE, shown


def test_results(tmp_path: Path) -> None:
    run = tmp_path / f"run{UNDECODABLE}"
    made = result("AVC", 0.5)
    network = replace(made.network, checkpoint=f"{HOSTILE}/checkpoint.pt")
    metrics = {f"a|{HOSTILE}": made.metrics["accuracy"]}
    path = replace(made, metrics=metrics, network=network).write(run)
    out = tmp_path / HOSTILE
    told = shown(main, "report", run, "--out", out)
    assert told.exit_code == 0
    table = [line for line in (out / "report.md").read_text().splitlines() if line[:1] == "|"]
    assert len(table) == 3
    assert len({line.replace("\\|", "").count("|") for line in table}) == 1
    path.write_text(json.dumps({"metrics": {HOSTILE: HOSTILE}}))
    shown(main, "report", run)
    shown(main, "report", tmp_path / f"no{HOSTILE}")


def test_checkpoints(tmp_path: Path) -> None:
    root = make_set(tmp_path / "set", {"train": 4, "test": 4})
    path = tmp_path / f"checkpoint{UNDECODABLE}.pt"
    torch.save({"version": 3, HOSTILE: HOSTILE}, path)
    out = tmp_path / f"out{HOSTILE}"
    for given in (path, tmp_path / f"no{HOSTILE}"):
        shown(main, "embed", root, "--checkpoint", given, "--out", tmp_path / "a.npz")
        shown(main, "eval", "avc", root, "--checkpoint", given, "--out", out)
        shown(main, "pretrain", root, "--init-from", given, "--out", out)
        shown(main, "import-checkpoint", given, "--out", tmp_path / "b.pt")


def test_sets(tmp_path: Path) -> None:
    root = make_set(tmp_path / f"set{HOSTILE}", {"train": 4, "test": 4})
    for split in (HOSTILE, "validation"):
        shown(main, "pretrain", root, "--split", split, "--out", tmp_path / "run")
    out = tmp_path / f"a{HOSTILE}.npz"
    shown(main, "embed", root, "--checkpoint", "untrained", "--out", out, "--device", "cpu")


def test_what_was_typed(tmp_path: Path) -> None:
    shown(main, HOSTILE)
    shown(main, f"--{HOSTILE}")
    shown(main, "pretrain", f"--{HOSTILE}")
    shown(main, "pretrain", HOSTILE, HOSTILE)
    shown(main, "eval", HOSTILE)
    for option in ("--temperature", "--lr", "--seed", "--task"):
        shown(main, "pretrain", tmp_path, option, HOSTILE)
    shown(
        *(main, "eval", "action", tmp_path, "--checkpoint", "untrained"),
        *("--out", tmp_path / "out", "--folds", HOSTILE),
    )
