"""Networks of the published code get input by its conventions, and work wherever ours do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import av
import librosa
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from avtrain.checkpoint import Checkpoint
from avtrain.config import Config
from avtrain.data.clips import Clips
from avtrain.data.draws import NO_AUGMENTATION
from avtrain.data.published_conventions import published_view_matrix
from avtrain.errors import TrainingError
from avtrain.evals.evaluation import EvaluationOptions, open_evaluation
from avtrain.evals.frozen import load_networks
from avtrain.networks.features import FeatureConfig, Features
from avtrain.networks.models import AudioVisual
from avtrain.options import with_options
from avtrain.pretrain.loop import pretrain
from avtrain.pretrain.set_up import RunOptions
from avtrain.published import import_checkpoint
from avtrain.run_folder import CHECKPOINT
from shards.geometry import encode_foa, rotate_foa, unit_vector
from shards.reader import ShardSet
from tests.support.published_files import published, saved
from tests.support.tiny_set import FPS, RATE, make_set

VIEWS = [(0.0, 0.0), (40.0, 25.0), (-130.0, -30.0), (90.0, 10.0)]


def published_channels(field: np.ndarray, azimuth_deg: float, elevation_deg: float) -> np.ndarray:
    """X, Y, W, Z read as W, Y, Z, X, and rotated by the pitch before the yaw."""
    w, y, z, x = field
    six = np.stack([x, y, w, np.zeros_like(w), z, np.zeros_like(w)])
    frame = av.AudioFrame.from_ndarray(np.float32(six), format="fltp", layout="5.1")
    frame.sample_rate = RATE
    resampler = av.AudioResampler(format="s16p", layout="4.0", rate=RATE)
    four = np.concatenate([part.to_ndarray() for part in resampler.resample(frame)], axis=1)
    as_w, as_y, as_z, as_x = four / 32767
    yaw = Rotation.from_euler("z", -azimuth_deg, degrees=True).as_matrix()
    pitch = Rotation.from_euler("y", elevation_deg, degrees=True).as_matrix()
    turned_x, turned_y, turned_z = yaw @ pitch @ np.stack([as_x, as_y, as_z])
    return np.stack([as_w, turned_y, turned_z, turned_x])


def scene() -> np.ndarray:
    rng = np.random.default_rng(0)
    return sum(
        encode_foa(rng.normal(0, 0.1, RATE), unit_vector(*direction))
        for direction in ((40, 20), (-110, -50))
    )


def test_audio_of_views_equals_that_of_the_published_code() -> None:
    field = scene()
    for view in VIEWS:
        audio = rotate_foa(field, published_view_matrix(*view))
        expected = published_channels(field, *view)
        np.testing.assert_allclose(audio, expected, atol=2 / 32767)  # that code rounds to 16 bits


def test_log_mels_equal_librosa_channel_by_channel() -> None:
    field = 1000 * scene()
    field[:, RATE // 2 :] *= 1e-15  # so that top_db matters
    field[3] *= 0.01  # relative to each channel's own maximum
    matrices = np.stack([published_view_matrix(*view) for view in VIEWS])
    features = Features(FeatureConfig(conventions="published"))
    ours = features(torch.from_numpy(field)[None], torch.from_numpy(np.float32(matrices))[None])
    floors = set()
    for view, matrix in enumerate(matrices):
        for channel, audio in enumerate(rotate_foa(field, matrix)):
            mel = librosa.feature.melspectrogram(
                y=audio, sr=RATE, n_fft=512, hop_length=240, power=1.0, pad_mode="reflect"
            )
            expected = librosa.power_to_db(mel[:, :100], top_db=100).T
            np.testing.assert_allclose(ours[0, view, channel], expected, atol=5e-3)
            floors.add(round(float(expected.min())))
    assert len(floors) > 1


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return import_checkpoint(saved(tmp_path_factory.mktemp("avsa"), published()))


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_set(tmp_path_factory.mktemp("set") / "set", {"train": 4}, views=3)


def narrow(checkpoint: Checkpoint) -> tuple[Checkpoint, Config]:
    """An imported checkpoint with narrow networks, for clips of the tiny set."""
    config = checkpoint.settings()
    config = replace(
        config,
        clip=replace(config.clip, views=2, frames=2, fps=FPS, size=16),
        sound=replace(config.sound, hop_length=960, mels=32),
        model=replace(config.model, width=4),
        batch_size=2,
        clips_per_source=None,
    )
    model = AudioVisual(config.model).state_dict()
    return replace(checkpoint, config=config.to_dict(), model=model), config


def test_clips_are_read_by_the_conventions(imported: Checkpoint, shards: Path) -> None:
    train, (_, config) = ShardSet(shards, "train"), narrow(imported)
    clips = Clips(train, config.clip, config.sound, NO_AUGMENTATION, seed=0)
    draw = clips.draw(0, 0)
    places = [train.info(0).views[view] for view in draw.views]
    wanted = np.stack([published_view_matrix(p.azimuth_deg, p.elevation_deg) for p in places])
    start, sound, matrices, _ = clips.read_audio(0, draw)
    stored, turned = train.foa(0, round(start[0] * RATE), RATE, view=int(draw.views[0]))
    np.testing.assert_allclose(sound[0], stored)
    np.testing.assert_allclose(matrices[0] @ turned, wanted, atol=1e-6)
    mirrored = clips.read_audio(0, replace(draw, mirror=True))[2]
    np.testing.assert_array_equal(mirrored, matrices)


def test_directions_are_learned_without_mirroring(
    imported: Checkpoint, shards: Path, tmp_path: Path
) -> None:
    """By the published conventions a mirrored clip has the same audio, and other directions."""
    _, config = narrow(imported)
    both = EvaluationOptions(str(shards), config, tmp_path, device="cpu", test_split="train")
    ours = replace(both, config=replace(config, sound=replace(config.sound, conventions="avsa360")))
    for options, directions, mirrors in (
        (both, True, False),
        (both, False, True),
        (ours, True, True),
    ):
        clips = open_evaluation("probe", options).train_clips(config.clip, directions)
        drawn = {clips.draw(turn, sample).mirror for turn in range(8) for sample in range(4)}
        assert drawn == ({True, False} if mirrors else {False})


def test_eval_and_pretraining_accept_the_checkpoint(
    imported: Checkpoint, shards: Path, tmp_path: Path
) -> None:
    """Without statistics of its own it gets those of the training split; its conventions stay."""
    path, train = tmp_path / "ours.pt", ShardSet(shards, "train")
    checkpoint, config = narrow(imported)
    checkpoint.save(path)
    loaded = load_networks(path, config, train, 0, torch.device("cpu"), 0)
    assert loaded.transformer
    assert loaded.described.features == "log-mel, published conventions"
    assert -100 < loaded.features.mean.mean() < -20
    ours = replace(config, sound=replace(config.sound, conventions="avsa360"))
    options = RunOptions(tmp_path / "run", init_from=path, steps=1, device="cpu", workers=0)
    pretrain(shards, ours, options)
    begun = Checkpoint.load(options.out / CHECKPOINT)
    assert begun.config["sound"]["conventions"] == "published"
    assert torch.equal(begun.features["mean"], loaded.features.mean)
    pretrain(shards, ours, replace(options, init_from=None, resume=True, steps=2))
    intensity = with_options(ours, features="logmel+intensity")
    with pytest.raises(TrainingError, match="log-mels of ambisonics alone"):
        pretrain(shards, intensity, replace(options, out=tmp_path / "other"))
