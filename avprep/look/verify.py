"""Verify all shards of a set in parallel."""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path

from tqdm import tqdm

from avprep.look.verify_shard import Fault, verify_shard
from avprep.workers import WorkerPool
from shards.folders import Folder, open_folder
from shards.manifest import read_manifest
from shards.schema import ShardEntry


def verify_set(location: Path | str, quick: bool, workers: int) -> tuple[int, list[str]]:
    """The number of samples, and a sentence per fault. Raises ShardError if there is no set."""
    root = open_folder(location)
    manifest = read_manifest(root)
    entries = [(split, entry) for split, shards in manifest.splits.items() for entry in shards]
    faults: list[str] = []
    with (
        WorkerPool(workers) as pool,
        tqdm(total=len(entries), unit="shard", desc="verify", smoothing=0) as bar,
    ):
        check = partial(_check, root, quick)
        for (_, entry), found in zip(entries, pool.map(check, entries, bar.update), strict=True):
            if isinstance(found, str):
                found = [Fault(entry.file, found)]
            faults += map(str, found)
    keys = Counter(key for _, entry in entries for key in entry.keys)
    faults += [f"{key}: is in the set {count} times" for key, count in keys.items() if count > 1]
    listed = {entry.file for _, entry in entries}
    for split in manifest.splits:
        for name in sorted(root.files(split)):
            if name.endswith(".tar") and f"{split}/{name}" not in listed:
                faults.append(f"{split}/{name}: is not in the manifest")
    return len(keys), faults


def _check(root: Folder, quick: bool, item: tuple[str, ShardEntry]) -> list[Fault]:
    split, entry = item
    return verify_shard(root, split, entry, quick)
