"""The hard world: what its kinds share, and how distance and room change audio and video."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray

from avprep.cli.main import main as avprep
from avprep.world import hard
from avprep.world.picture import HEIGHT, WIDTH, Drawing
from avprep.world.scene import (
    FRAMES,
    HARD_KINDS,
    KINDS,
    Place,
    SceneObject,
    Trajectory,
    WorldClip,
    frame_times,
)
from avprep.world.sound import SAMPLES, RenderedAudio, object_signal, render_audio
from avprep.world.write import make_world
from shards.geometry import angle_between_deg, direction_deg, unit_vector
from shards.reader import ShardSet

SEED = 3
NUMBERS = {kind.name: number for number, kind in enumerate(HARD_KINDS, start=1)}


def first_object(kind: str, **changes: object) -> tuple[Place, SceneObject]:
    """An object of a kind, and its place without noise."""
    clip = hard.make_clip(SEED, 0)
    item = replace(clip.objects[0], kind_index=NUMBERS[kind], silent=False, visible=True)
    return replace(clip.place, noise_db=-np.inf), replace(item, **changes)  # type: ignore[arg-type]


def render(place: Place, *objects: SceneObject) -> RenderedAudio:
    return render_audio(replace(hard.make_clip(SEED, 0), place=place, objects=objects))


def drawn(item: SceneObject) -> NDArray[np.uint8]:
    image = np.full((HEIGHT * 3 // 2, WIDTH), 128, dtype=np.uint8)
    labels = np.zeros((HEIGHT // 2, WIDTH // 2), dtype=np.uint8)
    Drawing(item).draw(30, image, labels)
    assert set(np.unique(labels)) == {0, item.kind_index}
    return image


def spectrum(item: SceneObject) -> NDArray[np.float64]:
    """Normalised power in third octaves from 60 Hz."""
    power = np.abs(np.fft.rfft(object_signal(item))) ** 2
    edges = (60 * 2 ** (np.arange(25) / 3) * 10).astype(int)  # bins of 0.1 Hz
    bands = np.add.reduceat(power, edges)[:-1]
    return np.asarray(bands / np.linalg.norm(bands))


def test_the_easy_kinds_keep_their_values() -> None:
    assert HARD_KINDS[: len(KINDS)] == KINDS
    assert len(NUMBERS) == len(HARD_KINDS) == 14


@pytest.mark.parametrize(("one", "other"), [("bell", "gong"), ("siren", "buzzer")])
def test_kinds_that_look_alike_sound_different(one: str, other: str) -> None:
    objects = [first_object(kind)[1] for kind in (one, other)]
    np.testing.assert_array_equal(*map(drawn, objects))
    np.testing.assert_array_equal(*(item.animation(frame_times()) for item in objects))
    assert spectrum(objects[0]) @ spectrum(objects[1]) < 0.5
    place = hard.make_place(SEED, 0)
    assert len({place.hue_deg[item.kind_index - 1] for item in objects}) == 1


@pytest.mark.parametrize(("one", "other"), [("bird", "whistle"), ("drone", "organ")])
def test_kinds_that_sound_alike_look_different(one: str, other: str) -> None:
    objects = [first_object(kind, hue_deg=50.0)[1] for kind in (one, other)]
    np.testing.assert_array_equal(*map(object_signal, objects))
    first, second = (drawn(item).astype(int) for item in objects)
    assert np.abs(first - second).sum() > 0.5 * np.abs(first - 128).sum()
    place = hard.make_place(SEED, 0)
    assert len({place.semitones[item.kind_index - 1] for item in objects}) == 1


@pytest.mark.parametrize("elevation_deg", [42.0, -38.0])
def test_a_distant_source_is_heard_where_it_is(elevation_deg: float) -> None:
    """Intensity of the direct sound alone; with reverberation, of the 50 ms after each beat."""
    path = Trajectory(-75.0, elevation_deg)
    place, item = first_object("clock", path=path, distances_m=(6.0, 6.0))
    there = unit_vector(-75.0, elevation_deg)
    dry = render(replace(place, reverb_db=-np.inf), item).foa.astype(np.float64)
    assert angle_between_deg(dry[[3, 1, 2]] @ dry[0], there) < 0.01
    wet = render(place, item).foa.astype(np.float64)
    begins = [round(beat.time_s * 48_000) for beat in item.beats]
    onsets = [wet[:, begin : begin + 190] for begin in begins]  # before the first reflection
    intensity = sum(onset[[3, 1, 2]] @ onset[0] for onset in onsets)
    assert angle_between_deg(intensity, there) < 10


def test_the_direct_sound_falls_with_the_distance_and_reverberation_does_not() -> None:
    place, item = first_object("string", distances_m=(1.5, 1.5))
    near, far = (render(place, replace(item, distances_m=(r, r))) for r in (1.5, 6.0))
    # Levels are those after scaling to the clip's peak, hence ratios to the tail.
    gain = far.foa[0, -1000:].std() / near.foa[0, -1000:].std()
    assert not item.beats[-1].time_s > 9.9  # the last 20 ms hold reverberation
    ratio = far.levels[item.id].max() / near.levels[item.id].max() / gain
    assert ratio == pytest.approx(1.5 / 6.0, rel=0.15)
    anechoic = replace(place, reverb_db=-np.inf)
    near, far = (render(anechoic, replace(item, distances_m=(r, r))) for r in (1.5, 6.0))
    peaks = [audio.levels[item.id].max() / np.abs(audio.foa[0]).max() for audio in (near, far)]
    assert peaks[0] == pytest.approx(peaks[1], rel=1e-5)  # scaled to the same peak


def test_two_sources_differ_in_level_by_their_distances() -> None:
    place, near = first_object("drone", distances_m=(1.0, 2.0), level_db=0.0)
    far = replace(near, id=near.id + 1, distances_m=(4.0, 4.0))
    levels = render(place, near, far).levels
    sounding = levels[far.id] > 0
    ratio = levels[near.id][sounding] / levels[far.id][sounding]
    distance = near.distance(frame_times() + 0.5 / 24)[sounding]
    np.testing.assert_allclose(ratio, 4.0 / distance, rtol=0.02)


@pytest.mark.parametrize(("distance_m", "volume_m3"), [(1.0, 1000.0), (5.0, 150.0)])
def test_the_stated_direct_to_reverberant_ratio_is_that_of_the_sound(
    distance_m: float, volume_m3: float
) -> None:
    critical_m = hard.critical_distance_m(volume_m3, 0.4)
    place, item = first_object("hiss", distances_m=(distance_m, distance_m))
    place = replace(
        place, rt60_s=0.4, critical_distance_m=critical_m, reverb_db=-20 * np.log10(critical_m)
    )
    wet, dry = render(place, item), render(replace(place, reverb_db=-np.inf), item)
    scale = wet.levels[item.id].max() / dry.levels[item.id].max()
    direct = scale * dry.foa[0].astype(np.float64)
    measured = 10 * np.log10(np.var(direct) / np.var(wet.foa[0] - direct))
    assert wet.ratios_db[item.id] == pytest.approx(measured, abs=0.5)
    # The tail alone is as strong as the direct sound at the critical distance.
    expected = 20 * np.log10(critical_m / distance_m)
    assert expected - 4 < wet.ratios_db[item.id] < expected + 1


def test_reverberation_decays_by_60_db_in_the_stated_time() -> None:
    place, item = first_object("clock", distances_m=(1.0, 1.0))
    beat = replace(item.beats[0], time_s=1.0, strength=1.0)
    for rt60_s in (0.3, 0.8):
        wet = render(replace(place, rt60_s=rt60_s), replace(item, beats=(beat,))).foa[0]
        # Slope between 0.1 s and 0.1 s + RT60 / 2 after the beat: 30 dB.
        energy = wet[: SAMPLES // 480 * 480].reshape(-1, 480).astype(np.float64) ** 2
        level = 10 * np.log10(energy.mean(axis=1)[110 : 110 + int(50 * rt60_s)])
        slope = np.polyfit(np.arange(len(level)) / 100, level, 1)[0]
        assert slope == pytest.approx(-60 / rt60_s, rel=0.15)


def test_distant_objects_look_smaller() -> None:
    _, item = first_object("drum", distances_m=(1.0, 6.0), animated=False)
    radius = item.radius(frame_times())
    assert radius[0] == item.radius_deg
    assert radius[-1] == pytest.approx(item.radius_deg * 6**-0.25, rel=0.01)
    assert np.all(np.diff(radius) < 0)


def test_hard_worlds_vary_as_described() -> None:
    clips = [hard.make_clip(SEED, index) for index in range(300)]
    objects = [item for clip in clips for item in clip.objects]
    assert {item.kind_index for item in objects} == set(range(1, 15))
    seen = [[item for item in clip.objects if item.visible] for clip in clips]
    silent_twins = [
        {i.kind.look for i in items if i.silent} & {i.kind.look for i in items if not i.silent}
        for items in seen
    ]
    assert np.mean([bool(twins) for twins in silent_twins]) > 0.3
    assert 0.1 < np.mean([not all(i.visible for i in clip.objects) for clip in clips]) < 0.3
    assert 0.4 < np.mean([any(i.silent for i in clip.objects) for clip in clips]) < 0.6
    times = frame_times()
    highest = 0.0
    for clip in clips[:100]:
        assert 1 <= sum(item.visible and not item.silent for item in clip.objects) <= 3
        assert 0.2 <= clip.place.rt60_s <= 0.9
        nearest_last = [sum(item.distances_m or ()) for item in clip.objects]
        assert nearest_last == sorted(nearest_last, reverse=True)
        for item in clip.objects:
            assert 1 <= item.distance(times).min() <= item.distance(times).max() <= 3
            elevation = np.abs(direction_deg(item.path.direction(times))[1]).max()
            assert elevation < 46
            highest = max(highest, elevation)
    assert highest > 40
    assert len({item.id for item in clips[0].objects}) == len(clips[0].objects)


def test_places_of_both_splits_and_worlds_differ() -> None:
    places = [hard.make_place(SEED, index) for index in range(10)]
    assert [place.index for place in places if place.split == "test"] == [1, 6]
    assert len({place.seed for place in places}) == 10
    assert hard.make_clip(SEED, 7) == hard.make_clip(SEED, 7)
    assert hard.make_clip(SEED, 7).place == places[1]
    assert hard.make_clip(SEED + 1, 7) != hard.make_clip(SEED, 7)


def test_truth_readme_and_sets_state_what_is_known(tmp_path: Path) -> None:
    world = tmp_path / "world"
    make_world(world, 1, SEED, 1, progress=False, difficulty="hard")
    clip: WorldClip = hard.make_clip(SEED, 0)
    truth = json.loads((world / "truth" / "place-00000-0.json").read_text())
    for item, stated in zip(clip.objects, truth["objects"], strict=True):
        np.testing.assert_allclose(stated["distance_m"], item.distance(frame_times()), atol=1e-3)
        assert len(stated["distance_m"]) == FRAMES
        assert (stated["direct_to_reverberant_db"] is None) == item.silent
    readme = (world / "README.md").read_text()
    assert "1 clips of 10 s, seed 3, difficulty hard" in readme
    silent = sum(item.silent for item in clip.objects)
    assert f"| visible and silent | {silent} |" in readme
    ratios = [item["direct_to_reverberant_db"] for item in truth["objects"] if not item["silent"]]
    assert f"ratio of a source, dB | {np.percentile(ratios, 25):.1f} |" in readme

    command = ["build-shards", str(world), "--out", str(tmp_path / "set"), "--workers", "1"]
    command += ["--views", "1", "--size", "16", "--fps", "4"]
    assert CliRunner().invoke(avprep, command).exit_code == 0
    info = ShardSet(tmp_path / "set").info(0)
    assert info.reverberation_rt60_s == truth["reverberation_rt60_s"]
    stated = {item["id"]: item["distance_m"] for item in truth["objects"]}
    for event in info.events or ():
        frame = round(24 * (event["time_s"] + 0.1) - 0.5)  # the middle of a step of 0.2 s
        assert event["distance_m"] == pytest.approx(stated[event["source"]][frame], abs=0.03)
    assert info.events
