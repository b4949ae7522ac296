"""Samples per second and core from shards to network input, against plain webdataset.

    python benchmarks/loader.py SHARDS [--split train] [--rounds 3] [--samples 150]

A sample is four views of a clip, each with 8 frames and the log-mels of 1 s of its sound, ready as
tensors. Both readers run in this process on one thread, one after the other in every round; the
medians over the rounds are shown. The peer reads the same tars with webdataset, decodes the window
of each view with PyAV and soundfile, and makes the same features from each view's own sound.
"""

from __future__ import annotations

import argparse
import io
import statistics
import time
from collections.abc import Iterator
from itertools import islice

import av
import numpy as np
import soundfile
import torch
import webdataset

from avtrain.augment import prepare_pictures
from avtrain.data import Clips
from avtrain.features import FeatureConfig, Features
from avtrain.loader import Plan, load
from avtrain.presets import AugmentConfig, ClipConfig
from shards.reader import ShardSet

CLIP = ClipConfig(views=4)
SOUND = FeatureConfig()
BATCH = 10


def ours(shards: ShardSet, samples: int) -> None:
    features = Features(SOUND)
    clips, plan = Clips(shards, CLIP, SOUND, AugmentConfig(), seed=0), Plan(shards, 0, BATCH)
    done = 0
    for _, batch in load(clips, plan, range(10**6), 0, workers=0, pin=False):
        batch.pictures(CLIP.size)
        batch.features(features, batch.matrices)
        done += len(batch.index)
        if done >= samples:
            return


def plain_webdataset(shards: ShardSet, samples: int) -> None:
    features = Features(SOUND)
    entries = shards.manifest.splits[shards.split]
    urls = [shards.root.path(entry.file) for entry in entries]
    dataset = webdataset.WebDataset(urls, shardshuffle=False, repeat=True, empty_check=False)
    rng = np.random.default_rng(0)
    identity = torch.eye(4).repeat(BATCH, CLIP.views, 1, 1)
    jitter, mirror = torch.tensor([[1.0, 1.0, 1.0, 0.0]] * BATCH), torch.zeros(BATCH) > 0
    source: Iterator[dict[str, bytes]] = iter(dataset)
    for _ in range(-(-samples // BATCH)):
        pictures, sounds = [], []
        for sample in islice(source, BATCH):
            for view in range(CLIP.views):
                start = rng.uniform(0, 9)
                pictures.append(_frames(sample[f"view{view:02d}.mp4"], start))
                with soundfile.SoundFile(io.BytesIO(sample[f"view{view:02d}.flac"])) as file:
                    file.seek(int(start * SOUND.sample_rate))
                    sounds.append(file.read(SOUND.samples, dtype="float32").T)
        frames = torch.from_numpy(np.stack(pictures)).unflatten(0, (BATCH, CLIP.views))
        prepare_pictures(frames, CLIP.size, jitter, mirror)
        # Each view's own sound: the features' rotation has nothing to do.
        views = torch.from_numpy(np.stack(sounds)).unflatten(0, (BATCH, CLIP.views))
        for view in range(CLIP.views):
            features(views[:, view], identity[:, :1])


def _frames(mp4: bytes, start: float) -> np.ndarray:
    with av.open(io.BytesIO(mp4)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        container.seek(int(start / stream.time_base), stream=stream, backward=True)
        frames = []
        for frame in container.decode(stream):
            if frame.time >= start:
                frames.append(frame.to_ndarray(format="rgb24"))
                if len(frames) == CLIP.frames:
                    break
    return np.stack(frames)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shards")
    parser.add_argument("--split", default="train")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--samples", type=int, default=150)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    shards = ShardSet(arguments.shards, arguments.split)
    rates: dict[str, list[float]] = {"ours": [], "plain webdataset": []}
    for _ in range(arguments.rounds):
        for name, read in (("ours", ours), ("plain webdataset", plain_webdataset)):
            begin = time.process_time()
            read(shards, arguments.samples)
            rates[name].append(arguments.samples / (time.process_time() - begin))
    ratio = statistics.median(a / b for a, b in zip(*rates.values(), strict=True))
    print("| reader | samples per second and core |\n| --- | --- |")
    for name, values in rates.items():
        print(f"| {name} | {statistics.median(values):.1f} |")
    print(f"\nratio {ratio:.1f}")


if __name__ == "__main__":
    main()
