"""Panoramas in batches: the picture and the sound field of the whole sphere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avtrain import ClipLoader, ShardSets
from avtrain.config import AugmentConfig
from avtrain.errors import TrainingError
from shards import ShardSet
from shards.geometry import direction_deg, view_foa_matrix
from tests.support.media import DIRECTIONS, FAST, build, centroid
from tests.support.tiny_set import make_set

WIDTH, HEIGHT = 128, 64
MIRRORED = AugmentConfig(jitter=(0.0, 0.0, 0.0, 0.0), volume=0.0, mirror=True)


@pytest.fixture(scope="module", params=["rotated", "source"])
def root(
    request: pytest.FixtureRequest, raw: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out = tmp_path_factory.mktemp("panoramas") / "set"
    layout = ("--audio-layout", request.param, "--fps", 8)
    result = build(raw, "--out", out, *FAST, *layout, "--panorama", f"{WIDTH}x{HEIGHT}")
    assert result.exit_code == 0, result.output
    return out


def loader(root: Path, **options: Any) -> ClipLoader:
    settings = {"batch_size": 4, "views": 2, "frames": 4, "fps": 8.0, "panorama": True}
    return ClipLoader(shards=ShardSet(root), **(settings | options))


def test_dot_and_plane_wave_are_in_one_direction_also_mirrored(root: Path) -> None:
    """The dots have yaw and pitch; a clip is mirrored in all it has or in nothing."""
    batches = loader(root, augment=MIRRORED)
    mirrored = set()
    for batch in [*batches, *batches]:
        video, sound = batch.panorama_input(), batch.field_audio()
        assert video.shape == (4, 1, 3, 4, HEIGHT, WIDTH)
        assert sound.shape == (4, 1, 4, 24_000)
        for clip, index in enumerate(batch.index.tolist()):
            flips = bool(batch.mirror[clip])
            mirrored.add(flips)
            azimuth, elevation = DIRECTIONS[batches.shards.sources[index]]
            azimuth *= -1 if flips else 1
            w, y, z, x = sound[clip, 0].double().numpy()
            heard = direction_deg([np.mean(w * x), np.mean(w * y), np.mean(w * z)])
            np.testing.assert_allclose(heard, (azimuth, elevation), atol=0.1)
            grey = video[clip, 0, 1, 0].numpy()
            plane = np.rint(40 + 180 * (grey - grey.min()) / (grey.max() - grey.min()))
            turn = round(azimuth / 360 * WIDTH)
            column, row = centroid(np.roll(plane.astype(np.uint8), turn, axis=1))
            assert column - turn == pytest.approx(WIDTH * (180 - azimuth) / 360, abs=0.5)
            assert row == pytest.approx(HEIGHT * (90 - elevation) / 180, abs=0.5)
    assert mirrored == {True, False}


def test_the_views_hear_the_field_turned_to_them(root: Path) -> None:
    batches = loader(root)
    batch = next(iter(batches))
    for clip, index in enumerate(batch.index.tolist()):
        turned = [
            view_foa_matrix(view.azimuth_deg, view.elevation_deg)
            @ batch.field_audio()[clip, 0].numpy()
            for view in batches.shards.info(index).views
        ]
        for heard in batch.view_audio()[clip].numpy():
            assert min(np.abs(heard - one).max() for one in turned) < 1e-5


def test_batches_are_the_same_with_and_without_panoramas_and_workers(root: Path) -> None:
    (plain, *_), (whole, *_) = loader(root, panorama=False), loader(root, workers=1)
    for name in ("index", "frames", "audio", "matrices"):
        assert bool((getattr(plain, name) == getattr(whole, name)).all())
    assert plain.panorama is None
    with pytest.raises(TrainingError, match="ask for them with panorama=True"):
        plain.panorama_input()
    with pytest.raises(TrainingError, match="it needs panorama=True and ambisonics"):
        plain.field_audio()


def test_sets_without_panoramas_or_of_other_sizes_are_refused(root: Path, tmp_path: Path) -> None:
    without = make_set(tmp_path / "set", {"train": 4})
    with pytest.raises(TrainingError, match="has no panorama; build the set with --panorama"):
        loader(without)
    sets = ShardSets([ShardSet(root), ShardSet(without)])
    with pytest.raises(TrainingError, match=r"--size|has no panorama"):
        ClipLoader(shards=sets, batch_size=4, views=2, frames=4, fps=8.0, panorama=True)
