"""The random generators of a device, as a checkpoint holds them."""

from __future__ import annotations

import pytest
import torch

from avtrain.errors import TrainingError
from avtrain.runtime.device import check_precision, rng_state, set_rng_state


def test_a_state_that_the_gpu_refuses_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(state: torch.Tensor, device: torch.device) -> None:
        raise RuntimeError("RNG state is wrong size")

    monkeypatch.setattr(torch.cuda, "set_rng_state", refuse)
    states = rng_state(torch.device("cpu")) | {"cuda": torch.zeros(3, dtype=torch.uint8)}
    set_rng_state(states, torch.device("cpu"))
    with pytest.raises(TrainingError, match=r"rng\.cuda is no state .*RNG state is wrong size"):
        set_rng_state(states, torch.device("cuda"))


def test_a_gpu_without_bfloat16_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    for name in ("fp32", "fp16"):
        check_precision(name, torch.device("cuda"))
    check_precision("bf16", torch.device("cpu"))
    with pytest.raises(TrainingError, match="does not support bfloat16; use --fp16"):
        check_precision("bf16", torch.device("cuda"))
