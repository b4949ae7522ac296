"""The transformers over the views: the paper's layers, positions, and layers that know where each
view looks as seen from the others."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from avtrain.checkpoint import Checkpoint
from avtrain.config import AugmentConfig, ClipConfig, Config, tiny
from avtrain.data.clips import Clips
from avtrain.errors import TrainingError
from avtrain.networks.features import FeatureConfig
from avtrain.networks.models import AudioVisual, ModelConfig
from avtrain.networks.transformer import (
    Positions,
    RelativeLayer,
    TransformerLayer,
    ViewTransformer,
    _spherical_harmonics,
    relative_harmonics,
)
from avtrain.options import with_options
from avtrain.pretrain.trainer import Trainer
from avtrain.runtime.distributed import World
from shards.geometry import unit_vector
from shards.reader import ShardSet
from tests.support.runs import SMALL, assert_same_state, avtrain, refused
from tests.support.tiny_set import make_set

TINY = ModelConfig(width=4, audio_channels=4, embedding=16)
RELATIVE = replace(TINY, positions="relative", norm_first=True, dropout=0.0)


def test_transformer_is_one_scaled_attention_head() -> None:
    torch.manual_seed(0)
    layer = AudioVisual(TINY).eval().predict_audio.layers[0]
    x = torch.randn(3, 5, 32)
    with torch.no_grad():
        attended = torch.nn.functional.scaled_dot_product_attention(  # scales by 1 / sqrt(dim)
            layer.query(x), layer.key(x), layer.value(x)
        )
        y = layer.attention_norm(x + layer.out(attended))
        expected = layer.mlp_norm(y + layer.mlp(y)).relu()
        torch.testing.assert_close(layer(x), expected)


def directions(*shape: int) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(*shape, 3), dim=-1)


@pytest.mark.parametrize(
    ("positions", "norm_first"),
    [
        ("none", False),
        ("none", True),
        ("direction", False),
        ("direction", True),
        ("relative", True),
    ],
)
def test_transformer_treats_the_views_as_a_set(positions: Positions, norm_first: bool) -> None:
    torch.manual_seed(0)
    config = replace(TINY, positions=positions, norm_first=norm_first)
    predict = trained(AudioVisual(config).eval().predict_audio)
    x, where = torch.randn(3, 5, 32), directions(3, 5)
    order = torch.tensor([3, 0, 4, 1, 2])
    with torch.no_grad():
        torch.testing.assert_close(
            predict(x[:, order], where[:, order]), predict(x, where)[:, order]
        )
        changed = x.clone()
        changed[:, 4] = torch.randn(3, 32)
        assert not torch.allclose(predict(changed, where)[:, 0], predict(x, where)[:, 0])
        # Directions matter only with positions.
        elsewhere = predict(x, directions(3, 5))
        assert torch.allclose(elsewhere, predict(x, where)) == (positions == "none")


def test_positions_are_spherical_harmonics_of_equal_weight() -> None:
    """Means over the sphere: 0 for each and for products of two, 1 for squares."""
    torch.manual_seed(0)
    values = _spherical_harmonics(directions(200_000).double())
    torch.testing.assert_close(values.mean(dim=0), torch.zeros(8).double(), atol=0.02, rtol=0)
    gram = values.T @ values / len(values)
    torch.testing.assert_close(gram, torch.eye(8).double(), atol=0.03, rtol=0)


def test_dropout_only_while_training() -> None:
    torch.manual_seed(0)
    model = AudioVisual(TINY)
    x, where = torch.randn(2, 4, 32), directions(2, 4)
    with torch.no_grad():
        predict = model.train().predict_video
        assert not torch.equal(predict(x, where), predict(x, where))
        predict = model.eval().predict_video
        assert torch.equal(predict(x, where), predict(x, where))


def test_norm_first_passes_the_input_through() -> None:
    """The outputs of attention and MLP are added to it."""
    layer = TransformerLayer(32, 0.1, norm_first=True)
    for last in (layer.out, layer.mlp[-1]):
        torch.nn.init.zeros_(last.weight)
        torch.nn.init.zeros_(last.bias)
    x = torch.randn(2, 4, 32)
    assert torch.equal(layer(x), x)


def test_without_transformer_predictions_are_the_features() -> None:
    model = AudioVisual(ModelConfig(width=4, transformer=False))
    x = torch.randn(2, 4, 32)
    assert torch.equal(model.predict_audio(x, directions(2, 4)), x)


# --- layers that know where each view looks as seen from the others ---


def trained(predict: ViewTransformer) -> ViewTransformer:
    """Every parameter random: what begins at zero would hide what it multiplies."""
    for parameter in predict.parameters():
        nn.init.normal_(parameter, std=0.3)
    return predict


def looks(azimuth_deg: list[float], elevation_deg: list[float], yaw_deg: float = 0.0) -> Tensor:
    turned = np.array(azimuth_deg) + yaw_deg
    return torch.from_numpy(unit_vector(turned, elevation_deg))[None]


AZIMUTH_DEG, ELEVATION_DEG = [-170.0, 10.0, 75.0, 175.0], [5.0, -40.0, 80.0, 0.0]


def test_a_common_yaw_of_all_views_changes_nothing() -> None:
    """And that of one view does, which a view's own azimuth alone would not show."""
    torch.manual_seed(0)
    predict, x = (
        trained(ViewTransformer(RELATIVE.across_views(RELATIVE.video_dim))),
        torch.randn(1, 4, 32),
    )
    with torch.no_grad():
        here = predict(x, looks(AZIMUTH_DEG, ELEVATION_DEG).float())
        for yaw_deg in (33.0, 90.0, -179.0):
            turned = predict(x, looks(AZIMUTH_DEG, ELEVATION_DEG, yaw_deg).float())
            torch.testing.assert_close(turned, here, atol=1e-6 * here.abs().max().item(), rtol=0)
        azimuth_deg = [*AZIMUTH_DEG[:3], 150.0]
        one_turned = predict(x, looks(azimuth_deg, ELEVATION_DEG).float())
        assert ((one_turned - here).abs().amax(dim=-1) > 1e-3).all()
        # Left is not right: the sines tell a view at 30 degrees from one at -30 degrees.
        two = [predict(x[:, :2], looks([0.0, at], [0.0, 0.0]).float()) for at in (30.0, -30.0)]
        assert ((two[0] - two[1]).abs().amax(dim=-1) > 1e-3).all()


