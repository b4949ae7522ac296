"""The local cache of shards: same samples, bounded size, several processes."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import multiprocessing
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from shards.cache import IDLE_S, CachedFolder
from shards.errors import ShardError
from shards.files import TEMPORARY_SUFFIX
from shards.folders import LocalFolder, open_folder
from shards.manifest import read_manifest, shard_names, write_manifest
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
        (entry,) = ShardSet(part).entries
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

    manifest = ShardSet(root).manifest
    folder = CachedFolder(Unreadable(root), cache, manifest, 10**9)
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
    other = "0" * 20
    (cache / other / "train").mkdir(parents=True)
    partial = cache / f"{other}/train/.train-000000.tar.0123abcd{TEMPORARY_SUFFIX}"
    partial.write_bytes(bytes(1000))
    (cache / other / "train/.train-000000.tar.lock").write_bytes(bytes(2000))
    read_all(root, cache)
    assert not partial.exists()
    assert len(cached_shards(cache)) == 5


def test_a_shard_that_does_not_fit_is_read_from_the_origin(root: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    np.testing.assert_array_equal(read_all(root, cache, 1000), read_all(root, None))
    assert cached_shards(cache) == []


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOSPC])
def test_a_file_system_without_locks_or_space_is_no_cache(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def flock(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    expected = read_all(root, None)
    monkeypatch.setattr(fcntl, "flock", flock)
    np.testing.assert_array_equal(read_all(root, tmp_path / "cache"), expected)
    assert cached_shards(tmp_path / "cache") == []


def test_copies_that_arrive_damaged_are_not_kept(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the first shard, what lies behind the samples is missing; in the others a bit differs."""
    cache, read = tmp_path / "cache", LocalFolder.read_range
    expected = read_all(root, None)

    def damaged(folder: LocalFolder, name: str, start: int, end: int) -> bytes:
        content = read(folder, name, start, end)
        if start == 0 and "000000" in name:
            return content[:-512]
        return content[:-1] + b"\1" if start == 0 else content

    monkeypatch.setattr(LocalFolder, "read_range", damaged)
    np.testing.assert_array_equal(read_all(root, cache), expected)
    assert cached_shards(cache) == []


