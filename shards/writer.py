"""Write one shard: a plain tar whose bytes depend only on its samples."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

from shards.files import dump_json
from shards.folders import Folder
from shards.schema import KEY_PATTERN, SampleIndex, SampleInfo, ShardIndex


class _HashingFile:
    """The part of the file interface that tarfile needs for writing, with a running SHA-256."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = hashlib.sha256()
        self.bytes = 0

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        self.bytes += len(data)
        return self._file.write(data)

    def tell(self) -> int:
        return self.bytes


class ShardWriter:
    """Adds samples to a shard; made by `open_shard`."""

    def __init__(self, file: BinaryIO, tar_name: str) -> None:
        self._file = _HashingFile(file)
        self._tar = tarfile.open(fileobj=self._file, mode="w", format=tarfile.USTAR_FORMAT)  # type: ignore[call-overload]  # noqa: SIM115
        self._tar_name = tar_name
        self._samples: list[SampleIndex] = []
        self._failures: list[dict[str, str]] = []
        self._dropped: list[dict[str, Any]] = []
        self._duration_s = 0.0

    def add(self, info: SampleInfo, members: dict[str, bytes]) -> None:
        """Add a sample; ``members`` maps suffixes (``view00.mp4``) to contents.

        A sample's members are contiguous and sorted; times, owners and modes are constant.
        Raises ValueError for a key with other characters or one that is already in this shard.
        """
        if not KEY_PATTERN.fullmatch(info.key):
            raise ValueError(f"key {info.key!r} has characters other than A-Z a-z 0-9 _ -")
        if any(sample.key == info.key for sample in self._samples):
            raise ValueError(f"key {info.key!r} is in this shard already")
        contents = {**members, "json": dump_json(info.to_json())}
        ranges: dict[str, tuple[int, int]] = {}
        for suffix in sorted(contents):
            header = tarfile.TarInfo(f"{info.key}.{suffix}")
            header.size = len(contents[suffix])
            header.mode = 0o644
            ranges[suffix] = (self._file.bytes + tarfile.BLOCKSIZE, header.size)
            self._tar.addfile(header, io.BytesIO(contents[suffix]))
        index = SampleIndex(info.key, info.source, ranges, info.label, info.folds)
        self._samples.append(index)
        self._duration_s += info.duration_s

    def add_failure(self, failure: dict[str, str]) -> None:
        """Record a clip that could not be made into a sample."""
        self._failures.append(failure)

    def add_dropped(self, dropped: dict[str, Any]) -> None:
        """Record a clip that was left out on purpose."""
        self._dropped.append(dropped)

    def finish(self) -> ShardIndex:
        """Close the tar and return its index."""
        self._tar.close()
        return ShardIndex(
            file=self._tar_name,
            bytes=self._file.bytes,
            sha256=self._file.digest.hexdigest(),
            duration_s=round(self._duration_s, 3),
            samples=tuple(self._samples),
            failures=tuple(self._failures),
            dropped=tuple(self._dropped),
        )


@contextmanager
def open_shard(root: Folder, tar_name: str, index_name: str) -> Iterator[ShardWriter]:
    """Write ``tar_name`` in ``root``, then ``index_name``, which marks it as finished.

    Each file appears only when it is complete; an exception inside the block leaves neither.
    """
    with root.create(tar_name) as file:
        writer = ShardWriter(file, tar_name)
        yield writer
        index = writer.finish()
    root.write(index_name, dump_json(index.to_json()))
