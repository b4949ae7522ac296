"""The loss against explicit loops, a case computed by hand, and numerical gradients."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from avtrain.networks.losses import Negatives, info_nce


def unit(x: Tensor) -> Tensor:
    return x / x.norm(dim=-1, keepdim=True)


def loop_view_contrast(query: Tensor, target: Tensor, t: float) -> tuple[float, float, float]:
    """Loss, clip accuracy and view accuracy, candidate by candidate."""
    clips, views, _ = query.shape
    query, target = unit(query), unit(target)
    losses, clip_hits, view_hits = [], [], []
    for i in range(clips):
        for j in range(views):
            right = float(query[i, j] @ target[i, j])
            own = [float(query[i, j] @ target[i, k]) for k in range(views) if k != j]
            across = [float(query[i, j] @ target[k, j]) for k in range(clips) if k != i]
            assert 1 + len(own) + len(across) == views + clips - 1
            total = sum(math.exp(score / t) for score in [right, *own, *across])
            losses.append(-math.log(math.exp(right / t) / total))
            clip_hits.append(right > max(across, default=-math.inf))
            view_hits.append(right > max(own, default=-math.inf))
    count = len(losses)
    return sum(losses) / count, sum(clip_hits) / count, sum(view_hits) / count


@pytest.mark.parametrize(("clips", "views"), [(2, 2), (5, 4), (3, 2), (1, 4), (4, 1)])
def test_info_nce_equals_the_double_loop(clips: int, views: int) -> None:
    torch.manual_seed(clips * 10 + views)
    target = torch.randn(clips, views, 8, dtype=torch.float64)
    query = target + torch.randn_like(target)
    loss, clip_accuracy, view_accuracy = loop_view_contrast(query, target, 0.07)
    found = info_nce(query, target)
    assert found.value.item() == pytest.approx(loss, rel=1e-9)
    assert found.clip_accuracy.item() == pytest.approx(clip_accuracy)
    if views == 1:
        assert found.view_accuracy is None
    else:
        assert found.view_accuracy is not None
        assert found.view_accuracy.item() == pytest.approx(view_accuracy)


def test_info_nce_by_hand() -> None:
    """Two clips of two views on the axes of a plane, temperature 1.

    Targets: clip 0 has x and y, clip 1 has y and x. Queries are x, x (clip 0) and y, x (clip 1).
    """
    x, y = [1.0, 0.0], [0.0, 1.0]
    target = torch.tensor([[x, y], [y, x]], dtype=torch.float64)
    query = torch.tensor([[x, x], [y, x]], dtype=torch.float64)
    # (right, other view, other clip at the same view) of the four queries:
    scores = [(1, 0, 0), (0, 1, 1), (1, 0, 0), (1, 0, 0)]
    expected = sum(
        -math.log(math.exp(r) / (math.exp(r) + math.exp(v) + math.exp(c))) for r, v, c in scores
    )
    found = info_nce(query, target, temperature=1.0)
    assert found.value.item() == pytest.approx(expected / 4, rel=1e-12)
    assert found.clip_accuracy.item() == found.view_accuracy.item() == 0.75


@pytest.mark.parametrize("negatives", ["easy", "easy+hard"])
def test_one_view_gives_info_nce_over_clips(negatives: Negatives) -> None:
    torch.manual_seed(0)
    query, target = torch.randn(2, 5, 8, dtype=torch.float64)
    expected = [
        -math.log(
            math.exp(float(unit(query[i]) @ unit(target[i])) / 0.07)
            / sum(math.exp(float(unit(query[i]) @ unit(target[k])) / 0.07) for k in range(5))
        )
        for i in range(5)
    ]
    loss = info_nce(query[:, None], target[:, None], negatives=negatives).value
    assert loss.item() == pytest.approx(sum(expected) / 5, rel=1e-9)


def test_negatives_are_the_chosen_ones() -> None:
    """The scores of `test_info_nce_by_hand`, with the other view or the other clip alone."""
    x, y = [1.0, 0.0], [0.0, 1.0]
    target = torch.tensor([[x, y], [y, x]], dtype=torch.float64)
    query = torch.tensor([[x, x], [y, x]], dtype=torch.float64)
    right = math.log(1 + math.exp(-1))  # against one candidate at a right angle
    wrong = math.log(1 + math.exp(1))
    for negatives in ("hard", "easy"):
        loss = info_nce(query, target, 1.0, negatives).value
        assert loss.item() == pytest.approx((3 * right + wrong) / 4, rel=1e-12)
    # Equal clips: only their views differ.
    target = torch.tensor([[x, y], [x, y]], dtype=torch.float64)
    assert info_nce(target, target, 1.0, "hard").value.item() == pytest.approx(right)
    assert info_nce(target, target, 1.0, "easy").value.item() == pytest.approx(math.log(2))


def test_perfect_and_collapsed_embeddings() -> None:
    perfect = torch.eye(12).view(4, 3, 12)
    found = info_nce(perfect, perfect)
    assert found.clip_accuracy == found.view_accuracy == 1.0
    assert found.value.item() < 1e-4
    collapsed = torch.ones(4, 3, 12)
    found = info_nce(collapsed, collapsed)
    assert found.clip_accuracy == found.view_accuracy == 0.0
    assert found.value.item() == pytest.approx(math.log(3 + 4 - 1), rel=1e-5)


def test_gradients() -> None:
    torch.manual_seed(0)
    query = torch.randn(3, 2, 4, dtype=torch.float64, requires_grad=True)
    target = torch.randn(3, 2, 4, dtype=torch.float64, requires_grad=True)
    for negatives in ("easy", "hard", "easy+hard"):
        assert torch.autograd.gradcheck(
            lambda q, t, n=negatives: info_nce(q, t, 0.5, n).value, (query, target)
        )


def test_both_directions_are_averaged() -> None:
    a, b = torch.randn(2, 3, 2, 4)
    one, other = info_nce(a, b), info_nce(b, a)
    both = one.mean(other)
    assert both.value.item() == pytest.approx((one.value + other.value).item() / 2)
    assert both.view_accuracy.item() == pytest.approx(
        (one.view_accuracy + other.view_accuracy).item() / 2
    )
