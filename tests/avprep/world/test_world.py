"""The generated world: its files, and agreement of video, audio and truth with the conventions."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
import wave
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from avprep.errors import UserError
from avprep.world import generate
from avprep.world import picture as world_picture
from avprep.world import scene as world
from avprep.world import sound as world_sound
from avprep.world.write import clip_truth, make_world, write_clip
from shards.geometry import angle_between_deg, direction_deg, unit_vector
from tests.support.processes import children, lives

SEED = 5


@pytest.fixture(scope="module")
def small_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("world")
    make_world(out, clips=2, seed=SEED, workers=1, progress=False)
    return out


def read_files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def read_wav(path: Path) -> NDArray[np.float64]:
    with wave.open(str(path)) as reader:
        assert (reader.getnchannels(), reader.getframerate(), reader.getsampwidth()) == (
            4,
            48000,
            2,
        )
        pcm = np.frombuffer(reader.readframes(reader.getnframes()), "<i2")
    return pcm.reshape(-1, 4).T / 32767


def decode_luma(path: Path) -> NDArray[np.uint8]:
    with av.open(str(path)) as container:
        frames = [f.to_ndarray()[: world_picture.HEIGHT] for f in container.decode(video=0)]
    return np.stack(frames)


def pixel_directions(width: int) -> NDArray[np.float64]:
    """Unit vectors of all pixels, by the conventions' formula."""
    azimuth = 180 * (1 - 2 * (np.arange(width) + 0.5) / width)
    elevation = 90 - 180 * (np.arange(width // 2)[:, None] + 0.5) / (width // 2)
    return unit_vector(azimuth, elevation)


def solid_angles(width: int) -> NDArray[np.float64]:
    """Solid angle of each pixel (height, 1)."""
    elevation = np.pi * (0.5 - (np.arange(width // 2)[:, None] + 0.5) / (width // 2))
    return np.asarray(np.cos(elevation) * (2 * np.pi / width) ** 2)


def centroid(weight: NDArray[Any]) -> NDArray[np.float64]:
    width = weight.shape[1]
    weighted = (weight * solid_angles(width))[..., None] * pixel_directions(width)
    return np.asarray(weighted.sum(axis=(0, 1)))


def single_object_clip(
    kind_name: str, path: world.Trajectory, quiet: bool = True
) -> world.WorldClip:
    """A clip with one sounding object; without noise and reflections if ``quiet``."""
    kinds = [kind.name for kind in world.KINDS]
    for index in range(400):
        clip = generate.make_clip(SEED, index)
        first = clip.objects[0]
        if first.kind_index == kinds.index(kind_name) + 1:
            place = clip.place
            if quiet:
                place = replace(place, noise_db=-np.inf, reverb_db=-np.inf)
            return replace(clip, place=place, objects=(replace(first, path=path),))
    raise AssertionError(f"no {kind_name} in 400 clips")


def test_bytes_do_not_depend_on_workers(small_world: Path, tmp_path: Path) -> None:
    make_world(tmp_path / "again", clips=2, seed=SEED, workers=2, progress=False)
    first, second = read_files(small_world), read_files(tmp_path / "again")
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] == []


def test_easy_worlds_keep_their_content() -> None:
    """A larger world begins with the clips that earlier versions wrote, in truth and in audio."""
    truths = [clip_truth(generate.make_clip(SEED, index), {}, 0.0) for index in range(40)]
    digest = hashlib.sha256(json.dumps(truths).encode()).hexdigest()
    assert digest == "d05c873aea083c0f6ce7f3cc195f09ba803132313f76a9365047779e3e37fd0e"
    foa = world_sound.render_audio(generate.make_clip(SEED, 0)).foa.astype(np.float64)
    weights = np.cos(np.arange(foa.shape[1]) * 0.01)
    np.testing.assert_allclose(foa @ weights, [-14.02931, 4.630168, 4.053413, -1.809731], rtol=1e-4)


def test_a_world_has_the_files_that_its_readme_lists(small_world: Path) -> None:
    names = set(read_files(small_world))
    clips = ("place-00000-0", "place-00000-10")
    expected = {"README.md", "train.txt", "test.txt"}
    for clip in clips:
        expected |= {f"video/{clip}.mp4", f"audio/{clip}.wav", f"truth/{clip}.json"}
        expected |= {f"segmentation/{clip}/{k:04d}.png" for k in range(1, 41)}
    assert names == expected
    assert (small_world / "train.txt").read_text() == "place-00000\n"
    assert (small_world / "test.txt").read_text() == ""


def test_videos_have_a_format_that_all_players_support(small_world: Path) -> None:
    with av.open(str(small_world / "video" / "place-00000-0.mp4")) as container:
        assert [stream.type for stream in container.streams] == ["video"]
        stream = container.streams.video[0]
        context = stream.codec_context
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")
        assert (context.width, context.height, stream.frames) == (960, 480, 240)
        assert stream.average_rate == 24
        assert stream.start_time == 0
        # Limited range; BT.709 matrix, primaries and transfer.
        tags = (context.color_range, context.colorspace, context.color_primaries)
        assert (*tags, context.color_trc) == (1, 1, 1, 1)
        assert "creation_time" not in container.metadata


def test_audio_peaks_stay_below_full_scale(small_world: Path) -> None:
    for path in (small_world / "audio").iterdir():
        foa = read_wav(path)
        assert foa.shape == (4, 480000)
        peak = max(np.abs(foa[0]).max(), np.sqrt((foa[1:] ** 2).sum(axis=0)).max())
        assert 10 ** (-10.1 / 20) < peak <= 10 ** (-3 / 20) + 1e-4


def test_truth_has_one_value_per_frame(small_world: Path) -> None:
    truth = json.loads((small_world / "truth" / "place-00000-0.json").read_text())
    assert (truth["source"], truth["split"], truth["frames"]) == ("place-00000", "train", 240)
    assert -60 < truth["diffuse_noise_dbfs"] < -20
    for item in truth["objects"]:
        assert world.KINDS[item["kind_index"] - 1].name == item["kind"]
        lists = [value for value in item.values() if isinstance(value, list)]
        assert {len(value) for value in lists} == {240}
        assert len(lists) >= 5
        assert any(item["active"]) != item["silent"]
        assert (max(item["level_dbfs"]) > -60) != item["silent"]


@pytest.mark.parametrize(
    ("kind_name", "path"),
    [
        ("bell", world.Trajectory(35.0, 20.0)),
        ("drum", world.Trajectory(-120.0, -40.0)),
        ("siren", world.Trajectory(165.0, 25.0, heading_deg=20, speed_deg_s=8)),  # over the seam
        ("voice", world.Trajectory(70.0, 75.0)),  # near the pole
    ],
)
def test_video_audio_and_truth_agree(
    kind_name: str, path: world.Trajectory, tmp_path: Path
) -> None:
    clip = single_object_clip(kind_name, path)
    for folder in ("video", "audio", "segmentation", "truth"):
        (tmp_path / folder).mkdir()
    write_clip(tmp_path, clip)
    truth = json.loads((tmp_path / "truth" / f"{clip.name}.json").read_text())
    item = truth["objects"][0]
    directions = unit_vector(item["azimuth_deg"], item["elevation_deg"])
    if not path.speed_deg_s and not clip.objects[0].kind.bounce_deg:
        given = unit_vector(path.azimuth_deg, path.elevation_deg)
        assert angle_between_deg(directions, given).max() < 0.01

    for number in (1, 17, 40):
        file = tmp_path / "segmentation" / clip.name / f"{number:04d}.png"
        labels = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
        assert labels is not None
        assert labels.shape == (240, 480)
        assert labels.dtype == np.uint8
        assert set(np.unique(labels)) == {0, item["kind_index"]}
        frame = 6 * number - 3
        assert angle_between_deg(centroid(labels > 0), directions[frame]) < 0.5

    luma = decode_luma(tmp_path / "video" / f"{clip.name}.mp4")
    empty = world_picture.panorama(clip.place)[: world_picture.HEIGHT]
    for frame in (30, 200):
        # Pixels that differ from the panorama: the object with its dark outline.
        changed = np.abs(luma[frame].astype(float) - empty) > 12
        away = angle_between_deg(pixel_directions(960)[changed], directions[frame])
        assert away.max() < item["angular_radius_deg"][frame] + 1
        assert angle_between_deg(centroid(changed), directions[frame]) < 2.5

    foa = read_wav(tmp_path / "audio" / f"{clip.name}.wav").reshape(4, 240, 2000)
    intensity = np.einsum("ft,cft->fc", foa[0], foa[[3, 1, 2]])
    sounding = np.flatnonzero(item["active"])[:-1]
    # A frame's audio lasts until the next frame.
    middle = directions[sounding] + directions[sounding + 1]
    tolerance = 1 + clip.objects[0].kind.bounce_deg / 2
    assert np.median(angle_between_deg(intensity[sounding], middle)) < 0.2
    assert angle_between_deg(intensity[sounding], middle).max() < tolerance


@pytest.mark.parametrize(
    ("azimuth_deg", "elevation_deg"), [(40.0, 30.0), (179.0, -35.0), (-100.0, 84.0)]
)
def test_a_disc_covers_a_spherical_cap(azimuth_deg: float, elevation_deg: float) -> None:
    clip = single_object_clip("bell", world.Trajectory(azimuth_deg, elevation_deg))
    disc = replace(clip.objects[0], aspect=1.0, radius_deg=10.0, animated=False)
    picture = world_picture.panorama(clip.place).copy()
    labels = np.zeros((240, 480), dtype=np.uint8)
    world_picture.Drawing(disc).draw(0, picture, labels)
    cap = 2 * np.pi * (1 - np.cos(np.radians(10)))
    assert ((labels > 0) * solid_angles(480)).sum() == pytest.approx(cap, rel=0.02)
    away = angle_between_deg(pixel_directions(480), unit_vector(azimuth_deg, elevation_deg))
    np.testing.assert_array_equal(
        labels[np.abs(away - 10) > 0.6] > 0, (away < 10)[np.abs(away - 10) > 0.6]
    )


@pytest.mark.parametrize("kind", world.KINDS, ids=lambda kind: kind.name)
def test_animation_follows_the_rhythm_of_the_audio(kind: world.Kind) -> None:
    source = single_object_clip(kind.name, world.Trajectory(0, 0)).objects[0]
    level = world_sound.frame_rms(world_sound.object_signal(source))
    animation = source.animation(world.frame_times())
    correlations = [np.corrcoef(np.roll(level, lag), animation)[0, 1] for lag in range(-48, 49)]
    best = int(np.argmax(correlations)) - 48
    assert 0 <= best <= 1  # a frame shows the audio just before it
    assert correlations[best + 48] > 0.45


def test_drawn_brightness_follows_the_rhythm() -> None:
    clip = single_object_clip("drum", world.Trajectory(20, 10))
    frames = [picture for picture, _ in world_picture.render_frames(clip)]
    empty = world_picture.panorama(clip.place).astype(float)
    change = np.array(
        [np.abs(f[: world_picture.HEIGHT] - empty[: world_picture.HEIGHT]).sum() for f in frames]
    )
    level = world_sound.frame_rms(world_sound.object_signal(clip.objects[0]))
    assert np.corrcoef(np.roll(level, 1), change)[0, 1] > 0.7


def test_diffuse_noise_is_isotropic() -> None:
    place = replace(generate.make_place(SEED, 0), noise_db=-20.0, reverb_db=-np.inf)
    clip = replace(generate.make_clip(SEED, 0), place=place, objects=())
    audio = world_sound.render_audio(clip)
    assert audio.levels == {}
    covariance = np.cov(audio.foa.astype(np.float64)) / audio.noise_rms**2
    # Coloured noise has fewer independent samples than its length, hence the tolerance.
    np.testing.assert_allclose(covariance, np.diag([1, 1 / 3, 1 / 3, 1 / 3]), atol=0.04)


def test_reverberation_is_moderate() -> None:
    clip = single_object_clip("string", world.Trajectory(60, 10), quiet=False)
    place = replace(clip.place, noise_db=-np.inf)
    dry = replace(place, reverb_db=-np.inf)
    with_room = world_sound.render_audio(replace(clip, place=place))
    without = world_sound.render_audio(replace(clip, place=dry))
    item = clip.objects[0].id
    scale = with_room.levels[item].max() / without.levels[item].max()
    direct = scale * without.foa[0]
    added = 10 * np.log10(np.var(with_room.foa[0] - direct) / np.var(direct))
    assert -15 < added < 0
    intensity = with_room.foa[[3, 1, 2]].astype(np.float64) @ with_room.foa[0]
    assert angle_between_deg(intensity, unit_vector(60, 10)) < 25


def test_worlds_vary_as_described() -> None:
    clips = [generate.make_clip(SEED, index) for index in range(400)]
    objects = [item for clip in clips for item in clip.objects]
    assert {item.kind_index for item in objects} == set(range(1, 11))
    unseen = np.mean([any(not item.visible for item in clip.objects) for clip in clips])
    assert 0.10 < unseen < 0.20
    assert any(item.silent and item.animated for item in objects)
    assert any(item.silent and not item.animated for item in objects)
    twins = [
        clip
        for clip in clips
        if {i.kind_index for i in clip.objects if i.silent}
        & {i.kind_index for i in clip.objects if not i.silent}
    ]
    assert len(twins) > 80
    times = world.frame_times()
    for clip in clips[:100]:
        assert 1 <= sum(item.visible and not item.silent for item in clip.objects) <= 3
        for item in clip.objects:
            path = item.path.direction(times)
            assert np.abs(direction_deg(path)[1]).max() < 32
            assert angle_between_deg(path[1:], path[:-1]).max() * world.FPS < 41
            assert len(item.beats) >= 3
        seen = [item for item in clip.objects if item.visible]
        for number, one in enumerate(seen):
            for other in seen[:number]:
                gap = angle_between_deg(one.direction(times[:1]), other.direction(times[:1]))[0]
                assert gap > one.radius_deg + other.radius_deg


def test_places_are_split_by_index() -> None:
    places = [generate.make_place(SEED, index) for index in range(10)]
    assert [place.index for place in places if place.split == "test"] == [1, 6]
    assert {len(place.name) for place in places} == {11}
    clip = generate.make_clip(SEED, 7)
    assert (clip.place, clip.start_s, clip.name) == (places[1], 30, "place-00001-30")
    assert generate.make_clip(SEED + 1, 7) != clip


@pytest.mark.parametrize("options", [[], ["--actions"]])
def test_a_killed_demo_ends_all_its_processes(tmp_path: Path, options: list[str]) -> None:
    command = [sys.executable, "-m", "avprep", "demo", str(tmp_path / "world"), *options]
    command += ["--clips", "60", "--workers", "2"]
    killed = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    # Two workers, and the process in which Python tracks shared resources.
    while len(workers := children(killed.pid)) < 3:
        assert time.monotonic() < deadline, "it did not start"
        time.sleep(0.02)
    time.sleep(1)
    killed.terminate()
    killed.wait()
    while any(map(lives, workers)):
        assert time.monotonic() < deadline, "its workers end with it"
        time.sleep(0.05)


def test_user_errors_are_reported_and_write_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="clips"):
        make_world(tmp_path / "new", clips=0, seed=0, workers=1)
    with pytest.raises(UserError, match="seed"):
        make_world(tmp_path / "new", clips=1, seed=-1, workers=1)
    assert not (tmp_path / "new").exists()
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="not an empty folder"):
        make_world(tmp_path, clips=1, seed=0, workers=1)
    with pytest.raises(UserError, match="not an empty folder"):
        make_world(tmp_path / "notes.txt", clips=1, seed=0, workers=1)
    with pytest.raises(UserError, match="cannot be created"):
        make_world(tmp_path / "notes.txt" / "below", clips=1, seed=0, workers=1)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
