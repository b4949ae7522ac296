"""Manifests: their checksum, the hashes of indices, and sets of older and newer minor versions."""

from __future__ import annotations

import hashlib
import json
import random
from dataclasses import replace
from pathlib import Path

import pytest

from shards.errors import ShardError
from shards.folders import open_folder
from shards.manifest import read_manifest, write_manifest
from shards.reader import ShardSet
from tests.support.tiny_set import as_minor_version_0, make_set, renew_checksum


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_set(tmp_path / "set", {"train": 2, "test": 1})


def test_the_checksum_is_that_of_all_bytes_before_it(root: Path) -> None:
    """As docs/shard-format.md says how to compute it."""
    content = (root / "manifest.json").read_bytes()
    before, _, checksum = content.rpartition(b',\n "checksum": "')
    assert checksum == hashlib.sha256(before).hexdigest().encode() + b'"\n}\n'
    assert json.loads(content)["minor_version"] == 1
    for entries in read_manifest(open_folder(root)).splits.values():
        for entry in entries:
            index = (root / entry.index).read_bytes()
            assert entry.index_sha256 == hashlib.sha256(index).hexdigest()


def test_every_flipped_bit_of_a_manifest_is_found(root: Path) -> None:
    path = root / "manifest.json"
    content = path.read_bytes()
    rng = random.Random(1)
    bits = [rng.randrange(8 * len(content)) for _ in range(400)]
    bits += [
        8 * content.index(b"minor_version") + bit for bit in range(8 * 20)
    ]  # as if it had none
    for bit in bits:
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        with pytest.raises(ShardError, match=r"manifest\.json"):
            read_manifest(open_folder(root))


def test_an_edited_manifest_is_refused(root: Path) -> None:
    path = root / "manifest.json"
    path.write_text(path.read_text().replace("train-place0", "train-place9"))
    with pytest.raises(ShardError, match="damaged or edited since it was written; copy it again"):
        ShardSet(root)
    renew_checksum(path)
    assert ShardSet(root).sources[0] == "train-place9"


def test_totals_that_are_not_those_of_the_shards_are_refused(root: Path) -> None:
    path = root / "manifest.json"
    for old, new in (('"samples": 3', '"samples": 4'), ('"duration_s": 6.0', '"duration_s": 6.1')):
        content = path.read_text()
        path.write_text(content.replace(old, new))
        renew_checksum(path)
        with pytest.raises(ShardError, match="totals of the set are not those of its shards"):
            ShardSet(root)
        path.write_text(content)


def test_sets_of_other_minor_versions_are_read(root: Path) -> None:
    path = root / "manifest.json"
    value = json.loads(path.read_bytes())
    path.write_text(json.dumps({**value, "minor_version": 7, "colour": "blue"}))
    renew_checksum(path)
    assert ShardSet(root).frames(0, 0, 0, 1).any()
    as_minor_version_0(path)
    shards = ShardSet(root)
    assert shards.manifest.minor_version == 0
    assert [entry.index_sha256 for entry in shards.manifest.splits["train"]] == [None]
    assert shards.frames(0, 0, 0, 1).any()


def test_shards_of_an_old_set_have_no_hash_of_their_index_later(root: Path) -> None:
    """As after ``--append``: nothing vouches for what the index was when it was written."""
    new = read_manifest(open_folder(root)).splits["test"]
    as_minor_version_0(root / "manifest.json")
    manifest = read_manifest(open_folder(root))
    write_manifest(open_folder(root), replace(manifest, splits={**manifest.splits, "test": new}))
    again = read_manifest(open_folder(root))
    assert again.minor_version == 1
    assert [entry.index_sha256 for entry in again.splits["train"]] == [None]
    assert again.splits["test"] == new
    assert b"null" not in (root / "manifest.json").read_bytes()


def test_an_index_that_has_changed_is_refused(root: Path) -> None:
    name = "train/train-000000.index.json"
    index = json.loads((root / name).read_bytes())
    members = index["samples"][0]["members"]
    members["view00.mp4"], members["view01.mp4"] = members["view01.mp4"], members["view00.mp4"]
    (root / name).write_text(json.dumps(index))
    with pytest.raises(ShardError, match=r"index\.json has changed since it was written; copy it"):
        ShardSet(root).info(0)
