"""The folder of exported networks: weights as safetensors, settings as JSON, and a model card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from avtrain.errors import TrainingError
from shards.files import dump_json, open_regular, parse_json, read_regular, write_atomic

WEIGHTS, SETTINGS, CARD = "model.safetensors", "config.json", "README.md"
FORMAT = "avsa360 networks, version 1"
_LARGEST_SETTINGS = 100_000
_PARTS = ("model", "features")
_NUMBERS = ("data", "split", "epoch", "step", "total_steps")


def write_exported(folder: Path, checkpoint: dict[str, Any]) -> None:
    """Write weights and settings of a checkpoint's fields; what continues a run is left out."""
    from safetensors.torch import save

    tensors = {
        f"{part}.{name}": value.contiguous()
        for part in _PARTS
        for name, value in checkpoint[part].items()
    }
    write_atomic(folder / WEIGHTS, save(tensors, {"format": "pt"}))
    settings = {"format": FORMAT, **{name: checkpoint[name] for name in ("config", *_NUMBERS)}}
    write_atomic(folder / SETTINGS, dump_json(settings, indent=2))


def read_exported(folder: Path) -> dict[str, Any]:
    """The fields of a checkpoint in an exported folder, without those that continue a run.

    Raises TrainingError for other folders, and OSError.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not (folder / WEIGHTS).exists():
        inside = folder / "checkpoint.pt"
        remedy = f"; name {inside}" if inside.exists() else ""
        raise TrainingError(f"{folder} is a folder without {WEIGHTS}: no exported networks{remedy}")
    try:
        stated = read_regular(folder / SETTINGS, _LARGEST_SETTINGS)
        settings = parse_json(stated, dict[str, str | int | dict[str, Any]])
    except ValueError as error:
        raise TrainingError(f"{folder / SETTINGS}: {error}") from None
    if settings.pop("format", None) != FORMAT or settings.keys() != {"config", *_NUMBERS}:
        raise TrainingError(f"{folder / SETTINGS} is not that of exported networks")
    with open_regular(folder / WEIGHTS):
        pass  # a pipe or a device would be read for ever
    try:
        tensors: dict[str, Tensor] = load_file(folder / WEIGHTS)
    except SafetensorError as error:
        raise TrainingError(f"{folder / WEIGHTS} is damaged ({error})") from None
    content: dict[str, Any] = {**settings, "model": {}, "features": {}}
    for name, value in tensors.items():
        part, _, rest = name.partition(".")
        if part not in _PARTS:
            raise TrainingError(f"{folder / WEIGHTS} holds {name}, which is unknown")
        content[part][rest] = value
    return content | {"optimiser": {}, "rng": {}, "scaler": {}}
