"""The networks of a checkpoint as functions of frames and waveforms."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from avtrain import ClipLoader, load_encoder
from avtrain.checkpoint import Checkpoint
from avtrain.errors import TrainingError
from avtrain.evals.frozen import load_networks
from shards import ShardSet
from tests.support.runs import avtrain
from tests.support.tiny_set import make_set

TINY = ["--batch-size", "4", "--views", "2", "--device", "cpu", "--num-workers", "0", "--steps", 1]


@pytest.mark.parametrize(
    "options", [["--features", "logmel+intensity"], ["--task", "avc", "--audio", "stereo"]]
)
def test_it_equals_the_networks_of_evaluations(tmp_path: Path, options: list[str]) -> None:
    root = make_set(tmp_path / "set", {"train": 5})
    result = avtrain("pretrain", root, "--out", tmp_path / "run", *TINY, *options)
    assert result.exit_code == 0, result.output
    path = tmp_path / "run/checkpoint.pt"
    encoder = load_encoder(path)
    config = Checkpoint.load(path).settings()
    networks = load_networks(path, config, ShardSet(root), 0, torch.device("cpu"), 0)
    loader = ClipLoader(
        shards=ShardSet(root),
        batch_size=5,
        views=3,
        frames=config.clip.frames,
        fps=config.clip.fps,
        audio=config.sound.audio,
    )
    batch = next(iter(loader))
    with torch.no_grad():
        seen = encoder.video(batch.frames.flatten(0, 1))
        heard = encoder.audio(batch.view_audio().flatten(0, 1))
    assert seen.shape == heard.shape == (15, encoder.video_dim)
    wanted = networks.video(batch), networks.audio(batch)
    torch.testing.assert_close(seen, wanted[0].flatten(0, 1), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(heard, wanted[1].flatten(0, 1), atol=2e-4, rtol=2e-3)

    prepared = encoder.video(batch.video_input(config.clip.size).flatten(0, 1))
    torch.testing.assert_close(prepared, seen, atol=1e-5, rtol=1e-4)
    for frames in (batch.frames, batch.frames[0].float()):
        with pytest.raises(TrainingError, match="takes frames as uint8"):
            encoder.video(frames)
    for sound in (batch.view_audio()[0, ..., :-1], batch.view_audio()[0].short(), torch.zeros(3)):
        with pytest.raises(TrainingError, match=r"this encoder hears sound as float \(N, "):
            encoder.audio(sound)


def test_every_weight_gets_a_gradient(tmp_path: Path) -> None:
    """As DistributedDataParallel needs it."""
    root = make_set(tmp_path / "set", {"train": 5})
    result = avtrain("pretrain", root, "--out", tmp_path / "run", *TINY, "--transformer")
    assert result.exit_code == 0, result.output
    encoder = load_encoder(tmp_path / "run/checkpoint.pt").train()
    batch = next(iter(ClipLoader(shards=ShardSet(root), batch_size=5, frames=4, fps=8.0)))
    seen, heard = encoder(batch.frames.flatten(0, 1), batch.view_audio().flatten(0, 1))
    (seen.square().sum() + heard.square().sum()).backward()
    assert all(parameter.grad is not None for parameter in encoder.parameters())


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(b"nothing")
    with pytest.raises(TrainingError, match="no checkpoint"):
        load_encoder(tmp_path / "checkpoint.pt")
    root = make_set(tmp_path / "set", {"train": 5})
    result = avtrain("pretrain", root, "--out", tmp_path / "run", *TINY)
    assert result.exit_code == 0, result.output
    content = Checkpoint.load(tmp_path / "run/checkpoint.pt")
    sound = {**content.config["sound"], "conventions": "published"}
    replace(content, config={**content.config, "sound": sound}).save(tmp_path / "published.pt")
    with pytest.raises(TrainingError, match="its own channel conventions"):
        load_encoder(tmp_path / "published.pt")
