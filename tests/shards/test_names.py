"""Names in a set from elsewhere: only those of shards, only in the set's folder, only files."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from shards.errors import ShardError
from shards.folders import LocalFolder, open_folder
from shards.manifest import read_indices
from shards.reader import ShardSet
from shards.remote import RemoteFolder
from tests.support.tiny_set import make_set, renew_checksum


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_set(tmp_path / "set", {"train": 2})


def edit(root: Path, **changes: Any) -> None:
    """Change members of the first shard's entry in a manifest."""
    path = root / "manifest.json"
    value = json.loads(path.read_bytes())
    value["splits"]["train"]["shards"][0] |= changes
    path.write_text(json.dumps(value))
    renew_checksum(path)


@pytest.mark.parametrize(
    ("file", "index"),
    [
        ("/etc/passwd", "/etc/passwd"),
        ("train/../../other.tar", "train/../../other.index.json"),
        ("train/train-000000.tar", "train/train-000001.index.json"),
        ("train/train-000000.tar", "/dev/zero"),
        ("test/test-000000.tar", "test/test-000000.index.json"),
        ("train/train-0.tar", "train/train-0.index.json"),
        ("train/train-00000٣.tar", "train/train-00000٣.index.json"),
        ("train/train-000000.tar\n", "train/train-000000.index.json"),
        ("../train/../train-000000.tar", "../train/../train-000000.index.json"),
    ],
)
def test_other_names_of_shards_are_refused(root: Path, file: str, index: str) -> None:
    edit(root, file=file, index=index)
    with pytest.raises(ShardError, match=r"not the names of a shard|has characters other"):
        ShardSet(root)


@pytest.mark.parametrize("split", ["..", "", "a/b", "/", "a\n", "a\x1b[2J", "é"])
def test_other_names_of_splits_are_refused(root: Path, split: str) -> None:
    path = root / "manifest.json"
    value = json.loads(path.read_bytes())
    value["splits"] = {split: value["splits"]["train"]}
    (shard,) = value["splits"][split]["shards"]
    shard["file"] = f"{split}/{split}-000000.tar"
    shard["index"] = f"{split}/{split}-000000.index.json"
    path.write_text(json.dumps(value))
    renew_checksum(path)
    with pytest.raises(ShardError, match=r"has characters other than|not the names of a shard"):
        ShardSet(root)


@pytest.mark.parametrize("key", ["", "a/b", "..", "a.b", "a\n", "\x1b[2J", "é", "k" * 101])
def test_other_keys_are_refused(root: Path, key: str) -> None:
    edit(root, keys=["train000", key])
    with pytest.raises(ShardError, match=r"have characters other than A-Z|length <= 100"):
        ShardSet(root)


def test_nothing_is_in_a_set_twice(root: Path) -> None:
    edit(root, keys=["train000", "train000"])
    with pytest.raises(ShardError, match="it names a clip twice"):
        ShardSet(root)
    path = root / "manifest.json"
    value = json.loads(path.read_bytes())
    train = value["splits"]["train"]
    train["shards"] *= 2
    for totals in (train, value["totals"]):
        totals |= {"samples": 4, "bytes": 2 * train["shards"][0]["bytes"], "duration_s": 8.0}
    path.write_text(json.dumps(value))
    renew_checksum(path)
    with pytest.raises(ShardError, match="it names a shard twice"):
        ShardSet(root)


def test_only_regular_files_are_opened(root: Path) -> None:
    """A pipe would be waited for, and a device never ends."""
    edit(root, index_sha256=None)
    index, tar = root / "train/train-000000.index.json", root / "train/train-000000.tar"
    for path in (index, tar):
        kept = path.rename(path.with_suffix(".kept"))
        os.mkfifo(path)
        with pytest.raises(ShardError, match="cannot be read: it is not a regular file"):
            ShardSet(root).info(0)
        path.unlink()
        path.symlink_to("/dev/zero")
        with pytest.raises(ShardError, match="cannot be read: it is not a regular file"):
            ShardSet(root).info(0)
        path.unlink()
        path.symlink_to(kept)  # shards on another disk
        assert ShardSet(root).info(0).key == "train000"
    (root / "manifest.json").unlink()
    os.mkfifo(root / "manifest.json")
    with pytest.raises(ShardError, match="cannot be read: it is not a regular file"):
        ShardSet(root)


def test_what_is_read_whole_has_a_limit(root: Path) -> None:
    """The large file takes no room: it has a hole."""
    name = "train/train-000000.index.json"
    os.truncate(root / name, 10**12)
    with pytest.raises(ShardError, match="it is larger than 64 MB"):
        read_indices(open_folder(root), [name])
    with pytest.raises(OSError, match="larger than"):
        LocalFolder(root).read("manifest.json", 100)
    for folder in (RemoteFolder(f"file://{root}"), RemoteFolder(f"local://{root}")):
        assert folder.read("manifest.json") == (root / "manifest.json").read_bytes()
        with pytest.raises(OSError, match="larger than"):
            folder.read("manifest.json", 100)
        with pytest.raises(OSError, match="larger than"):
            folder.read_all(["manifest.json"], 100)


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x", ".."])
def test_remote_folders_are_not_left(root: Path, name: str) -> None:
    folder = RemoteFolder(f"local://{root}/train")
    for access in (
        lambda: folder.read(name),
        lambda: folder.read_all([name]),
        lambda: folder.read_range(name, 0, 1),
        lambda: folder.write(name, b""),
        lambda: folder.delete(name),
        lambda: folder.files(name),
    ):
        with pytest.raises(OSError, match="lies outside"):
            access()