def test_a_copy_of_another_size_is_fetched_again(root: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    expected = read_all(root, cache)
    first, second, third = cached_shards(cache)[:3]
    os.truncate(first, first.stat().st_size - 512)
    second.write_bytes(second.read_bytes() + bytes(512))
    third.write_bytes(b"")
    np.testing.assert_array_equal(read_all(root, cache), expected)
    for path in (first, second, third):
        assert path.read_bytes() == (root / "train" / path.name).read_bytes()


@pytest.mark.parametrize("member", ["json", "view01.mp4", "view00.flac"])
def test_a_copy_in_which_something_is_damaged_is_fetched_again(
    root: Path, tmp_path: Path, member: str
) -> None:
    cache = tmp_path / "cache"
    expected = read_all(root, cache)
    path = cached_shards(cache)[0]
    offset, size = ShardSet(root).member_range(0, member)
    content = bytearray(path.read_bytes())
    content[offset : offset + size] = bytes(size)
    path.write_bytes(content)
    shards = ShardSet(root, cache=cache)
    np.testing.assert_array_equal(shards.frames(0, 1, 3, 4), expected[0])
    np.testing.assert_array_equal(shards.foa(0, 0, 9000)[0], ShardSet(root).foa(0, 0, 9000)[0])
    assert path.read_bytes() == (root / "train" / path.name).read_bytes()


def test_a_shard_that_is_damaged_at_its_origin_is_copied_once(root: Path, tmp_path: Path) -> None:
    """Its hash is compared once, however many of its clips are damaged."""
    own, cache = tmp_path / "own", tmp_path / "cache"
    shutil.copytree(root, own)
    tar = own / "train/train-000000.tar"
    content = bytearray(tar.read_bytes())
    offset, size = ShardSet(root).member_range(0, "json")
    content[offset : offset + size] = bytes(size)
    tar.write_bytes(content)
    manifest = read_manifest(open_folder(own))
    sha256 = hashlib.sha256(content).hexdigest()
    index = own / "train/train-000000.index.json"
    index.write_text(index.read_text().replace(manifest.splits["train"][0].sha256, sha256))
    index_sha256 = hashlib.sha256(index.read_bytes()).hexdigest()
    first, *others = manifest.splits["train"]
    first = replace(first, sha256=sha256, index_sha256=index_sha256)
    write_manifest(open_folder(own), replace(manifest, splits={"train": (first, *others)}))
    shards = ShardSet(own, cache=cache)
    reads = []
    for _ in range(3):
        with pytest.raises(ShardError, match="is not a sample record"):
            shards.info(0)
        reads.append(shards.root.io_counts()[1])
    assert reads == [3, 4, 5], "the first time, it is copied and compared too"
    assert cached_shards(cache)[0].read_bytes() == content


def planted(cache: Path, root: Path, target: Path, kind: str) -> None:
    """Put a link to ``target`` into the cache of a set that has been read."""
    ShardSet(root, cache=cache).frames(0, 0, 0, 1)
    tar = cached_shards(cache)[0]
    lock = tar.with_name(f".{tar.name}.lock")
    path = {"set": tar.parent.parent, "split": tar.parent, "tar": tar, "lock": lock}[kind]
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    path.symlink_to(target)


@pytest.mark.parametrize("kind", ["set", "split", "tar", "lock"])
@pytest.mark.parametrize("is_there", [True, False])
def test_nothing_is_written_or_deleted_through_a_link_in_the_cache(
    root: Path, tmp_path: Path, kind: str, is_there: bool
) -> None:
    cache, outside = tmp_path / "cache", tmp_path / "outside"
    if is_there:
        (outside / "train").mkdir(parents=True)
        for name in ("train/train-000000.tar", "train-000000.tar", ".train-000000.tar.lock"):
            (outside / name).write_bytes(b"of the user")
            os.utime(outside / name, (0, 0))
    is_folder = kind in ("set", "split")
    target = (
        outside
        if is_folder
        else outside / {"tar": "train-000000.tar"}.get(kind, ".train-000000.tar.lock")
    )
    planted(cache, root, target, kind)
    before = {path: path.stat() for path in [outside, *outside.rglob("*")] if path.exists()}
    shards = ShardSet(root, cache=cache)
    if kind == "tar":  # the link is replaced
        np.testing.assert_array_equal(shards.frames(0, 1, 3, 4), read_all(root, None)[0])
        assert not cached_shards(cache)[0].is_symlink()
    else:
        with pytest.raises(ShardError, match="symbolic link"):
            shards.frames(0, 1, 3, 4)
    after = {path: path.stat() for path in [outside, *outside.rglob("*")] if path.exists()}
    assert {path: status.st_mtime_ns for path, status in after.items()} == {
        path: status.st_mtime_ns for path, status in before.items()
    }
    assert all(after[path].st_size == before[path].st_size for path in after)


def test_only_its_own_files_are_deleted_from_a_full_cache(root: Path, tmp_path: Path) -> None:
    """Neither those that links lead to, nor others in a folder that is used for other things."""
    cache, outside = tmp_path / "cache", tmp_path / "outside"
    (outside / "train").mkdir(parents=True)
    kept = [outside / "train/train-000000.tar", cache / "photos/2024/all.tar"]
    cache.mkdir()
    (cache / ("a" * 20)).symlink_to(outside)
    (cache / ("b" * 20)).mkdir()
    (cache / ("b" * 20) / "train").symlink_to(outside / "train")
    for path in kept:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(10**6))
        os.utime(path, (0, 0))
    os.mkfifo(outside / "train/.train-000000.tar.lock")
    size = (root / "train/train-000000.tar").stat().st_size
    read_all(root, cache, size + 1000)
    assert all(path.stat().st_size == 10**6 for path in kept)
    assert len(cached_shards(cache)) == 1 + 3, "one shard, and those above"


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
