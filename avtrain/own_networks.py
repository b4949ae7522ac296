"""Networks of the user's own: functions that the user names make them (docs/own-network.md).

A checkpoint names the functions that made its networks. They are never imported for that: only a
name that the user gives as well (`Factories`) chooses code.
"""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from avtrain.config import Config
from avtrain.errors import TrainingError
from avtrain.networks.models import AudioVisual, Option, OwnNetwork

Modality = Literal["video", "audio"]
MODALITIES: tuple[Modality, ...] = ("video", "audio")
Factory = Callable[..., nn.Module]


@dataclass(frozen=True)
class Factories:
    """Functions that make networks, as ``package.module:function`` or themselves; None for the
    paper's network."""

    video: str | Factory | None = None
    audio: str | Factory | None = None
    options: Mapping[str, Mapping[str, Option]] = field(default_factory=dict)
    """Keyword arguments of new networks, by modality; those of a checkpoint are recorded in it."""

    def named(self, modality: Modality) -> str | Factory | None:
        return self.video if modality == "video" else self.audio


PAPERS = Factories()
"""The paper's networks."""


def record_networks(config: Config, factories: Factories) -> Config:
    """The settings of a new run, with records of the networks that the factories make: each is
    made once, to see the size of its features. Raises TrainingError."""
    for modality in MODALITIES:
        options = dict(factories.options.get(modality, {}))
        factory = factories.named(modality)
        if factory is None:
            if options:
                raise TrainingError(
                    f"the network options have some for {modality}, but no --{modality}-network "
                    "is named"
                )
            continue
        made = _make(factory, modality, _shape(config, modality), options)
        own = OwnNetwork(_name(factory), _features(made, factory, config, modality), options)
        model = config.model
        config = replace(
            config,
            model=replace(model, video_network=own)
            if modality == "video"
            else replace(model, audio_network=own),
        )
    return config


def check_named(config: Config, factories: Factories, path: Path | str) -> None:
    """Raise TrainingError unless the user has named the very functions that made the networks of
    the checkpoint, or run, at ``path``."""
    for modality in MODALITIES:
        own, factory = config.model.own(modality), factories.named(modality)
        if own is None and factory is None:
            continue
        option = f"--{modality}-network"
        if own is None:
            raise TrainingError(f"{path} has the paper's {modality} network: leave out {option}")
        if factory is None:
            raise TrainingError(
                f"{path} has a {modality} network of {own.factory}, which is not part of this "
                f"program; if you trust its code, add {option} {own.factory}"
            )
        if isinstance(factory, str) and factory != own.factory:
            raise TrainingError(
                f"{path} has a {modality} network of {own.factory}, not of {factory}"
            )


def build_networks(config: Config, factories: Factories) -> AudioVisual:
    """Random networks of ``config``. Raises TrainingError for networks of the user's own that the
    user has not named, or that do not do what they must."""
    check_named(config, factories, "this run")
    made: dict[str, nn.Module] = {}
    for modality in MODALITIES:
        own, factory = config.model.own(modality), factories.named(modality)
        if own is None or factory is None:
            continue
        network = _make(factory, modality, _shape(config, modality), own.options)
        if (features := _features(network, factory, config, modality)) != own.features:
            raise TrainingError(
                f"{_name(factory)} makes {modality} features of {features} numbers, and made "
                f"{own.features} when the networks were trained"
            )
        made[modality] = network
    return AudioVisual(config.model, **made)


def _shape(config: Config, modality: Modality) -> tuple[int, ...]:
    return config.video_shape if modality == "video" else config.audio_shape


def _name(factory: str | Factory) -> str:
    if isinstance(factory, str):
        return factory
    return f"{factory.__module__}:{factory.__qualname__}"


def _make(
    factory: str | Factory,
    modality: Modality,
    shape: tuple[int, ...],
    options: Mapping[str, Option],
) -> nn.Module:
    name = _name(factory)
    function = _imported(factory, modality) if isinstance(factory, str) else factory
    try:
        network = function(shape, **options)
    except Exception as error:
        raise TrainingError(f"{name} makes no network: {_described(error)}") from error
    if not isinstance(network, nn.Module):
        raise TrainingError(f"{name} returns a {type(network).__name__}, no nn.Module")
    return network


def _imported(name: str, modality: Modality) -> Factory:
    module_name, _, function_name = name.partition(":")
    if not module_name or not function_name:
        raise TrainingError(
            f"--{modality}-network {name} is no package.module:function, such as mynet:small"
        )
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)  # last, so that nothing there hides an installed package
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise TrainingError(
            f"--{modality}-network {name} cannot be imported: {_described(error)}; modules are "
            "looked for where Python is told to (PYTHONPATH) and in the current folder"
        ) from error
    function: Any = module
    for part in function_name.split("."):
        function = getattr(function, part, None)
    if not callable(function):
        raise TrainingError(
            f"--{modality}-network {name}: {module_name} has no function {function_name}"
        )
    found: Factory = function
    return found


def _described(error: Exception) -> str:
    """The error in one line, and the place in the user's code."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    message = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {message} ({last.filename}, line {last.lineno})"


@torch.no_grad()
def _features(
    network: nn.Module, factory: str | Factory, config: Config, modality: Modality
) -> int:
    """Size of the features; two inputs of zeros go through the network."""
    name, shape = _name(factory), _shape(config, modality)
    training = network.training
    try:
        found: Any = network.eval()(torch.zeros(2, *shape))
    except Exception as error:
        raise TrainingError(
            f"the network of {name} fails on an input {(2, *shape)}: {_described(error)}"
        ) from error
    network.train(training)
    if not isinstance(found, Tensor) or found.dim() != 2 or len(found) != 2:
        got = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise TrainingError(
            f"the network of {name} must return features (N, D), and returns {got} for an input "
            f"{(2, *shape)}"
        )
    if not found.is_floating_point() or not found.shape[1]:
        raise TrainingError(f"the features of {name} are {found.dtype} {tuple(found.shape)}")
    for key, value in network.state_dict().items():
        if not isinstance(value, Tensor):
            raise TrainingError(
                f"the network of {name} keeps {key}, a {type(value).__name__}, in its state_dict; "
                "checkpoints hold tensors alone"
            )
    return found.shape[1]
