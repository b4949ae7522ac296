"""Checkpoints: everything that a run needs to continue exactly."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from avtrain.config import Config
from avtrain.errors import TrainingError
from shards.files import atomic_file

VERSION = 3
# May differ between a run and its continuation.
_MAY_DIFFER = {"epochs"}


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
        """Raises TrainingError for a file that is no checkpoint of this version."""
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
        except OSError as error:
            raise TrainingError(f"checkpoint {path}: {error.strerror}") from None
        except Exception as error:  # torch has many errors for bad files
            raise TrainingError(f"{path} is no checkpoint or is damaged ({error!r:.80})") from None
        if not isinstance(content, dict) or content.pop("version", None) != VERSION:
            raise TrainingError(f"{path} is no checkpoint of this version of avtrain")
        try:
            return cls(**content)
        except TypeError:
            raise TrainingError(
                f"{path} is incomplete: parts of a checkpoint are missing"
            ) from None

    @property
    def weights_sha256(self) -> str:
        """Hash of the networks' weights alone."""
        digest = hashlib.sha256()
        for name, value in sorted(self.model.items()):
            digest.update(name.encode() + value.contiguous().numpy().tobytes())
        return digest.hexdigest()

    def settings(self, path: Path) -> Config:
        """The run's settings. Raises TrainingError for those of another version."""
        try:
            return Config.from_dict(self.config)
        except (KeyError, TypeError, ValueError):
            raise TrainingError(
                f"the settings in {path} are not those of this version of avtrain"
            ) from None

    def check_continues(self, path: Path, config: Config, data: str, split: str) -> None:
        """Raise TrainingError, naming what differs, unless it belongs to this very run."""
        here = {"data": data, "split": split, **_flat(config.to_dict())}
        # Settings newer than the checkpoint had their default values.
        earlier = self.settings(path).to_dict()
        there = {"data": self.data, "split": self.split, **_flat(earlier)}
        names = (here.keys() | there.keys()) - _MAY_DIFFER
        differing = [
            f"{name} was {there.get(name)} and is {here.get(name)}"
            for name in sorted(names)
            if there.get(name) != here.get(name)
        ]
        if differing:
            raise TrainingError(f"{path} cannot be resumed: {'; '.join(differing)}")

    def check_initialises(self, path: Path, config: Config) -> None:
        """Raise TrainingError, naming what differs, unless networks and features are the same."""
        differing = []
        for part in ("model", "sound"):
            here, there = config.to_dict()[part], self.settings(path).to_dict()[part]
            differing += [
                f"{part} {name} is {there.get(name)} there and {here[name]} here"
                for name in here
                if there.get(name) != here[name]
            ]
        if differing:
            raise TrainingError(f"{path} does not fit this run: {'; '.join(differing)}")


def _flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, item in value.items():
        if isinstance(item, dict):
            flat |= _flat(item, f"{prefix}{name}.")
        else:
            flat[prefix + name] = item
    return flat
