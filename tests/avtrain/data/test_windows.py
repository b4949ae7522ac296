"""Windows of a clip: frames, and the audio that belongs to them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from avtrain.config import AugmentConfig, ClipConfig
from avtrain.data.clips import Clips
from avtrain.data.draws import NO_AUGMENTATION
from avtrain.data.loader import load
from avtrain.data.plan import Plan
from avtrain.networks.features import FeatureConfig
from shards.geometry import view_rotation
from shards.reader import ShardSet
from tests.support.tiny_set import FPS, RATE, make_set

CLIP = ClipConfig(views=3, frames=4, fps=8.0, size=48)
SOUND = FeatureConfig(mels=64)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_set(tmp_path_factory.mktemp("set"), {"train": 6, "test": 3}, clips_per_source=2)


def arrival(audio: NDArray[np.float32]) -> NDArray[np.float64]:
    """Unit vector (x, y, z) of the mean intensity of FOA (4, samples)."""
    w, y, z, x = audio.astype(np.float64)
    vector = np.array([(w * x).sum(), (w * y).sum(), (w * z).sum()])
    return vector / np.linalg.norm(vector)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("workers", [1, 2, 5, 8])
def test_windows_are_the_same_for_any_number_of_workers(root: Path, workers: int) -> None:
    shards = ShardSet(root)
    clips, plan = Clips(shards, CLIP, SOUND, AugmentConfig(), seed=3), Plan(shards, 3, 4)
    alone = list(load(clips, plan, range(2), 1, workers=0, pin=False))
    helped = list(load(clips, plan, range(2), 1, workers=workers, pin=False))
    assert [(s.epoch, s.step, s.last_of_epoch) for s, _ in alone] == [
        (0, 1, False), (0, 2, True), (1, 0, False), (1, 1, False), (1, 2, True)
    ]  # fmt: skip
    for (_, one), (_, other) in zip(alone, helped, strict=True):
        assert one.faults == other.faults == ()
        assert one.panorama is other.panorama is one.field is other.field is None
        for name in vars(one).keys() - {"faults", "panorama", "field"}:
            assert torch.equal(getattr(one, name), getattr(other, name)), name


@pytest.mark.parametrize("layout", ["rotated", "source"])
def test_every_view_gets_its_own_audio(tmp_path: Path, layout: str) -> None:
    """Directions of arrival under ``matrices`` and ``misaligned``, mirrored and not."""
    shards = ShardSet(make_set(tmp_path / "set", {"train": 2}, layout=layout))
    clips = Clips(shards, replace(CLIP, views=5), SOUND, AugmentConfig(), seed=0)
    field, stored = shards.foa(1, 0, RATE)
    source = arrival(stored.T @ field)
    mirrored = set()
    for epoch in range(8):
        draw, sample = clips.draw(epoch, 1), clips[epoch, 1]
        flip = np.array([1, -1 if draw.mirror else 1, 1])
        yawed = view_rotation(draw.yaw_deg, 0) @ source
        for number, view in enumerate(draw.views):
            place = shards.info(1).views[view]
            rotation = view_rotation(place.azimuth_deg, place.elevation_deg)
            found = arrival(sample["matrices"][0, number] @ sample["audio"][0])
            np.testing.assert_allclose(found, flip * (rotation @ source), atol=0.01)
            found = arrival(sample["misaligned"][0, number] @ sample["audio"][0])
            np.testing.assert_allclose(found, flip * (rotation @ yawed), atol=0.01)
        mirrored.add(draw.mirror)
    assert mirrored == {True, False}


def test_frames_lie_within_the_audio_window(root: Path) -> None:
    clips = Clips(ShardSet(root), CLIP, SOUND, AugmentConfig(), seed=0)
    read: list[tuple[int, int]] = []

    class Recorder(ShardSet):
        def frames(self, sample, view, start, count, step=1, out=None):
            read.append((start, (count - 1) * step + 1))
            return super().frames(sample, view, start, count, step, out)

    clips.shards = Recorder(root)
    for epoch in range(40):
        draw = clips.draw(epoch, 0)
        (start_s,) = clips.read_audio(0, draw)[0]
        assert 0 <= start_s <= 1
        read.clear()
        clips[epoch, 0]
        assert len(set(read)) == 1  # all views at the same time
        first, count = read[0]
        assert count == 4
        assert start_s - 1e-6 <= first / FPS
        assert (first + count) / FPS <= start_s + 1 + 1e-6


def test_fixed_windows_are_evenly_spread(root: Path) -> None:
    clips = Clips(ShardSet(root), CLIP, SOUND, NO_AUGMENTATION, seed=0, windows=3)
    starts = [clips.read_audio(4, clips.draw(window, 4))[0][0] for window in range(3)]
    np.testing.assert_allclose(starts, [1 / 6, 3 / 6, 5 / 6], atol=1e-3)
    sample = clips[1, 4]
    assert not sample["mirror"]
    assert sample["volume"] == 1
    np.testing.assert_array_equal(sample["jitter"], [1, 1, 1, 0])
