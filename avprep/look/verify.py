"""Verify all shards of a set in parallel, its manifest, and its lists of what was left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tqdm import tqdm

from avprep.build.finish import DROPPED_NAME, FAILURES_NAME, read_dropped, read_failures
from avprep.build.state import STATE_NAME
from avprep.errors import UserError
from avprep.look.verify_sample import Fault
from avprep.look.verify_shard import Verified, verify_shard
from avprep.workers import WorkerPool
from shards.files import dump_json
from shards.folders import Folder, open_folder
from shards.manifest import read_manifest
from shards.schema import Manifest, ShardEntry


@dataclass(frozen=True)
class Verification:
    """What is wrong with a set, in sentences, and what of it could not be checked (empty: all of it
    could)."""

    samples: int
    faults: tuple[str, ...]
    unchecked: str


def verify_set(location: Path | str, quick: bool, workers: int) -> Verification:
    """Verify a set. Raises ShardError if there is none, or if its manifest is damaged."""
    root = open_folder(location)
    manifest = read_manifest(root)
    entries = [(split, entry) for split, shards in manifest.splits.items() for entry in shards]
    sizes = {
        f"{split}/{name}": size
        for split in manifest.splits
        for name, size in root.files(split).items()
    }
    faults: list[str] = []
    dropped: Counter[bytes] = Counter()
    with (
        WorkerPool(workers) as pool,
        tqdm(total=len(entries), unit="shard", desc="verify", smoothing=0) as bar,
    ):
        check = partial(_check, root, sizes, quick)
        for (_, entry), found in zip(entries, pool.map(check, entries, bar.update), strict=True):
            if isinstance(found, str):
                found = Verified((Fault(entry.file, found),))
            faults += map(str, found.faults)
            dropped.update(found.dropped)
    faults += _compare_with_folder(root, sizes, manifest)
    faults += _compare_with_lists(root, dropped)
    samples = sum(len(entry.keys) for _, entry in entries)
    return Verification(samples, tuple(faults), _unchecked(manifest))


def _check(
    root: Folder, sizes: dict[str, int], quick: bool, item: tuple[str, ShardEntry]
) -> Verified:
    split, entry = item
    return verify_shard(root, split, entry, quick, sizes.get(entry.file))


def _compare_with_folder(root: Folder, sizes: dict[str, int], manifest: Manifest) -> Iterator[str]:
    """Files that the manifest does not name."""
    entries = [entry for shards in manifest.splits.values() for entry in shards]
    named = {name for entry in entries for name in (entry.file, entry.index)}
    for name in sorted(sizes):
        if name.endswith((".tar", ".index.json")) and name not in named:
            yield f"{name}: is not in the manifest"
    if STATE_NAME in root.files():
        yield f"{STATE_NAME}: a build is adding to the set, or was stopped; run it again to finish"


def _compare_with_lists(root: Folder, dropped: Counter[bytes]) -> Iterator[str]:
    """What is wrong with the lists of clips that were left out. A copy of a set may lack them."""
    names = root.files()
    try:
        if FAILURES_NAME in names:
            read_failures(root)
        if DROPPED_NAME in names:
            lacking = dropped - Counter(map(dump_json, read_dropped(root)))
            if lacking:
                yield f"{DROPPED_NAME}: lacks {lacking.total()} clips that the indices name"
    except (UserError, OSError) as error:
        yield f"{getattr(error, 'strerror', None) or error}"


def _unchecked(manifest: Manifest) -> str:
    if manifest.minor_version < 1:
        return (
            "the manifest is of an older version of the format, without hashes of itself and of "
            "the indices: changes there are found only where the shards contradict them"
        )
    entries = [entry for shards in manifest.splits.values() for entry in shards]
    old = sum(entry.index_sha256 is None for entry in entries)
    if old == 0:
        return ""
    return (
        f"of {old} of {len(entries)} shards, which an older version of the format began with, the "
        "manifest holds no hash of the index: changes there are found only where the shards "
        "contradict them"
    )
