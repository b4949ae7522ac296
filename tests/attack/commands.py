"""The commands that meet what was damaged."""

from __future__ import annotations

from typing import Any

from numpy.random import Generator

from tests.attack.base import BUILD, TRAIN, Base


def pick(rng: Generator, choices: list[Any]) -> Any:
    return choices[int(rng.integers(len(choices)))]


def set_command(rng: Generator, root: str, base: Base) -> tuple[list[Any], tuple[str, ...]]:
    """A command on a set, and what it may change."""
    train = ["avtrain", "pretrain", root, "--out", "run", *TRAIN, "--steps", 1]
    raw = base.path("raw")
    commands: list[tuple[list[Any], tuple[str, ...]]] = [
        (["avprep", "info", root], ()),
        (["avprep", "info", root, "--json"], ()),
        (["avprep", "verify", root, "--workers", 1], ()),
        (["avprep", "verify", root, "--workers", 1], ()),
        (["avprep", "verify", root, "--quick", "--workers", 1], ()),
        (["avprep", "preview", root, "--out", "out"], ("out",)),
        (["avprep", "view", root, "--html", "out.html"], ("out.html",)),
        ([*train, "--num-workers", 0], ("run",)),
        ([*train, "--num-workers", 0], ("run",)),
        ([*train, "--num-workers", 2], ("run",)),
        (evaluation(rng, root, "untrained"), ("out",)),
        (evaluation(rng, root, "untrained"), ("out",)),
        (embedding(root, "untrained"), ("out",)),
        (["avprep", "build-shards", raw, "--out", root, *BUILD, "--append"], (root,)),
        (["avprep", "merge", root], (root,)),
    ]
    return commands[int(rng.integers(len(commands)))]


def evaluation(rng: Generator, root: object, checkpoint: str) -> list[Any]:
    """One of the evaluations."""
    task = pick(rng, ["avsa", "avc", "retrieval", "localization", "segmentation", "action"])
    command = ["avtrain", "eval", task, root, "--checkpoint", checkpoint, "--out", "out"]
    command += ["--device", "cpu", "--num-workers", 0, "--no-baseline"]
    if task != "action":
        command += ["--views", 2]
    if task in ("segmentation", "action"):
        quick = ["--probe", "--windows", 1] if task == "action" else ["--epochs", 1, "--maps", 1]
        return [*command, *quick]
    return [*command, "--windows", 1]


def embedding(root: object, checkpoint: str) -> list[Any]:
    command = ["avtrain", "embed", root, "--checkpoint", checkpoint, "--out", "out"]
    return [*command, "--device", "cpu", "--num-workers", 0]