def test_relative_attention_equals_its_formula() -> None:
    """A loop over views i and j, in float64."""
    torch.manual_seed(0)
    layer = RelativeLayer(8, dropout=0.0).double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.5)
    x = torch.randn(1, 4, 8, dtype=torch.float64)
    with torch.no_grad():
        attended = layer.attend(x, relative_harmonics(looks(AZIMUTH_DEG, ELEVATION_DEG)))
        blocks = [layer.value.weight[8 * block : 8 * block + 8] for block in range(5)]
        for i in range(4):
            scores, values = [], []
            for j in range(4):
                t = math.radians(AZIMUTH_DEG[j] - AZIMUTH_DEG[i])
                harmonics = [math.cos(t), math.sin(t), math.cos(2 * t), math.sin(2 * t)]
                score = layer.query(x[0, i]) @ layer.key(x[0, j]) / math.sqrt(8)
                bias = layer.turn.weight[0] @ torch.tensor(harmonics, dtype=torch.float64)
                scores.append(math.exp(score + bias))
                matrix = sum(h * block for h, block in zip([1.0, *harmonics], blocks, strict=True))
                values.append(matrix @ x[0, j])
            shares = [score / sum(scores) for score in scores]
            context = sum(share * value for share, value in zip(shares, values, strict=True))
            torch.testing.assert_close(attended[0, i], layer.out(context), atol=1e-12, rtol=1e-12)


def test_a_view_straight_up_has_no_azimuth() -> None:
    towards = relative_harmonics(looks([20.0, 50.0], [90.0, 0.0], 10.0))
    assert towards.isfinite().all()
    assert towards[0, 0].abs().max() < 1e-9
    assert towards[0, 0, 1].abs().max() < 1e-9
    torch.testing.assert_close(towards[0, 1, 1], torch.tensor([1.0, 0, 1, 0]).double())


def test_training_begins_as_without_a_transformer_and_reaches_every_parameter() -> None:
    torch.manual_seed(0)
    predict = ViewTransformer(RELATIVE.across_views(RELATIVE.video_dim))
    x, where = torch.randn(3, 4, 32), directions(3, 4)
    assert torch.equal(predict(x, where), x)
    optimiser = torch.optim.SGD(predict.parameters(), lr=0.1)
    for _ in range(2):
        optimiser.zero_grad()
        (predict(x, where) * torch.randn(3, 4, 32)).sum().backward()
        optimiser.step()
    for name, parameter in predict.named_parameters():
        # What is added to all keys alike does not change a softmax.
        if not name.endswith("key.bias"):
            assert parameter.grad is not None, name
            assert parameter.grad.abs().max() > 1e-7, name


