"""`avtrain embed`: features with keys."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from avtrain.cli.main import main
from avtrain.config import tiny
from avtrain.data.augment import prepare_video
from avtrain.evals.frozen import load_networks
from shards.reader import ShardSet
from tests.support.tiny_set import FPS, damage, make_set


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_set(tmp_path_factory.mktemp("set"), {"train": 5}, clips_per_source=2, views=3)


def embed(root: Path, out: Path, *options: object) -> dict[str, np.ndarray]:
    command = ["embed", root, "--checkpoint", "untrained", "--out", out, *options]
    result = CliRunner().invoke(main, [str(part) for part in (*command, "--device", "cpu")])
    assert result.exit_code == 0, result.output
    return dict(np.load(out))


def test_rows_belong_to_their_keys(root: Path, tmp_path: Path) -> None:
    found = embed(root, tmp_path / "features.npz", "--windows", 2)
    shards = ShardSet(root)
    assert found["keys"].tolist() == shards.keys
    assert found["sources"].tolist() == shards.sources
    assert found["video"].shape == found["audio"].shape == (10, 2, 3, 64)
    np.testing.assert_allclose(found["start_s"], [[0.25, 0.75]] * 10)
    assert found["azimuth_deg"].shape == (10, 3)
    length = np.linalg.norm(found["video_embedding"], axis=-1)
    np.testing.assert_allclose(length, 1, atol=1e-5)
    # One by hand; its frames begin somewhere in the window.
    config = tiny("avsa")
    config = replace(config, clip=replace(config.clip, views=3))
    networks = load_networks(None, config, shards, 0, torch.device("cpu"), 0)
    step = round(FPS / config.clip.fps)
    nearest = np.inf
    for first in range(round(0.2 * FPS), round(1.3 * FPS) - 4 * step):
        frames = torch.from_numpy(shards.frames(7, 2, first, 4, step))
        plain = torch.tensor([[1.0, 1.0, 1.0, 0.0]]), torch.tensor([False])
        with torch.no_grad():
            video = prepare_video(frames[None, None], config.clip.size, *plain)
            feature = networks.model.embed_video(video)[0, 0].numpy()
        nearest = min(nearest, np.abs(feature - found["video"][7, 0, 2]).max())
    assert nearest < 1e-4


def test_workers_change_nothing(root: Path, tmp_path: Path) -> None:
    alone = embed(root, tmp_path / "a.npz")
    helped = embed(root, tmp_path / "b.npz", "--num-workers", 2)
    for name, values in alone.items():
        np.testing.assert_array_equal(values, helped[name], err_msg=name)


def test_clips_that_cannot_be_read_are_left_out(root: Path, tmp_path: Path) -> None:
    whole = embed(root, tmp_path / "whole.npz")
    shutil.copytree(root, tmp_path / "set")
    key = damage(tmp_path / "set", 3)
    command = ["embed", tmp_path / "set", "--checkpoint", "untrained", "--device", "cpu"]
    out = tmp_path / "features.npz"
    result = CliRunner().invoke(main, [str(part) for part in (*command, "--out", out)])
    assert result.exit_code == 1
    assert f"left out: {tmp_path}/set/train/train-000000.tar: {key}.view" in result.output
    found = np.load(out)
    assert found["keys"].tolist() == [other for other in whole["keys"] if other != key]
    for name, values in whole.items():
        assert found[name].shape == (9, *values.shape[1:])
    np.testing.assert_array_equal(found["start_s"], np.delete(whole["start_s"], 3, axis=0))


def test_untrained_parts_of_avc_networks_are_not_used(root: Path, tmp_path: Path) -> None:
    """Nothing is predicted across views: each embedding is the other's prediction."""
    run = ["pretrain", root, "--task", "avc", "--transformer", "--steps", 1, "--batch-size", 4]
    run += ["--out", tmp_path / "run", "--device", "cpu"]
    assert CliRunner().invoke(main, [str(part) for part in run]).exit_code == 0
    command = ["embed", root, "--checkpoint", tmp_path / "run/checkpoint.pt"]
    out = tmp_path / "features.npz"
    result = CliRunner().invoke(main, [str(part) for part in (*command, "--out", out)])
    assert result.exit_code == 0, result.output
    found = np.load(out)
    np.testing.assert_array_equal(found["predicted_audio_embedding"], found["video_embedding"])
    np.testing.assert_array_equal(found["predicted_video_embedding"], found["audio_embedding"])
    assert found["video"].shape[:3] == (10, 1, 3)
