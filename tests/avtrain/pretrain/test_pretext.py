"""The pretext tasks beyond AVSA on ambisonics: moments, beams, shuffled views, positions and the
curriculum."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from avtrain.checkpoint import Checkpoint
from avtrain.config import AugmentConfig, ClipConfig, first_stage, tiny
from avtrain.data.batch import Batch
from avtrain.data.clips import Clips
from avtrain.data.draws import NO_AUGMENTATION, Draw
from avtrain.data.loader import load
from avtrain.data.plan import Plan
from avtrain.networks.features import FeatureConfig, Features
from avtrain.options import with_options
from shards.geometry import encode_foa, unit_vector, view_foa_matrix, view_rotation
from shards.reader import ShardSet
from tests.support.media import (
    build,
    equirectangular_texture,
    grey_frame,
    noise,
    write_video,
    write_wav,
)
from tests.support.runs import avtrain, refused
from tests.support.tiny_set import FPS, RATE, make_set

SOUND = FeatureConfig(mels=64)
MOMENTS = ClipConfig(views=1, frames=4, fps=8.0, size=48, moments=3, margin_s=0.5)
MIRRORED = AugmentConfig(jitter=(0.0,) * 4, volume=0.0)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_set(tmp_path_factory.mktemp("set"), {"train": 6}, duration_s=5.0)


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds with a source on the left."""
    raw = tmp_path_factory.mktemp("raw")
    frame = grey_frame(equirectangular_texture(160, 320))
    write_video(raw / "a.mp4", [np.roll(frame, 4 * n, axis=1) for n in range(48)])
    write_wav(raw / "a.wav", encode_foa(noise(2.0), unit_vector(60.0, 25.0)))
    return raw


def batch_of(clips: Clips, epoch: int = 0) -> Batch:
    plan = Plan(clips.shards, 0, 4)
    return next(batch for _, batch in load(clips, plan, range(epoch, epoch + 1), 0, 0, False))


# --- moments ---


@given(st.integers(0, 10_000))
def test_moments_keep_their_margin_and_reach_everywhere(seed: int) -> None:
    """Windows of 1 s with margins of 0.5 s in a clip of 5 s: the last begins at 4 s at most."""
    root = made()
    clips = Clips(ShardSet(root), MOMENTS, SOUND, AugmentConfig(), seed=seed)
    starts, sound, matrices, _ = clips.read_audio(2, clips.draw(0, 2))
    assert min(np.diff(sorted(starts))) >= 1.5 - 1e-9
    assert min(starts) >= 0
    assert max(starts) <= 4
    assert (sound.shape, matrices.shape) == ((3, 4, RATE), (3, 1, 4, 4))


_MADE: list[Path] = []


def made() -> Path:
    return _MADE[0]


@pytest.fixture(autouse=True, scope="module")
def _make(root: Path) -> None:
    _MADE[:] = [root]  # hypothesis takes no fixtures of functions


def test_moments_come_in_any_order(root: Path) -> None:
    clips = Clips(ShardSet(root), MOMENTS, SOUND, AugmentConfig(), seed=0)
    starts = np.array([clips.read_audio(0, clips.draw(epoch, 0))[0] for epoch in range(200)])
    orders = {tuple(np.argsort(row)) for row in starts}
    assert len(orders) == 6
    for moment in range(3):
        assert starts[:, moment].min() < 0.3
        assert starts[:, moment].max() > 3.7


def test_each_moment_has_its_own_video_and_audio(root: Path) -> None:
    shards = ShardSet(root)
    clips = Clips(shards, MOMENTS, SOUND, NO_AUGMENTATION, seed=0)
    asked: list[tuple[int, int]] = []

    class Recorder(ShardSet):
        def frames(self, sample, view, start, *more):
            asked.append((view, start))
            return super().frames(sample, view, start, *more)

    clips.shards = Recorder(root)
    draw = clips.draw(3, 1)
    starts = clips.read_audio(1, draw)[0]
    sample = clips[3, 1]
    assert {view for view, _ in asked} == {int(draw.views[0])}
    for (_, first), start in zip(asked, starts, strict=True):
        assert start - 1e-6 <= first / FPS <= start + 1
    for moment, start in enumerate(starts):
        sound, stored = shards.foa(1, round(start * RATE), RATE, view=int(draw.views[0]))
        np.testing.assert_array_equal(sample["audio"][moment], sound)
        np.testing.assert_allclose(
            sample["matrices"][moment, 0] @ stored, rotation(shards, draw), atol=1e-6
        )
    batch = batch_of(clips)
    assert batch.video_input(48).shape == (3, 3, 3, 4, 48, 48)
    assert batch.audio_input(Features(SOUND), batch.matrices).shape == (3, 3, 4, 100, 64)


