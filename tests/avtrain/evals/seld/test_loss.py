"""The loss against all assignments counted out, and sources read from tracks."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations, product
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from avtrain.evals.seld.loss import adpit_loss
from avtrain.evals.seld.model import audible_sources, frame_weights
from avtrain.evals.seld.protocol import tiny
from avtrain.evals.seld.train import SeldRun
from avtrain.networks.models import AudioNet
from shards.geometry import angle_between_deg, unit_vector

PROTOCOL = tiny("audio", False, "2024")


def loss(
    tracks: Tensor, vectors: Tensor, distance: Tensor, count: int, weight: float = 0.1
) -> float:
    return float(adpit_loss(tracks, vectors, distance, torch.tensor(count), weight))


def counted_out(
    tracks: Tensor, vectors: Tensor, distance: Tensor, count: int, weight: float
) -> float:
    """The least mean cost over all ways to give every track a source and every source a track."""
    costs = []
    for names in product(range(max(1, count)), repeat=3):
        if len(set(names)) < count:
            continue
        cost = 0.0
        for track, name in zip(tracks, names, strict=True):
            cost += float((track[:3] - vectors[name]).square().mean())
            if count and torch.isfinite(distance[name]):
                cost += weight * float((track[3] - distance[name]) ** 2)
        costs.append(cost / 3)
    return min(costs)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10_000), count=st.integers(0, 3), known=st.booleans())
def test_loss_is_that_of_the_best_assignment(seed: int, count: int, known: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    tracks = torch.randn(3, 4, generator=generator)
    vectors = torch.randn(3, 3, generator=generator)
    vectors[count:] = 0
    distance = torch.randn(3, generator=generator)
    if not known:
        distance[0] = torch.nan
    expected = counted_out(tracks, vectors, distance, count, 0.3)
    assert loss(tracks, vectors, distance, count, 0.3) == pytest.approx(expected, rel=1e-5)
    for order in permutations(range(3)):  # tracks have no order
        assert loss(tracks[list(order)], vectors, distance, count, 0.3) == pytest.approx(
            expected, rel=1e-5
        )


def test_fewer_sources_than_tracks_are_named_by_several() -> None:
    a, b = torch.eye(3)[0], torch.eye(3)[1]
    zero, distance = torch.zeros(3), torch.full((3,), torch.nan)
    two, one = torch.stack([a, b, zero]), torch.stack([a, zero, zero])

    def tracks(*vectors: Tensor) -> Tensor:
        return torch.nn.functional.pad(torch.stack(vectors), (0, 1), value=9.0)

    assert loss(tracks(a, b, a), two, distance, 2) == 0
    assert loss(tracks(b, b, a), two, distance, 2) == 0
    assert loss(tracks(a, a, a), two, distance, 2) == pytest.approx(2 / 9)  # b has no track
    assert loss(tracks(a, b, zero), two, distance, 2) == pytest.approx(1 / 9)
    assert loss(tracks(a, a, a), one, distance, 1) == 0
    assert loss(tracks(a, zero, zero), one, distance, 1) == pytest.approx(2 / 9)
    assert loss(tracks(zero, zero, zero), one * 0, distance, 0) == 0


def test_a_class_counts_more_where_it_sounds() -> None:
    """By the protocol's weight; a weight of 1 is what results from before have, unsaid."""
    tracks = torch.zeros(1, 2, 1, 3, 4)
    vectors = torch.zeros(1, 2, 1, 3, 3)
    vectors[0, 0, 0, 0] = torch.eye(3)[0]  # the class sounds in the first of two frames
    tracks[0, 1, 0, :, 0] = 1.0  # and is reported in the second
    batch = SimpleNamespace(
        vectors=vectors,
        log_distance=torch.full((1, 2, 1, 3), torch.nan),
        count=torch.tensor([[[1], [0]]]),
        inside=torch.ones(1, 2, dtype=torch.bool),
    )
    for weight in (1.0, 3.0):
        plan = replace(tiny("audio", False, "2024"), active_weight=weight)
        run: Any = SimpleNamespace(protocol=plan, _tracks=lambda net, batch: tracks)
        found = SeldRun._loss(run, cast(Any, None), cast(Any, batch))
        assert float(found) == pytest.approx((weight + 1) / 6)
        assert plan.to_dict().get("active_weight") == (None if weight == 1 else weight)


def track(azimuth: float, elevation: float, length: float, distance_m: float) -> list[float]:
    return [*(length * unit_vector(azimuth, elevation)), np.log(distance_m)]


def test_sources_in_tracks() -> None:
    silent = track(0, 0, 0.4, 1)
    tracks = np.array(
        [
            [[track(179, 0, 1, 2), track(-179, 0, 1, 4), silent], [silent] * 3],
            [[silent] * 3, [track(0, 10, 0.6, 3), track(20, 10, 1, 1), track(90, -40, 0.9, 1)]],
            [[track(0, 0, 1, 1), track(14, 0, 1, 1), track(28, 0, 1, 1)], [silent] * 3],
        ]
    )
    found = audible_sources(tracks, (4, 7), 100, PROTOCOL)
    assert [(one.frame, one.kind, one.source) for one in found] == [
        *((100, 4, 0), (101, 7, 0), (101, 7, 1), (101, 7, 2), (102, 4, 0))
    ]
    # Two tracks 2° apart across the back are one source, in the middle, at their mean distance;
    # those 20° apart are two; and a chain of near ones is one.
    expected = [(180, 0), (0, 10), (20, 10), (90, -40), (14, 0)]
    for one, place in zip(found, expected, strict=True):
        here = unit_vector(one.azimuth_deg, one.elevation_deg)
        assert angle_between_deg(here, unit_vector(*place)) < 1e-6
    assert [one.distance_m for one in found] == pytest.approx([3, 3, 1, 1, 1])


def test_maps_are_brought_to_the_frames_that_they_are_centred_on() -> None:
    torch.manual_seed(0)
    net = AudioNet(4, 2).double().eval()
    inputs = torch.randn(1, 4, 400, 16, dtype=torch.float64, requires_grad=True)
    maps = net.maps(inputs)
    assert maps.shape == (1, 16, 50, 2)
    assert torch.equal(net(inputs), maps.amax(dim=(2, 3)))
    (gradient,) = torch.autograd.grad(maps[0, :, 20].sum(), inputs)
    heard = gradient.abs().sum(dim=(0, 1, 3)).nonzero().flatten()
    assert (heard[0] + heard[-1]).item() / 2 == 20 * AudioNet.TIME_STRIDE
    # A linear course in time stays the same, but for the ends of the window.
    for step_s in (0.01, 0.08, 0.16):
        count = round(4 / step_s)
        weights = frame_weights(count, 40, step_s)
        assert weights.sum(dim=1).tolist() == pytest.approx([1] * 40)
        times = weights @ (torch.arange(count) * step_s)
        middles = (torch.arange(40) + 0.5) * 0.1
        assert (times - middles)[3:-3].abs().max() < step_s / 2
        assert (times - middles).abs().max() < 0.1 + step_s / 2
    # Networks without padding have no map for the last frames, which take the last one.
    weights = frame_weights(12, 20, 0.16)
    assert weights.sum(dim=1).tolist() == pytest.approx([1] * 20)
    assert weights[-1].tolist() == [0] * 11 + [1]
