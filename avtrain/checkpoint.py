"""Checkpoints: everything that a run needs to continue exactly."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from msgspec import Meta
from torch import Tensor, nn

from avtrain.config import Config
from avtrain.errors import TrainingError
from avtrain.exported import read_exported
from avtrain.networks.models import AudioVisual
from avtrain.runtime.torch_file import ForeignObjectError, plain, read_torch
from shards.files import atomic_file, parse_value

VERSION = 3
# May differ between a run and its continuation.
_MAY_DIFFER = {"epochs"}
_LONGEST_STATE = 100_000
_WARMUP = "transformer_warmup"
_BACKBONES: tuple[Literal["video", "audio"], ...] = ("video", "audio")
_Count = Annotated[int, Meta(ge=0, le=2**53)]
_Decay = Annotated[float, Meta(ge=0, lt=1)]


@dataclass(frozen=True)
class Checkpoint:
    """State after ``total_steps`` steps; the next one is step ``step`` of ``epoch``.

    ``features`` are the statistics of the log-mels (empty: to be computed from the set in use),
    ``data`` is the SHA-256 of the set's manifest, ``rng`` holds the states of torch's generators by
    device type, ``scaler`` that of the gradient scaler (empty except in fp16).
    """

    config: dict[str, Any]
    data: str
    split: str
    epoch: int
    step: int
    total_steps: int
    model: dict[str, Tensor]
    features: dict[str, Tensor]
    optimiser: dict[str, Any]
    rng: dict[str, Tensor]
    scaler: dict[str, Any]

    def save(self, path: Path) -> None:
        """Write the file atomically: at any time it is the old one or the new one."""
        # To memory first: on a full disk torch's own writer fails with an internal message.
        content = self.to_bytes()
        with atomic_file(path) as file:
            file.write(content)

    def to_bytes(self) -> memoryview:
        """Content of the file."""
        content = {field.name: getattr(self, field.name) for field in fields(self)}
        buffer = io.BytesIO()
        torch.save({"version": VERSION, **content}, buffer)
        return buffer.getbuffer()

    @classmethod
    def load(cls, path: Path) -> Checkpoint:
        """Read a ``checkpoint.pt``, or a folder of `avtrain export`.

        Raises TrainingError for a file that is no checkpoint of this version, whose parts do not
        fit each other, or whose weights are not finite."""
        try:
            content = _read(path)
        except OSError as error:
            raise TrainingError(f"checkpoint {path}: {error.strerror}") from None
        except ForeignObjectError as error:
            raise TrainingError(
                f"{path} is no checkpoint of avtrain: it holds {error} beside tensors and numbers"
            ) from None
        except ValueError as error:
            raise TrainingError(f"{path} is no checkpoint or is damaged ({error})") from None
        if not isinstance(content, dict) or content.pop("version", None) != VERSION:
            raise TrainingError(f"{path} is no checkpoint of this version of avtrain")
        if lacking := {field.name for field in fields(cls)} - content.keys():
            raise TrainingError(f"{path} is incomplete: it lacks {min(lacking)}")
        try:
            return _checked(content)
        except ValueError as error:
            raise TrainingError(
                f"{path} is no checkpoint of this version of avtrain: {error}"
            ) from None

    @property
    def weights_sha256(self) -> str:
        """Hash of the networks' weights alone."""
        digest = hashlib.sha256()
        for name, value in sorted(self.model.items()):
            digest.update(name.encode() + value.contiguous().numpy().tobytes())
        return digest.hexdigest()

    def settings(self) -> Config:
        """The run's settings."""
        return Config.from_dict(self.config)

    def check_networks(self, networks: AudioVisual) -> None:
        """Raise TrainingError unless its tensors, and those of its optimiser, are the networks'.
        Of those that the user has made, `load` could not know."""
        try:
            _check_tensors("model", self.model, networks.state_dict())
            if self.optimiser:
                check_optimiser(self.optimiser, _groups(networks, self.settings()))
        except ValueError as error:
            raise TrainingError(
                f"the networks that were made do not fit those of the checkpoint: {error}; make "
                "them by the code that it was trained with"
            ) from None

    def check_continues(self, path: Path, config: Config, data: str, split: str) -> None:
        """Raise TrainingError, naming what differs, unless it belongs to this very run."""
        if not (self.features and self.optimiser and "cpu" in self.rng):
            raise TrainingError(
                f"{path} holds networks alone, no state of a run: it cannot be resumed; take the "
                "networks with --init-from"
            )
        here = {"data": data, "split": split, **config.flat()}
        # Settings newer than the checkpoint had their default values.
        there = {"data": self.data, "split": self.split, **self.settings().flat()}
        names = (here.keys() | there.keys()) - _MAY_DIFFER
        differing = [
            f"{name} was {there.get(name)} and is {here.get(name)}"
            for name in sorted(names)
            if there.get(name) != here.get(name)
        ]
        if differing:
            gain = "sound.intensity_gain"
            remedy = ""
            if there[_WARMUP] != here[_WARMUP]:
                remedy = f"; add --transformer-warmup {there[_WARMUP]}"
            if there[gain] != here[gain] and here["sound.intensity"] and there["sound.intensity"]:
                remedy += f"; add --intensity-gain {there[gain]:g}"
            raise TrainingError(f"{path} cannot be resumed: {'; '.join(differing)}{remedy}")

    def check_initialises(self, path: Path, config: Config) -> None:
        """Raise TrainingError, naming what differs, unless networks and features are the same."""
        differing = []
        for part in ("model", "sound"):
            here, there = config.to_dict()[part], self.settings().to_dict()[part]
            differing += [
                f"{part} {name} is {there.get(name)} there and {here[name]} here"
                for name in here
                if there.get(name) != here[name]
            ]
        if differing:
            raise TrainingError(f"{path} does not fit this run: {'; '.join(differing)}")


