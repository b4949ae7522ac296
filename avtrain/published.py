"""Import of checkpoints of the paper's published code.

Such a file (``.pth.tar``) holds the state dicts ``model`` (both backbones) and
``train_criterion`` (transformers and heads for AVSA, two heads for AVC). Of its ``epoch`` and
``optimizer`` only the numbers of epochs and steps are kept.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from avtrain.checkpoint import Checkpoint, name_first
from avtrain.config import Config, paper
from avtrain.errors import TrainingError
from avtrain.networks.features import FeatureConfig, Features
from avtrain.networks.models import AudioVisual, ModelConfig
from avtrain.runtime.torch_file import ForeignObjectError, read_torch
from shards.files import read_regular

_SECTIONS = ("model", "train_criterion")
_LOSS = "train_criterion.losses.0"
_LARGEST_STATISTICS, _MOST_STEPS, _MOST_LAYERS = 1_000_000, 2**53, 16
# Names of modules in a residual block and in a transformer layer: ours to theirs.
_VIDEO_BLOCK = {
    "residual.0": "spt_conv1",
    "residual.1": "spt_bn1",
    "residual.3": "tmp_conv1",
    "residual.4": "tmp_bn1",
    "residual.6": "spt_conv2",
    "residual.7": "spt_bn2",
    "residual.9": "tmp_conv2",
    "out.0": "out_bn",
    "shortcut": "res_conv",
}
_LAYER = {
    "query": "attention.query",
    "key": "attention.key",
    "value": "attention.value",
    "out": "attention.dense",
    "attention_norm": "attention_norm",
    "mlp.0": "dense.0",
    "mlp.2": "dense.2",
    "mlp_norm": "dense_norm",
}


def import_checkpoint(
    path: Path,
    conventions: Literal["avsa360", "published"] = "published",
    statistics: Path | None = None,
) -> Checkpoint:
    """A checkpoint with the networks of a published file and the paper's settings.

    ``statistics``: an ``.npz`` with ``mean`` and ``std`` of the log-mels, found in the assets of
    the published code; without it the result holds none. Networks that AVC does not train
    (transformers and their heads) are random. Raises TrainingError, naming tensors that are
    missing, left over or of another shape.
    """
    content = _load(path)
    tensors = _tensors(path, content)
    config = _config(path, tensors, conventions)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = AudioVisual(config.model)
    model.load_state_dict(_translate_state(path, config, model.state_dict(), tensors))
    epoch = content.get("epoch")
    return Checkpoint(
        config=config.to_dict(),
        data="",
        split="train",
        epoch=_count(epoch),
        step=0,
        total_steps=_steps(content),
        model=model.state_dict(),
        features={} if statistics is None else _statistics(statistics, config.sound),
        optimiser={},
        rng={},
        scaler={},
    )


def _load(path: Path) -> Mapping[str, Any]:
    try:
        content = read_torch(path)
    except OSError as error:
        raise TrainingError(f"{path}: {error.strerror or error}") from None
    except ForeignObjectError as error:
        raise TrainingError(
            f"{path} holds {error} beside tensors and numbers; such objects can run code and "
            f"are not loaded: if you trust the file, save only its {' and '.join(_SECTIONS)}"
        ) from None
    except ValueError:
        raise TrainingError(f"{path} is no checkpoint, or is damaged") from None
    if not isinstance(content, dict):
        raise TrainingError(f"{path} is no checkpoint of the published code")
    return content


def _tensors(path: Path, content: Mapping[str, Any]) -> dict[str, Tensor]:
    """All tensors of both sections by ``section.name``, without the prefix of DataParallel."""
    tensors = {}
    for section in _SECTIONS:
        state = content.get(section)
        if not isinstance(state, dict):
            raise TrainingError(
                f"{path} is no checkpoint of the published code: it has no state dict {section!r}"
            )
        for name, tensor in state.items():
            if not isinstance(tensor, Tensor):
                raise TrainingError(f"{path} holds {section}.{name}, which is no tensor")
            tensors[f"{section}.{str(name).removeprefix('module.')}"] = tensor
    return tensors


def _config(
    path: Path, tensors: dict[str, Tensor], conventions: Literal["avsa360", "published"]
) -> Config:
    """The paper's settings for the task, which the names of the heads identify."""
    if f"{_LOSS}.video_projection.projection.0.weight" in tensors:
        config = paper("avc")
    elif f"{_LOSS}.video_head.projection.0.weight" in tensors:
        config = paper("avsa")
        start = f"{_LOSS}.v2a_transformer.transformer."
        layers = {
            name.removeprefix(start).split(".")[0] for name in tensors if name.startswith(start)
        }
        depth = len(layers) or config.model.transformer_depth
        if depth > _MOST_LAYERS:
            raise TrainingError(f"{path} holds transformers of {depth} layers")
        model = replace(config.model, transformer=bool(layers), transformer_depth=depth)
        config = replace(config, model=model)
    else:
        raise TrainingError(
            f"{path} has neither the heads of AVC nor those of AVSA in its train_criterion: it "
            f"lacks {_LOSS}.video_projection.projection.0.weight and "
            f"{_LOSS}.video_head.projection.0.weight"
        )
    return replace(config, sound=replace(config.sound, conventions=conventions))