def rotation(shards: ShardSet, draw: Draw) -> np.ndarray:
    """Matrix from the sound field to the drawn view, as float32."""
    view = shards.info(1).views[int(draw.views[0])]
    return view_foa_matrix(view.azimuth_deg, view.elevation_deg).astype(np.float32)


def test_avts_trains_and_resumes(root: Path, tmp_path: Path) -> None:
    arguments = ["pretrain", root, "--task", "avts", "--moments", 2, "--batch-size", 4]
    arguments += ["--device", "cpu", "--num-workers", 0]
    assert avtrain(*arguments, "--out", tmp_path / "a", "--steps", 4).exit_code == 0
    assert avtrain(*arguments, "--out", tmp_path / "b", "--steps", 2).exit_code == 0
    again = avtrain(*arguments, "--out", tmp_path / "b", "--steps", 4, "--resume")
    assert again.exit_code == 0, again.output
    one, other = (Checkpoint.load(tmp_path / run / "checkpoint.pt") for run in "ab")
    assert one.total_steps == 4
    for name, value in one.model.items():
        assert torch.equal(other.model[name], value)


# --- beams ---


@pytest.mark.parametrize("audio", ["mono", "stereo"])
def test_beams_of_ambisonics_equal_a_set_of_beams(
    recording: Path, tmp_path: Path, audio: str
) -> None:
    """Mirrored or not, in all views."""
    for kind in ("foa", audio):
        result = build(recording, "--out", tmp_path / kind, "--audio", kind, "--views", 5)
        assert result.exit_code == 0, result.output
    clip = ClipConfig(views=4, frames=4, fps=16.0, size=48)
    sound = FeatureConfig(mels=64, audio=audio)  # type: ignore[arg-type]
    features = Features(sound)
    mirrors = set()
    for epoch in range(6):
        heard = []
        for kind in ("foa", audio):
            clips = Clips(ShardSet(tmp_path / kind), clip, sound, MIRRORED, seed=0)
            sample = clips[epoch, 0]
            mirrors.add(bool(sample["mirror"]))
            heard.append(sample["matrices"][0] @ sample["audio"][0])  # (V, channels, samples)
        np.testing.assert_allclose(heard[0], heard[1], atol=3 / 32768)
        batch = batch_of(clips, epoch)
        inputs = batch.audio_input(features, batch.matrices)
        assert inputs.shape == (1, 4, len(sound_channels(audio)), 100, 64)
        expected = features.log_mel(
            features.spectra(torch.from_numpy(heard[1])),
            torch.eye(len(heard[1][0])).expand(4, 1, -1, -1),
        )
        torch.testing.assert_close(inputs[0], expected[:, 0], atol=1e-3, rtol=1e-3)
    assert mirrors == {True, False}


def sound_channels(audio: str) -> tuple[str, ...]:
    return {"mono": ("M",), "stereo": ("L", "R")}[audio]


def test_a_set_of_beams_names_what_it_lacks(recording: Path, tmp_path: Path) -> None:
    assert build(recording, "--out", tmp_path / "set", "--audio", "mono").exit_code == 0
    result = avtrain("pretrain", tmp_path / "set", "--out", tmp_path / "run", "--device", "cpu")
    assert result.exit_code == 2
    assert "the audio channels M, but W, Y, Z, X are needed" in result.output
    assert "give --audio mono, or build the set with --audio foa" in result.output


