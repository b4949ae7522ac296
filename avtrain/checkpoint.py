"""Checkpoints: everything a run needs to go on exactly where it was."""

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
# What may differ between a run and its continuation.
_NOT_PART_OF_THE_RUN = {"epochs"}


@dataclass(frozen=True)
class Checkpoint:
    """State after ``total_steps`` steps; the next one is step ``step`` of ``epoch``.

    ``features`` are the statistics of the log-mels (empty: to be taken from the set in use),
    ``data`` the SHA-256 of the set's manifest, ``rng`` the state of torch's generators by device
    type, ``scaler`` that of the gradients' scale (empty but in fp16).
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
        """Atomically: the file is the old one or the new one, whatever happens."""
        # First to memory: on a full disk torch's own writer fails with an internal message.
        content = self.to_bytes()
        with atomic_file(path) as file:
            file.write(content)

    def to_bytes(self) -> memoryview:
        """The content of its file."""
        content = {field.name: getattr(self, field.name) for field in fields(self)}
        buffer = io.BytesIO()
        torch.save({"version": VERSION, **content}, buffer)
        return buffer.getbuffer()

    @classmethod
    def load(cls, path: Path) -> Checkpoint:
        """Raises TrainingError for a file that is no checkpoint of this program."""
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
        except OSError as error:
            raise TrainingError(f"checkpoint {path}: {error.strerror}") from None
        except Exception as error:  # torch has no common error for files it cannot read
            raise TrainingError(f"{path} is no checkpoint or is damaged ({error!r:.80})") from None
        if not isinstance(content, dict) or content.pop("version", None) != VERSION:
            raise TrainingError(f"{path} is no checkpoint of this version of avtrain")
        try:
            return cls(**content)
        except TypeError:
            raise TrainingError(f"{path} lacks parts of a checkpoint") from None

    @property
    def weights_sha256(self) -> str:
        """Of the networks' weights alone."""
        digest = hashlib.sha256()
        for name, value in sorted(self.model.items()):
            digest.update(name.encode() + value.contiguous().numpy().tobytes())
        return digest.hexdigest()

    def settings(self, path: Path) -> Config:
        """Raises TrainingError for those of another version of the program."""
        try:
            return Config.from_dict(self.config)
        except (KeyError, TypeError, ValueError):
            raise TrainingError(
                f"the settings in {path} are not those of this version of avtrain"
            ) from None

    def check_continues(self, path: Path, config: Config, data: str, split: str) -> None:
        """Raise TrainingError, saying what differs, unless it is of this very run."""
        here = {"data": data, "split": split, **_flat(config.to_dict())}
        # Settings that are newer than the checkpoint were what they are by default.
        earlier = self.settings(path).to_dict()
        there = {"data": self.data, "split": self.split, **_flat(earlier)}
        names = (here.keys() | there.keys()) - _NOT_PART_OF_THE_RUN
        differing = [
            f"{name} was {there.get(name)} and is {here.get(name)}"
            for name in sorted(names)
            if there.get(name) != here.get(name)
        ]
        if differing:
            raise TrainingError(f"{path} cannot be resumed: {'; '.join(differing)}")

    def check_initialises(self, path: Path, config: Config) -> None:
        """Raise TrainingError, saying what differs, unless networks and features are the same."""
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