def _modules(task: str, config: ModelConfig) -> dict[str, str]:
    """Names of the modules that have parameters: ours to theirs."""
    video, audio = "model.video_model", "model.audio_model"
    names = {f"video.stem.{part}": f"{video}.conv1.{part}" for part in (0, 1)}
    names |= {f"audio.stem.{part}": f"{audio}.conv1.{part}" for part in (0, 1)}
    for stage in range(4):
        for block in range(2):
            here, there = f"video.stages.{stage}.{block}", f"{video}.conv{stage + 2}x.{block}"
            names |= {f"{here}.{o}": f"{there}.{t}" for o, t in _VIDEO_BLOCK.items()}
            here, there = f"audio.stages.{stage}.{block}", f"{audio}.block{stage + 1}"
            names |= {
                f"{here}.0": f"{there}.conv{block + 1}",
                f"{here}.1": f"{there}.bn{block + 1}",
            }
    if task == "avc":
        heads = {"video_head": "video_projection", "audio_head": "audio_projection"}
    else:
        heads = {
            "video_head": "video_head",
            "audio_head": "audio_head",
            "predicted_video_head": "video_pred_head",
            "predicted_audio_head": "audio_pred_head",
        }
        for layer in range(config.transformer_depth):
            for ours, theirs in (("predict_audio", "v2a"), ("predict_video", "a2v")):
                there = f"{_LOSS}.{theirs}_transformer.transformer.{layer}"
                names |= {f"{ours}.layers.{layer}.{o}": f"{there}.{t}" for o, t in _LAYER.items()}
    return names | {ours: f"{_LOSS}.{theirs}.projection.0" for ours, theirs in heads.items()}


def _translate_state(
    path: Path, config: Config, own: dict[str, Tensor], tensors: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Our state dict with the published tensors; ``own`` where the file has none."""
    modules = _modules(config.task, config.model)
    names = {}
    for name in own:
        module, _, leaf = name.rpartition(".")
        if module in modules:
            names[name] = f"{modules[module]}.{leaf}"
    missing = [name for name in names.values() if name not in tensors]
    if missing:
        raise TrainingError(f"{path} lacks {name_first(missing)}")
    for ours, theirs in names.items():
        here, there = tuple(own[ours].shape), tuple(tensors[theirs].shape)
        if here != there:
            raise TrainingError(f"{theirs} in {path} has the shape {there}, not {here}")
        kinds = [tensor.is_floating_point() for tensor in (own[ours], tensors[theirs])]
        if kinds[0] != kinds[1] or not tensors[theirs].isfinite().all():
            raise TrainingError(f"{theirs} in {path} has values that are no finite numbers")
    left_over = sorted(tensors.keys() - names.values())
    if left_over:
        raise TrainingError(f"{path} holds {name_first(left_over)}, which our networks do not have")
    return own | {ours: tensors[theirs] for ours, theirs in names.items()}


def _steps(content: Mapping[str, Any]) -> int:
    """Steps counted by the optimiser; 0 if there is no count."""
    try:
        return max(_count(state["step"]) for state in content["optimizer"]["state"].values())
    except (KeyError, TypeError, ValueError, AttributeError):
        return 0


def _count(value: object) -> int:
    """A number of steps or epochs, which newer optimisers hold in tensors; 0 for anything else."""
    if isinstance(value, Tensor) and value.numel() == 1 and value.isfinite():
        value = int(value.item())
    return value if type(value) is int and 0 <= value <= _MOST_STEPS else 0


def _statistics(path: Path, sound: FeatureConfig) -> dict[str, Tensor]:
    """State of ``Features`` with mean and std from a file; 1e-5 is added to std as published."""
    try:
        content = io.BytesIO(read_regular(path, _LARGEST_STATISTICS))
        with zipfile.ZipFile(content) as archive:
            if any(part.file_size > _LARGEST_STATISTICS for part in archive.infolist()):
                raise ValueError
        with np.load(content, allow_pickle=False) as file:
            mean, std = (torch.from_numpy(file[name]).float() for name in ("mean", "std"))
    except OSError as error:
        raise TrainingError(f"{path}: {error.strerror}") from None
    except Exception:  # zipfile and NumPy have many errors for bad files
        raise TrainingError(
            f"{path} is no .npz file with arrays 'mean' and 'std' of the log-mels"
        ) from None
    if not mean.shape == std.shape == (sound.mels,):
        raise TrainingError(
            f"mean and std in {path} have the shapes {tuple(mean.shape)} and {tuple(std.shape)}, "
            f"not those of {sound.mels} mel bands"
        )
    if not (mean.isfinite().all() and std.isfinite().all() and (std >= 0).all()):
        raise TrainingError(f"mean and std in {path} are not all finite, and std not below 0")
    features = Features(sound)
    features.load_state_dict({"mean": mean, "std": std + 1e-5})
    return features.state_dict()
