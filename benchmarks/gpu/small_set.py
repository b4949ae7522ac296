"""A small set of paper-size crops, so that the measurement needs no data: drifting noise and tones.

It is built with the encoders of `avprep`, so that a sample costs about what one of a real set does.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from avprep.media.encode import GOP_FRAMES, CropEncoder, encode_flac
from shards.folders import open_folder
from shards.geometry import encode_foa, unit_vector
from shards.manifest import manifest_entry, read_index, shard_names, write_manifest
from shards.schema import AudioInfo, Manifest, SampleInfo, VideoInfo, View
from shards.video import index_mp4
from shards.writer import open_shard

RECORDINGS, VIEWS = 40, 4
SIZE, FPS, RATE = 112, 16, 24_000
_BT709 = 1


def write_set(root: Path, seconds: int = 2, recordings: int = RECORDINGS, workers: int = 4) -> Path:
    """A set of one clip of each recording in ``root``, in the split ``train``."""
    root.mkdir(parents=True, exist_ok=True)
    folder = open_folder(root)
    tar, index = shard_names("train", 0)
    with ThreadPoolExecutor(workers) as pool, open_shard(folder, tar, index) as writer:
        for info, members in pool.map(lambda n: _sample(n, seconds), range(recordings)):
            writer.add(info, members)
    splits = {"train": (manifest_entry(read_index(folder, index), index),)}
    write_manifest(folder, Manifest({}, {}, splits, plan=""))
    return root


def _sample(number: int, seconds: int) -> tuple[SampleInfo, dict[str, bytes]]:
    rng = np.random.default_rng(number)
    azimuths = np.arange(VIEWS) * 360 / VIEWS - 180 + rng.uniform(1, 89)
    views = tuple(View(float(a), float(rng.uniform(-30, 30)), 60.0, 60.0) for a in azimuths)
    encoder = CropEncoder(VIEWS, SIZE, Fraction(FPS), _BT709)
    for frame in _frames(rng, FPS * seconds):
        encoder.add(frame)
    videos = encoder.finish()
    members = {f"view{view:02d}.mp4": video for view, video in enumerate(videos)}
    indices = [index_mp4(video) for video in videos]
    gops = tuple(offsets for _, offsets, _ in indices)
    video = VideoInfo(FPS, FPS * seconds, SIZE, SIZE, GOP_FRAMES, indices[0][0], gops)
    samples = RATE * seconds
    tone = 0.2 * np.sin(2 * np.pi * rng.uniform(200, 4000) * np.arange(samples) / RATE)
    field = encode_foa(tone, unit_vector(rng.uniform(-180, 180), rng.uniform(-30, 30)))
    field = np.float32(field + rng.normal(0, 0.02, field.shape))
    members["flac"] = encode_flac(np.ascontiguousarray(field.T), np.eye(4), RATE)
    audio = AudioInfo(RATE, samples, 1.0, "source")
    names = (f"recording{number:03d}", f"recording{number:03d}")
    return SampleInfo(*names, 0.0, float(seconds), "train", video, audio, views), members


def _frames(rng: np.random.Generator, count: int) -> Iterator[NDArray[np.uint8]]:
    """Frames of all views as planar YUV 4:2:0 (views, 3/2 SIZE, SIZE): smooth noise that drifts."""
    wide = SIZE + 2 * count
    grey = rng.uniform(40, 210, (VIEWS, SIZE // 8, wide // 8 + 1))
    grey = grey.repeat(8, axis=1).repeat(8, axis=2)[:, :, :wide]
    grey = grey + rng.normal(0, 4, grey.shape)
    colours = rng.integers(90, 166, (VIEWS, SIZE // 2, 1), np.uint8).repeat(SIZE, axis=2)
    for number in range(count):
        luma = grey[:, :, 2 * number : 2 * number + SIZE]
        yield np.concatenate([luma.clip(16, 235).astype(np.uint8), colours], axis=1)
