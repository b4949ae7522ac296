"""Names of files, keys and messages reach the terminal without their control characters."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from avprep.cli.main import main
from shards.errors import printable, show, show_json
from tests.support.media import FAST
from tests.support.tiny_set import make_set
from tests.terminal import HOSTILE, MARK, UNDECODABLE, assert_harmless, shown


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain – 日本語\u3000é", "plain – 日本語\u3000é"),
        ("a\x1b[2J\r\n", "a\\x1b[2J\\r\\n"),
        ("\x7f\x9b\u202e\udcff", "\\x7f\\x9b\\u202e\\udcff"),
        ("C:\\new", "C:\\new"),
    ],
)
def test_what_cannot_be_printed_becomes_an_escape(text: str, expected: str) -> None:
    assert printable(text) == expected


def test_json_keeps_its_content(capsys: pytest.CaptureFixture[str]) -> None:
    value = {UNDECODABLE: [f"日本\U000e0001{HOSTILE}", {"a": None}]}
    show_json(value)
    text = capsys.readouterr().out
    assert_harmless(text.encode(), ["json"])
    assert json.loads(text) == value


def test_a_terminal_without_unicode_is_no_error() -> None:
    code = "from shards.errors import show; show('é\\x1b')"
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    told = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    assert told.stdout == b"\\xe9\\x1b\n"


def test_a_traceback_shows_no_escape_codes() -> None:
    code = "from shards.errors import guard_terminal; guard_terminal()\n"
    code += "raise RuntimeError('\\x1b[2J')"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True)
    assert b"RuntimeError: \\x1b[2J" in told.stderr
    assert b"\x1b" not in told.stderr


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files that are no media, in folders with hostile names."""
    folder = tmp_path_factory.mktemp("raw")
    (folder / UNDECODABLE).mkdir()
    for name in (f"{UNDECODABLE}.mp4", f"{UNDECODABLE}/b{HOSTILE}.mkv", f"{HOSTILE}.xyz"):
        (folder / name).write_bytes(b"no media" * 99)
    return folder


@pytest.fixture(scope="module")
def hostile_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = make_set(tmp_path_factory.mktemp("set") / HOSTILE, {"train": 1, "test": 1})
    path = root / "manifest.json"
    content: dict[str, Any] = json.loads(path.read_bytes())
    content["options"] = {HOSTILE: {HOSTILE: HOSTILE}}
    content["versions"] = {HOSTILE: HOSTILE}
    for split in content["splits"].values():
        for shard in split["shards"]:
            shard["sources"] = [HOSTILE for _ in shard["sources"]]
            shard["sha256"] = "0" * 64
    path.write_text(json.dumps(content))
    (root / "train" / f"{HOSTILE}.tar").touch()
    return root


def test_recordings(raw: Path, tmp_path: Path) -> None:
    shown(main, "inspect", raw)
    shown(main, "inspect", "--json", raw)
    shown(main, "build-shards", raw, "--out", tmp_path / HOSTILE, "--workers", 1, *FAST)
    listed = tmp_path / f"list{HOSTILE}.txt"
    listed.write_text(f"a{HOSTILE}\nb{HOSTILE}\n")
    shown(main, "coverage", raw, "--against", listed, "--json", "--workers", 1)
    shown(main, "coverage", raw, "--against", tmp_path / f"no{UNDECODABLE}", "--workers", 1)
    views = tmp_path / f"views{HOSTILE}.json"
    views.write_text(json.dumps({HOSTILE: HOSTILE}))
    for options in (["--viewpoints", views], ["--splits", views], ["--segments", views]):
        shown(main, "build-shards", raw, "--out", tmp_path / "set", *options)


def test_sets(hostile_set: Path, tmp_path: Path) -> None:
    shown(main, "info", hostile_set)
    shown(main, "info", "--json", hostile_set)
    shown(main, "verify", hostile_set, "--workers", 1)
    shown(main, "preview", hostile_set, "--out", tmp_path / f"{UNDECODABLE}.png")
    shown(main, "preview", hostile_set, HOSTILE)
    shown(main, "merge", hostile_set)


@pytest.mark.parametrize("content", [f'"{MARK}\x1b{MARK}', f'{{"format": "{HOSTILE}"}}', "[]"])
def test_damaged_manifests(content: str, tmp_path: Path) -> None:
    root = tmp_path / HOSTILE
    root.mkdir()
    (root / "manifest.json").write_text(content)
    (root / ".build.json").write_text(content)
    for command in ("info", "verify", "preview", "merge"):
        shown(main, command, root)


def test_what_was_typed() -> None:
    shown(main, HOSTILE)
    shown(main, f"--{HOSTILE}")
    shown(main, "info", f"--{HOSTILE}")
    shown(main, "info", "a", HOSTILE)
    for option in ("hfov", "shard-size", "fps", "layout", "views", "size", "seed"):
        shown(main, "build-shards", "raw", "--out", "x", f"--{option}", HOSTILE)


def test_lines_are_shown_above_progress_bars(capsys: pytest.CaptureFixture[str]) -> None:
    from tqdm import tqdm

    with tqdm(total=2, mininterval=0) as bar:
        bar.update()
        show("first\nsecond", err=True)
    lines = capsys.readouterr().err.replace("\r", "\n").split("\n")
    assert "first\\nsecond" in lines
