"""Import of checkpoints of the published code, from files made here with its names and shapes.

The networks are held against the paper's description, computed here by the published names; with
AVTRAIN_PUBLISHED=CHECKOUT, against the published code itself.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner, Result
from torch import Tensor

from avtrain.checkpoint import Checkpoint
from avtrain.cli.main import main
from avtrain.networks.models import AudioVisual
from avtrain.published import import_checkpoint
from tests.support import ROOT
from tests.support.published_files import State, backbones, criterion, published, saved

AVC_HEAD = "losses.0.audio_projection.projection.0.weight"


def networks(checkpoint: Checkpoint) -> AudioVisual:
    model = AudioVisual(checkpoint.settings().model).eval()
    model.load_state_dict(checkpoint.model)
    return model


@pytest.fixture(scope="module")
def avsa_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("avsa"), published(flat=False))


@pytest.fixture(scope="module")
def avsa(avsa_file: Path) -> Checkpoint:
    return import_checkpoint(avsa_file)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["import-checkpoint", *map(str, arguments)])


# --- the networks, by the published names, from the paper's description ---


def norm(state: State, name: str, x: Tensor) -> Tensor:
    moments, affine = ("running_mean", "running_var"), ("weight", "bias")
    mean, var = (state[f"{name}.{part}"] for part in moments)
    weight, bias = (state[f"{name}.{part}"] for part in affine)
    return F.batch_norm(x, mean, var, weight, bias)


def video_features(state: State, x: Tensor) -> Tensor:
    def conv(name: str, x: Tensor, *steps: int) -> Tensor:
        weight = state[f"video_model.{name}.weight"]
        return F.conv3d(x, weight, None, steps, [size // 2 for size in weight.shape[2:]])

    def bn(name: str, x: Tensor) -> Tensor:
        return norm(state, f"video_model.{name}", x).relu()

    x = bn("conv1.1", conv("conv1.0", x, 1, 2, 2))
    for stage in range(4):
        for block in range(2):
            name, step = f"conv{stage + 2}x.{block}", 2 if stage and not block else 1
            y = bn(f"{name}.spt_bn1", conv(f"{name}.spt_conv1", x, 1, step, step))
            y = bn(f"{name}.tmp_bn1", conv(f"{name}.tmp_conv1", y, step, 1, 1))
            y = bn(f"{name}.spt_bn2", conv(f"{name}.spt_conv2", y, 1, 1, 1))
            y = conv(f"{name}.tmp_conv2", y, 1, 1, 1)
            x = bn(
                f"{name}.out_bn", y + (conv(f"{name}.res_conv", x, *[step] * 3) if step > 1 else x)
            )
    return x.amax(dim=(2, 3, 4))


def audio_features(state: State, x: Tensor) -> Tensor:
    def layer(conv: str, bn: str, x: Tensor, step: int) -> Tensor:
        weight = state[f"audio_model.{conv}.weight"]
        x = F.conv2d(x, weight, None, step, weight.shape[-1] // 2)
        return norm(state, f"audio_model.{bn}", x).relu()

    x = layer("conv1.0", "conv1.1", x, 2)
    for stage, step in enumerate((1, 2, 2, 1)):
        name = f"block{stage + 1}"
        x = layer(f"{name}.conv1", f"{name}.bn1", x, step)
        x = layer(f"{name}.conv2", f"{name}.bn2", x, 1)
    return x.amax(dim=(2, 3))


def transformed(state: State, name: str, x: Tensor) -> Tensor:
    def linear(part: str, x: Tensor) -> Tensor:
        return F.linear(x, state[f"{part}.weight"], state[f"{part}.bias"])

    for layer in (f"losses.0.{name}.transformer.{n}" for n in (0, 1)):
        query, key, value = (
            linear(f"{layer}.attention.{part}", x) for part in ("query", "key", "value")
        )
        weights = (query @ key.mT / 512**0.5).softmax(dim=-1)
        for part, y in (("attention_norm", None), ("dense_norm", 0)):
            if y is None:
                y = linear(f"{layer}.attention.dense", weights @ value)
            else:
                y = linear(f"{layer}.dense.2", linear(f"{layer}.dense.0", x).relu())
            scale, shift = state[f"{layer}.{part}.weight"], state[f"{layer}.{part}.bias"]
            x = F.layer_norm(x + y, (512,), scale, shift)
        x = x.relu()
    return x


@torch.no_grad()
def test_networks_equal_the_description_by_published_names(avsa: Checkpoint) -> None:
    model, state, loss = networks(avsa), backbones(), criterion("avsa")
    random = torch.Generator().manual_seed(0)
    pictures = torch.randn(2, 2, 3, 4, 20, 20, generator=random)
    sound = torch.randn(2, 2, 4, 20, 24, generator=random)
    video, audio = model.embed(pictures, sound)
    close = {"atol": 1e-5, "rtol": 1e-5}
    torch.testing.assert_close(
        video.flatten(0, 1), video_features(state, pictures.flatten(0, 1)), **close
    )
    torch.testing.assert_close(
        audio.flatten(0, 1), audio_features(state, sound.flatten(0, 1)), **close
    )
    directions = torch.zeros(2, 2, 3)
    from_video, from_audio = (
        model.predict_audio(video, directions),
        model.predict_video(audio, directions),
    )
    torch.testing.assert_close(from_video, transformed(loss, "v2a_transformer", video), **close)
    torch.testing.assert_close(from_audio, transformed(loss, "a2v_transformer", audio), **close)
    for name, head, features in (
        ("video_head", model.video_head, video),
        ("audio_head", model.audio_head, audio),
        ("audio_pred_head", model.predicted_audio_head, from_video),
        ("video_pred_head", model.predicted_video_head, from_audio),
    ):
        weight, bias = (loss[f"losses.0.{name}.projection.0.{part}"] for part in ("weight", "bias"))
        torch.testing.assert_close(head(features), F.linear(features, weight, bias), **close)


@pytest.mark.parametrize("task", ["avc", "avsa"])
@pytest.mark.parametrize("old_file", [True, False])
def test_every_tensor_arrives(task: str, old_file: bool, tmp_path: Path) -> None:
    """The result holds all tensors of the file, and no others but those that AVC does not train."""
    content = published(task, prefix="" if old_file else "module.")
    if old_file:
        loss = content["train_criterion"]
        content["train_criterion"] = {f"module.{name}": tensor for name, tensor in loss.items()}
    checkpoint = import_checkpoint(saved(tmp_path, content, zipped=not old_file))
    theirs = [*content["model"].values(), *content["train_criterion"].values()]
    wanted = {tensor.flatten()[0].item(): tuple(tensor.shape) for tensor in theirs}
    ours = {
        name: tensor for name, tensor in checkpoint.model.items() if tensor.min() == tensor.max()
    }
    assert {tensor.min().item(): tuple(tensor.shape) for tensor in ours.values()} | wanted == wanted
    untrained = [n for n in checkpoint.model if n.startswith("predict")] if task == "avc" else []
    assert len(checkpoint.model) - len(untrained) == len(wanted)
    assert {name for name in checkpoint.model if name not in untrained} <= ours.keys()
    settings = checkpoint.settings()
    assert (settings.task, settings.sound.conventions) == (task, "published")
    assert (checkpoint.epoch, checkpoint.total_steps) == (50, 4321)
    if task == "avc":
        head = content["train_criterion"]["module." * old_file + AVC_HEAD]
        assert torch.equal(checkpoint.model["audio_head.weight"], head)


@pytest.mark.parametrize(
    ("step", "steps"), [(torch.tensor(7.0), 7), (torch.tensor(torch.nan), 0), ("x", 0), (-1, 0)]
)
def test_steps_that_newer_optimisers_count_in_tensors(
    step: object, steps: int, tmp_path: Path
) -> None:
    content = published("avc")
    content["optimizer"]["state"][0]["step"] = step
    assert import_checkpoint(saved(tmp_path, content)).total_steps == steps


# --- errors ---


def without(content: dict[str, Any], *path: str) -> dict[str, Any]:
    del (content[path[0]] if path[1:] else content)[path[-1]]
    return content


def wrong(name: str) -> tuple[object, list[str]]:
    content = published()
    stem = "module.video_model.conv1.0.weight"
    match name:
        case "one missing":
            del content["model"]["module.audio_model.block3.bn2.running_var"]
            return content, ["lacks model.audio_model.block3.bn2.running_var"]
        case "many missing":
            content["model"] = dict(list(content["model"].items())[:-3])
            return content, ["lacks model.", "and 2 more tensors"]
        case "left over":
            content["model"]["module.classifier.weight"] = torch.zeros(3)
            return content, ["holds model.classifier.weight, which our networks do not have"]
        case "other shape":
            content["model"][stem] = torch.zeros(64, 3, 5, 7, 7)
            return content, ["model.video_model.conv1.0.weight", "(64, 3, 5, 7, 7)"]
        case "mono":
            content["model"]["module.audio_model.conv1.0.weight"] = torch.zeros(64, 1, 7, 7)
            return content, ["model.audio_model.conv1.0.weight", "(64, 1, 7, 7)"]
        case "no tensor":
            content["model"][stem] = 3.0
            return content, ["model.module.video_model.conv1.0.weight, which is no tensor"]
        case "no criterion":
            return without(content, "train_criterion"), ["no state dict 'train_criterion'"]
        case "other criterion":
            content["train_criterion"] = {}
            return content, ["neither the heads of AVC nor those of AVSA"]
    return [1, 2], ["no checkpoint of the published code"]


@pytest.mark.parametrize(
    "name",
    [
        "one missing",
        "many missing",
        "left over",
        "other shape",
        "mono",
        "no tensor",
        "no criterion",
        "other criterion",
        "list",
    ],
)
def test_unfitting_files_are_refused_in_one_sentence(name: str, tmp_path: Path) -> None:
    content, words = wrong(name)
    path, out = saved(tmp_path, content), tmp_path / "ours.pt"
    result = run(path, "--out", out)
    assert result.exit_code == 2
    assert str(path) in result.output
    assert len(result.output.strip().splitlines()) == 1
    assert all(word in result.output for word in words), result.output
    assert not out.exists()


class Touch:
    """Runs a command when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch '{self.path}'",)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_file_is_refused_and_not_run(tmp_path: Path, zipped: bool) -> None:
    touched = tmp_path / "touched"
    path = saved(tmp_path, {"model": {}, "epoch": Touch(touched)}, zipped=zipped)
    result = run(path, "--out", tmp_path / "ours.pt")
    assert result.exit_code == 2
    assert "system beside tensors and numbers" in result.output
    assert len(result.output.strip().splitlines()) == 1
    assert not touched.exists()


