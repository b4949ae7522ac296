"""Action recognition datasets, and YT-360's label maps and whole recordings."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from avprep.look.verify_shard import verify_shard
from avprep.sphere.crop import equirectangular_directions
from shards.geometry import encode_foa, unit_vector
from shards.manifest import read_index
from shards.reader import ShardSet
from tests.support.media import (
    build,
    dot_plane,
    gnomonic,
    grey_frame,
    noise,
    write_audio,
    write_video,
    write_wav,
)

ONE_WORKER = ["--workers", "1"]


def write_flat(path: Path, seconds: float = 1.5, sound: bool = False) -> None:
    """An ordinary 4:3 video: dark, with a bright square of full height in the centre."""
    path.parent.mkdir(parents=True, exist_ok=True)
    luma = np.full((120, 160), 40, dtype=np.uint8)
    luma[:, 20:140] = np.tile(np.linspace(60, 220, 120).astype(np.uint8), (120, 1))
    tone = np.float32(noise(seconds)[None]) if sound else None
    write_video(path, [grey_frame(luma)] * round(seconds * 25), 25, audio=tone, layout="mono")


def open_verified(root: Path) -> ShardSet:
    """The first split of a set; fails if the set has faults."""
    shards = ShardSet(root)
    for split, entries in shards.manifest.splits.items():
        for entry in entries:
            assert verify_shard(shards.root, split, entry).faults == ()
    return shards


def test_ucf101_with_its_official_folds(tmp_path: Path) -> None:
    raw, lists = tmp_path / "UCF-101", tmp_path / "ucfTrainTestlist"
    lists.mkdir()
    names = [
        f"{label}/v_{label}_g{group:02d}_c01.avi"
        for label in ("ApplyEyeMakeup", "YoYo")
        for group in (1, 8, 25)
    ]
    for name in names:
        write_flat(raw / name, sound="YoYo" in name)
    write_flat(raw / "YoYo" / "v_YoYo_g01_c02.avi", seconds=12.0)
    names.append("YoYo/v_YoYo_g01_c02.avi")
    (lists / "classInd.txt").write_text("1 ApplyEyeMakeup\n2 YoYo\n")
    for fold, group in enumerate(("_g01_", "_g08_"), 1):
        names_by_role = {
            role: [n for n in names if (group in n) == (role == "test")]
            for role in ("train", "test")
        }
        lines = [f"{name} {1 + ('YoYo' in name)}\r\n" for name in names_by_role["train"]]
        (lists / f"trainlist0{fold}.txt").write_text("".join(lines))
        (lists / f"testlist0{fold}.txt").write_text("\n".join(names_by_role["test"]) + "\n")
    result = build(tmp_path, "--out", tmp_path / "set", *ONE_WORKER, "--audio-layout", "source")
    assert result.exit_code == 0, result.output
    train = open_verified(tmp_path / "set")
    assert train.manifest.options["layout"] == "ucf101"
    test = ShardSet(tmp_path / "set", "test")
    assert sorted(test.sources) == [
        "v_ApplyEyeMakeup_g01_c01",
        "v_YoYo_g01_c01",
        "v_YoYo_g01_c02",  # twelve seconds, but one sample
    ]
    assert len(train) == 4
    infos = {shards.keys[i]: shards.info(i) for shards in (train, test) for i in range(len(shards))}
    eighth = infos["v_ApplyEyeMakeup_g08_c01-0"]
    assert (eighth.label, eighth.folds) == ("ApplyEyeMakeup", ("train", "test"))
    assert len(eighth.views) == 1
    assert eighth.audio.channels == ()
    assert infos["v_YoYo_g01_c02-0"].video.frames == 12 * 16
    assert infos["v_YoYo_g08_c01-0"].audio.channels == ("M",)
    # The whole centre square: grey levels rise from its left edge to its right edge.
    frame = train.frames(0, 0, 0, 1)[0, :, :, 1].astype(float)
    assert frame[5:-5].std(axis=0).max() < 4
    edges = frame.mean(axis=0)[[0, 56, -1]] * 219 / 255 + 16
    assert edges == pytest.approx([60, 140, 220], abs=4)
    index = read_index(train.root, "train/train-000000.index.json").samples[0]
    assert (index.label, index.folds) == (train.info(0).label, train.info(0).folds)
    # Lists in another folder, a missing video, and a video that no list names.
    (raw / names[0]).rename(raw / "YoYo" / "v_YoYo_g26_c01.avi")
    first = lists / "trainlist01.txt"
    first.write_text("\ufeff" + first.read_text())  # some editors write a byte order mark
    result = build(raw, "--out", tmp_path / "b", *ONE_WORKER, "--splits", lists)
    assert result.exit_code == 1
    assert f"{names[0]} is in the split lists, but not among the videos" in result.output
    assert result.output.count("left out: ") == 1
    assert "1 clips are in no split list and were left out" in result.output
    without = build(raw, "--out", tmp_path / "c", *ONE_WORKER)
    assert without.exit_code == 2
    assert "holds no official split lists" in without.output


def test_hmdb51_with_its_official_folds(tmp_path: Path) -> None:
    raw = tmp_path / "hmdb"
    names = ["A!&[x](1)_brush_hair_u_cm_np1.avi", "b_brush_hair.avi", "c_brush_hair.avi"]
    for name in names:
        write_flat(raw / "brush_hair" / name, seconds=0.64)
    write_flat(raw / "wave" / "d_wave.avi")
    splits = raw / "testTrainMulti_7030_splits"
    splits.mkdir()
    roles = {1: "120", 2: "210", 3: "100"}
    for fold, fold_roles in roles.items():
        lines = [f"{name} {role} " for name, role in zip(names, fold_roles, strict=True)]
        (splits / f"brush_hair_test_split{fold}.txt").write_text("\n".join(lines) + "\n")
        (splits / f"wave_test_split{fold}.txt").write_text("d_wave.avi 1\n")
    result = build(raw, "--out", tmp_path / "set", *ONE_WORKER)
    assert result.exit_code == 0, result.output
    train, test = open_verified(tmp_path / "set"), ShardSet(tmp_path / "set", "test")
    assert train.manifest.options["layout"] == "hmdb51"
    assert sorted(train.sources) == ["A!&[x](1)_brush_hair_u_cm_np1", "d_wave"]
    assert test.sources == ["b_brush_hair"]
    assert test.info(0).folds == ("test", "train", "unused")
    assert test.info(0).label == "brush_hair"
    assert test.info(0).video.frames == 10


def test_kinetics_folders_are_classes(tmp_path: Path) -> None:
    raw = tmp_path / "k400"
    write_flat(raw / "train" / "air drumming" / "-abcdefghij_000010_000020.avi", sound=True)
    write_flat(raw / "val" / "zumba" / "kbcdefghijk_000100_000110.avi")
    write_flat(raw / "val" / "lbcdefghijk_000100_000110.avi")
    result = build(raw, "--out", tmp_path / "set", *ONE_WORKER, "--layout", "kinetics")
    assert result.exit_code == 1
    assert "does not lie in a folder named after its class" in result.output
    cleaned = build(raw, "--out", tmp_path / "b", "--layout", "kinetics", "--drop-silent", -60)
    assert cleaned.exit_code == 2
    assert "--drop-mono are for 360° recordings; kinetics holds" in cleaned.output
    train, val = open_verified(tmp_path / "set"), ShardSet(tmp_path / "set", "val")
    assert (train.keys, val.keys) == (["-abcdefghij-10"], ["kbcdefghijk-100"])
    assert train.info(0).label == "air drumming"
    assert train.audio(0, 0, 24_000).shape == (1, 24_000)
    assert np.abs(train.audio(0, 0, 24_000)).max() > 0.1


def yt360_maps(folder: Path, count: int, height: int, width: int) -> NDArray[np.uint8]:
    """Write label maps as things and stuff: a thing within 8° of azimuth 40°, elevation 15°, stuff
    around it that changes from map to map, and void at the back. Returns the thing's mask."""
    folder.mkdir(parents=True)
    directions = equirectangular_directions(height, width)
    thing = directions @ unit_vector(40, 15) > np.cos(np.radians(8))
    back = directions[..., 0] < -0.9
    for number in range(count):
        things = np.where(thing, 7, 80).astype(np.uint8)
        stuff = np.where(back | thing, 54, number).astype(np.uint8)
        for kind, labels in (("things", things), ("stuff", stuff)):
            cv2.imwrite(str(folder / f"{kind}-{number:04d}.png"), np.dstack([labels] * 3))
    return thing


