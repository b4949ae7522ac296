"""The random generators of a device, as a checkpoint holds them."""

from __future__ import annotations

import pytest
import torch

from avtrain.errors import TrainingError
from avtrain.runtime.device import rng_state, set_rng_state


def test_a_state_that_the_gpu_refuses_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(state: torch.Tensor, device: torch.device) -> None:
        raise RuntimeError("RNG state is wrong size")

    monkeypatch.setattr(torch.cuda, "set_rng_state", refuse)
    states = rng_state(torch.device("cpu")) | {"cuda": torch.zeros(3, dtype=torch.uint8)}
    set_rng_state(states, torch.device("cpu"))
    with pytest.raises(TrainingError, match=r"rng\.cuda is no state .*RNG state is wrong size"):
        set_rng_state(states, torch.device("cuda"))
