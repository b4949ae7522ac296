"""CPU time of a training sample: our reader, plain webdataset, and the published on-the-fly code.

    python benchmarks/loader.py SHARDS [--split train] [--rounds 3] [--samples 150]
        [--published CHECKOUT --raw RAW]

A sample is four views of a clip, each with 8 frames and 1 s of sound turned to it (`frames and
sound`), and then augmented and with log-mels as well (`tensors`). Every reader runs on one thread,
one after the other in every round; the medians over the rounds are shown. The first peer reads the
same tars with webdataset, decodes the window of each view with PyAV and soundfile, and makes the
same features from each view's own sound. The second one is the code that the paper's authors
published as AVSpatialAlignment, from the user's own checkout of it, on the recordings RAW that the
shards were built of: see `published.py`.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import chain, islice, repeat
from pathlib import Path

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
KINDS = ("frames and sound", "tensors")
Reader = Callable[[ShardSet, int, bool], None]


def ours(shards: ShardSet, samples: int, tensors: bool) -> None:
    features = Features(SOUND)
    clips, plan = Clips(shards, CLIP, SOUND, AugmentConfig(), seed=0), Plan(shards, 0, BATCH)
    done = 0
    for _, batch in load(clips, plan, range(10**6), 0, workers=0, pin=False):
        if tensors:
            batch.pictures(CLIP.size)
            batch.features(features, batch.matrices)
        else:
            torch.einsum("bvij,bjn->bvin", batch.matrices, batch.sound)
        done += len(batch.index)
        if done >= samples:
            return


def plain_webdataset(shards: ShardSet, samples: int, tensors: bool) -> None:
    features = Features(SOUND)
    entries = shards.manifest.splits[shards.split]
    urls = [shards.root.path(entry.file) for entry in entries]
    dataset = webdataset.WebDataset(urls, shardshuffle=False, empty_check=False)
    rng = np.random.default_rng(0)
    identity = torch.eye(4).repeat(BATCH, CLIP.views, 1, 1)
    jitter, mirror = torch.tensor([[1.0, 1.0, 1.0, 0.0]] * BATCH), torch.zeros(BATCH) > 0
    source: Iterator[dict[str, bytes]] = chain.from_iterable(repeat(dataset))
    for _ in range(-(-samples // BATCH)):
        pictures, sounds = [], []
        for sample in islice(source, BATCH):
            for view in range(CLIP.views):
                start = rng.uniform(0, 9)
                pictures.append(_frames(sample[f"view{view:02d}.mp4"], start))
                with soundfile.SoundFile(io.BytesIO(sample[f"view{view:02d}.flac"])) as file:
                    file.seek(int(start * SOUND.sample_rate))
                    sounds.append(file.read(SOUND.samples, dtype="float32").T)
        if not tensors:
            continue
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


def seconds(read: Reader, shards: ShardSet, samples: int) -> dict[str, float | None]:
    """CPU seconds a sample."""
    taken: dict[str, float | None] = {}
    read(shards, BATCH, True)  # what is set up at the first use does not count
    for kind in KINDS:
        begin = time.process_time()
        read(shards, samples, kind == "tensors")
        taken[kind] = (time.process_time() - begin) / samples
    return taken


def published(checkout: Path, raw: Path, samples: int) -> dict[str, float | None]:
    """CPU seconds a sample of the published code, in a process of its own."""
    script = str(Path(__file__).with_name("published.py"))
    command = [sys.executable, script, str(checkout), str(raw), "--samples", str(samples)]
    answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    taken: dict[str, float | None] = json.loads(answer.splitlines()[-1])
    return taken


def table(
    shards: ShardSet, samples: int, rounds: int, checkout: Path | None, raw: Path | None
) -> Iterator[str]:
    """Lines of Markdown."""
    readers: dict[str, Callable[[], dict[str, float | None]]] = {
        "ours": lambda: seconds(ours, shards, samples),
        "plain webdataset with PyAV and soundfile": lambda: seconds(
            plain_webdataset, shards, samples
        ),
    }
    if checkout is not None and raw is not None:
        few = max(10, samples // 4)
        readers["published on-the-fly code"] = lambda: published(checkout, raw, few)
    taken: dict[str, list[dict[str, float | None]]] = {}
    for _ in range(rounds):
        for name, read in readers.items():
            taken.setdefault(name, []).append(read())
    yield "| reader | frames and sound, CPU ms | × ours | tensors, CPU ms | × ours |"
    yield "| --- | --- | --- | --- | --- |"
    for name, runs in taken.items():
        cells = [name]
        for kind in KINDS:
            pairs = [(run[kind], own[kind]) for run, own in zip(runs, taken["ours"], strict=True)]
            known = [(a, b) for a, b in pairs if a is not None and b is not None]
            if known:
                cells.append(f"{1000 * statistics.median(a for a, _ in known):.1f}")
                cells.append(f"{statistics.median(a / b for a, b in known):.2f}")
            else:
                cells += ["n/a", "n/a"]
        yield f"| {' | '.join(cells)} |"
    if "published on-the-fly code" not in readers:
        yield "\nThe published on-the-fly code was not measured: no --published with --raw."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shards")
    parser.add_argument("--split", default="train")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--samples", type=int, default=150)
    parser.add_argument("--published", type=Path, metavar="CHECKOUT")
    parser.add_argument("--raw", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    shards = ShardSet(arguments.shards, arguments.split)
    for line in table(
        shards, arguments.samples, arguments.rounds, arguments.published, arguments.raw
    ):
        print(line)


if __name__ == "__main__":
    main()
