"""Encoders as graphs, for programs without this one: ONNX, and PyTorch's own export.

The front end is part of the graph: frames as pixels, sound as samples.
"""

from __future__ import annotations

import importlib
import logging
import warnings
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avtrain.data.augment import IMAGENET_MEAN, IMAGENET_STD
from avtrain.encoder import Encoder
from avtrain.errors import TrainingError
from avtrain.networks.features import SILENCE, FeatureConfig, Features
from shards.files import atomic_file

Kind = Literal["onnx", "pt2"]
TOLERANCE = 1e-4
"""Largest difference to the networks, relative to the largest feature."""
_CHECKED = (1, 3)
"""Numbers of inputs with which a graph is compared to the networks."""


class Spectra(nn.Module):
    """`Features.spectra` in real numbers: a discrete Fourier transform as a convolution."""

    basis: Tensor

    def __init__(self, config: FeatureConfig, window: Tensor) -> None:
        super().__init__()
        self.config = config
        bins = torch.arange(config.n_fft // 2 + 1)
        # Whole turns are left out before the angle is rounded.
        turns = (bins[:, None] * torch.arange(config.n_fft)) % config.n_fft
        angles = turns.double() * (2 * np.pi / config.n_fft)
        basis = torch.cat([angles.cos(), -angles.sin()]) * window.double()
        self.register_buffer("basis", basis.float()[:, None])

    def forward(self, audio: Tensor) -> Tensor:
        """(B, channels, samples) to real and imaginary parts (2, B, channels, frames, bins)."""
        config = self.config
        padded = F.pad(audio, (config.n_fft // 2, config.n_fft // 2), mode="reflect")
        parts = F.conv1d(padded.flatten(0, 1)[:, None], self.basis, stride=config.hop_length)
        parts = parts[..., : config.frames]
        apart = parts.reshape(*audio.shape[:2], 2, config.n_fft // 2 + 1, config.frames)
        return apart.permute(2, 0, 1, 4, 3)


class AudioGraph(nn.Module):
    """`Encoder.audio`: sound (N, channels, samples) to features (N, D)."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.features: Features = encoder.features
        self.spectra = Spectra(encoder.features.config, encoder.features.window)
        self.network = encoder.audio_network

    def forward(self, sound: Tensor) -> Tensor:
        features, config = self.features, self.features.config
        alone = torch.eye(config.view_channels).expand(sound.shape[0], 1, -1, -1)
        spectra = self.spectra(sound)
        inputs = (features.log_mel(spectra, alone) - features.mean) / features.std
        if config.intensity:
            # ONNX's optimiser takes 1e-9 for 0, and quiet would become NaN: so all is louder.
            louder = spectra * SILENCE**-0.5
            intensity = features.intensity(louder, alone, silence=1.0) * config.intensity_gain
            inputs = torch.cat([inputs, intensity], dim=2)
        found: Tensor = self.network(inputs[:, 0])
        return found


class VideoGraph(nn.Module):
    """`Encoder.video`: frames uint8 (N, T, size, size, 3), resized already, to features (N, D)."""

    mean: Tensor
    std: Tensor

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.network = encoder.video_network
        self.register_buffer("mean", 255 * torch.tensor(IMAGENET_MEAN), persistent=False)
        self.register_buffer("std", 255 * torch.tensor(IMAGENET_STD), persistent=False)

    def forward(self, frames: Tensor) -> Tensor:
        pixels = (frames.float() - self.mean) / self.std
        found: Tensor = self.network(pixels.permute(0, 4, 1, 2, 3))
        return found


def write_graphs(encoder: Encoder, folder: Path, kind: Kind) -> dict[str, float]:
    """Write ``video`` and ``audio`` of the kind, for any number of inputs, and return each one's
    largest difference to the networks, relative to the largest feature.

    Raises TrainingError for networks that cannot be written so, and for graphs that differ.
    """
    if kind == "onnx":
        _check_packages()
    config = encoder.config
    clip, sound = config.clip, config.sound
    frames = (clip.frames, clip.size, clip.size, 3)
    generator = torch.Generator().manual_seed(0)

    def video(count: int) -> Tensor:
        return torch.randint(0, 256, (count, *frames), generator=generator, dtype=torch.uint8)

    def audio(count: int) -> Tensor:
        shape = (count, sound.view_channels, sound.samples)
        noise = 0.1 * torch.randn(shape, generator=generator)
        noise[..., : sound.samples // 2] = 0  # silence is where graphs go wrong
        return noise

    differences = {}
    for name, graph, inputs, network in (
        ("video", VideoGraph(encoder), video, encoder.video),
        ("audio", AudioGraph(encoder), audio, encoder.audio),
    ):
        path = folder / f"{name}.{kind}"
        graph.eval()
        try:
            _write(graph, inputs(2), path, kind)
            run = _runner(path, kind)
            found = [_difference(run, network, inputs(count)) for count in _CHECKED]
        except Exception as error:
            lines = str(error).strip().splitlines() or [""]
            raise TrainingError(
                f"the {name} network cannot be written as {kind}: "
                f"{type(error).__name__}: {lines[0]:.300}"
            ) from error
        differences[name] = max(found)
        if not differences[name] <= TOLERANCE:
            raise TrainingError(
                f"{path.name} differs from the {name} network by {differences[name]:.1e}"
            )
    return differences


def _check_packages() -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        try:
            importlib.import_module(package)
        except ImportError:
            raise TrainingError(
                f"--onnx needs {package}; `pip install 'avsa360[onnx]'` brings it"
            ) from None


def _write(graph: nn.Module, example: Tensor, path: Path, kind: Kind) -> None:
    name = "frames" if example.dtype == torch.uint8 else "sound"
    shapes = {name: {0: torch.export.Dim("n", min=1, max=65_536)}}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        if kind == "pt2":
            exported = torch.export.export(graph, (example,), dynamic_shapes=shapes)
            with atomic_file(path) as file:
                torch.export.save(exported, file)
            return
        logging.disable(logging.WARNING)  # it warns of packages that are not needed
        try:
            program = torch.onnx.export(
                graph,
                (example,),
                dynamo=True,
                dynamic_shapes=shapes,
                input_names=[name],
                output_names=["features"],
                verbose=False,
            )
        finally:
            logging.disable(logging.NOTSET)
        if program is None:
            raise RuntimeError("PyTorch made no graph")
        with atomic_file(path) as file:
            file.write(program.model_proto.SerializeToString())


def _runner(path: Path, kind: Kind) -> nn.Module:
    if kind == "pt2":
        return torch.export.load(path).module()
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    class Session(nn.Module):
        def forward(self, inputs: Tensor) -> Tensor:
            return torch.from_numpy(session.run(None, {name: inputs.numpy()})[0])

    return Session()


@torch.no_grad()
def _difference(run: nn.Module, network: object, inputs: Tensor) -> float:
    expected: Tensor = network(inputs)  # type: ignore[operator]
    return float((run(inputs) - expected).abs().max() / expected.abs().max().clamp(min=1e-6))
