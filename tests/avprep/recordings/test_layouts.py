"""Folder layouts of datasets, each detected automatically."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from avprep.foa.energy_map import intensity_direction
from avprep.recordings.layouts import find_recordings
from avprep.world.generate import make_clip
from avprep.world.write import clip_truth
from shards.geometry import angle_between_deg, encode_foa, rotate_foa, unit_vector
from shards.reader import ShardSet
from tests.avprep.sphere.test_projections import convert
from tests.support.media import (
    build,
    equirectangular_texture,
    grey_frame,
    noise,
    write_audio,
    write_video,
    write_wav,
)

FRAME = grey_frame(equirectangular_texture(160, 320))
FOA = encode_foa(noise(2.0), unit_vector(130, 20))
SHORT = ["--clip-duration", "2", "--views", "2", "--workers", "1"]


def audio_direction(shards: ShardSet) -> tuple[float, float]:
    sound, matrix = shards.foa(0, 0, 36_000)
    return intensity_direction(rotate_foa(sound, matrix.T))


def test_sphere360_clips_are_named_by_id_and_start(tmp_path: Path) -> None:
    raw = tmp_path / "raw" / "videos"
    raw.mkdir(parents=True)
    video = raw / "-bcDEF_1234_57.webm"
    write_video(video.with_suffix(".mkv"), [FRAME] * 48, audio=FOA)
    video.with_suffix(".mkv").rename(video)
    result = build(tmp_path / "raw", "--out", tmp_path / "set", *SHORT)
    assert result.exit_code == 0, result.output
    shards = ShardSet(tmp_path / "set")
    assert shards.manifest.options["layout"] == "sphere360"
    assert (shards.sources, shards.keys) == (["-bcDEF_1234"], ["-bcDEF_1234-57"])
    assert shards.info(0).start_s == 57
    assert audio_direction(shards) == pytest.approx((130, 20), abs=1)


def test_a_recording_in_two_splits_is_said(tmp_path: Path) -> None:
    """Lists of single clips can put clips of one recording into training and test."""
    raw = tmp_path / "raw"
    raw.mkdir()
    for start in (0, 10):
        video = raw / f"abcdefghijk_{start}.webm"
        write_video(video.with_suffix(".mkv"), [FRAME] * 48, audio=FOA)
        video.with_suffix(".mkv").rename(video)
    (raw / "train.txt").write_text("abcdefghijk_0\n")
    (raw / "test.txt").write_text("abcdefghijk_10\n")
    result = build(raw, "--out", tmp_path / "set", *SHORT)
    assert result.exit_code == 0, result.output
    said = "check: abcdefghijk: clips of one recording are in several splits (test, train)"
    assert said in result.output


def test_yt_ambigen_with_its_csv_lists(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    for folder in ("video", "audio"):
        (raw / folder).mkdir(parents=True)
    for name in ("abcdefghij1_5", "abcdefghij2_10"):
        write_video(raw / "video" / f"{name}.mp4", [FRAME] * 8, fps=4)
        options = {"mapping_family": "2"}
        path = raw / "audio" / f"{name}.opus"
        write_audio(path, "libopus", np.pad(FOA, ((0, 0), (0, 960))), "ambisonic 1", options)
    (raw / "train.csv").write_text("id,caption\nabcdefghij1,x\n")
    (raw / "test.csv").write_text("file_path\nclips/abcdefghij2_10.mp4\n")
    result = build(raw, "--out", tmp_path / "set", *SHORT)
    assert result.exit_code == 0, result.output
    for split, key in (("train", "abcdefghij1-5"), ("test", "abcdefghij2-10")):
        shards = ShardSet(tmp_path / "set", split)
        assert shards.keys == [key]
        assert audio_direction(shards) == pytest.approx((130, 20), abs=1)


def test_starss_with_its_labels_and_splits(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    for fold, name in (
        ("dev-train-sony", "fold3_room21_mix001"),
        ("dev-test-tau", "fold4_room2_mix3"),
    ):
        for kind in ("foa", "video", "metadata"):
            (raw / f"{kind}_dev" / fold).mkdir(parents=True)
        write_wav(raw / "foa_dev" / fold / f"{name}.wav", np.tile(FOA[:, ::2], 2), 24000)
        write_video(raw / "video_dev" / fold / f"{name}.mp4", [FRAME] * 96)
        rows = ["0,1,0,130,20,150", "19,1,0,131,20,150", "20,8,1,-40,-10,200", "39,8,1,-41,-10,200"]
        (raw / "metadata_dev" / fold / f"{name}.csv").write_text("\n".join(rows) + "\n")
    write_wav(raw / "foa_dev" / "dev-test-tau" / "novideo.wav", FOA, 24000)
    result = build(raw, "--out", tmp_path / "set", *SHORT)
    assert result.exit_code == 1
    assert "novideo.wav has no video video_dev/dev-test-tau/novideo.mp4" in result.output
    assert "has no labels" not in result.output
    train, test = ShardSet(tmp_path / "set", "train"), ShardSet(tmp_path / "set", "test")
    assert sorted(train.keys) == ["fold3_room21_mix001-0", "fold3_room21_mix001-2"]
    assert set(test.sources) == {"fold4_room2_mix3"}
    second = train.info(train.keys.index("fold3_room21_mix001-2"))
    assert second.events == [
        {
            "time_s": time_s,
            "class": 8,
            "source": 1,
            "azimuth_deg": azimuth,
            "elevation_deg": -10.0,
            "distance_m": 2.0,
        }
        for time_s, azimuth in ((0.0, -40.0), (1.9, -41.0))
    ]


def test_files_that_lie_elsewhere_are_said(tmp_path: Path) -> None:
    """Labels in a folder too deep, and a folder below or above that of a dataset."""
    raw = tmp_path / "starss"
    for kind, path in (("foa", "a.wav"), ("video", "a.mp4"), ("metadata/metadata_dev", "a.csv")):
        first, _, deeper = kind.partition("/")
        folder = raw / f"{first}_dev" / deeper / "dev-train-sony"
        folder.mkdir(parents=True)
        if path == "a.csv":
            (folder / path).write_text("0,1,0,130,20\n")
        elif path == "a.wav":
            write_wav(folder / path, FOA[:, ::2], 24000)
        else:
            write_video(folder / path, [FRAME] * 48)
    result = build(raw, "--out", tmp_path / "set", *SHORT)
    assert result.exit_code == 0, result.output
    assert (
        "check: video_dev/dev-train-sony/a.mp4: has no labels in the folder metadata_"
        in result.output
    )
    result = build(tmp_path, "--out", tmp_path / "other", *SHORT, "--layout", "folder")
    assert f"name {raw}" in result.output
    for folder in ("video", "audio"):
        (tmp_path / "yt360" / folder).mkdir(parents=True)
    write_video(tmp_path / "yt360/video/a-0.mp4", [FRAME] * 48)
    result = build(tmp_path / "yt360/video", "--out", tmp_path / "more", *SHORT)
    assert result.exit_code == 2
    assert f"name {tmp_path / 'yt360'} to read both" in result.output


def test_truth_of_the_generated_world_becomes_events(tmp_path: Path) -> None:
    raw, names = tmp_path / "raw", ("place-00000-0", "abcdefghijk-7", "abcdefghijk-17")
    for folder in ("video", "audio", "truth"):
        (raw / folder).mkdir(parents=True)
    for name in names:
        write_video(raw / "video" / f"{name}.mp4", [FRAME] * 40, fps=4)
        write_wav(raw / "audio" / f"{name}.wav", np.tile(FOA[:, ::2], 5), 24000)
    clip = make_clip(5, 0)
    sounding = [item for item in clip.objects if not item.silent]
    levels = {item.id: np.r_[np.ones(130), np.zeros(110)] for item in sounding}
    truth = clip_truth(clip, levels, 0.1)
    truth["objects"][0]["visible"] = False
    (raw / "truth" / "place-00000-0.json").write_text(json.dumps(truth))
    # Other files in a folder of this name are ignored; a truncated truth file loses its clip.
    (raw / "truth" / "abcdefghijk-7.json").write_text('{"objects": [{"azimuth_deg": 3}]}')
    (raw / "truth" / "abcdefghijk-17.json").write_text(json.dumps(truth)[:300])
    options = ["--clip-duration", "5", "--views", "1", "--workers", "1"]
    result = build(raw, "--out", tmp_path / "set", *options)
    assert result.exit_code == 1
    assert "abcdefghijk-17.json is not a truth file of a generated clip" in result.output
    shards = ShardSet(tmp_path / "set")
    infos = {info.key: info for info in map(shards.info, range(len(shards)))}
    assert sorted(infos) == ["abcdefghijk-12", "abcdefghijk-7", "place-00000-0", "place-00000-5"]
    assert infos["abcdefghijk-7"].events is None
    first, second = (infos[f"place-00000-{start}"].events or [] for start in (0, 5))
    step_s = infos["place-00000-0"].event_step_s
    assert step_s == 0.2
    # All objects sound in the 25 steps of the first clip, and in the first two of the second
    # (until frame 130).
    assert len(first) == 25 * len(sounding)
    assert [event["time_s"] for event in second] == [0.0] * len(sounding) + [0.2] * len(sounding)
    assert {event["source"] for event in first} == {item.id for item in sounding}
    assert all((event.get("visible") is False) == (event["source"] == 0) for event in first)
    for begins_s, events in ((0.0, first), (5.0, second)):
        for event in events:
            item = next(item for item in clip.objects if item.id == event["source"])
            expected = item.direction(np.array([begins_s + event["time_s"] + step_s / 2]))[0]
            direction = unit_vector(event["azimuth_deg"], event["elevation_deg"])
            assert angle_between_deg(direction, expected) < 1  # they bounce between frames
            assert event["class"] == item.kind_index


def test_yt_dlp_downloads_are_named_by_their_ids(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    stem = "A walk — 360° [abcdefghijk]"
    ground = grey_frame(equirectangular_texture(480, 960))
    write_video(raw / f"{stem}.mkv", [convert(ground, "eac", (540, 960))] * 48, audio=FOA)
    info = {"id": "abcdefghijk", "requested_formats": [{"format_note": "1080s, mesh"}]}
    (raw / f"{stem}.info.json").write_text(json.dumps(info))
    result = build(raw, "--out", tmp_path / "set", *SHORT)
    assert result.exit_code == 0, result.output
    shards = ShardSet(tmp_path / "set")
    assert shards.keys == ["abcdefghijk-0"]
    assert shards.info(0).source_format is not None
    assert shards.info(0).source_format["projection"] == "eac"


def test_the_layout_is_detected_by_folder_and_file_names(tmp_path: Path) -> None:
    def detect(*files: str) -> str:
        folder = tmp_path / str(abs(hash(files)))
        for name in files:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(b"x")
        return find_recordings(folder, "auto").layout

    assert detect("a.mp4", "b/c.webm") == "folder"
    assert detect("abcdefghijk_10.webm") == "sphere360"
    assert detect("video/abcdefghijk-10.mp4", "audio/abcdefghijk-10.m4a") == "yt360"
    assert detect("video/abcdefghijk_10.mp4", "audio/abcdefghijk_10.opus") == "yt-ambigen"
    assert detect("foa_dev/dev-train-sony/a.wav") == "starss"
    assert detect("a.mp4", "a.info.json") == "yt-dlp"
