"""Random access to samples: a window of one view reads only the bytes of that window."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from shards.cache import CachedFolder
from shards.errors import ShardError
from shards.files import parse_json, parse_value
from shards.flac import FlacDecoder
from shards.folders import Folder, open_folder
from shards.geometry import ACN_CHANNELS, view_foa_matrix
from shards.manifest import MemberRanges, read_index, read_manifest
from shards.schema import PANORAMA, SAMPLE_BYTES, SampleInfo, VideoInfo, label_map_suffix
from shards.video import CropDecoder, access_units, decode_grey_png

CACHE_BYTES = 200 * 10**9
_CACHED_INDICES = 256
_CACHED_INFOS = 512
_DECODERS = 16
_SHOWN_SPLITS = 10
_MOST_READ_BYTES = 512 << 20

_Result = TypeVar("_Result")


class ShardSet:
    """One split of a finished shard set, in a folder or at a URL, e.g. ``s3://bucket/set``.

    Samples are numbered in the manifest's order. Files are opened when they are first read, so
    that an instance can be sent to other processes. With ``cache``, shards are copied to that
    local folder when they are first read, up to ``cache_bytes`` in all, and read there. Raises
    ShardError if the folder holds no finished set or lacks the split.

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
            self.root = CachedFolder(folder, cache, self.manifest, cache_bytes)
        if split not in self.manifest.splits:
            available = ", ".join(list(self.manifest.splits)[:_SHOWN_SPLITS]) or "none"
            raise ShardError(f"{self.root} has no split {split!r}; its splits: {available}")
        self.entries = self.manifest.splits[split]
        self.keys = [key for entry in self.entries for key in entry.keys]
        self.sources = [source for entry in self.entries for source in entry.sources]
        sizes = [len(entry.keys) for entry in self.entries]
        self.shard_index: NDArray[np.int64] = np.repeat(np.arange(len(sizes)), sizes)
        self._first = np.concatenate([[0], np.cumsum(sizes)])
        self._reset()

    def _reset(self) -> None:
        self._decoders: dict[tuple[str, int, int], CropDecoder] = {}
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

    @property
    def where(self) -> str:
        return f"split {self.split!r} of {self.root}"

    @property
    def sha256(self) -> str:
        return self.manifest.sha256

    def check_files(self) -> None:
        """Raise ShardError if a shard of the split or its index is missing, or a shard's size
        differs from the manifest."""
        files: dict[str, int] = {}
        for folder in {entry.file.rpartition("/")[0] for entry in self.entries}:
            files |= {f"{folder}/{name}": size for name, size in self.root.files(folder).items()}
        lacking = [entry.file for entry in self.entries if files.get(entry.file) != entry.bytes]
        lacking += [entry.index for entry in self.entries if entry.index not in files]
        if lacking:
            few = ", ".join(lacking[:3]) + f" and {len(lacking) - 3} more" * (len(lacking) > 3)
            raise ShardError(
                f"{self.root} lacks shards that its manifest names, or has only parts of them: "
                f"{few}; copy the set again, or build it again to add them"
            )

    def shard_file(self, sample: int) -> str:
        """The shard that holds a sample; a path relative to the set's folder."""
        return self.entries[int(self.shard_index[sample])].file

    def info(self, sample: int) -> SampleInfo:
        """A sample's record, from its JSON member."""
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
        """``count`` RGB frames of a view, starting at frame ``start`` with stride ``step``.

        Returns uint8 (count, height, width, 3), written to ``out`` if given.
        """
        read = partial(self._frames, sample, view, start, count, step, out)
        return self._read_again_if_damaged(sample, read)

    def panorama(
        self,
        sample: int,
        start: int,
        count: int,
        step: int = 1,
        out: NDArray[np.uint8] | None = None,
    ) -> NDArray[np.uint8]:
        """Like `frames`, of the whole sphere, equirectangular: azimuth 0 is in the middle.

        Raises ShardError where the set was built without ``--panorama``.
        """
        read = partial(self._frames, sample, None, start, count, step, out)
        return self._read_again_if_damaged(sample, read)

    def _frames(
        self,
        sample: int,
        view: int | None,
        start: int,
        count: int,
        step: int,
        out: NDArray[np.uint8] | None,
    ) -> NDArray[np.uint8]:
        info = self.info(sample)
        number, member, video = 0, PANORAMA, info.panorama
        if view is not None:
            number, member, video = view, f"view{view:02d}.mp4", info.video
        if video is None:
            raise self._fault(sample, member, "there is none; build the set with --panorama")
        end = start + (count - 1) * step + 1
        if start < 0 or min(count, step) < 1:
            raise ValueError(f"frames {start} to {end} are no window")
        if end > video.frames or not 0 <= number < len(video.gops):
            problem = f"frames {start} to {end} are not within the clip's {video.frames}"
            raise self._fault(sample, member, f"{problem}, of {len(info.views)} views")
        gops = video.gops[number]
        first, last = start // video.gop_frames, (end - 1) // video.gop_frames
        most_bytes = (last + 1 - first) * video.gop_frames * _most_frame_bytes(video)
        if gops[last + 1] - gops[first] > most_bytes:
            raise self._fault(sample, member, "its frames are larger than frames can be")
        data = self._read(sample, member, gops[first], gops[last + 1])
        try:
            decoder = self._decoder(video)
            return decoder.decode(data, start - first * video.gop_frames, count, step, out)
        except ShardError as error:
            raise self._fault(sample, member, str(error)) from None

    def _decoder(self, video: VideoInfo) -> CropDecoder:
        key = video.avcc, video.height, video.width
        if key not in self._decoders:
            if len(self._decoders) >= _DECODERS:
                self._decoders.pop(next(iter(self._decoders)))
            self._decoders[key] = CropDecoder(*key)
        return self._decoders[key]

    def foa(
        self, sample: int, start: int, count: int, view: int = 0
    ) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """Ambisonic audio from sample ``start``, as stored for a view, at its original level.

        Returns float32 (4, count) in ACN order and the FOA matrix (4, 4) that maps the recording's
        own field to it: ``audio = matrix @ field``. The matrix is the rotation to ``view`` if the
        set's layout is ``rotated``, else the identity. The audio of view j is therefore
        ``view_foa_matrix(j) @ matrix.T @ audio`` in either layout.
        """
        info = self.info(sample)
        if info.audio.channels != ACN_CHANNELS:
            channels = ", ".join(info.audio.channels) or "none"
            problem = f"its audio is not ambisonic (channels: {channels})"
            raise self._fault(sample, "json", f"{problem}; build the set again with --audio foa")
        if not 0 <= view < len(info.views):
            raise self._fault(sample, "json", f"it has no view {view}")
        direction = info.views[view]
        matrix = np.eye(4)
        if info.audio.layout == "rotated":
            matrix = view_foa_matrix(direction.azimuth_deg, direction.elevation_deg)
        return self.audio(sample, start, count, view), matrix

    def audio(self, sample: int, start: int, count: int, view: int = 0) -> NDArray[np.float32]:
        """Audio from sample ``start``, as stored for a view, at its original level.

        Returns float32 (channels, count); the sample's record names the channels.
        """
        read = partial(self._audio, sample, start, count, view)
        return self._read_again_if_damaged(sample, read)

    def _audio(self, sample: int, start: int, count: int, view: int) -> NDArray[np.float32]:
        info = self.info(sample)
        rotated = info.audio.layout == "rotated"
        suffix = f"view{view:02d}.flac" if rotated else "flac"
        if start < 0 or count < 1:
            raise ValueError(f"samples {start}+{count} are no window")
        if start + count > info.audio.samples:
            problem = f"samples {start}+{count} are not within the clip's {info.audio.samples}"
            raise self._fault(sample, suffix, problem)
        _, size = self.member_range(sample, suffix)
        read = partial(self._read, sample, suffix)
        try:
            audio = self._flac_decoder.decode(read, size, start, count, info.audio)
        except ShardError as error:
            raise self._fault(sample, suffix, str(error)) from None
        audio /= np.float32(info.audio.gain)
        return audio

    def label_map(self, sample: int, view: int, number: int) -> NDArray[np.uint8]:
        """Class numbers (height, width) in a view at the clip's ``map_times_s[number]``."""
        read = partial(self._label_map, sample, label_map_suffix(view, number))
        return self._read_again_if_damaged(sample, read)

    def _label_map(self, sample: int, suffix: str) -> NDArray[np.uint8]:
        video, content = self.info(sample).video, self.member(sample, suffix)
        try:
            label_map = decode_grey_png(content)
        except ShardError as error:
            raise self._fault(sample, suffix, str(error)) from None
        if label_map.shape != (video.height, video.width):
            raise self._fault(sample, suffix, "it has another size than the crops")
        return label_map

    def member(self, sample: int, suffix: str) -> bytes:
        """The whole content of a member, e.g. ``view00.mp4``."""
        return self._read(sample, suffix, 0, self.member_range(sample, suffix)[1])

    def member_range(self, sample: int, suffix: str) -> tuple[int, int]:
        """(offset, size) in bytes of a member in its shard."""
        shard = int(self.shard_index[sample])
        found = self._cached_index(shard)[sample - int(self._first[shard])].get(suffix)
        if found is None:
            raise ShardError(f"{self._name(sample, suffix)} is not in the shard's index")
        return found

    def _read(self, sample: int, suffix: str, start: int, end: int) -> bytes:
        offset, size = self.member_range(sample, suffix)
        if not 0 <= start <= end <= size or end - start > _MOST_READ_BYTES:
            raise self._fault(sample, suffix, "its records name bytes that it does not have")
        file = self.shard_file(sample)
        try:
            data = self.root.read_range(file, offset + start, offset + end)
        except OSError as error:
            path = error.filename or self.root.path(file)
            raise ShardError(f"{path} cannot be read: {error.strerror}") from None
        if len(data) != end - start:
            path = self.root.path(file)
            raise ShardError(f"{path} is truncated; copy it again from the set")
        return data

    def _read_index(self, shard: int) -> tuple[MemberRanges, ...]:
        entry = self.entries[shard]
        index = read_index(self._origin, entry.index)
        if index.sha256 != entry.sha256 or len(index.samples) != len(entry.keys):
            path = self.root.path(entry.index)
            raise ShardError(f"{path} belongs to another set than the manifest")
        if entry.index_sha256 not in (None, index.index_sha256):
            path = self.root.path(entry.index)
            raise ShardError(f"{path} has changed since it was written; copy it again from the set")
        return tuple(MemberRanges(sample.members) for sample in index.samples)

    def _read_again_if_damaged(self, sample: int, read: Callable[[], _Result]) -> _Result:
        """What ``read`` returns; if it cannot and the copy in the cache is damaged, what it returns
        without that copy."""
        try:
            return read()
        except ShardError:
            file = self.shard_file(sample)
            if not isinstance(self.root, CachedFolder) or not self.root.drop_damaged(file):
                raise
        return read()

    def _read_info(self, sample: int) -> SampleInfo:
        return self._read_again_if_damaged(sample, partial(self._parse_info, sample))

    def _parse_info(self, sample: int) -> SampleInfo:
        if self.member_range(sample, "json")[1] > SAMPLE_BYTES:
            raise self._fault(sample, "json", f"it is larger than {SAMPLE_BYTES:,} bytes")
        try:
            return parse_json(self.member(sample, "json"), SampleInfo)
        except ValueError as error:
            name = self._name(sample, "json")
            raise ShardError(f"{name} is not a sample record ({error})") from None

    def _fault(self, sample: int, suffix: str, problem: str) -> ShardError:
        return ShardError(f"{self._name(sample, suffix)}: {problem}")

    def _name(self, sample: int, suffix: str) -> str:
        return f"{self.root.path(self.shard_file(sample))}: {self.keys[sample]}.{suffix}"