@pytest.mark.parametrize("audio", ["omni", "mono"])
def test_avc_hears_mono_audio(root: Path, tmp_path: Path, audio: str) -> None:
    """A beam is louder towards the view; the omnidirectional channel knows nothing of space."""
    clip = ClipConfig(views=4, frames=4, fps=8.0, size=48)
    sound = FeatureConfig(mels=64, audio=audio)  # type: ignore[arg-type]
    sample = Clips(ShardSet(root), clip, sound, MIRRORED, seed=0)[0, 1]
    aligned, turned = sample["matrices"][0, :, 0], sample["misaligned"][0, :, 0]
    if audio == "omni":
        np.testing.assert_allclose(aligned, np.tile([1, 0, 0, 0], (4, 1)), atol=1e-6)
        np.testing.assert_allclose(turned, aligned, atol=1e-6)
    else:
        np.testing.assert_allclose(aligned[:, 0], 0.5, atol=1e-6)
        np.testing.assert_allclose(np.linalg.norm(aligned[:, 1:], axis=1), 0.5, atol=1e-6)
        assert np.abs(aligned - turned).max() > 0.05
    arguments = ["pretrain", root, "--task", "avc", "--audio", audio, "--batch-size", 4]
    arguments += ["--device", "cpu", "--num-workers", 0, "--steps", 1, "--out", tmp_path / "run"]
    run = avtrain(*arguments)
    assert run.exit_code == 0, run.output
    config = Checkpoint.load(tmp_path / "run/checkpoint.pt").settings()
    assert (config.title, config.sound.audio, config.model.audio_channels) == ("AVC", audio, 1)


# --- shuffled views ---


def test_views_exchange_their_audio_and_nothing_else(root: Path) -> None:
    shards, clip = ShardSet(root), ClipConfig(views=4, frames=4, fps=8.0, size=48)
    plain = Clips(shards, clip, SOUND, AugmentConfig(), seed=3)
    shuffled = Clips(shards, clip, SOUND, AugmentConfig(), seed=3, shuffled=True)
    orders = []
    for place in ((0, 1), (0, 2), (1, 1)):
        order = shuffled.draw(*place).audio_order
        assert order is not None
        orders.append(order.tolist())
        one, other = plain[place], shuffled[place]
        for name in ("matrices", "misaligned"):
            one[name] = one[name][:, order]
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])
        # Equal places give equal orders, whoever draws them.
        again = Clips(shards, clip, SOUND, AugmentConfig(), seed=3, shuffled=True)
        assert again.draw(*place).audio_order.tolist() == order.tolist()
    assert len({tuple(order) for order in orders}) > 1


def test_shuffled_audio_says_nothing_of_its_view() -> None:
    """All orders are equally likely. If a view never kept its own audio, that would tell it."""
    clip = ClipConfig(views=4)
    counts = np.zeros((4, 4))
    for index in range(2000):
        seed = [0, 0, index]
        draw = Draw.from_seed(seed, 8, clip, AugmentConfig()).with_shuffled_audio(seed)
        assert draw.audio_order is not None
        counts[np.arange(4), draw.audio_order] += 1
    np.testing.assert_allclose(counts / 2000, 0.25, atol=0.05)


def test_shuffled_views_are_a_task_of_their_own(root: Path, tmp_path: Path) -> None:
    """In the run's title and digest, and kept when it is resumed."""
    alone = tiny("avsa")
    control = with_options(alone, shuffle_views=True)
    assert control.title == "AVSA with shuffled views"
    assert control.digest != alone.digest
    assert not first_stage(with_options(control, curriculum=True)).shuffle_views
    arguments = ["pretrain", root, "--out", tmp_path, *SMALL]
    run = avtrain(*arguments, "--steps", 1, "--shuffle-views")
    assert run.exit_code == 0, run.output
    assert Checkpoint.load(tmp_path / "checkpoint.pt").settings().shuffle_views
    output = refused(*arguments, "--steps", 2, "--resume")
    assert "shuffle_views was True and is False" in output


# --- positions ---


def test_directions_are_those_of_the_views_except_for_one_yaw(root: Path) -> None:
    shards = ShardSet(root)
    clip = ClipConfig(views=4, frames=4, fps=8.0, size=48)
    clips = Clips(shards, clip, SOUND, MIRRORED, seed=0)
    turns = []
    for epoch in range(6):
        draw, sample = clips.draw(epoch, 3), clips[epoch, 3]
        places = [shards.info(3).views[view] for view in draw.views]
        looks = np.stack([unit_vector(view.azimuth_deg, view.elevation_deg) for view in places])
        turned = looks @ view_rotation(-draw.frame_yaw_deg, 0.0).T
        flip = np.array([1, -1 if draw.mirror else 1, 1])
        np.testing.assert_allclose(sample["directions"], turned * flip, atol=1e-6)
        turns.append(draw.frame_yaw_deg)
    assert np.std(turns) > 20


