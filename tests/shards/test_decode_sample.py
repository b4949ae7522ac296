"""`decode_sample`: what `webdataset` reads, decoded as `ShardSet` decodes it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset

from shards import ShardSet, decode_sample
from shards.errors import ShardError
from shards.geometry import view_foa_matrix
from tests.support.tiny_set import make_set


def read(root: Path) -> Any:
    tar = str(root / "train" / "train-000000.tar")
    return webdataset.WebDataset(tar, shardshuffle=False, empty_check=False)


@pytest.mark.parametrize("layout", ["rotated", "source"])
def test_clips_are_those_of_the_set(tmp_path: Path, layout: str) -> None:
    root = make_set(tmp_path, {"train": 3}, views=3, layout=layout, tilt_deg=25.0)
    shards = ShardSet(root)
    for sample, clip in enumerate(read(root).map(decode_sample)):
        info = shards.info(sample)
        assert (clip["__key__"], clip["info"]) == (shards.keys[sample], info)
        assert clip["frames"].shape == (3, 16, 48, 48, 3)
        for number, view in enumerate(info.views):
            frames = shards.frames(sample, number, 0, info.video.frames)
            np.testing.assert_array_equal(clip["frames"][number], frames)
            stored, matrix = shards.foa(sample, 0, info.audio.samples, number)
            turned = view_foa_matrix(view.azimuth_deg, view.elevation_deg) @ matrix.T @ stored
            np.testing.assert_allclose(clip["audio"][number], turned, atol=1e-6)
    assert sample == 2


Member = dict[str, Any]


def without(name: str) -> Callable[[Member], Member]:
    return lambda sample: {key: value for key, value in sample.items() if key != name}


def stating(part: str, **values: object) -> Callable[[Member], Member]:
    def change(sample: Member) -> Member:
        record = json.loads(sample["json"])
        record[part] |= values
        return sample | {"json": json.dumps(record).encode()}

    return change


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (without("json"), "no member json"),
        (without("view01.mp4"), r"no member view01\.mp4"),
        (without("flac"), "no member flac"),
        (lambda sample: sample | {"json": b"{}"}, "no sample record"),
        (lambda sample: sample | {"json": {"key": 1}}, "no sample record"),
        (
            lambda sample: sample | {"view00.mp4": sample["view00.mp4"][:900]},
            "is damaged|fewer than its 16",
        ),
        (lambda sample: sample | {"flac": sample["flac"][:900]}, "audio"),
        (stating("video", frames=10**9), "fewer than its 1000000000 frames|no sample record"),
        (stating("audio", samples=10**9), "audio"),
        (stating("video", height=64, width=64), "pixels"),
    ],
)
def test_what_the_set_would_refuse_is_refused(
    tmp_path: Path, change: Callable[[Member], Member], sentence: str
) -> None:
    root = make_set(tmp_path, {"train": 3}, views=3, layout="source", tilt_deg=25.0)
    (first, *_) = read(root)
    with pytest.raises(ShardError, match=sentence) as raised:
        decode_sample(change(first))
    assert str(raised.value).startswith(f"{first['__url__']}: {first['__key__']}: ")


def test_a_clip_without_sound(tmp_path: Path) -> None:
    root = make_set(tmp_path, {"train": 3}, views=3, layout="source", tilt_deg=25.0)
    (first, *_) = read(root)
    silent = stating("audio", samples=0, channels=[])(without("flac")(first))
    assert decode_sample(silent)["audio"].shape == (3, 0, 0)
