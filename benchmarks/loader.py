"""CPU time of a training sample: our reader, plain webdataset, and the published on-the-fly code.

    python benchmarks/loader.py SHARDS… [--split train] [--rounds 3] [--samples 150]
        [--published CHECKOUT --raw RAW] [--workers 0 1 2]

A sample is four views of a clip, each with 8 frames and 1 s of audio turned to it. It is prepared
up to one of three stages: `frames and audio` (the device does the rest), `log-mels` (computed from
the audio on the CPU), or `tensors` (frames resized, augmented and normalised as well). In every
round all readers run one after the other, on one thread; the table shows medians over the rounds.
SHARDS may be sets of both audio layouts.

`ClipLoader` is our reader for other programs. The first reader of others reads the same tars with
webdataset, decodes the window of each view with PyAV and soundfile, and computes the same features
from each view's own audio, or from the one audio turned to each view. The second is the code that
the paper's authors published as AVSpatialAlignment, from the user's own checkout of it, on the
recordings RAW that the shards were built from: see `published.py`. Then come the bytes that a
sample costs, and the samples per second of wall-clock time with several loader processes.
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
from functools import partial
from itertools import chain, islice, repeat
from pathlib import Path

import av
import numpy as np
import soundfile
import torch
import webdataset

from avtrain import ClipLoader
from avtrain.config import AugmentConfig, ClipConfig
from avtrain.data.augment import prepare_video
from avtrain.data.batch import Batch
from avtrain.data.clips import Clips
from avtrain.data.loader import load
from avtrain.data.plan import Plan
from avtrain.networks.features import FeatureConfig, Features
from shards.folders import LocalFolder
from shards.geometry import view_foa_matrix
from shards.reader import ShardSet

CLIP = ClipConfig(views=4)
AUDIO = FeatureConfig()
BATCH = 10
STAGES = ("frames and audio", "log-mels", "tensors")
WINDOWS_S = 9.0
Reader = Callable[[ShardSet, int, str], int]
"""Prepares at least a number of samples up to a stage, and returns how many they were: batches of
sets with few sources hold fewer clips than asked for."""


def ours(shards: ShardSet, samples: int, stage: str) -> int:
    return _prepare(batches(shards, 0), samples, stage)


def clip_loader(shards: ShardSet, samples: int, stage: str) -> int:
    loader = ClipLoader(shards=shards, batch_size=BATCH, augment=AugmentConfig())
    return _prepare(chain.from_iterable(repeat(loader)), samples, stage)


def _prepare(source: Iterator[Batch], samples: int, stage: str) -> int:
    features, done = Features(AUDIO), 0
    while done < samples:
        batch = next(source)
        done += len(batch.index)
        if stage != STAGES[0]:
            batch.audio_input(features, batch.matrices)
        if stage == "tensors":
            batch.video_input(CLIP.size)
    return done


def batches(shards: ShardSet, workers: int) -> Iterator[Batch]:
    clips, plan = Clips(shards, CLIP, AUDIO, AugmentConfig(), seed=0), Plan(shards, 0, BATCH)
    for _, batch in load(clips, plan, range(10**6), 0, workers, pin=False):
        yield batch


def plain_webdataset(shards: ShardSet, samples: int, stage: str) -> int:
    features = Features(AUDIO)
    entries = shards.manifest.splits[shards.split]
    urls = [shards.root.path(entry.file) for entry in entries]
    dataset = webdataset.WebDataset(urls, shardshuffle=False, empty_check=False)
    rng = np.random.default_rng(0)
    jitter, mirror = torch.tensor([[1.0, 1.0, 1.0, 0.0]] * BATCH), torch.zeros(BATCH) > 0
    source: Iterator[dict[str, bytes]] = chain.from_iterable(repeat(dataset))
    for _ in range(-(-samples // BATCH)):
        videos, audios, matrices = [], [], []
        for sample in islice(source, BATCH):
            start = rng.uniform(0, WINDOWS_S)
            views = range(CLIP.views)
            videos += [_frames(sample[f"view{view:02d}.mp4"], start) for view in views]
            if "flac" in sample:
                audios.append(_audio(sample["flac"], start)[None])
                viewpoints = [json.loads(sample["json"])["views"][view] for view in views]
                turns = [view_foa_matrix(v["azimuth_deg"], v["elevation_deg"]) for v in viewpoints]
                matrices.append(np.stack(turns).astype(np.float32))
            else:
                own = [_audio(sample[f"view{view:02d}.flac"], start) for view in views]
                audios.append(np.stack(own))
        if stage == STAGES[0]:
            continue
        if stage == "tensors":
            frames = torch.from_numpy(np.stack(videos)).unflatten(0, (BATCH, CLIP.views))
            prepare_video(frames, CLIP.size, jitter, mirror)
        audio = torch.from_numpy(np.stack(audios))
        if matrices:
            features(audio[:, 0], torch.from_numpy(np.stack(matrices)))
        else:  # each view's own audio: the features need not rotate it
            features(audio.flatten(0, 1), torch.eye(4).repeat(BATCH * CLIP.views, 1, 1, 1))
    return samples


def _audio(flac: bytes, start: float) -> np.ndarray:
    with soundfile.SoundFile(io.BytesIO(flac)) as file:
        file.seek(int(start * AUDIO.sample_rate))
        return file.read(AUDIO.samples, dtype="float32").T


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
    """CPU seconds per sample, for each stage."""
    taken: dict[str, float | None] = {}
    read(shards, BATCH, "tensors")  # the set-up at the first use does not count
    for stage in STAGES:
        start = time.process_time()
        done = read(shards, samples, stage)
        taken[stage] = (time.process_time() - start) / done
    return taken


def published(checkout: Path, raw: Path, samples: int) -> dict[str, float | None]:
    """CPU seconds per sample of the published code, in a process of its own."""
    script = str(Path(__file__).with_name("published.py"))
    command = [sys.executable, script, str(checkout), str(raw), "--samples", str(samples)]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    taken: dict[str, float | None] = json.loads(printed.splitlines()[-1])
    return taken


def layout(shards: ShardSet) -> str:
    return shards.info(0).audio.layout


def table(
    sets: list[ShardSet], samples: int, rounds: int, checkout: Path | None, raw: Path | None
) -> Iterator[str]:
    """Lines of Markdown that compare the readers."""
    readers: dict[str, Callable[[], dict[str, float | None]]] = {}
    for shards in sets:
        name = f"layout `{layout(shards)}`"
        readers[f"ours, {name}"] = partial(seconds, ours, shards, samples)
        readers[f"ClipLoader, {name}"] = partial(seconds, clip_loader, shards, samples)
        readers[f"webdataset, PyAV, soundfile, {name}"] = partial(
            seconds, plain_webdataset, shards, samples
        )
    if checkout is not None and raw is not None:
        fewer = max(10, samples // 4)
        readers["published on-the-fly code"] = partial(published, checkout, raw, fewer)
    taken: dict[str, list[dict[str, float | None]]] = {name: [] for name in readers}
    for _ in range(rounds):
        for name, read in readers.items():
            taken[name].append(read())
    first = next(iter(taken))
    yield f"| reader | {' | '.join(f'{stage}, CPU ms | × ours' for stage in STAGES)} |"
    yield f"| --- |{' --- | --- |' * len(STAGES)}"
    for name, runs in taken.items():
        reference, cells = first, [name]
        for other in taken:  # our reader on the same set
            reference = (
                other if other.startswith("ours") and name.endswith(other[4:]) else reference
            )
        for stage in STAGES:
            both = zip(runs, taken[reference], strict=True)
            pairs = [(run[stage], ours_run[stage]) for run, ours_run in both]
            known = [(a, b) for a, b in pairs if a is not None and b is not None]
            if known:
                cells.append(f"{1000 * statistics.median(a for a, _ in known):.1f}")
                cells.append(f"{statistics.median(a / b for a, b in known):.2f}")
            else:
                cells += ["n/a", "n/a"]
        yield f"| {' | '.join(cells)} |"
    if "published on-the-fly code" not in readers:
        yield "\nThe published on-the-fly code was not measured: no --published with --raw."


def sizes(sets: list[ShardSet], samples: int) -> Iterator[str]:
    """The bytes that a sample reads from disk; webdataset reads whole tars."""
    yield "| layout | bytes read per sample | reads | bytes of a clip in the tars |"
    yield "| --- | --- | --- | --- |"
    for shards in sets:
        root = LocalFolder(Path(str(shards.root)))
        done = ours(ShardSet(root, shards.split), samples, STAGES[0])
        entries = shards.manifest.splits[shards.split]
        stored = sum(entry.bytes for entry in entries) / len(shards)
        yield (
            f"| {layout(shards)} | {root.bytes_read / done:,.0f} | "
            f"{root.reads / done:.1f} | {stored:,.0f} |"
        )


def growth(shards: ShardSet, samples: int, rounds: int, workers: list[int]) -> Iterator[str]:
    """Samples per second of wall-clock time; the main process only takes the batches."""
    yield "| loader processes | samples per second |"
    yield "| --- | --- |"
    for count in workers:
        rates = []
        for _ in range(rounds):
            stream = batches(shards, count)
            for _ in range(2 * max(1, count)):  # until all workers are busy
                next(stream)
            start = time.perf_counter()
            done = 0
            while done < samples:
                done += len(next(stream).index)
            rates.append(done / (time.perf_counter() - start))
        yield f"| {count or 'none: in the process itself'} | {statistics.median(rates):.0f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shards", nargs="+")
    parser.add_argument("--split", default="train")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--samples", type=int, default=150)
    parser.add_argument("--published", type=Path, metavar="CHECKOUT")
    parser.add_argument("--raw", type=Path)
    parser.add_argument("--workers", type=int, nargs="*", default=[0, 1, 2])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    sets = [ShardSet(place, arguments.split) for place in arguments.shards]
    samples, rounds = -(-arguments.samples // BATCH) * BATCH, arguments.rounds
    parts = [
        table(sets, samples, rounds, arguments.published, arguments.raw),
        sizes(sets, samples),
        growth(sets[0], 4 * samples, rounds, arguments.workers),
    ]
    for part in parts:
        for line in part:
            print(line, flush=True)
        print()


if __name__ == "__main__":
    main()
