"""A set from elsewhere may hold any build state, lock or link: nothing outside it is touched."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from avprep.cli.main import main
from shards.folders import open_folder
from shards.manifest import read_manifest, write_manifest
from tests.support.media import FAST, build, contents, write_dot_recording

PRECIOUS = b"precious"


def merge(out: Path) -> Result:
    return CliRunner().invoke(main, ["merge", str(out)])


@pytest.fixture
def out(built: Path, tmp_path: Path) -> Path:
    shutil.copytree(built, tmp_path / "set")
    return tmp_path / "set"


@pytest.fixture
def precious(tmp_path: Path) -> Path:
    """A folder of the user with files that are named as those of a shard."""
    folder = tmp_path / "mine"
    folder.mkdir()
    for name in ("train-000000.tar", "train-000000.index.json", ".x.1234abcd.partial"):
        (folder / name).write_bytes(PRECIOUS)
    return folder


def unfinished(out: Path, **changes: Any) -> dict[str, Any]:
    manifest = json.loads((out / "manifest.json").read_bytes())
    state = {
        "plan": "0" * 64,
        "options": manifest["options"],
        "versions": manifest["versions"],
        "shards": [],
        "failures": [],
        "unlisted": 0,
        **changes,
    }
    (out / ".build.json").write_text(json.dumps(state))
    return state


def names_outside(precious: Path) -> list[list[str]]:
    tar, index = precious / "train-000000.tar", precious / "train-000000.index.json"
    return [
        [".", str(tar), str(index)],
        ["train", "../mine/train-000000.tar", "../mine/train-000000.index.json"],
        ["../mine", "../mine/../mine-000000.tar", "../mine/../mine-000000.index.json"],
        ["train", "train/../../mine/train-000000.tar", "train/train-000000.index.json"],
        ["train", "train/train-000000.tar", str(index)],
        ["train", "manifest.json", "failures.jsonl"],
        [str(precious), "train/train-000009.tar", "train/train-000009.index.json"],
    ]


@pytest.mark.parametrize("number", range(7))
def test_names_in_a_state_stay_inside_the_set(
    number: int, out: Path, precious: Path, raw: Path, tmp_path: Path
) -> None:
    unfinished(out, shards=[names_outside(precious)[number]])
    before = contents(tmp_path)
    for result in (build(raw, "--out", out, *FAST, "--append"), merge(out)):
        assert result.exit_code == 2, result.output
        assert f"{out / '.build.json'} is damaged" in result.output
        assert "Traceback" not in result.output
    assert contents(tmp_path) == before


def test_a_split_that_is_a_link_is_neither_written_nor_deleted(
    out: Path, precious: Path, tmp_path: Path
) -> None:
    """The manifest lists another split; the state names files behind the link."""
    (out / "test").symlink_to(precious)
    for name in ("tar", "index.json"):
        (precious / f"test-000000.{name}").write_bytes(PRECIOUS)
    unfinished(out, shards=[["test", "test/test-000000.tar", "test/test-000000.index.json"]])
    write_dot_recording(tmp_path / "more", "e", seconds=2.0)
    (tmp_path / "more" / "test.txt").write_text("e\n")
    before = contents(precious)
    for has_state in (True, False):
        result = build(tmp_path / "more", "--out", out, *FAST, "--append")
        assert result.exit_code == 2
        assert f"{out / 'test'} cannot be written: it is a symbolic link" in result.output
        assert merge(out).exit_code == (2 if has_state else 0)
        assert contents(precious) == before
        (out / ".build.json").unlink(missing_ok=True)


def test_a_state_deletes_no_shard_that_holds_samples(out: Path) -> None:
    """The state claims that the set is finished; its manifest does not list the last shard."""
    folder = open_folder(out)
    manifest = read_manifest(folder)
    *others, last = manifest.splits["train"]
    write_manifest(folder, replace(manifest, splits={"train": tuple(others)}))
    unfinished(out, plan=manifest.plan, version=1, shards=[["train", last.file, last.index]])
    result = merge(out)
    assert result.exit_code == 0, result.output
    assert (out / last.file).exists()


@pytest.mark.parametrize("name", [".build.lock", ".build.lock.end"])
@pytest.mark.parametrize("kind", ["link", "dangling", "file", "pipe"])
def test_a_lock_of_another_kind_is_left_alone(
    name: str, kind: str, raw: Path, out: Path, precious: Path, tmp_path: Path
) -> None:
    lock, target = out / name, precious / "train-000000.tar"
    unfinished(out, plan="1")
    (out / "manifest.json").unlink()  # so that the build has an end
    if kind == "file":
        lock.write_bytes(PRECIOUS)
    elif kind == "pipe":
        os.mkfifo(lock)
    else:
        lock.symlink_to(target if kind == "link" else precious / "new")
    before = contents(precious)
    result = merge(out)
    if name == ".build.lock":
        assert result.exit_code == 2
        assert f"{lock} is not the empty file that builds use as a lock" in result.output
    assert os.path.lexists(lock)
    assert contents(precious) == before
    assert kind != "file" or lock.read_bytes() == PRECIOUS


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("[]", "expected object, got array"),
        ('{"plan": 1}', "its field plan: expected str, got int"),
        ('{"options": ' + '{"a":' * 100_000, "its field options"),
        ('{"options": {"a": {"b": {"c": {"d": {"e": {"f": 1}}}}}}}', "its field options"),
        ('{"plan": NaN}', "it is not JSON"),
    ],
)
def test_a_damaged_state_is_one_sentence(content: str, sentence: str, raw: Path, out: Path) -> None:
    (out / ".build.json").write_text(content)
    for result in (build(raw, "--out", out, *FAST, "--append"), merge(out)):
        assert result.exit_code == 2
        assert f"{out / '.build.json'} is damaged" in result.output
        assert sentence in result.output
        assert len(result.output) < 1000


def test_lines_of_what_is_left_out_are_typed(out: Path) -> None:
    for name in ("failures.jsonl", "dropped.jsonl"):
        for line in ('{"source": 1}', "[]", "x", '{"key": {"a": 1}}'):
            (out / name).write_text(line + "\n")
            result = merge(out)
            assert result.exit_code == 2
            assert f"line 1 of {out / name} is not what builds write there" in result.output
        (out / name).unlink()


def test_lines_without_content_do_not_fill_the_memory(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("avprep.build.finish._MOST_LINES", 3)
    (out / "dropped.jsonl").write_text('{"key":""}\n' * 4)
    result = merge(out)
    assert result.exit_code == 2
    assert "dropped.jsonl has more than 3 lines" in result.output


def test_a_file_of_the_user_that_is_named_as_ours_is_kept(tmp_path: Path) -> None:
    write_dot_recording(tmp_path / "raw", "a")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "failures.jsonl").write_bytes(PRECIOUS)
    result = build(tmp_path / "raw", "--out", tmp_path / "set", *FAST)
    assert result.exit_code == 2
    assert "is not what builds write there" in result.output
    assert (tmp_path / "set" / "failures.jsonl").read_bytes() == PRECIOUS


@pytest.mark.parametrize("name", [".build.json", "failures.jsonl", "dropped.jsonl"])
@pytest.mark.parametrize("kind", ["pipe", "endless", "folder"])
def test_files_of_a_build_that_are_no_files_are_refused(name: str, kind: str, out: Path) -> None:
    if kind == "pipe":
        os.mkfifo(out / name)
    elif kind == "endless":
        (out / name).symlink_to("/dev/zero")
    else:
        (out / name).mkdir()
    result = merge(out)
    assert result.exit_code == 2
    assert f"{out / name} cannot be read: it is not a regular file" in result.output
