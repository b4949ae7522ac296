"""Locate: the view with the best match, against angles to known sources and loudness in closed
form."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from avtrain.config import tiny
from avtrain.data.clips import Clips
from avtrain.data.draws import NO_AUGMENTATION
from avtrain.data.unreadable import Unreadable
from avtrain.errors import TrainingError
from avtrain.evals import locate
from avtrain.evals.evaluation import EvaluationOptions
from avtrain.evals.feature_store import WindowOptions
from avtrain.evals.progress import Progress
from avtrain.evals.results import Result
from avtrain.networks.models import Embeddings
from shards.geometry import encode_foa, rotate_foa, unit_vector, view_foa_matrix
from shards.reader import ShardSet
from tests.support.runs import avtrain
from tests.support.tiny_set import change_members, damage, make_set

OPTIONS: dict[str, Any] = {"views": 5, "labelled": True, "tilt_deg": 40.0}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_set(tmp_path_factory.mktemp("set"), {"train": 3, "test": 6}, **OPTIONS)


def evaluated(root: Path, out: Path, **options: Any) -> Result:
    common = EvaluationOptions(str(root), tiny("avsa"), out, device="cpu", workers=0)
    return locate.evaluate_locate(common, WindowOptions(views=5, windows=2, **options))


def angles_deg(root: Path) -> np.ndarray[Any, Any]:
    """Between each view (clips, views) and the clip's ball, which never moves."""
    test = ShardSet(root, "test")
    found = []
    for clip in range(len(test)):
        info = test.info(clip)
        (event, *_) = info.events or []
        ball = unit_vector(event["azimuth_deg"], event["elevation_deg"])
        looks = unit_vector(
            [view.azimuth_deg for view in info.views], [view.elevation_deg for view in info.views]
        )
        found.append(np.degrees(np.arccos(looks @ ball)))
    return np.array(found)


def as_if(scores: np.ndarray[Any, Any]) -> Any:
    """Stands in for `embed`: the match of view v of clip c in window w is scores[w, c, v]."""
    read: list[int] = []

    def embed(_: object, batch: Any) -> Embeddings:
        window = len(read) // scores.shape[1]
        read.extend(batch.index.tolist())
        match = torch.from_numpy(scores[window, batch.index.numpy()]).float()[..., None]
        ones = torch.ones_like(match)
        return Embeddings(match, ones, ones, match)

    return embed


