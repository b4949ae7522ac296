"""A training step on a GPU that is not there: every tensor is where the others are.

PyTorch's fake tensors have a device, a shape and a type, and no numbers. An operation of tensors on
different devices fails as it does on a GPU. Gradients need a device that exists: they are made up.
Each test runs in a process of its own, since a GPU cannot be taken away from PyTorch again.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from avtrain.config import Config, tiny
from avtrain.data.batch import Batch
from avtrain.evals.frozen import Networks
from avtrain.evals.seld import protocol
from avtrain.evals.seld.loss import adpit_loss
from avtrain.evals.seld.model import SeldNet
from avtrain.networks.energy import EnergyMap
from avtrain.networks.losses import ContrastiveLoss
from avtrain.options import with_options
from avtrain.pretrain.trainer import Trainer
from avtrain.runtime.distributed import World
from tests.support.ranks import run_ranks

GPU, STORED = torch.device("cuda", 0), 48
_GUARD = """
#include <c10/core/impl/DeviceGuardImplInterface.h>
static c10::impl::NoOpDeviceGuardImpl<c10::DeviceType::CUDA> guard;
static c10::impl::DeviceGuardImplRegistrar registrar(c10::DeviceType::CUDA, &guard);
"""
"""PyTorch for CPUs alone does not know how to choose a GPU, not even a fake one: nothing to do."""


@pytest.fixture(scope="module")
def guard(tmp_path_factory: pytest.TempPathFactory) -> Path | None:
    """A library that adds a GPU to PyTorch; None where it knows some."""
    if torch.backends.cuda.is_built():
        return None
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no g++ here, to add a GPU to PyTorch for CPUs")
    library = tmp_path_factory.mktemp("guard") / "guard.so"
    folder = Path(torch.__file__).parent
    command = [compiler, "-std=c++20", "-x", "c++", "-", "-shared", "-fPIC", "-o", str(library)]
    command += [f"-I{folder}/include", f"-L{folder}/lib", "-lc10"]
    subprocess.run(command, input=_GUARD, text=True, check=True)
    return library


@contextmanager
def fake_gpu(guard: Path | None) -> Iterator[None]:
    if guard is not None:
        ctypes.CDLL(str(guard))
    fake = FakeTensorMode(allow_non_fake_inputs=True)  # constants of modules
    with pytest.MonkeyPatch.context() as patch, fake, torch.no_grad():
        # Fake parameters cannot be exchanged in place, as `to` does.
        patch.setattr(nn.Module, "to", _to)
        # Without a GPU, autocast and GradScaler would switch themselves off.
        patch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
        patch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
        yield


def _to(self: nn.Module, *where: Any, memory_format: Any = None) -> nn.Module:
    for module in self.modules():
        for name, value in list(module._parameters.items()):
            if value is not None:
                moved = value.detach().to(*where)
                fits = moved.dim() == (5 if memory_format is torch.channels_last_3d else 4)
                if memory_format is not None and fits:
                    moved = moved.to(memory_format=memory_format)
                module._parameters[name] = nn.Parameter(moved, value.requires_grad)
        for name, buffer in list(module._buffers.items()):
            if buffer is not None:
                module._buffers[name] = buffer.to(*where)
    return self


def _batch(config: Config, clips: int = 2) -> Batch:
    clip, sound = config.clip, config.sound
    slots = clip.moments * clip.views
    matrices = torch.randn(clips, clip.moments, clip.views, 4, 4)
    return Batch(
        index=torch.arange(clips),
        frames=torch.zeros(clips, slots, clip.frames, STORED, STORED, 3, dtype=torch.uint8),
        audio=torch.randn(clips, clip.moments, 4, sound.samples),
        matrices=matrices,
        misaligned=matrices,
        directions=torch.randn(clips, slots, 3),
        jitter=torch.rand(clips, 4),
        volume=torch.ones(clips),
        mirror=torch.ones(clips, dtype=torch.bool),
    )


def _step(config: Config) -> tuple[Trainer, ContrastiveLoss]:
    trainer = Trainer(config, World(GPU))
    loss = trainer.forward(_batch(config))
    for parameter in trainer.model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    trainer.scaler.scale(loss.value)
    trainer.scaler.step(trainer.optimiser)
    return trainer, loss


OPTIONS: list[dict[str, Any]] = [
    {"task": "avc", "precision": "fp16"},
    {"task": "avts", "features": "logmel+intensity"},
    {"task": "avsa", "transformer": True, "positions": "relative", "precision": "bf16"},
    {"task": "avsa", "transformer": True, "positions": "direction", "norm_first": True}
    | {"head": "mlp", "negatives": "hard", "dropout": 0.1},
]


def take_steps(guard: Path | None) -> None:
    with fake_gpu(guard):
        for options in OPTIONS:
            changes = {name: value for name, value in options.items() if name != "task"}
            trainer, loss = _step(with_options(tiny(options["task"]), **changes))
            for value in (loss.value, loss.clip_accuracy, loss.view_accuracy):
                assert value is None or value.device == GPU
            state = trainer.optimiser.state_dict()["state"]
            moments = [value for each in state.values() for value in each.values()]
            tensors = [*trainer.model.state_dict().values(), *trainer.features.buffers(), *moments]
            assert {value.device for value in tensors} == {GPU}
            assert loss.value.dtype == torch.float32


def leave_a_tensor_behind(guard: Path | None) -> None:
    def forget(batch: Batch, device: torch.device) -> Batch:
        return replace(move(batch, device), jitter=batch.jitter)

    move = Batch.to
    with fake_gpu(guard), pytest.MonkeyPatch.context() as patch:
        patch.setattr(Batch, "to", forget)
        with pytest.raises(Exception, match=r"cuda:0.*cpu|cpu.*cuda:0"):
            _step(tiny("avsa"))


def evaluate(guard: Path | None) -> None:
    with fake_gpu(guard):
        config = with_options(tiny("avsa"), transformer=True)
        trainer = Trainer(config, World(GPU))
        described: Any = None
        networks = Networks(trainer.model.eval(), trainer.features, config, True, described, GPU)
        batch = _batch(config).to(GPU)
        video, audio = networks.video(batch), networks.audio(batch, batch.misaligned)
        directions = batch.directions.cpu()
        predicted = networks.predicted_audio(video.cpu(), directions)
        found = networks.embeddings(video.cpu(), audio.cpu(), directions)
        tensors = (video, audio, predicted, found.audio, found.predicted_video)
        assert {value.device for value in tensors} == {GPU}


def evaluate_without_networks(guard: Path | None) -> None:
    """The energy map, and what is trained on a device for sound event localization."""
    with fake_gpu(guard):
        config = with_options(tiny("avsa"), features="logmel+intensity")
        trainer, batch = Trainer(config, World(GPU)), _batch(config).to(GPU)
        described: Any = None
        energy = Networks(EnergyMap(), trainer.features, config, False, described, GPU)
        video, audio = energy.video(batch), energy.audio(batch)
        found = energy.embeddings(video.cpu(), audio.cpu(), batch.directions.cpu())
        net = SeldNet(energy, 3, protocol.tiny("audio", False, "2023")).to(GPU)
        inputs = batch.audio_input(trainer.features, batch.matrices).flatten(0, 1)
        tracks = net(inputs, 10, None, None)
        truth = torch.zeros_like(tracks)
        count = torch.ones(tracks.shape[:3], dtype=torch.int64, device=GPU)
        loss = adpit_loss(tracks, truth[..., :3], truth[..., 3], count, 1.0)
        tensors = (video, audio, found.audio, found.video, tracks, loss)
        assert {value.device for value in tensors} == {GPU}


FUNCTIONS = [take_steps, leave_a_tensor_behind, evaluate, evaluate_without_networks]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_on_a_fake_gpu(
    function: Callable[[Path | None], None], guard: Path | None, tmp_path: Path
) -> None:
    (ended,) = run_ranks(1, tmp_path, function, guard)
    assert ended.status == 0, ended.stderr[-4000:]
