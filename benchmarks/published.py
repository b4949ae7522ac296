"""CPU time of a training sample in the published code of the AVSA paper, which crops on the fly.

    python benchmarks/published.py CHECKOUT RAW [--samples 60]

CHECKOUT is the user's own copy of the code that its authors published as AVSpatialAlignment; RAW
holds recordings (`.mp4`, and audio of the same name). The dataset of that code makes the samples.
It is built by its own function from its own settings for curriculum training. A sample is a window
of 0.5 s of a whole 640×360 video and 1 s of its audio, decoded with PyAV, cut into four views of
112² and turned to each. Prints JSON: CPU seconds per sample for `frames and audio`, for these with
`log-mels`, and for `tensors` with the augmentation as well (null without torchvision, which that
code needs for it).

That code was written for PyAV 7. One adaptation from outside lets it run: PyAV's resampler now
returns a list of frames, where that code expects one. It runs in a process of its own, which keeps
its modules (`utils`, `datasets`) and its relative paths apart from ours.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import random
import sys
import tempfile
import time
import types
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
import yaml

_SETTINGS = "configs/main/avsa/Cur-Loc4-TransfD2.yaml"
_AUDIO_SUFFIXES = (".m4a", ".wav", ".flac", ".ogg", ".opus")


class _OneFrame:
    """PyAV's resampler, with its frames joined to the single one that older versions returned."""

    def __init__(self, **options: Any) -> None:
        self._resampler = av.AudioResampler(**options)

    def resample(self, frame: av.AudioFrame) -> _OneFrame:
        self._frames = self._resampler.resample(frame)
        return self

    def to_ndarray(self) -> np.ndarray:
        return np.concatenate([frame.to_ndarray() for frame in self._frames], axis=1)


def _lay_out(folder: Path, checkout: Path, raw: Path) -> None:
    """Make the relative paths where that code looks for recordings, their list and its assets."""
    audios = {path.stem: path for path in raw.rglob("*") if path.suffix in _AUDIO_SUFFIXES}
    videos = [path for path in sorted(raw.rglob("*.mp4")) if path.stem in audios]
    if not videos:
        sys.exit(f"{raw} holds no .mp4 with an audio file of the same name")
    for name in ("data/yt360/video", "data/yt360/audio", "datasets/cache/yt360"):
        (folder / name).mkdir(parents=True)
    for assets in ("datasets/assets", "utils"):
        (folder / assets).symlink_to(checkout / assets)
    for video in videos:
        audio = audios[video.stem]
        (folder / "data/yt360/video" / video.name).symlink_to(video)
        (folder / "data/yt360/audio" / audio.name).symlink_to(audio)
    record = {
        "video_fns": [video.name for video in videos],
        "audio_fns": [audios[video.stem].name for video in videos],
        "video2clips": {video.stem: [number] for number, video in enumerate(videos)},
    }
    (folder / "datasets/cache/yt360/train.json").write_text(json.dumps(record))


def _seconds(dataset: Any, samples: int) -> float:
    for number in range(3):  # the set-up at the first use does not count
        dataset[number % len(dataset)]
    start = time.process_time()
    for number in range(samples):
        dataset[number % len(dataset)]
    return (time.process_time() - start) / samples


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkout", type=Path)
    parser.add_argument("raw", type=Path)
    parser.add_argument("--samples", type=int, default=60)
    arguments = parser.parse_args()
    checkout, raw = arguments.checkout.absolute(), arguments.raw.absolute()
    if not (checkout / _SETTINGS).exists():
        sys.exit(f"{checkout} is not a checkout of AVSpatialAlignment: it lacks {_SETTINGS}")
    torch.set_num_threads(1)
    random.seed(0)
    av.audio.resampler.AudioResampler = _OneFrame
    has_torchvision = importlib.util.find_spec("torchvision") is not None
    if not has_torchvision:  # that code imports it, but only its augmentation uses it
        names = ("torchvision", "torchvision.transforms", "torchvision.transforms.functional")
        stubs = [types.ModuleType(name) for name in names]
        stubs[0].transforms, stubs[1].functional = stubs[1], stubs[2]  # type: ignore[attr-defined]
        sys.modules |= dict(zip(names, stubs, strict=True))
    sys.path.insert(0, str(checkout))
    with tempfile.TemporaryDirectory() as temporary:
        _lay_out(Path(temporary), checkout, raw)
        os.chdir(temporary)
        from utils.main_utils import build_360_dataset

        settings = yaml.safe_load((checkout / _SETTINGS).read_text())["dataset"]
        dataset = build_360_dataset(settings, settings["train"])
        seconds = {"tensors": _seconds(dataset, arguments.samples) if has_torchvision else None}
        dataset.video_transform = []
        seconds["log-mels"] = _seconds(dataset, arguments.samples)
        dataset.audio_transform = []
        seconds["frames and audio"] = _seconds(dataset, arguments.samples)
        os.chdir(checkout)
    print(json.dumps(seconds))


if __name__ == "__main__":
    main()
