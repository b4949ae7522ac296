"""The probes: a linear layer, and one hidden layer. How strongly a linear one is kept small, and
when training of the other stops, is decided on recordings that are held out of the training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

HELD_OUT = 0.2
"""Share of the training recordings."""
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Ridge relative to the variance of a feature; half of it is the weight of the penalty."""
HIDDEN = 256
_MOST_STEPS, _CHECK_EVERY, _PATIENCE = 4000, 25, 12
"""Steps of the hidden layer's training; the loss on held-out recordings is looked at every so many,
and training ends when it was not the smallest for this many looks. In steps, not in epochs: where
few windows have what is asked, an epoch is two steps."""
_BATCH, _LEARNING_RATE, _DECAY = 128, 2e-3, 1e-4
_MOST_ITERATIONS = 100
Network = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Wanted:
    """What a probe is to give for M items: ``values`` are numbers (M, K), or, if there are
    ``classes``, their numbers (M,). ``weights`` (M,) have the mean 1."""

    values: Tensor
    weights: Tensor
    classes: int = 0

    @property
    def outputs(self) -> int:
        return self.classes or self.values.shape[1]

    def select(self, mask: Tensor) -> Wanted:
        """The items where ``mask`` (M,) is true."""
        return Wanted(self.values[mask], self.weights[mask], self.classes)

    def loss(self, outputs: Tensor) -> Tensor:
        """Weighted mean over the items of cross-entropy, or of half the squared error."""
        if self.classes:
            each = F.cross_entropy(outputs, self.values, reduction="none")
        else:
            each = (outputs - self.values.to(outputs)).square().sum(dim=1) / 2
        weights = self.weights.to(outputs)
        return (each * weights).sum() / weights.sum()


def hold_out(sources: NDArray[np.str_], seed: int) -> Tensor:
    """Mask (M,) of the items of the recordings that are held out; there are at least two."""
    names = np.unique(sources)
    order = np.random.default_rng([seed, len(names)]).permutation(names)
    held_out = order[: max(1, round(HELD_OUT * len(names)))]
    return torch.from_numpy(np.isin(sources, held_out))


def _to_decide_on(wanted: Wanted, held_out: Tensor) -> Tensor:
    """Mask (M,) of the held-out items that decide: those of classes that the others show. A class
    that was never shown costs the more, the surer a probe is of all the rest."""
    if not wanted.classes:
        return held_out
    shown = held_out & torch.isin(wanted.values, wanted.values[~held_out])
    return shown if shown.any() else held_out


@dataclass(frozen=True)
class Scale:
    """Standardises features (M, D) by ``mean`` and ``std`` (D,), and limits them to ``low`` to
    ``high`` (D,): the range of the training items, and as much again on either side. A feature that
    hardly varies among few training items can be thousands of standard deviations away in others,
    where a probe's output means nothing."""

    mean: Tensor
    std: Tensor
    low: Tensor
    high: Tensor

    @classmethod
    def fit(cls, features: Tensor) -> Scale:
        features = features.double()
        std, mean = torch.std_mean(features, dim=0, correction=0)
        low, high = features.aminmax(dim=0)
        return cls(mean, std + 1e-5, 2 * low - high, 2 * high - low)

    def __call__(self, features: Tensor) -> Tensor:
        return (features.double().clamp(self.low, self.high) - self.mean) / self.std


def fit_linear(inputs: Tensor, wanted: Wanted, held_out: Tensor) -> tuple[Network, float]:
    """The linear probe of all items, and the strength of its ridge: the one whose probe of the
    others has the smallest loss on those ``held_out``. ``inputs`` (M, D) are standardised.

    Numbers: least squares, in closed form. Classes: logistic regression, by L-BFGS.
    """
    solve = _logistic if wanted.classes else _least_squares
    inputs = F.pad(inputs, (0, 1), value=1.0)  # the last weight is the bias
    fitted, tested = ~held_out, _to_decide_on(wanted, held_out)
    losses = [
        float(wanted.select(tested).loss(inputs[tested] @ weights))
        for weights in solve(inputs[fitted], wanted.select(fitted), STRENGTHS)
    ]
    strength = STRENGTHS[int(np.argmin(losses))]
    (weights,) = solve(inputs, wanted, (strength,))
    return lambda features: F.pad(features, (0, 1), value=1.0) @ weights, strength


def _least_squares(inputs: Tensor, wanted: Wanted, strengths: tuple[float, ...]) -> list[Tensor]:
    weighted = inputs * (wanted.weights.double() / wanted.weights.sum())[:, None]
    squares, products = inputs.T @ weighted, weighted.T @ wanted.values.double()
    penalty = torch.eye(len(squares), dtype=torch.float64)
    penalty[-1, -1] = 0.0
    return [torch.linalg.solve(squares + one * penalty, products) for one in strengths]


def _logistic(inputs: Tensor, wanted: Wanted, strengths: tuple[float, ...]) -> list[Tensor]:
    """From the strongest on: each begins with the weights of the one before."""
    weights = torch.zeros(inputs.shape[1], wanted.classes, dtype=torch.float64, requires_grad=True)
    found = []
    for strength in sorted(strengths, reverse=True):
        optimiser = torch.optim.LBFGS(
            [weights], max_iter=_MOST_ITERATIONS, line_search_fn="strong_wolfe"
        )

        def evaluate(
            optimiser: torch.optim.Optimizer = optimiser, strength: float = strength
        ) -> Tensor:
            optimiser.zero_grad()
            loss = wanted.loss(inputs @ weights)
            loss = loss + strength / 2 * weights[:-1].square().sum()
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        optimiser.step(evaluate)  # type: ignore[no-untyped-call]
        found.append(weights.detach().clone())
    return found[::-1]


def fit_hidden(inputs: Tensor, wanted: Wanted, held_out: Tensor, seed: int) -> tuple[Network, int]:
    """The probe with one hidden layer after the step with the smallest loss on the items that are
    ``held_out``, and the number of that step. ``inputs`` (M, D) are standardised."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = nn.Sequential(
            nn.Linear(inputs.shape[1], HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, wanted.outputs)
        )
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=_LEARNING_RATE, weight_decay=_DECAY, fused=True
    )
    inputs = inputs.float()
    decide = _to_decide_on(wanted, held_out)
    tested, tested_inputs = wanted.select(decide), inputs[decide]
    batches = _batches((~held_out).nonzero().flatten(), seed)
    best, state, best_step = torch.inf, network.state_dict(), 0
    for step in range(1, _MOST_STEPS + 1):
        batch = next(batches)
        optimiser.zero_grad()
        wanted.select(batch).loss(network(inputs[batch])).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        if step % _CHECK_EVERY:
            continue
        with torch.no_grad():
            loss = float(tested.loss(network(tested_inputs)))
        if loss < best:
            state = {name: value.clone() for name, value in network.state_dict().items()}
            best, best_step = loss, step
        elif step - best_step >= _PATIENCE * _CHECK_EVERY:
            break
    network.load_state_dict(state)

    @torch.no_grad()
    def outputs(features: Tensor) -> Tensor:
        found: Tensor = network(features.float())
        return found

    return outputs, best_step


def _batches(rows: Tensor, seed: int) -> Iterator[Tensor]:
    """Batches of ``rows`` without end, in an order of its own each time through."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield from torch.split(rows[torch.randperm(len(rows), generator=generator)], _BATCH)