def test_label_maps_match_the_video_in_space_and_time(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    (raw / "video").mkdir(parents=True)
    (raw / "audio").mkdir()
    frame = grey_frame(dot_plane(180, 320, 40, 15, 3))  # stored at 16:9, as in YT-360
    write_video(raw / "video" / "abcdefghijk-7.mp4", [frame] * 240)
    w, y, z, x = encode_foa(noise(10.0), unit_vector(40, 15))
    six = np.stack([x, y, w, 0 * w, z, 0 * w])
    write_audio(raw / "audio" / "abcdefghijk-7.m4a", "aac", six, "5.1")
    yt360_maps(raw / "segmentation" / "abcdefghijk-7", 40, 200, 500)
    (raw / "segmentation" / "abcdefghijk-7" / "stuff-0021.png").unlink()
    options = [*ONE_WORKER, "--clip-duration", 5, "--views", 3, "--hfov", "80:90"]
    result = build(raw, "--out", tmp_path / "set", *options)
    assert result.exit_code == 0, result.output
    shards = open_verified(tmp_path / "set")
    second = shards.keys.index("abcdefghijk-12")
    info = shards.info(second)
    times = [n / 4 for n in range(20) if n != 1]
    assert info.map_times_s == tuple(times)
    views_with_thing = 0
    for view_number, view in enumerate(info.views):
        first, last = (shards.label_map(second, view_number, n) for n in (0, 18))
        assert set(np.unique(first)) <= {7, 80 + 20, 255}
        assert set(np.unique(last)) <= {7, 80 + 39, 255}
        assert ((first == 255) == (last == 255)).all()
        rows, columns = np.nonzero(first == 7)
        x, y = gnomonic(view, 40, 15)
        inside = 0.25 < x < 0.75 and 0.25 < y < 0.75
        if inside and unit_vector(view.azimuth_deg, view.elevation_deg) @ unit_vector(40, 15) > 0.5:
            views_with_thing += 1
            assert (columns.mean() + 0.5) / 112 == pytest.approx(x, abs=0.015)
            assert (rows.mean() + 0.5) / 112 == pytest.approx(y, abs=0.015)
            luma = shards.frames(second, view_number, 0, 1)[0, :, :, 1].astype(float)
            assert first[np.unravel_index(luma.argmax(), luma.shape)] == 7
    assert views_with_thing >= 1
    # A single map of things and stuff, and an invalid one.
    folder = raw / "segmentation" / "abcdefghijk-7"
    for path in folder.iterdir():
        path.unlink()
    cv2.imwrite(str(folder / "0003.png"), np.full((100, 200), 83, dtype=np.uint8))
    result = build(raw, "--out", tmp_path / "b", *ONE_WORKER, "--views", 1)
    assert result.exit_code == 0, result.output
    single = open_verified(tmp_path / "b")
    assert single.info(0).map_times_s == (0.625,)  # numbered from 1
    assert (single.label_map(0, 0, 0) == 83).all()
    (folder / "0004.png").write_bytes(b"no picture")
    result = build(raw, "--out", tmp_path / "c", *ONE_WORKER, "--views", 1)
    assert result.exit_code == 2
    assert "abcdefghijk-7/0004.png is not a label map" in result.output


def test_whole_recordings_are_cut_at_the_listed_seconds(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    (raw / "video").mkdir(parents=True)
    (raw / "audio").mkdir()
    frames = [
        grey_frame(np.full((80, 160), 16 + 5 * (n // 10), dtype=np.uint8)) for n in range(320)
    ]
    for name in ("abcdefgh-12", "zbcdefghijk"):
        write_video(raw / "video" / f"{name}.mp4", frames, fps=10)
        write_wav(raw / "audio" / f"{name}.wav", encode_foa(noise(32.0), unit_vector(0, 0)))
    (raw / "segments.txt").write_text("abcdefgh-12 2,20.5,40\n")
    yt360_maps(raw / "segmentation" / "abcdefgh-12-2", 3, 100, 200)
    options = [*ONE_WORKER, "--views", 1, "--projection", "equirect"]
    result = build(raw, "--out", tmp_path / "set", *options)
    assert result.exit_code == 1
    assert "video/zbcdefghijk.mp4 is not listed in segments.txt" in result.output
    assert "second 40 of video/abcdefgh-12.mp4 is listed, which ends at 32.0 s" in result.output
    shards = open_verified(tmp_path / "set")
    assert sorted(shards.keys) == ["abcdefgh-12-2", "abcdefgh-12-20500ms"]
    assert set(shards.sources) == {"abcdefgh-12"}
    for sample, key in enumerate(shards.keys):
        info = shards.info(sample)
        luma = shards.frames(sample, 0, 8, 1)[0].mean() * 219 / 255 + 16
        assert luma == pytest.approx(16 + 5 * int(info.start_s + 0.5), abs=1.5), key
        assert info.duration_s == 10
        assert info.map_times_s == ((0.0, 0.25, 0.5) if info.start_s == 2 else ())
    # A list for recordings in a plain folder.
    (raw / "video" / "zbcdefghijk.mp4").rename(raw / "video" / "x.mp4")
    (raw / "audio" / "zbcdefghijk.wav").rename(raw / "video" / "x.wav")
    (tmp_path / "starts.txt").write_text("x 0,11\n")
    options += ["--segments", tmp_path / "starts.txt", "--clip-duration", 5]
    result = build(raw / "video", "--out", tmp_path / "b", *options)
    assert result.exit_code == 1
    assert sorted(open_verified(tmp_path / "b").keys) == ["x-0", "x-11", "x-16", "x-5"]
    (tmp_path / "starts.txt").write_text("\ufeffx\t0, 5 ,11\n")  # overlapping
    result = build(raw / "video", "--out", tmp_path / "c", *options)
    assert sorted(open_verified(tmp_path / "c").keys) == ["x-0", "x-10", "x-11", "x-16", "x-5"]
    for line in ("x one,two", "x nan,3", "x -5,3", "x"):
        (tmp_path / "starts.txt").write_text(f"x 1\n{line}\n")
        result = build(raw / "video", "--out", tmp_path / "d", *options)
        assert result.exit_code == 2
        assert "starts.txt is not a list of lines `ID t1,t2,…`" in result.output