def test_the_directions_of_a_mirrored_clip_turn_the_other_way(tmp_path: Path) -> None:
    """Left and right are exchanged in pictures, sound and directions: sines change their sign."""
    shards = ShardSet(make_set(tmp_path, {"train": 2}))
    clip = ClipConfig(views=4, frames=4, fps=8.0, size=48)
    clips = Clips(shards, clip, FeatureConfig(mels=64), AugmentConfig(), seed=0)
    draw = clips.draw(0, 1)
    plain, mirrored = (
        relative_harmonics(
            torch.from_numpy(clips.read(1, replace(draw, mirror=mirror))["directions"])[None]
        )
        for mirror in (False, True)
    )
    torch.testing.assert_close(mirrored, plain * torch.tensor([1.0, -1, 1, -1]), atol=1e-5, rtol=0)
    assert plain[..., 1].abs().max() > 0.5
    places = [shards.info(1).views[view].azimuth_deg for view in draw.views]
    for i, j in ((0, 1), (2, 0), (3, 3)):
        t = math.radians(places[j] - places[i])
        expected = torch.tensor([math.cos(t), math.sin(t), math.cos(2 * t), math.sin(2 * t)])
        torch.testing.assert_close(plain[0, i, j], expected, atol=1e-5, rtol=0)


def test_relative_positions_normalise_first() -> None:
    config = with_options(tiny("avsa"), transformer=True, positions="relative")
    config.check()
    assert config.model.norm_first
    assert type(config).from_dict(config.to_dict()) == config
    with pytest.raises(TrainingError, match="leave out --norm-last"):
        with_options(config, positions="relative", norm_first=False).check()


def test_a_run_with_relative_positions_resumes_exactly(tmp_path: Path) -> None:
    root = make_set(tmp_path / "set", {"train": 6}, clips_per_source=2)
    run = ["pretrain", root, *SMALL, "--positions", "relative", "--num-workers", 0]
    for name, parts in (("whole", (2,)), ("parts", (1, 2))):
        for steps in parts:
            done = avtrain(*run, "--out", tmp_path / name, "--steps", steps, "--resume")
            assert done.exit_code == 0, done.output
    assert_same_state(tmp_path / "whole", tmp_path / "parts")
    output = refused(*run, "--out", tmp_path / "other", "--norm-last")
    assert "--positions relative normalises first: leave out --norm-last" in output


def test_the_learning_rate_of_transformers_rises(tmp_path: Path) -> None:
    """As a linear ramp over steps, also where a run was interrupted; that of all else does not."""
    root = make_set(tmp_path / "set", {"train": 6}, clips_per_source=2)
    run = ["pretrain", root, *SMALL, "--positions", "relative", "--num-workers", 0, "--lr", 1e-3]

    def rates(name: str, *options: object) -> list[float]:
        done = avtrain(*run, "--out", tmp_path / name, "--resume", *options)
        assert done.exit_code == 0, done.output
        groups = Checkpoint.load(tmp_path / name / "checkpoint.pt").optimiser["param_groups"]
        return [group["lr"] for group in groups]

    ramp = ("--transformer-warmup", 4)
    for steps, rate in ((1, 0.25e-3), (3, 0.75e-3), (5, 1e-3)):
        assert rates("ramp", *ramp, "--steps", steps) == pytest.approx([1e-3, rate])
    rates("whole", *ramp, "--steps", 5)
    assert_same_state(tmp_path / "ramp", tmp_path / "whole")
    assert rates("none", "--transformer-warmup", 0, "--steps", 1) == [1e-3]
    assert rates("default", "--steps", 8) == pytest.approx([1e-3, 1e-5])
    # Runs from before had none.
    said = refused(*run, "--out", tmp_path / "none", "--resume", "--steps", 2)
    assert "transformer_warmup was 0 and is 800; add --transformer-warmup 0" in said
    config = Checkpoint.load(tmp_path / "none" / "checkpoint.pt").config
    del config["transformer_warmup"]
    assert Config.from_dict(config).transformer_warmup == 0
    said = refused("pretrain", root, "--no-transformer", "--transformer-warmup", 5)
    assert "--transformer-warmup needs transformers" in said


def test_transformers_stay_as_they_are_at_the_begin_of_their_ramp() -> None:
    """What the ramp is for: a step at its begin moves all else by far more."""
    config = with_options(tiny("avsa"), transformer=True, positions="relative", batch_size=4)
    trainer = Trainer(config, World(torch.device("cpu")))
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    video, audio = torch.randn(4, 4, *config.video_shape), torch.randn(4, 4, *config.audio_shape)
    directions = normalize(torch.randn(4, 4, 3), dim=-1)
    trainer.backward_and_step(trainer.objective(video, audio, directions), True)
    moved = {
        name: (value - before[name]).abs().max().item()
        for name, value in trainer.model.named_parameters()
    }
    ahead = {name for name in moved if name.startswith("predict_")}
    assert max(moved[name] for name in ahead) < 2 * config.learning_rate / 800
    assert max(moved[name] for name in moved.keys() - ahead) > 0.5 * config.learning_rate