def decode_sample(sample: Mapping[str, Any]) -> dict[str, Any]:
    """A sample as `webdataset` reads it from a tar (suffixes and bytes), decoded as a whole.

    So is a row of `datasets` in the configuration ``bytes`` of a card (`avprep card`), whose record
    is a dict in which None stands for what the sample lacks.

    Returns ``__key__``; ``info``, its record; ``frames``, uint8 (views, frames, height, width, 3);
    ``audio``, float32 (views, channels, samples) at its original level, as heard in the direction
    of each view whatever the set's layout. Nothing is trusted that `ShardSet` would check.

    Raises ShardError: a sentence that names the sample.

    >>> dataset = wds.WebDataset("shards/train/train-000000.tar").map(decode_sample)
    ... # doctest: +SKIP
    """
    key = sample.get("__key__", "")
    try:
        return {"__key__": key, **_decoded(sample)}
    except ShardError as error:
        raise ShardError(f"{sample.get('__url__', 'sample')}: {key}: {error}") from None


def _decoded(sample: Mapping[str, Any]) -> dict[str, Any]:
    def member(suffix: str) -> bytes:
        content = sample.get(suffix)
        if not isinstance(content, bytes):
            raise ShardError(f"it has no member {suffix} in bytes; decode nothing before")
        return content

    record = sample.get("json")
    try:
        if isinstance(record, Mapping):
            info = parse_value(_without_none(record), SampleInfo)
        elif len(member("json")) > SAMPLE_BYTES:
            raise ShardError(f"its record is larger than {SAMPLE_BYTES:,} bytes")
        else:
            info = parse_json(member("json"), SampleInfo)
    except ValueError as error:
        raise ShardError(f"it has no sample record ({error})") from None
    video, audio = info.video, info.audio
    coded = [
        member(f"view{view:02d}.mp4")[gops[0] : gops[-1]] for view, gops in enumerate(video.gops)
    ]
    for stream in coded:  # before memory is taken for what the record states
        if sum(1 for _ in access_units(stream, 0, len(stream))) < video.frames:
            raise ShardError(f"a crop has fewer than its {video.frames} frames")
    crops = CropDecoder(video.avcc, video.height, video.width)
    frames = np.stack([crops.decode(stream, 0, video.frames) for stream in coded])
    if not audio.samples:
        return {"info": info, "frames": frames, "audio": np.zeros((len(coded), 0, 0), np.float32)}
    rotated = audio.layout == "rotated"
    suffixes = [f"view{view:02d}.flac" for view in range(len(coded))] if rotated else ["flac"]
    flac = FlacDecoder()

    def decoded(content: bytes) -> NDArray[np.float32]:
        def read(start: int, end: int) -> bytes:
            return content[start:end]

        return flac.decode(read, len(content), 0, audio.samples, audio)

    heard = np.stack([decoded(member(suffix)) for suffix in suffixes]) / np.float32(audio.gain)
    if not rotated and audio.channels == ACN_CHANNELS:
        matrices = [view_foa_matrix(view.azimuth_deg, view.elevation_deg) for view in info.views]
        heard = np.stack(matrices).astype(np.float32) @ heard
    return {"info": info, "frames": frames, "audio": heard}


def _without_none(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _without_none(one) for name, one in value.items() if one is not None}
    return [_without_none(one) for one in value] if isinstance(value, list) else value


def _most_frame_bytes(video: VideoInfo) -> int:
    """More than a coded frame has, which is at most as large as the frame itself."""
    return 3 * video.height * video.width + (1 << 16)
