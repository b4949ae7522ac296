"""Builds as a user runs them: from recordings to shards that say and hold the same."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import re
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import webdataset
from click.testing import CliRunner, Result

from avprep.cli import main
from avprep.soundfield import intensity_direction
from shards.errors import ShardError
from shards.geometry import (
    MIRROR,
    angle_between_deg,
    direction_deg,
    rotate_foa,
    unit_vector,
    view_foa_matrix,
)
from shards.reader import ShardSet
from tests.media import (
    centroid,
    dot_plane,
    encode_foa,
    grey_frame,
    noise,
    write_audio,
    write_dot_recording,
    write_video,
    write_wav,
)

DIRECTIONS = {"a": (40.0, 15.0), "b": (-150.0, -25.0), "c": (179.0, 5.0), "d": (-60.0, 30.0)}
FAST = ["--clip-duration", "2", "--views", "4"]


def build(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["build-shards", *map(str, arguments)])


def contents(root: Path) -> dict[str, str]:
    """The hash of every file of a set."""
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("raw")
    for name, direction in DIRECTIONS.items():
        write_dot_recording(folder, name, *direction, seconds=4.0)
    return folder


@pytest.fixture(scope="module")
def built(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("set") / "shards"
    result = build(raw, "--out", out, *FAST, "--workers", 1)
    assert result.exit_code == 0, result.output
    return out


def test_a_set_is_what_the_format_says(built: Path) -> None:
    manifest = json.loads((built / "manifest.json").read_bytes())
    shards = manifest["splits"]["train"]["shards"]
    keys = [key for shard in shards for key in shard["keys"]]
    assert sorted(keys) == sorted(f"{name}-{start}" for name in DIRECTIONS for start in (0, 2))
    assert len(shards) == 8
    for shard in shards:
        assert len(set(shard["sources"])) == len(shard["sources"]), "clips of one source are spread"
        content = (built / shard["file"]).read_bytes()
        assert len(content) == shard["bytes"]
        assert hashlib.sha256(content).hexdigest() == shard["sha256"]
        with tarfile.open(fileobj=io.BytesIO(content)) as tar:
            names = tar.getnames()
            assert names == sorted(names)
            assert {(member.mtime, member.uid, member.gid) for member in tar} == {(0, 0, 0)}
    assert {path.name for path in built.iterdir()} == {"manifest.json", "train"}


def test_webdataset_reads_the_tars_without_our_code(built: Path) -> None:
    urls = sorted(str(path) for path in (built / "train").glob("*.tar"))
    samples = list(webdataset.WebDataset(urls, shardshuffle=False, empty_check=False))
    assert len(samples) == 8
    for sample in samples:
        info = json.loads(sample["json"])
        assert info["audio"]["channels"] == ["W", "Y", "Z", "X"]
        assert info["audio"]["normalization"] == "SN3D"
        assert len(info["views"]) == 4
        for number in range(4):
            with av.open(io.BytesIO(sample[f"view{number:02d}.mp4"])) as video:
                times = [frame.time for frame in video.decode(video=0)]
            assert times == [n / 16 for n in range(32)]
            sound, rate = soundfile.read(io.BytesIO(sample[f"view{number:02d}.flac"]))
            assert (rate, sound.shape) == (24000, (48000, 4))


def test_a_window_is_the_part_of_the_whole(built: Path) -> None:
    shards = pickle.loads(pickle.dumps(ShardSet(built)))  # as it goes to a loader's workers
    with av.open(io.BytesIO(shards.member(3, "view01.mp4"))) as video:
        whole = np.stack([frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)])
    for start, count in ((0, 8), (5, 8), (24, 8), (7, 1), (0, 32)):
        window = shards.frames(3, 1, start, count)
        np.testing.assert_array_equal(window, whole[start : start + count])
    flac, _ = soundfile.read(io.BytesIO(shards.member(3, "view02.flac")), dtype="float32")
    sound, matrix = shards.foa(3, 12_345, 24_000, view=2)
    gain = np.float32(shards.info(3).audio.gain)
    np.testing.assert_array_equal(sound, flac.T[:, 12_345:36_345] / gain)
    view = shards.info(3).views[2]
    np.testing.assert_array_equal(matrix, view_foa_matrix(view.azimuth_deg, view.elevation_deg))
    with pytest.raises(ValueError, match="not within"):
        shards.frames(3, 1, 25, 8)
    with pytest.raises(ValueError, match="not within"):
        shards.foa(3, 40_000, 24_000)


def test_picture_and_sound_agree_in_every_crop_of_a_build(tmp_path: Path) -> None:
    """A dot and a plane wave from the same place: within 1° in each crop, mirrored ones too."""
    raw = tmp_path / "raw"
    size, sigma = (480, 960), 2.5
    views = []
    for name, (azimuth, elevation) in DIRECTIONS.items():
        write_dot_recording(raw, name, azimuth, elevation, 1.0, size, sigma)
        for away, up in ((0, 0), (14, -9), (-16, 8)):
            turned = (azimuth + away + 180) % 360 - 180
            views.append({"azimuth_deg": turned, "elevation_deg": elevation + up, "hfov_deg": 65})
    (tmp_path / "views.json").write_text(json.dumps(views))
    result = build(
        raw,
        "--out",
        tmp_path / "set",
        "--viewpoints",
        tmp_path / "views.json",
        "--clip-duration",
        1,
    )
    assert result.exit_code == 0, result.output
    shards = ShardSet(tmp_path / "set")
    checked = 0
    for sample, source in enumerate(shards.sources):
        for number, view in enumerate(shards.info(sample).views):
            there = unit_vector(*DIRECTIONS[source])
            looking = unit_vector(view.azimuth_deg, view.elevation_deg)
            if angle_between_deg(there, looking) > 25:
                continue
            picture = shards.frames(sample, number, 4, 1)[0, :, :, 1]
            sound, _ = shards.foa(sample, 0, 24_000, number)
            for flipped in (False, True):
                seen = picture[:, ::-1] if flipped else picture
                heard = rotate_foa(sound, MIRROR) if flipped else sound
                x, y = centroid(seen)
                half = np.tan(np.radians(view.hfov_deg) / 2)
                ray = np.array([1, (1 - 2 * x / 112) * half, (1 - 2 * y / 112) * half])
                direction = unit_vector(*intensity_direction(heard))
                assert angle_between_deg(ray, direction) < 1.0, direction_deg(ray)
            checked += 1
    assert checked == 12


def test_both_audio_layouts_give_the_same_sound(raw: Path, built: Path, tmp_path: Path) -> None:
    result = build(raw, "--out", tmp_path / "set", *FAST, "--audio-layout", "source")
    assert result.exit_code == 0, result.output
    rotated, source = ShardSet(built), ShardSet(tmp_path / "set")
    assert rotated.keys == source.keys
    field, identity = source.foa(2, 1000, 24_000)
    np.testing.assert_array_equal(identity, np.eye(4))
    for number, view in enumerate(rotated.info(2).views):
        sound, matrix = rotated.foa(2, 1000, 24_000, number)
        here = rotate_foa(field, view_foa_matrix(view.azimuth_deg, view.elevation_deg))
        # Half a step of 16 bits in each stored channel, at most sqrt(3) of them after rotation.
        assert np.abs(sound - here).max() < 1.5 / 32768 / rotated.info(2).audio.gain
        np.testing.assert_allclose(rotate_foa(sound, matrix.T), field, atol=2 / 32768)


def test_workers_do_not_change_a_byte(raw: Path, built: Path, tmp_path: Path) -> None:
    result = build(raw, "--out", tmp_path / "set", *FAST, "--workers", 3)
    assert result.exit_code == 0, result.output
    assert contents(tmp_path / "set") == contents(built)


def test_a_killed_build_is_finished_by_the_same_command(
    raw: Path, built: Path, tmp_path: Path
) -> None:
    out = tmp_path / "set"
    command = [sys.executable, "-m", "avprep", "build-shards", str(raw), "--out", str(out)]
    killed = subprocess.Popen([*command, *FAST, "--workers", "1"], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list(out.glob("train/*.index.json")) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    kept = list(out.glob("train/*.tar"))
    assert kept
    assert not (out / "manifest.json").exists()
    unfinished = CliRunner().invoke(main, ["preview", str(out)])
    assert unfinished.exit_code == 2
    assert "no finished shard set" in unfinished.output
    stamps = {path: path.stat().st_mtime_ns for path in kept}
    result = build(raw, "--out", out, *FAST, "--workers", 1)
    assert result.exit_code == 0, result.output
    assert contents(out) == contents(built)
    assert {path: path.stat().st_mtime_ns for path in kept} == stamps, "finished shards are kept"


def test_the_same_command_again_says_complete_and_another_one_is_refused(
    raw: Path, built: Path
) -> None:
    before = contents(built)
    again = build(raw, "--out", built, *FAST)
    assert again.exit_code == 0
    assert "complete already" in again.output
    other = build(raw, "--out", built, *FAST, "--seed", 5, "--size", 64)
    assert other.exit_code == 2
    assert "seed 0 there, 5 now" in other.output
    assert "size 112 there, 64 now" in other.output
    assert contents(built) == before


def test_moved_and_read_only_sets_are_read(built: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    subprocess.run(["cp", "-r", str(built), str(moved)], check=True)
    for path in [moved, *moved.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    assert ShardSet(moved).frames(0, 0, 0, 8).shape == (8, 112, 112, 3)


def test_a_rest_of_half_a_clip_is_a_clip(tmp_path: Path) -> None:
    write_dot_recording(tmp_path / "raw", "long", seconds=5.2)
    write_dot_recording(tmp_path / "raw", "short", seconds=1.5)
    result = build(tmp_path / "raw", "--out", tmp_path / "set", *FAST)
    assert result.exit_code == 0, result.output
    shards = ShardSet(tmp_path / "set")
    found = {key: shards.info(i).duration_s for i, key in enumerate(shards.keys)}
    assert found == {"long-0": 2.0, "long-2": 2.0, "long-4": 1.1875, "short-0": 1.5}


def test_sound_may_be_inside_and_a_side_file_replaces_it(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    azimuths = {"inside": 70.0, "side": -70.0}
    frame = grey_frame(dot_plane(160, 320, 0, 0, 6))
    for name in azimuths:
        # The sound inside comes from +70°; the side file of the second video says -70°.
        wave = encode_foa(noise(1.0), unit_vector(70, 10))
        write_video(raw / f"{name}.mkv", [frame] * 24, sound=wave)
    write_wav(raw / "side.wav", encode_foa(noise(1.0), unit_vector(-70, 10)))
    write_video(raw / "aac.mp4", [frame] * 24, sound=encode_foa(noise(1.0), unit_vector(70, 10)))
    azimuths["aac"] = 70.0
    views = tmp_path / "front.json"
    views.write_text('[{"azimuth_deg": 0, "elevation_deg": 0, "hfov_deg": 90}]')
    result = build(raw, "--out", tmp_path / "set", "--viewpoints", views, "--clip-duration", 1)
    assert result.exit_code == 0, result.output
    shards = ShardSet(tmp_path / "set")
    for sample, source in enumerate(shards.sources):
        sound, _ = shards.foa(sample, 0, shards.info(sample).audio.samples)
        assert intensity_direction(sound) == pytest.approx((azimuths[source], 10), abs=1.0)


def test_loud_sound_is_scaled_and_never_clipped(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    write_dot_recording(raw, "loud", seconds=1.0)
    # A plane wave along the diagonal at full scale: each axis is below 1, the sum is above.
    hot = 1.4 * encode_foa(np.sin(np.arange(48000) * 0.05), unit_vector(45, 35))
    write_wav(raw / "loud.wav", hot)
    result = build(raw, "--out", tmp_path / "set", *FAST)
    assert result.exit_code == 0, result.output
    shards = ShardSet(tmp_path / "set")
    assert 0.70 < shards.info(0).audio.gain < 0.72
    flac, _ = soundfile.read(io.BytesIO(shards.member(0, "view00.flac")))
    assert np.abs(flac).max() < 1.0
    sound, matrix = shards.foa(0, 0, 24_000)
    assert np.abs(rotate_foa(sound, matrix.T)[0]).max() == pytest.approx(1.4, abs=0.01)


def test_split_lists_keep_recordings_apart(raw: Path, tmp_path: Path) -> None:
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / "train.txt").write_text("a\nb.mp4\n")
    (lists / "test.txt").write_text("c\n")
    result = build(raw, "--out", tmp_path / "set", *FAST, "--splits", lists)
    assert result.exit_code == 0, result.output
    assert "2 clips are in no split list" in result.output
    assert set(ShardSet(tmp_path / "set", "train").sources) == {"a", "b"}
    assert set(ShardSet(tmp_path / "set", "test").sources) == {"c"}
    (lists / "test.txt").write_text("c\na\n")
    clash = build(raw, "--out", tmp_path / "other", *FAST, "--splits", lists)
    assert clash.exit_code == 2
    assert "a is listed in" in clash.output


def test_preview_draws_the_set_and_the_whole_frame(raw: Path, built: Path, tmp_path: Path) -> None:
    for arguments in ([], ["c-2", "--raw", str(raw)]):
        out = tmp_path / f"{len(arguments)}.png"
        result = CliRunner().invoke(main, ["preview", str(built), *arguments, "--out", str(out)])
        assert result.exit_code == 0, result.output
        assert out.stat().st_size > 20_000
    found = re.search(r"azimuth (-?[\d.]+)°, elevation (-?[\d.]+)°", result.output)
    assert found is not None
    heard = unit_vector(float(found[1]), float(found[2]))
    assert angle_between_deg(heard, unit_vector(*DIRECTIONS["c"])) < 1
    missing = CliRunner().invoke(main, ["preview", str(built), "nobody"])
    assert missing.exit_code == 2
    assert "no sample 'nobody'" in missing.output


def test_a_truncated_copy_of_a_set_is_said_to_be(
    built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-r", str(built), str(copy)], check=True)
    shards = ShardSet(copy)
    tar = copy / "train" / "train-000000.tar"
    tar.write_bytes(tar.read_bytes()[:2000])
    for read in (lambda: shards.foa(0, 0, 24_000), lambda: shards.frames(0, 0, 0, 8)):
        with pytest.raises(ShardError, match=r"train-000000.tar is truncated; copy it again"):
            read()
    assert capsys.readouterr().err == ""


def test_the_yt360_layout_takes_youtubes_channels_and_the_lists(tmp_path: Path) -> None:
    """Six AAC channels X, Y, W, 0, Z, 0; ids of 11 characters that may begin with a dash."""
    raw = tmp_path / "raw"
    for folder in ("video", "audio"):
        (raw / folder).mkdir(parents=True)
    azimuths = {"-abcDEF_123": 130.0, "kqAZkf5Odyw": -35.0}
    frame = grey_frame(dot_plane(160, 320, 0, 0, 6))
    for name, azimuth in azimuths.items():
        # The video's own stereo must not be taken for the field.
        stereo = np.float32(noise(10.0)[None].repeat(2, axis=0))
        write_video(raw / "video" / f"{name}-80.mp4", [frame] * 240, sound=stereo, layout="stereo")
        w, y, z, x = encode_foa(noise(10.0, seed=1), unit_vector(azimuth, 20))
        six = np.stack([x, y, w, 0 * w, z, 0 * w])
        write_audio(raw / "audio" / f"{name}-80.m4a", "aac", six, "5.1")
    (raw / "train.txt").write_text("-abcDEF_123\n")
    (raw / "test.txt").write_text("kqAZkf5Odyw\n")
    (raw / "video" / "readme.txt").write_text("not a video")
    write_video(raw / "video" / "alone-7.mp4", [frame] * 24)
    result = build(raw, "--out", tmp_path / "set", "--views", 2)
    assert result.exit_code == 1
    assert "video/alone-7.mp4 has no sound file audio/alone-7.m4a" in result.output
    for split, name in (("train", "-abcDEF_123"), ("test", "kqAZkf5Odyw")):
        shards = ShardSet(tmp_path / "set", split)
        assert (shards.keys, shards.sources) == ([f"{name}-80"], [name])
        assert shards.info(0).start_s == 80
        sound, matrix = shards.foa(0, 24_000, 192_000)
        heard = intensity_direction(rotate_foa(sound, matrix.T))
        assert heard == pytest.approx((azimuths[name], 20), abs=1.0)


def test_missing_splits_and_damaged_manifests_are_said(built: Path, tmp_path: Path) -> None:
    with pytest.raises(ShardError, match=r"has no split 'valid'; its splits: train"):
        ShardSet(built, "valid")
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-r", str(built), str(copy)], check=True)
    manifest = (copy / "manifest.json").read_bytes()
    for content, sentence in (
        (manifest[: len(manifest) // 2], "is damaged"),
        (manifest.replace(b'"version": 1', b'"version": 9'), "format version is 9"),
        (b'{"format": "other"}', "its format is 'other'"),
    ):
        (copy / "manifest.json").write_bytes(content)
        with pytest.raises(ShardError, match=sentence):
            ShardSet(copy)
