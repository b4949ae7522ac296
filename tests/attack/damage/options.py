"""Values of options that are none: absurd numbers, and names that draw on a terminal."""

from __future__ import annotations

import os
from typing import Any

import click
from numpy.random import Generator

from tests.attack.base import BUILD, TRAIN, Base
from tests.attack.runner import group
from tests.attack.sandbox import Sandbox

_NUMBERS = [
    "nan",
    "NaN",
    "inf",
    "-inf",
    "1e999",
    "-1",
    "0",
    "-0",
    "1e308",
    "1e-308",
    "1" + "0" * 30,
]
_NUMBERS += ["0.0000001", str(2**31), str(2**63), str(2**64), "0x10", "", " ", "٣", "9" * 5000]
_TEXTS = ["a\x1b[2J\x1b]0;EVIL\x07", "a\nEVIL-LINE", "a\rEVIL-LINE", "", "x" * 5000, "-", "--help"]
_TEXTS += [
    "a\x9b31m",
    "a\u202e",
    "\udcff",
    "1,2,nan",
    "nan:nan",
    "90:-90",
    "inf:inf",
    "1:2:3",
    "%s",
]
_TEXTS += ["0", "0MB", "-1MB", "nanMB", "1e999GB", "infMB", "1e-30MB"]
_PATHS = [
    "a\x1b[2J",
    "a\nEVIL-LINE/b",
    "a\x9b31m",
    "\udcff",
    "x" * 300,
    "a/" * 2500,
    "pipe",
    "loop",
]
_PATHS += ["folder", "empty", "zero", "set/manifest.json/x", "", "."]


def attack_option(rng: Generator, base: Base, sandbox: Sandbox) -> tuple[str, list[Any]]:
    """What was done, and a command one of whose options has a hostile value."""
    commands = _commands(base)
    words, arguments = commands[int(rng.integers(len(commands)))]
    options = [option for option in _options(words) if not option.is_flag]
    option = options[int(rng.integers(len(options)))]
    name = option.opts[0]
    value = _value(rng, option, sandbox)
    said = f"{' '.join(words)} {name} {value[:60]!r}"
    # Click takes the last value; `--name=value` keeps those that begin with a dash.
    return said, [*words, *arguments, f"{name}={value}" if name[:2] == "--" else value]


def _value(rng: Generator, option: click.Option, sandbox: Sandbox) -> str:
    kind = option.type
    numeric = isinstance(kind, click.types.IntParamType | click.types.FloatParamType)
    if numeric and rng.random() < 0.85:
        return _pick(rng, _NUMBERS)
    if isinstance(kind, click.Path | click.File):
        return _path(rng, sandbox)
    return _pick(rng, _TEXTS)


def _path(rng: Generator, sandbox: Sandbox) -> str:
    name = _pick(rng, _PATHS)
    path = sandbox.inside / "out"
    path.mkdir(exist_ok=True)
    if name == "pipe":
        os.mkfifo(path / name)
    elif name == "loop":
        (path / name).symlink_to(name)
    elif name == "folder":
        (path / name).mkdir()
    elif name == "empty":
        (path / name).write_bytes(b"")
    elif name == "zero":
        (path / name).symlink_to("/dev/zero")
    return name if name in ("", ".") or name.startswith("set/") else f"out/{name}"


def _options(words: list[str]) -> list[click.Option]:
    command: click.Command = group(words[0])
    for word in words[1:]:
        assert isinstance(command, click.Group)
        command = command.commands[word]
    return [option for option in command.params if isinstance(option, click.Option)]


def _commands(base: Base) -> list[tuple[list[str], list[Any]]]:
    """Every command with arguments with which it is quickly done."""
    tiny = base.path("tiny")
    read = ["--checkpoint", "run/checkpoint.pt", "--device", "cpu", "--num-workers", 0]
    train = [tiny, "--out", "run", *TRAIN, "--num-workers", 0, "--steps", 1]
    evaluate = [tiny, *read, "--out", "run", "--no-baseline"]
    return [
        (["avprep", "build-shards"], ["raw", "--out", "out", *BUILD]),
        (["avprep", "build-shards"], ["raw", "--out", "out", *BUILD]),
        (["avprep", "verify"], ["set", "--workers", 1]),
        (["avprep", "preview"], ["set", "--out", "out"]),
        (["avprep", "view"], ["set", "--html", "out.html"]),
        (["avprep", "inspect"], ["raw", "--workers", 1]),
        (["avprep", "coverage"], ["raw", "--against", "raw/list.csv", "--workers", 1]),
        (["avtrain", "pretrain"], train),
        (["avtrain", "pretrain"], train),
        (["avtrain", "pretrain"], train),
        (["avtrain", "embed"], [tiny, *read, "--out", "out"]),
        (["avtrain", "report"], ["run"]),
        (["avtrain", "import-checkpoint"], ["run/checkpoint.pt", "--out", "out"]),
        *((["avtrain", "eval", task], evaluate) for task in _TASKS),
    ]


_TASKS = ("avsa", "avc", "retrieval", "localization", "segmentation", "action")


def _pick(rng: Generator, choices: list[str]) -> str:
    return choices[int(rng.integers(len(choices)))]