# --- curriculum ---

SMALL = ["--batch-size", 4, "--views", 2, "--device", "cpu", "--num-workers", 0, "--transformer"]


def test_a_curriculum_is_two_stages_in_one_command(root: Path, tmp_path: Path) -> None:
    stages = ["--curriculum", "--curriculum-steps", 2, "--steps", 3]
    whole = avtrain("pretrain", root, "--out", tmp_path / "whole", *SMALL, *stages)
    assert whole.exit_code == 0, whole.output
    # By hand: AVC with the preset's batch size for it, then AVSA from its networks.
    first = ["--task", "avc", "--transformer", "--device", "cpu", "--num-workers", 0, "--steps", 2]
    assert avtrain("pretrain", root, "--out", tmp_path / "avc", *first).exit_code == 0
    second = ["--init-from", tmp_path / "avc" / "checkpoint.pt", "--steps", 3]
    assert avtrain("pretrain", root, "--out", tmp_path / "avsa", *SMALL, *second).exit_code == 0
    one, other = (Checkpoint.load(tmp_path / run / "checkpoint.pt") for run in ("whole", "avsa"))
    for name, value in one.model.items():
        assert torch.equal(other.model[name], value), name
    assert one.config["curriculum"]
    assert one.config["begun_with"] == other.config["begun_with"]
    assert one.config["begun_with"].startswith("2 steps of AVC ")
    # Interrupted in the first stage, and in the second.
    parts = ["pretrain", root, "--out", tmp_path / "parts", *SMALL, "--curriculum"]
    run = avtrain(*parts, "--curriculum-steps", 1, "--steps", 1)
    assert run.exit_code == 0
    (tmp_path / "parts" / "checkpoint.pt").unlink()
    for steps in (2, 3):
        run = avtrain(*parts, "--curriculum-steps", 2, "--steps", steps, "--resume")
        assert run.exit_code == 0, run.output
    other = Checkpoint.load(tmp_path / "parts" / "checkpoint.pt")
    for name, value in one.model.items():
        assert torch.equal(other.model[name], value), name
    again = avtrain("pretrain", root, "--out", tmp_path / "whole", *SMALL, *stages)
    assert again.exit_code == 2
    assert "holds a run already" in again.output


@pytest.mark.parametrize("audio", ["mono", "stereo"])
def test_all_options_together(root: Path, tmp_path: Path, audio: str) -> None:
    options = ["--audio", audio, "--positions", "direction", "--head", "mlp", "--negatives", "hard"]
    run = avtrain(
        *("pretrain", root, "--out", tmp_path, *SMALL, *options, "--temperature", 0.1, "--steps", 2)
    )
    assert run.exit_code == 0, run.output
    config = Checkpoint.load(tmp_path / "checkpoint.pt").settings()
    assert (config.sound.audio, config.model.audio_channels) == (audio, len(sound_channels(audio)))
    assert (config.model.positions, config.model.head) == ("direction", "mlp")
    assert (config.negatives, config.temperature) == ("hard", 0.1)
    assert replace(config, seed=1).title == "AVSA, 2 views"


# --- sampling ---


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ([], 12),
        (["--sampling", "clip"], 12),
        (["--sampling", "video"], 6),
        (["--sampling", "video", "--clips-per-source", "2"], 12),
    ],
)
def test_an_epoch_shows_every_clip_or_one_of_each_source(
    tmp_path: Path, options: list[str], shown: int
) -> None:
    root = make_set(tmp_path / "set", {"train": 6}, clips_per_source=2)
    small = ["--task", "avc", "--batch-size", 3, "--device", "cpu"]
    result = avtrain("pretrain", root, *small, *options, "--out", tmp_path / "run", "--dry-run")
    assert result.exit_code == 0, result.output
    assert f"an epoch shows {shown} clips" in result.output