def test_other_bad_files_are_refused_in_one_sentence(avsa_file: Path, tmp_path: Path) -> None:
    out, bad = tmp_path / "ours.pt", tmp_path / "bad"
    whole = avsa_file.read_bytes()
    for content in (b"", b"hello " * 100, whole[: len(whole) // 2]):
        bad.write_bytes(content)
        result = run(bad, "--out", out)
        assert (result.exit_code, result.output) == (
            2,
            f"Error: {bad} is no checkpoint, or is damaged\n",
        )
    assert "No such file" in run(tmp_path / "none", "--out", out).output
    assert "name another file" in run(avsa_file, "--out", avsa_file).output
    for arrays in ({"mean": np.zeros(128)}, {"mean": np.zeros(64), "std": np.ones(64)}):
        np.savez(tmp_path / "bad.npz", **arrays)
        result = run(avsa_file, "--out", out, "--statistics", tmp_path / "bad.npz")
        assert result.exit_code == 2
        assert "mean" in result.output
        assert len(result.output.strip().splitlines()) == 1
    assert not out.exists()


def test_the_command_stores_conventions_and_statistics(tmp_path: Path) -> None:
    path, out, statistics = saved(tmp_path, published()), tmp_path / "a/ours.pt", tmp_path / "s.npz"
    assert "--statistics" in run(path, "--out", out).output
    np.savez(statistics, mean=np.arange(128.0), std=np.full(128, 2.0))
    result = run(path, "--out", out, "--conventions", "avsa360", "--statistics", statistics)
    assert result.exit_code == 0, result.output
    checkpoint = Checkpoint.load(out)
    assert checkpoint.config["sound"]["conventions"] == "avsa360"
    assert checkpoint.features["mean"].tolist() == list(range(128))
    assert checkpoint.features["std"].tolist() == pytest.approx([2.00001] * 128)


def test_outputs_equal_those_of_the_published_code() -> None:
    checkout = os.environ.get("AVTRAIN_PUBLISHED")
    if checkout is None:
        pytest.skip("AVTRAIN_PUBLISHED names no checkout of the published code")
    script = ROOT / "benchmarks/published_outputs.py"
    result = subprocess.run([sys.executable, script, checkout], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