def _read(path: Path) -> Any:
    if path.is_dir():
        return {"version": VERSION, **read_exported(path)}
    return plain(path, read_torch(path))


@dataclass(frozen=True)
class _Places:
    """Those parts of a checkpoint that are neither settings nor tensors."""

    data: Annotated[str, Meta(max_length=64)]
    split: Annotated[str, Meta(max_length=255)]
    epoch: _Count
    step: _Count
    total_steps: _Count


@dataclass(frozen=True)
class _Group:
    """Settings of the optimiser; flags that this version does not know stay PyTorch's concern."""

    params: list[int]
    lr: Annotated[float, Meta(ge=0, le=1e30)]
    betas: tuple[_Decay, _Decay]
    eps: Annotated[float, Meta(ge=0, le=1)]
    weight_decay: Annotated[float, Meta(ge=0, le=1e30)]
    amsgrad: Literal[False]
    maximize: Literal[False]
    foreach: bool | None
    capturable: bool
    differentiable: Literal[False]
    fused: bool | None


@dataclass(frozen=True)
class _Scaler:
    """State of a gradient scaler."""

    scale: Annotated[float, Meta(gt=0, le=1e38)]
    growth_factor: Annotated[float, Meta(gt=1, le=1e38)]
    backoff_factor: Annotated[float, Meta(gt=0, lt=1)]
    growth_interval: Annotated[int, Meta(ge=1, le=2**31 - 1)]
    _growth_tracker: Annotated[int, Meta(ge=0, le=2**31 - 1)]


def _checked(content: dict[str, Any]) -> Checkpoint:
    """A checkpoint whose parts fit each other. Raises ValueError: which part does not."""
    for field in fields(Checkpoint):
        if field.type.startswith("dict") and not isinstance(content[field.name], dict):
            raise ValueError(f"its {field.name} is a {type(content[field.name]).__name__}")
    if unknown := content.keys() - {field.name for field in fields(Checkpoint)}:
        raise ValueError(f"it holds {min(map(str, unknown))}, which is unknown")
    parse_value({name: content[name] for name in _Places.__annotations__}, _Places)
    checkpoint = Checkpoint(**content)
    try:
        config = checkpoint.settings()
    except ValueError as error:
        raise ValueError(f"in its settings, {error}") from None
    # The user's own networks are not known here: they are compared once they are made.
    own = {name: nn.Identity() for name in _BACKBONES if config.model.own(name) is not None}
    with torch.device("meta"):
        networks = AudioVisual(config.model, **own)
    theirs = {
        name: value
        for name, value in checkpoint.model.items()
        if isinstance(name, str) and name.partition(".")[0] in own
    }
    for name, value in theirs.items():
        if not isinstance(value, Tensor):
            raise ValueError(f"its model.{name} is a {type(value).__name__}, no tensor")
        check_tensor(f"its model.{name}", value, value.shape, value.dtype)
    rest = {name: value for name, value in checkpoint.model.items() if name not in theirs}
    _check_tensors("model", rest, networks.state_dict())
    if checkpoint.features:
        bands = torch.empty(config.sound.mels, device="meta")
        _check_tensors("features", checkpoint.features, {"mean": bands, "std": bands})
        if not (checkpoint.features["std"] > 0).all():
            raise ValueError("its features.std has values that are not above 0")
    if checkpoint.optimiser and not own:
        check_optimiser(checkpoint.optimiser, _groups(networks, config))
    for device, state in checkpoint.rng.items():
        _check_generator(device, state)
    if checkpoint.scaler:
        parse_value(checkpoint.scaler, _Scaler)
    return checkpoint


