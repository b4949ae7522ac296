"""Reading samples by their place: one window of one view costs the bytes of that window."""

from __future__ import annotations

import json
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shards.cache import CachedFolder
from shards.errors import ShardError
from shards.flac import FlacDecoder
from shards.folders import Folder, open_folder
from shards.geometry import ACN_CHANNELS, view_foa_matrix
from shards.manifest import read_index, read_manifest
from shards.schema import LABEL_MAP_SUFFIX, SampleInfo, label_map_suffix
from shards.video import CropDecoder, decode_grey_png

CACHE_BYTES = 200 * 10**9
_CACHED_INDICES = 256
_CACHED_INFOS = 512


class ShardSet:
    """One split of a finished shard set, in a folder or at a URL such as ``s3://bucket/set``;
    samples are numbered in the manifest's order.

    Files are opened when they are first read, so that an instance can be sent to other
    processes. With ``cache``, shards are copied to that folder of this machine, up to
    ``cache_bytes``, when they are first read, and read there. Raises ShardError for a folder that
    holds no finished set or lacks the split.

    >>> train = ShardSet("shards", "train")                       # doctest: +SKIP
    >>> train.frames(0, view=2, start=40, count=8).shape          # doctest: +SKIP
    (8, 112, 112, 3)
    """

    def __init__(
        self,
        root: Path | str | Folder,
        split: str = "train",
        cache: Path | None = None,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        folder = open_folder(root)
        self.split = split
        self.manifest = read_manifest(folder)
        self._origin = folder
        self.root: Folder | CachedFolder = folder
        if cache is not None:
            self.root = CachedFolder(folder, cache, self.manifest.sha256, cache_bytes)
        if split not in self.manifest.splits:
            there = ", ".join(self.manifest.splits) or "none"
            raise ShardError(f"{self.root} has no split {split!r}; its splits: {there}")
        self._entries = self.manifest.splits[split]
        self.keys = [key for entry in self._entries for key in entry.keys]
        self.sources = [source for entry in self._entries for source in entry.sources]
        sizes = [len(entry.keys) for entry in self._entries]
        self.shard_index: NDArray[np.int64] = np.repeat(np.arange(len(sizes)), sizes)
        self._first = np.concatenate([[0], np.cumsum(sizes)])
        self._reset()

    def _reset(self) -> None:
        self._decoders: dict[str, CropDecoder] = {}
        self._flac_decoder = FlacDecoder()
        self._cached_index = lru_cache(_CACHED_INDICES)(self._read_index)
        self._cached_info = lru_cache(_CACHED_INFOS)(self._read_info)

    def __getstate__(self) -> dict[str, Any]:
        lazy = ("_decoders", "_flac_decoder", "_cached_index", "_cached_info")
        return {name: value for name, value in self.__dict__.items() if name not in lazy}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._reset()

    def __len__(self) -> int:
        return len(self.keys)

    def check_files(self) -> None:
        """Raise ShardError where a shard of the split, or its index, is not there or a shard has
        not its size."""
        files: dict[str, int] = {}
        for folder in {entry.file.rpartition("/")[0] for entry in self._entries}:
            files |= {f"{folder}/{name}": size for name, size in self.root.files(folder).items()}
        lacking = [entry.file for entry in self._entries if files.get(entry.file) != entry.bytes]
        lacking += [entry.index for entry in self._entries if entry.index not in files]
        if lacking:
            few = ", ".join(lacking[:3]) + f" and {len(lacking) - 3} more" * (len(lacking) > 3)
            raise ShardError(
                f"{self.root} lacks shards that its manifest names, or has only parts of them: "
                f"{few}; copy the set again, or build it again to add them"
            )

    def shard_file(self, sample: int) -> str:
        """The shard of a sample, as the manifest names it."""
        return self._entries[int(self.shard_index[sample])].file

    def info(self, sample: int) -> SampleInfo:
        """The JSON member of a sample."""
        return self._cached_info(sample)

    def frames(
        self,
        sample: int,
        view: int,
        start: int,
        count: int,
        step: int = 1,
        out: NDArray[np.uint8] | None = None,
    ) -> NDArray[np.uint8]:
        """``count`` RGB frames of a view, from ``start`` on each ``step``-th: uint8 (count, height,
        width, 3), in ``out`` where it is given."""
        video = self.info(sample).video
        end = start + (count - 1) * step + 1
        if start < 0 or min(count, step) < 1 or end > video.frames:
            raise ValueError(f"frames {start} to {end} are not within the clip's {video.frames}")
        gops = video.gops[view]
        first, last = start // video.gop_frames, (end - 1) // video.gop_frames
        data = self._read(sample, f"view{view:02d}.mp4", gops[first], gops[last + 1])
        if video.avcc not in self._decoders:
            self._decoders[video.avcc] = CropDecoder(video.avcc)
        try:
            skip = start - first * video.gop_frames
            return self._decoders[video.avcc].decode(data, skip, count, step, out)
        except ShardError as error:
            raise ShardError(f"{self._name(sample, f'view{view:02d}.mp4')}: {error}") from None

    def foa(
        self, sample: int, start: int, count: int, view: int = 0
    ) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """Sound from sample ``start`` on, as stored, at its original level.

        Returns float32 (4, count) in ACN order and the FOA matrix (4, 4) that took the
        recording's own field to it: ``sound = matrix @ field``. That is the rotation to ``view``
        where the set holds rotated sound, else the identity. Views j's sound is therefore
        ``view_foa_matrix(j) @ matrix.T @ sound``, whichever layout the set has.
        """
        info = self.info(sample)
        if info.audio.channels != ACN_CHANNELS:
            what = ", ".join(info.audio.channels) or "none"
            raise ShardError(
                f"{self._name(sample, 'json')}: its sound is no ambisonics (channels: {what}); "
                "build the set again with --audio foa"
            )
        place = info.views[view]
        rotated = info.audio.layout == "rotated"
        matrix = view_foa_matrix(place.azimuth_deg, place.elevation_deg) if rotated else np.eye(4)
        return self.audio(sample, start, count, view), matrix

    def audio(self, sample: int, start: int, count: int, view: int = 0) -> NDArray[np.float32]:
        """Sound from sample ``start`` on, as stored for a view, at its original level: float32
        (channels, count), with the channels that the sample's record names."""
        info = self.info(sample)
        if start < 0 or count < 1 or start + count > info.audio.samples:
            raise ValueError(f"samples {start}+{count} not within the clip's {info.audio.samples}")
        rotated = info.audio.layout == "rotated"
        suffix = f"view{view:02d}.flac" if rotated else "flac"
        _, size = self._place(sample, suffix)
        try:
            sound = self._flac_decoder.decode(
                partial(self._read, sample, suffix), size, start, count
            )
        except ShardError as error:
            raise ShardError(f"{self._name(sample, suffix)}: {error}") from None
        if len(sound) != len(info.audio.channels):
            raise ShardError(f"{self._name(sample, suffix)} has not the channels its JSON says")
        sound /= np.float32(info.audio.gain)
        return sound

    def label_map(self, sample: int, view: int, number: int) -> NDArray[np.uint8]:
        """Classes (height, width) that a view shows at the clip's ``map_times_s[number]``."""
        suffix = label_map_suffix(view, number)
        try:
            return decode_grey_png(self.member(sample, suffix))
        except ShardError as error:
            raise ShardError(f"{self._name(sample, suffix)}: {error}") from None

    def member(self, sample: int, suffix: str) -> bytes:
        """The whole content of a member such as ``view00.mp4``."""
        return self._read(sample, suffix, 0, self._place(sample, suffix)[1])

    def _place(self, sample: int, suffix: str) -> tuple[int, int]:
        shard = int(self.shard_index[sample])
        place = self._cached_index(shard)[sample - int(self._first[shard])].get(suffix)
        if place is None:
            raise ShardError(f"{self._name(sample, suffix)} is not in the shard's index")
        return place

    def _read(self, sample: int, suffix: str, start: int, end: int) -> bytes:
        offset, _ = self._place(sample, suffix)
        file = self.shard_file(sample)
        try:
            data = self.root.read_range(file, offset + start, offset + end)
        except OSError as error:
            path = self.root.path(file)
            raise ShardError(f"{path} cannot be read: {error.strerror}") from None
        if len(data) != end - start:
            path = self.root.path(file)
            raise ShardError(f"{path} is truncated; copy it again from the set")
        return data

    def _read_index(self, shard: int) -> tuple[_Places, ...]:
        entry = self._entries[shard]
        index = read_index(self._origin, entry.index)
        if index.sha256 != entry.sha256 or len(index.samples) != len(entry.keys):
            path = self.root.path(entry.index)
            raise ShardError(f"{path} is of another set than the manifest")
        return tuple(_Places(sample.members) for sample in index.samples)

    def _read_info(self, sample: int) -> SampleInfo:
        try:
            return SampleInfo.from_json(json.loads(self.member(sample, "json")))
        except (ValueError, KeyError, TypeError) as error:
            name = self._name(sample, "json")
            raise ShardError(f"{name} is no sample record ({error!r})") from None

    def _name(self, sample: int, suffix: str) -> str:
        return f"{self.root.path(self.shard_file(sample))}: {self.keys[sample]}.{suffix}"


class _Places:
    """Where the members of a sample lie. It may have hundreds of label maps, whose places are held
    in little memory."""

    def __init__(self, members: dict[str, tuple[int, int]]) -> None:
        self._few = {s: place for s, place in members.items() if not s.endswith(LABEL_MAP_SUFFIX)}
        maps = sorted(members.keys() - self._few.keys())
        self._map_names = "\n".join(maps)
        self._map_places = np.array([members[name] for name in maps], dtype=np.int64)

    def get(self, suffix: str) -> tuple[int, int] | None:
        """Offset and bytes of a member; None if there is none of this name."""
        if not suffix.endswith(LABEL_MAP_SUFFIX):
            return self._few.get(suffix)
        names = self._map_names.split("\n")
        if suffix not in names:
            return None
        offset, size = self._map_places[names.index(suffix)].tolist()
        return offset, size