def in_order_of_draws(root: Path, of_views: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Values (clips, views) as (windows, clips, views), in the order in which views are read."""
    clips = _clips(root)
    return np.array(
        [
            [values[clips.draw(window, clip).views] for clip, values in enumerate(of_views)]
            for window in range(2)
        ]
    )


def _clips(root: Path) -> Clips:
    config = tiny("avsa")
    clip = replace(config.clip, views=5, moments=1)
    return Clips(ShardSet(root, "test"), clip, config.sound, NO_AUGMENTATION, 0, 2)


def test_loudness_does_not_depend_on_the_conventions_of_the_networks(root: Path) -> None:
    """Published networks hear no rotated sound, and what sound alone says is no network's."""
    clips, options = _clips(root), WindowOptions(views=5, windows=2)
    sound = replace(clips.sound, conventions="published")
    published = Clips(clips.shards, clips.clip, sound, clips.augment, clips.seed, clips.windows)
    found = [
        locate.find_places(one, options, Unreadable.in_split(clips.shards))
        for one in (clips, published)
    ]
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_array_equal(ours.energy, theirs.energy)


def test_the_best_match_is_taken_for_the_place(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    angles = angles_deg(root)
    draws = in_order_of_draws(root, angles)
    for name, scores, expected in (
        ("best", -draws, angles.min(axis=1)),
        ("worst", draws, angles.max(axis=1)),
    ):
        monkeypatch.setattr(locate, "embed", as_if(scores))
        result = evaluated(root, tmp_path / name)
        error = result.metrics[locate.MEAN_ERROR]
        assert error.value == pytest.approx(expected.mean(), abs=1e-3)
        assert error.chance == pytest.approx(angles.mean(), abs=1e-3)
        assert result.metrics[locate.NEAR].value == pytest.approx((expected <= 20).mean())
        assert result.metrics[locate.NEAR].chance == pytest.approx((angles <= 20).mean())
        assert result.metrics[locate.ONE_SOURCE].value == pytest.approx(error.value)
        nearest = result.details["mean_error_of_the_nearest_view"]
        assert nearest == pytest.approx(angles.min(axis=1).mean(), abs=1e-3)
        assert result.details["windows_with_a_source"] == 12


def test_sound_alone_is_loudest_towards_the_source(root: Path, tmp_path: Path) -> None:
    """The balls sound as plane waves, and views are tilted by up to 40°."""
    result = evaluated(root, tmp_path)
    loudest = result.metrics[f"{locate.SOUND}, {locate.MEAN_ERROR}"]
    assert loudest.value == pytest.approx(angles_deg(root).min(axis=1).mean(), abs=1e-3)


def test_the_beam_is_a_cardioid() -> None:
    """The energy of a plane wave at angle a is the wave's times ((1 + cos a) / 2)²."""
    wave = np.random.default_rng(0).standard_normal(4800).astype(np.float32)
    field = encode_foa(wave, unit_vector(70.0, -35.0))
    for azimuth, elevation in ((70.0, -35.0), (-20.0, 50.0), (-110.0, 35.0), (10.0, 0.0)):
        turned = rotate_foa(field, view_foa_matrix(azimuth, elevation))
        cosine = unit_vector(70.0, -35.0) @ unit_vector(azimuth, elevation)
        expected = np.mean(np.square(wave, dtype=np.float64)) * ((1 + cosine) / 2) ** 2
        (found,) = locate.beam_energy(turned[None].astype(np.float32))
        assert found == pytest.approx(expected, rel=1e-4, abs=1e-9)
    mono = np.stack([wave, 2 * wave])[:, None]
    first, second = locate.beam_energy(mono)
    assert second == pytest.approx(4 * first)


def test_pictures_alone_do_not_hear_their_own_sound() -> None:
    """Exchanging the sounds of clips changes the matches, and not those of pictures."""
    torch.manual_seed(0)
    parts = torch.randn(4, 6, 3, 8)
    found, other = Embeddings(*parts), Embeddings(*parts)
    turned = torch.roll(parts, 1, dims=1)
    other = Embeddings(parts[0], turned[1], turned[2], parts[3])
    assert not torch.allclose(locate.matches(found), locate.matches(other))
    torch.testing.assert_close(locate.matches_of_pictures(found), locate.matches_of_pictures(other))


def test_sources_out_of_sight_are_not_looked_for(tmp_path: Path) -> None:
    root = make_set(tmp_path / "set", {"train": 4, "test": 2}, **OPTIONS)

    def hide(members: dict[str, bytes]) -> dict[str, bytes]:
        record = json.loads(members["json"])
        for event in record["events"]:
            event["visible"] = False
        return {**members, "json": json.dumps(record).encode()}

    for sample in (0, 2):
        change_members(root, sample, hide)
    key = damage(root, 3)
    common = EvaluationOptions(
        str(root), tiny("avsa"), tmp_path, test_split="train", device="cpu", workers=0
    )
    result = locate.evaluate_locate(common, WindowOptions(views=5, windows=2))
    assert result.details["windows_with_a_source"] == 2  # of one clip
    assert len(result.left_out) == 1
    assert key in result.left_out[0]


def test_sets_that_say_nothing_of_sources_are_refused(tmp_path: Path) -> None:
    root = make_set(tmp_path / "set", {"train": 3, "test": 2})
    with pytest.raises(TrainingError, match="says where its sounds come from"):
        evaluated(root, tmp_path)


def test_an_interrupted_evaluation_resumes(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = evaluated(root, tmp_path / "whole")
    save = Progress.save

    def save_and_stop(self: Progress, state: dict[str, Any]) -> None:
        save(self, state)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Progress, "save", save_and_stop)
        with pytest.raises(KeyboardInterrupt):
            evaluated(root, tmp_path / "parts")
    assert evaluated(root, tmp_path / "parts") == whole


def test_the_command_with_shared_features_and_without_networks(root: Path, tmp_path: Path) -> None:
    for name in ("untrained", "energy"):
        done = avtrain(
            *("eval", "locate", root, "--checkpoint", name, "--preset", "tiny", "--device", "cpu"),
            *("--out", tmp_path / name, "--windows", 1, "--num-workers", 0),
            *("--keep-features", tmp_path / "features"),
        )
        assert done.exit_code == 0, done.output
        assert "sound alone, mean error" in done.stdout
    assert len(list((tmp_path / "features").iterdir())) == 2
