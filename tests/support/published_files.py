"""Files as the published code writes them: its names and shapes, with random numbers."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

WIDTHS = (64, 64, 128, 256, 512)
State = dict[str, Tensor]


class Writer:
    """Random tensors under the names of the published code."""

    def __init__(self, seed: int = 0) -> None:
        self.random = torch.Generator().manual_seed(seed)
        self.state: State = {}

    def normal(self, name: str, *shape: int, std: float) -> None:
        self.state[name] = std * torch.randn(shape, generator=self.random)

    def conv(self, name: str, *shape: int) -> None:
        fan_in = int(np.prod(shape[1:]))
        self.normal(f"{name}.weight", *shape, std=(2 / fan_in) ** 0.5)

    def norm(self, name: str, width: int, *, batch: bool = True) -> None:
        self.state[f"{name}.weight"] = 0.5 + torch.rand(width, generator=self.random)
        self.normal(f"{name}.bias", width, std=0.2)
        if batch:
            self.normal(f"{name}.running_mean", width, std=0.2)
            self.state[f"{name}.running_var"] = 0.5 + torch.rand(width, generator=self.random)
            self.state[f"{name}.num_batches_tracked"] = torch.tensor(1234)

    def linear(self, name: str, into: int, out: int) -> None:
        self.normal(f"{name}.weight", out, into, std=into**-0.5)
        self.normal(f"{name}.bias", out, std=0.2)


@cache
def backbones() -> State:
    writer = Writer()
    writer.conv("video_model.conv1.0", 64, 3, 3, 7, 7)
    writer.norm("video_model.conv1.1", 64)
    writer.conv("audio_model.conv1.0", 64, 4, 7, 7)
    writer.norm("audio_model.conv1.1", 64)
    for stage in range(4):
        for block, cin in enumerate((WIDTHS[stage], WIDTHS[stage + 1])):
            cout = WIDTHS[stage + 1]
            name = f"video_model.conv{stage + 2}x.{block}"
            for part, width in ((1, cin), (2, cout)):
                writer.conv(f"{name}.spt_conv{part}", cout, width, 1, 3, 3)
                writer.conv(f"{name}.tmp_conv{part}", cout, cout, 3, 1, 1)
                writer.norm(f"{name}.spt_bn{part}", cout)
            writer.norm(f"{name}.tmp_bn1", cout)
            writer.norm(f"{name}.out_bn", cout)
            if cin != cout:
                writer.conv(f"{name}.res_conv", cout, cin, 1, 1, 1)
            name = f"audio_model.block{stage + 1}"
            writer.conv(f"{name}.conv{block + 1}", cout, cin, 3, 3)
            writer.norm(f"{name}.bn{block + 1}", cout)
    return writer.state


@cache
def criterion(task: str) -> State:
    writer = Writer(seed=1)
    if task == "avc":
        heads = ["video_projection", "audio_projection"]
    else:
        heads = ["video_head", "audio_head", "video_pred_head", "audio_pred_head"]
        for layer in [f"{d}_transformer.transformer.{n}" for d in ("v2a", "a2v") for n in (0, 1)]:
            for part in ("query", "key", "value", "dense"):
                writer.linear(f"losses.0.{layer}.attention.{part}", 512, 512)
            writer.norm(f"losses.0.{layer}.attention_norm", 512, batch=False)
            writer.linear(f"losses.0.{layer}.dense.0", 512, 2048)
            writer.linear(f"losses.0.{layer}.dense.2", 2048, 512)
            writer.norm(f"losses.0.{layer}.dense_norm", 512, batch=False)
    for head in heads:
        writer.linear(f"losses.0.{head}.projection.0", 512, 128)
    return writer.state


def published(task: str = "avsa", prefix: str = "module.", *, flat: bool = True) -> dict[str, Any]:
    """A checkpoint of the published code.

    With ``flat`` each tensor repeats one number, so that the file is small.
    """

    def content(state: State, first: float) -> State:
        if not flat:
            return dict(state)
        return {
            name: torch.tensor(first + number, dtype=tensor.dtype).expand(tensor.shape)
            for number, (name, tensor) in enumerate(state.items())
        }

    return {
        "epoch": 50,
        "model": {prefix + name: t for name, t in content(backbones(), 0).items()},
        "optimizer": {"state": {0: {"step": 4321}}, "param_groups": []},
        "train_criterion": content(criterion(task), 1000),
    }


def saved(folder: Path, content: object, *, zipped: bool = True) -> Path:
    path = folder / "checkpoint.pth.tar"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return path
