"""Actions of the hard world: what one frame tells of them, and what two tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from itertools import islice

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import ks_2samp

from avprep.world.actions import HARD_ACTIONS, ActionVideo, Motion, move_hard, render_video

Floats = NDArray[np.float64]
FRAMES = (3, 8)
"""Numbers of the frames that the classifiers see."""
SETS = [120 * clip + 10 * group for group in range(3) for clip in range(4)]
"""First number of each set of ten videos that differ in the action only; three places."""
VIDEOS = 10 * len(SETS)


@pytest.fixture(scope="module")
def pairs() -> list[tuple[Floats, Floats]]:
    """Luma (96, 128) of two frames of each video."""
    out = []
    for video in (ActionVideo(2, first + action, "hard") for first in SETS for action in range(10)):
        frames = list(islice(render_video(video)[1], FRAMES[1] + 1))
        out.append((small(frames[FRAMES[0]]), small(frames[FRAMES[1]])))
    return out


def small(frame: NDArray[np.uint8]) -> Floats:
    luma = frame[: frame.shape[0] * 2 // 3]
    return np.asarray(cv2.resize(luma, (128, 96), interpolation=cv2.INTER_AREA), dtype=np.float64)


def flow_statistics(one: Floats, two: Floats) -> list[float]:
    """Motion of the moving pixels: up, its size across, growth, turn, and what flow leaves over."""
    flow = cv2.calcOpticalFlowFarneback(
        *(image.astype(np.uint8) for image in (one, two)), None, 0.5, 3, 15, 3, 5, 1.2, 0
    )  # type: ignore[call-overload]
    flow = flow - np.median(flow, axis=(0, 1))  # the camera's shake
    change = np.abs(two - one)
    weight = np.hypot(flow[..., 0], flow[..., 1]) + 1e-3
    weight = weight / weight.sum()
    right, down = flow[..., 0], flow[..., 1]
    growth = np.gradient(right, axis=1) + np.gradient(down, axis=0)
    turn = np.gradient(down, axis=1) - np.gradient(right, axis=0)
    return [
        float((weight * down).sum()),
        abs(float((weight * right).sum())),
        float((weight * growth).sum()),
        abs(float((weight * turn).sum())),
        float(np.log(change.mean())),
    ]


def accuracy(features: Sequence[Sequence[float] | Floats]) -> float:
    """Accuracy of a ridge classifier on standardised features, on sets that it has not seen."""
    given = np.array(features, dtype=np.float64).reshape(VIDEOS, -1)
    action, group = np.arange(VIDEOS) % 10, np.arange(VIDEOS) // 10
    right = []
    for fold in range(3):
        test = group % 3 == fold
        inputs = (given - given[~test].mean(axis=0)) / (given[~test].std(axis=0) + 1e-6)
        targets = np.eye(10)[action] - 0.1
        penalty = 0.1 * VIDEOS * np.eye(inputs.shape[1])
        weights = np.linalg.solve(
            inputs[~test].T @ inputs[~test] + penalty, inputs[~test].T @ targets[~test]
        )
        right += list((inputs[test] @ weights).argmax(axis=1) == action[test])
    return float(np.mean(right))


def test_one_frame_does_not_tell_the_action_and_two_do(pairs: list[tuple[Floats, Floats]]) -> None:
    """Chance is 10 %, and 24 % is five standard deviations above it."""
    one = [cv2.resize(first, (16, 12), interpolation=cv2.INTER_AREA) for first, _ in pairs]
    assert accuracy([image.ravel() for image in one]) < 0.24
    assert accuracy([flow_statistics(*pair) for pair in pairs]) > 0.24


def test_one_moment_is_distributed_alike_in_all_actions() -> None:
    """Kolmogorov-Smirnov tests of position, size, roll and opacity, and the mirror image's too."""
    draws = 800
    for time_s in (0.0, 1.3):
        moments = {
            action: [
                move_hard(action, np.array([time_s]), np.random.default_rng([seed, number]))
                for seed in range(draws)
            ]
            for number, action in enumerate(HARD_ACTIONS)
        }
        for field in fields(Motion):
            values = {
                action: np.array([getattr(motion, field.name)[0] for motion in motions])
                for action, motions in moments.items()
            }
            for action in HARD_ACTIONS[1:]:
                assert ks_2samp(values[HARD_ACTIONS[0]], values[action]).pvalue > 1e-5
            right = values["SwayFast"]
            if field.name == "right":
                assert ks_2samp(right, -right).pvalue > 1e-5


def test_actions_are_what_their_names_say() -> None:
    times = np.arange(72) / 24
    for seed in range(5):
        done = {name: move_hard(name, times, np.random.default_rng(seed)) for name in HARD_ACTIONS}
        first = {field.name: getattr(done["Fall"], field.name)[0] for field in fields(Motion)}
        for motion in done.values():
            assert {name: getattr(motion, name)[0] for name in first} == first
        assert np.median(np.diff(done["Rise"].up)) > 0 > np.median(np.diff(done["Fall"].up))
        assert np.median(np.diff(done["Grow"].size)) > 0 > np.median(np.diff(done["Shrink"].size))
        for name, field in (("Sway", "right"), ("Fade", "visible"), ("Spin", "roll")):
            fast, slow = (
                np.median(np.abs(np.diff(getattr(done[name + speed], field))))
                for speed in ("Fast", "Slow")
            )
            assert fast > 2 * slow > 0
            others = {a: getattr(m, field) for a, m in done.items() if not a.startswith(name)}
            assert all(np.ptp(values) == 0 for values in others.values())
