"""The local cache of shards: same samples, bounded size, several processes."""

from __future__ import annotations

import multiprocessing
import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from shards.cache import IDLE_S, CachedFolder
from shards.files import TEMPORARY_SUFFIX
from shards.folders import LocalFolder, open_folder
from shards.manifest import shard_names, write_manifest
from shards.reader import ShardSet
from shards.schema import Manifest
from tests.support.tiny_set import make_set


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set of five shards with one clip each."""
    folder = tmp_path_factory.mktemp("set")
    entries = []
    for number in range(5):
        part = make_set(folder / f"part{number}", {"train": 1}, seed=number)
        (entry,) = ShardSet(part)._entries
        tar, index = shard_names("train", number)
        (folder / tar).parent.mkdir(exist_ok=True)
        (part / entry.file).rename(folder / tar)
        (part / entry.index).rename(folder / index)
        entries.append(replace(entry, file=tar, index=index, keys=(f"clip{number}",)))
    write_manifest(open_folder(folder), Manifest({}, {}, {"train": tuple(entries)}, plan=""))
    return folder


def cached_shards(cache: Path) -> list[Path]:
    return sorted(cache.glob("*/*/*.tar"))


def read_all(root: Path, cache: Path | None, limit: int = 10**9) -> list[np.ndarray]:
    shards = ShardSet(root, cache=cache, cache_bytes=limit)
    return [shards.frames(sample, 1, 3, 4) for sample in (*range(len(shards)), 0)]


def test_cached_samples_equal_the_originals_and_are_read_locally(
    root: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    direct = read_all(root, None)
    for _ in range(2):
        np.testing.assert_array_equal(read_all(root, cache), direct)
    assert [path.name for path in cached_shards(cache)] == [f"train-{i:06d}.tar" for i in range(5)]
    assert all(
        path.read_bytes() == (root / "train" / path.name).read_bytes()
        for path in cached_shards(cache)
    )

    class Unreadable(LocalFolder):
        def read_range(self, name: str, start: int, end: int) -> bytes:
            raise OSError(5, "not from here", name)

    version = ShardSet(root).manifest.sha256
    folder = CachedFolder(Unreadable(root), cache, version, 10**9)
    size = cached_shards(cache)[0].stat().st_size
    assert len(folder.read_range("train/train-000000.tar", 0, size)) == size


def test_a_set_larger_than_the_cache_is_not_copied_again_and_again(
    root: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    sizes = [path.stat().st_size for path in sorted((root / "train").glob("*.tar"))]
    limit = sizes[0] + sizes[1] + sizes[2] + min(sizes[3:]) // 2
    np.testing.assert_array_equal(read_all(root, cache, limit), read_all(root, None))
    copied = [(path.name, path.stat().st_ino) for path in cached_shards(cache)]
    assert [name[-5] for name, _ in copied] == ["0", "1", "2"]
    for path in cached_shards(cache):  # an epoch may take longer than IDLE_S
        os.utime(path, (time.time() - IDLE_S - 1,) * 2)
    ShardSet(root, cache=cache, cache_bytes=limit).frames(3, 0, 0, 1)
    np.testing.assert_array_equal(read_all(root, cache, limit), read_all(root, None))
    assert [(path.name, path.stat().st_ino) for path in cached_shards(cache)] == copied


def test_idle_shards_of_other_sets_are_evicted(root: Path, tmp_path: Path) -> None:
    cache, other = tmp_path / "cache", make_set(tmp_path / "other", {"train": 2})
    ShardSet(other, cache=cache).frames(0, 0, 0, 1)
    (other_shard,) = cached_shards(cache)
    size, tars = other_shard.stat().st_size, sorted((root / "train").glob("*.tar"))
    limit = size + sum(tar.stat().st_size for tar in tars) // 2
    read_all(root, cache, limit)  # the other set is still in use
    assert other_shard in cached_shards(cache)
    os.utime(other_shard, (time.time() - IDLE_S - 1,) * 2)
    before = len(cached_shards(cache))
    read_all(root, cache, limit)
    assert other_shard not in cached_shards(cache)
    assert len(cached_shards(cache)) >= before
    assert sum(path.stat().st_size for path in cached_shards(cache)) <= limit


def test_partial_copies_of_killed_processes_are_deleted(root: Path, tmp_path: Path) -> None:
    """Also those of another set."""
    cache = tmp_path / "cache"
    (cache / "other/train").mkdir(parents=True)
    partial = cache / f"other/train/.train-000000.tar.0123abcd{TEMPORARY_SUFFIX}"
    partial.write_bytes(bytes(1000))
    (cache / "other/train/.train-000000.tar.lock").write_bytes(bytes(2000))
    read_all(root, cache)
    assert not partial.exists()
    assert len(cached_shards(cache)) == 5


def test_a_shard_that_does_not_fit_is_read_from_the_origin(root: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    np.testing.assert_array_equal(read_all(root, cache, 1000), read_all(root, None))
    assert cached_shards(cache) == []


def test_incomplete_copies_are_not_kept(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shards that end before their listed size, as if the origin were being written."""
    cache, files = tmp_path / "cache", LocalFolder.files
    expected = read_all(root, None)
    monkeypatch.setattr(
        LocalFolder, "files", lambda *a: {name: size + 1 for name, size in files(*a).items()}
    )
    np.testing.assert_array_equal(read_all(root, cache), expected)
    assert cached_shards(cache) == []


def test_a_rebuilt_set_is_copied_again(root: Path, tmp_path: Path) -> None:
    cache, other = tmp_path / "cache", tmp_path / "set"
    for seed in (0, 1):
        make_set(other, {"train": 2}, seed=seed)
        np.testing.assert_array_equal(read_all(other, cache), read_all(other, None))
    assert len(cached_shards(cache)) == 2


def _read_random_samples(root: Path, cache: Path, limit: int, seed: int) -> None:
    shards, direct = ShardSet(root, cache=cache, cache_bytes=limit), ShardSet(root)
    for sample in np.random.default_rng(seed).integers(len(shards), size=60).tolist():
        np.testing.assert_array_equal(
            shards.frames(sample, 0, 0, 1), direct.frames(sample, 0, 0, 1)
        )


def test_processes_share_the_cache(root: Path, tmp_path: Path) -> None:
    """Four processes with room for two of five shards: none ever reads another's partial copy."""
    limit = 2 * max(path.stat().st_size for path in (root / "train").glob("*.tar"))
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=_read_random_samples, args=(root, tmp_path / "cache", limit, seed))
        for seed in range(4)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    assert cached_shards(tmp_path / "cache")
    assert sum(path.stat().st_size for path in cached_shards(tmp_path / "cache")) <= limit