def _check_tensors(part: str, there: dict[str, Any], here: dict[str, Tensor]) -> None:
    """Raise ValueError unless ``there`` are finite tensors like ``here``, by name, shape and
    type."""
    missing, extra = (
        sorted(here.keys() - there.keys()),
        sorted(map(str, there.keys() - here.keys())),
    )
    if missing:
        raise ValueError(f"its {part} lacks {name_first(missing)}")
    if extra:
        raise ValueError(f"its {part} holds {name_first(extra)}, which these networks do not have")
    for name, wanted in here.items():
        check_tensor(f"its {part}.{name}", there[name], wanted.shape, wanted.dtype)


def check_tensor(name: str, value: Any, shape: Sequence[int], dtype: torch.dtype) -> None:
    if not isinstance(value, Tensor):
        raise ValueError(f"{name} is a {type(value).__name__}, no tensor")
    if tuple(value.shape) != tuple(shape):
        raise ValueError(f"{name} has the shape {tuple(value.shape)}, not {tuple(shape)}")
    if value.dtype != dtype:
        raise ValueError(f"{name} has the type {value.dtype}, not {dtype}")
    if not value.isfinite().all():
        raise ValueError(f"{name} has values that are not finite")


def _groups(networks: AudioVisual, config: Config) -> Sequence[Sequence[Tensor]]:
    """The parameters as the optimiser of a run holds them."""
    return networks.parameter_groups(config.transformer_warmup > 0)


def check_optimiser(optimiser: dict[str, Any], groups: Sequence[Sequence[Tensor]]) -> None:
    """Raise ValueError unless it is the state of Adam for these groups of parameters."""
    state, found = optimiser.get("state"), optimiser.get("param_groups")
    if optimiser.keys() != {"state", "param_groups"} or not isinstance(state, dict):
        raise ValueError("its optimiser is not that of a run")
    if not isinstance(found, list) or len(found) != len(groups):
        count = len(found) if isinstance(found, list) else "no"
        raise ValueError(f"its optimiser has {count} groups of parameters, not {len(groups)}")
    parameters = [parameter for group in groups for parameter in group]
    numbers = [*range(len(parameters))]
    held = [parse_value(group, _Group).params for group in found]
    if [len(one) for one in held] != [len(one) for one in groups]:
        raise ValueError(f"its optimiser is not for the {len(numbers)} parameters of its model")
    if [number for one in held for number in one] != numbers or not state.keys() <= {*numbers}:
        raise ValueError(f"its optimiser is not for the {len(numbers)} parameters of its model")
    for number, moments in state.items():
        name = f"its optimiser's {number}"
        if not isinstance(moments, dict) or moments.keys() != {"step", "exp_avg", "exp_avg_sq"}:
            raise ValueError(f"{name} is no state of Adam")
        check_tensor(f"{name}.step", moments["step"], (), torch.float32)
        for part in ("exp_avg", "exp_avg_sq"):
            shape = parameters[number].shape
            check_tensor(f"{name}.{part}", moments[part], shape, torch.float32)


def _check_generator(device: Any, state: Any) -> None:
    if not isinstance(state, Tensor) or state.dtype != torch.uint8 or state.dim() != 1:
        raise ValueError(f"its rng.{device} is no state of a generator")
    if device == "cpu":
        try:
            torch.Generator().set_state(state)
        except RuntimeError:
            raise ValueError("its rng.cpu is no state of a generator") from None
    elif device != "cuda" or len(state) > _LONGEST_STATE:
        raise ValueError(f"its rng.{device} is no state of a generator")


def name_first(names: Sequence[str]) -> str:
    """The first of some tensors' names, and the number of the others."""
    more = len(names) - 1
    return names[0] + (f" and {more} more tensor{'s' * (more > 1)}" if more else "")
