"""Run by torchrun: one step's gradients of a batch that is dealt to several processes.

torchrun --nproc-per-node N tests/support/ranks.py INPUTS GRADIENTS
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from avtrain.config import Config
from avtrain.networks.models import AudioVisual
from avtrain.pretrain.objective import Objective
from avtrain.runtime.distributed import World, joined, make_batch_norm_global


def main(inputs: str, gradients: str) -> None:
    with joined("cpu") as world:
        _step(world, inputs, gradients)
    # A thread that ends its work while the interpreter does aborts the process.
    left = [name for name in _threads() if "gloo" in name]
    assert not left, left


def _step(world: World, inputs: str, gradients: str) -> None:
    content = torch.load(inputs, weights_only=True)
    config = Config.from_dict(content["config"])
    torch.manual_seed(config.seed)
    model = AudioVisual(config.model).train()
    make_batch_norm_global(model, world)
    # In double precision, so that rounding is not all there is to see.
    objective = world.wrap(Objective(model, config, world).double())
    rows = world.part(torch.arange(len(content["pictures"])).numpy())
    contrast = objective(*(content[name][rows] for name in ("pictures", "sound", "directions")))
    contrast.loss.backward()
    if world.first:
        found = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        accuracies = {"clip": contrast.clip_accuracy, "view": contrast.view_accuracy}
        buffers = dict(model.named_buffers())
        torch.save(
            {"loss": contrast.loss.detach(), "buffers": buffers, **accuracies, "grad": found},
            gradients,
        )


def _threads() -> list[str]:
    """Names of this process' threads, where the system tells them."""
    return [path.read_text() for path in Path("/proc/self/task").glob("*/comm")]


if __name__ == "__main__":
    main(*sys.argv[1:])
