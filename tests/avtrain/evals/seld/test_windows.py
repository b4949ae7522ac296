"""Windows: sound, targets and views turn together, and labels fall into the frames of DCASE."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avtrain.config import ClipConfig, tiny
from avtrain.data.clips import Clips
from avtrain.data.draws import NO_AUGMENTATION
from avtrain.data.unreadable import Unreadable
from avtrain.errors import TrainingError
from avtrain.evals.seld import protocol
from avtrain.evals.seld.data import SeldWindows, window_starts
from avtrain.evals.seld.detections import Detection
from avtrain.evals.seld.labels import ClipFrames, LabelledClips, targets
from avtrain.evals.seld.train import join_recordings
from avtrain.networks.features import FeatureConfig
from shards.geometry import angle_between_deg, unit_vector
from shards.reader import ShardSet
from tests.support.tiny_set import make_set

CLASSES = (0, 1, 2, 3)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("set")
    return make_set(folder, {"train": 8, "test": 4}, tilt_deg=60, labelled=True)


def windows(
    root: Path,
    inputs: protocol.Inputs = "audio",
    sound: FeatureConfig | None = None,
    rotates: bool = True,
    **changes: Any,
) -> SeldWindows:
    shards = ShardSet(root, "train")
    sound = tiny("avsa").sound if sound is None else sound
    clips = Clips(shards, ClipConfig(views=3, frames=1, fps=8.0), sound, NO_AUGMENTATION, 0)
    labelled = LabelledClips.read(shards, Unreadable.in_split(shards))
    plan = replace(protocol.tiny(inputs, False, "2024"), window_frames=10, **changes)
    return SeldWindows(clips, labelled, CLASSES, plan, rotates)


def heard(window: dict[str, np.ndarray]) -> np.ndarray:
    """Direction of the sound in the rotated field, from its intensity."""
    field = window["matrices"][0] @ window["audio"]
    intensity = (field[0] * field[[3, 1, 2]]).sum(axis=1)
    return np.asarray(intensity / np.linalg.norm(intensity))


def ball(root: Path, sample: int) -> np.ndarray:
    event = (ShardSet(root, "train").info(sample).events or [])[0]
    return unit_vector(event["azimuth_deg"], event["elevation_deg"])


def test_sound_and_targets_turn_together_by_yaw_and_pitch_and_mirrored(root: Path) -> None:
    dataset = windows(root, pitch_deg=60.0)
    kinds = [(dataset.labelled.frames[sample].events or ())[0].kind for sample in range(8)]
    turned, mirrored = [], []
    for sample in range(8):
        kind = kinds[sample]
        for number in range(4):
            (window,) = dataset[number, sample]
            targets = window["vectors"]
            assert (window["count"][:, kind] == 1).all()
            assert window["count"].sum() == 10
            assert angle_between_deg(targets[:, kind, 0], heard(window)).max() < 1.0
            assert not targets[:, kind, 1:].any()
            turned.append(angle_between_deg(targets[0, kind, 0], ball(root, sample)))
            mirrored.append(bool(window["mirror"]))
            sign = np.linalg.det(window["matrices"][0][1:, 1:])
            assert sign == pytest.approx(-1 if window["mirror"] else 1, abs=1e-5)
    assert max(turned) > 60
    assert len(set(mirrored)) == 2


def test_a_test_hears_the_recordings_own_field(root: Path) -> None:
    dataset = windows(root, rotates=False)
    for sample in range(8):
        found = dataset[0, sample]
        assert [int(window["begin"]) for window in found] == [0, 5, 10]
        for window in found:
            assert angle_between_deg(heard(window), ball(root, sample)) < 1.0
            assert window["inside"].all()


def test_views_turn_with_the_sound(root: Path) -> None:
    dataset = windows(root, "audio+video")
    for number in range(6):
        info = dataset.clips.shards.info(2)
        (window,) = dataset[number, 2]
        assert window["frames"].shape == (3, 1, 48, 48, 3)
        looks = unit_vector(*np.array([(v.azimuth_deg, v.elevation_deg) for v in info.views[:3]]).T)
        before = angle_between_deg(looks, ball(root, 2))
        assert angle_between_deg(window["directions"], heard(window)) == pytest.approx(
            before, abs=1.0
        )
        # A pitch would tilt the crops.
        assert window["directions"][:, 2] == pytest.approx(looks[:, 2], abs=1e-6)


def test_the_published_channels_are_exchanged_after_the_rotation(root: Path) -> None:
    plain, published = (
        windows(root, sound=replace(tiny("avsa").sound, conventions=name))[3, 1][0]
        for name in ("avsa360", "published")
    )
    field, exchanged = (part["matrices"][0] @ part["audio"] for part in (plain, published))
    # That code read X, Y, W, Z as W, Y, Z, X, at half the power and Z 3 dB below.
    order = field[[3, 1, 0, 2]] * np.array([[1], [1], [1], [0.5**0.5]])
    assert exchanged == pytest.approx(order * 0.5**0.5, abs=1e-6)
    assert (plain["vectors"] == published["vectors"]).all()


def test_a_short_clip_ends_in_silence_that_does_not_count(root: Path) -> None:
    dataset = windows(root)
    longer = SeldWindows(
        dataset.clips,
        dataset.labelled,
        CLASSES,
        replace(dataset.protocol, window_frames=30),
        rotates=False,
    )
    (window,) = longer[0, 0]
    assert window["audio"].shape == (4, 3 * 24_000)
    assert not window["audio"][:, 2 * 24_000 :].any()
    assert window["inside"].tolist() == [True] * 20 + [False] * 10
    assert window["count"].sum() == 20


@pytest.mark.parametrize(("frames", "length"), [(5, 20), (20, 20), (21, 20), (100, 20), (7, 1)])
def test_windows_cover_a_clip(frames: int, length: int) -> None:
    starts = window_starts(frames, length)
    assert {frame for start in starts for frame in range(start, start + length)} >= {*range(frames)}
    assert max(starts) == max(0, frames - length)


def clip_frames(
    root: Path, events: list[dict[str, Any]], start_s: float, step_s: float
) -> ClipFrames:
    info = ShardSet(root, "train").info(0)
    changed = {"events": events, "event_step_s": step_s, "start_s": start_s}
    return ClipFrames.read(type(info)(**{**vars(info), **changed}))


def event(time_s: float, kind: int = 1, **more: Any) -> dict[str, Any]:
    return {"time_s": time_s, "class": kind, "azimuth_deg": 10.0, "elevation_deg": 0.0, **more}


def test_events_fall_into_frames_of_the_recording(root: Path) -> None:
    found = clip_frames(root, [event(0.0), event(0.3)], 7.0, 0.1)
    assert (found.first, found.count, found.offset_s) == (70, 20, pytest.approx(0))
    assert sorted(found.by_frame) == [70, 73]
    # A step of 0.2 s is two frames.
    assert sorted(clip_frames(root, [event(0.4)], 0.0, 0.2).by_frame) == [4, 5]
    # A frame has what sounds in its middle.
    found = clip_frames(root, [event(0.14), event(0.57)], 0.0, 0.1)
    assert sorted(found.by_frame) == [1, 6]
    # The recording's frames begin 40 ms into this clip; the last one would end after it.
    found = clip_frames(root, [event(0.04), event(0.24), event(1.94)], 3.06, 0.1)
    assert (found.first, found.count) == (31, 19)
    assert found.offset_s == pytest.approx(0.04)
    assert sorted(found.by_frame) == [31, 33]


def test_more_sources_than_tracks_are_counted_and_the_first_are_kept(root: Path) -> None:
    events = [event(0.0, 1, source=n, distance_m=1.0 + n) for n in range(4)] + [event(0.0, 9)]
    places, sources = targets(clip_frames(root, events, 0.0, 0.1), 0, 2, CLASSES, 3)
    assert sources.tolist() == [[0, 4, 0, 0], [0, 0, 0, 0]]
    assert places[0, 1, :, 2].tolist() == [1, 2, 3]
    assert np.isnan(places[1]).all()
    # Sources without a number are told apart by their order.
    unnumbered = clip_frames(root, [event(0.0), event(0.0)], 0.0, 0.1)
    assert [one.source for one in unnumbered.by_frame[0]] == [0, 1]
    assert all(math.isnan(one.distance_m) for one in unnumbered.by_frame[0])
    with pytest.raises(TrainingError, match="its events are malformed"):
        clip_frames(root, [{"time_s": 0.0, "class": 1}], 0.0, 0.1)
    (near,) = clip_frames(root, [event(0.0, distance_m=0.0)], 0.0, 0.1).by_frame[0]
    assert math.isnan(near.distance_m)  # unknown


def test_smaller_parts_of_the_labels_are_in_larger_ones(tmp_path: Path) -> None:
    make_set(tmp_path, {"train": 10}, clips_per_source=2, views=1, labelled=True)
    shards = ShardSet(tmp_path, "train")
    every = LabelledClips.read(shards, Unreadable.in_split(shards))
    parts = [every.part(share, 3).sources for share in (0.01, 0.1, 0.3, 0.55, 1.0)]
    assert [len(part) for part in parts] == [1, 1, 3, 6, 10]
    for small, large in pairwise(parts):
        assert set(small) <= set(large)
    assert len(every.part(0.3, 3).frames) == 6  # whole recordings
    assert every.part(0.3, 3).sources == parts[2]
    assert len({tuple(every.part(0.3, seed).sources) for seed in range(5)}) > 1


def test_clips_of_a_recording_are_joined(root: Path) -> None:
    shards = ShardSet(root, "train")
    shards.sources[:3] = ["a", "a", "b"]
    true = [Detection(frame, 0, 0, 0.0, 0.0) for frame in range(40)]
    frames = {
        0: ClipFrames(20, 20, 0.0, tuple(true[20:])),
        1: ClipFrames(0, 22, 0.0, tuple(true[:22])),
        2: ClipFrames(0, 5, 0.0, ()),
    }
    labelled = LabelledClips(shards, frames)
    found = {
        number: [
            Detection(frame, number, 0, 0.0, 0.0) for frame in range(f.first, f.first + f.count)
        ]
        for number, f in frames.items()
    }
    one, other = join_recordings(labelled, found)
    assert one.reference.frame.tolist() == list(range(40))
    assert one.estimate.kind.tolist() == [1] * 22 + [0] * 18  # the earlier clip has the frame
    assert (one.twice, one.frames, other.source, other.frames) == (2, 40, "b", 5)
    far = {0: [Detection(25, 0, 0, 0.0, 0.0, 2.0)]}
    assert join_recordings(labelled, far)[0].estimate.distance_m.tolist() == [2.0]
    # A head that has learned no distance still gives numbers.
    assert math.isnan(join_recordings(labelled, far, distances=False)[0].estimate.distance_m[0])
    del found[0]
    assert join_recordings(labelled, found)[0].reference.frame.tolist() == list(range(22))
    assert [one.source for one in join_recordings(labelled, {0: []})] == ["a"]
