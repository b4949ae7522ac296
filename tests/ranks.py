"""Run by torchrun: one step's gradients of a batch that is dealt to several processes.

torchrun --nproc-per-node N tests/ranks.py INPUTS GRADIENTS
"""

from __future__ import annotations

import sys

import torch

from avtrain.distributed import joined, make_batch_norm_global
from avtrain.models import AudioVisual
from avtrain.objective import Objective
from avtrain.presets import Config


def main(inputs: str, gradients: str) -> None:
    content = torch.load(inputs, weights_only=True)
    with joined("cpu") as world:
        config = Config.from_dict(content["config"])
        torch.manual_seed(config.seed)
        model = AudioVisual(config.model).train()
        make_batch_norm_global(model, world)
        # In double precision, so that rounding is not all there is to see.
        objective = world.wrap(Objective(model, config, world).double())
        rows = world.part(torch.arange(len(content["pictures"])).numpy())
        names = ("pictures", "sound", "directions")
        contrast = objective(*(content[name][rows] for name in names))
        contrast.loss.backward()
        if world.first:
            found = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
            accuracies = {"clip": contrast.clip_accuracy, "view": contrast.view_accuracy}
            buffers = dict(model.named_buffers())
            torch.save(
                {"loss": contrast.loss.detach(), "buffers": buffers, **accuracies, "grad": found},
                gradients,
            )


if __name__ == "__main__":
    main(*sys.argv[1:])
