"""Audio of the views: ambisonics, mono beams and stereo; and dropping clips by thresholds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from avprep.foa.energy_map import intensity_direction
from shards.errors import ShardError
from shards.geometry import encode_foa, rotate_foa, unit_vector
from shards.reader import ShardSet
from tests.support.media import (
    build,
    equirectangular_texture,
    grey_frame,
    noise,
    write_video,
    write_wav,
)

FRAME = grey_frame(equirectangular_texture(160, 320))
AT = (50.0, 25.0)
RATE = 24_000


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Two seconds of changing frames, and a plane wave from `AT`."""
    folder = tmp_path / "raw"
    folder.mkdir()
    frames = [np.roll(FRAME, 4 * n, axis=1) for n in range(48)]
    write_video(folder / "a.mp4", frames)
    write_wav(folder / "a.wav", encode_foa(noise(2.0), unit_vector(*AT)))
    return folder


def fixed(tmp_path: Path, *directions: tuple[float, float]) -> Path:
    names = ("azimuth_deg", "elevation_deg", "hfov_deg")
    views = [dict(zip(names, (*direction, 60.0), strict=True)) for direction in directions]
    (tmp_path / "views.json").write_text(json.dumps(views))
    return tmp_path / "views.json"


def levels(shards: ShardSet, view: int) -> list[float]:
    """RMS of a view's channels relative to that of the wave."""
    sound = shards.audio(0, 2000, 40_000, view)
    wave = 0.1 * (0.5**0.5)  # white noise loses half its power at half its rate
    return [float(np.sqrt(np.mean(channel**2)) / wave) for channel in sound]


def test_mono_is_a_beam_towards_the_view(raw: Path, tmp_path: Path) -> None:
    """A cardioid: full level on the axis, (1 + cos) / 2 of it beside, and none from behind."""
    views = fixed(tmp_path, AT, (AT[0] - 180, -AT[1]), (AT[0] + 90, 0.0), (10.0, -35.0))
    result = build(raw, "--out", tmp_path / "set", "--viewpoints", views, "--audio", "mono")
    assert result.exit_code == 0, result.output
    shards = ShardSet(tmp_path / "set")
    assert shards.info(0).audio.channels == ("M",)
    expected = [
        (1 + unit_vector(v.azimuth_deg, v.elevation_deg) @ unit_vector(*AT)) / 2
        for v in shards.info(0).views
    ]
    assert expected[:3] == pytest.approx([1, 0, 0.5])
    assert [levels(shards, view)[0] for view in range(4)] == pytest.approx(expected, abs=0.03)
    with pytest.raises(ShardError, match="its audio is not ambisonic"):
        shards.foa(0, 0, 100)


def test_stereo_is_a_left_and_a_right_ear(raw: Path, tmp_path: Path) -> None:
    """A source on the left is in the left channel only, one ahead or behind in both."""
    views = fixed(tmp_path, (AT[0] - 90, 0.0), (AT[0] + 90, 0.0), AT, (AT[0] - 30, 40.0))
    result = build(raw, "--out", tmp_path / "set", "--viewpoints", views, "--audio", "stereo")
    assert result.exit_code == 0, result.output
    shards = ShardSet(tmp_path / "set")
    assert shards.info(0).audio.channels == ("L", "R")
    for number, view in enumerate(shards.info(0).views):
        left_ear = unit_vector(view.azimuth_deg + 90, 0) @ unit_vector(*AT)
        expected = [(1 + left_ear) / 2, (1 - left_ear) / 2]
        assert levels(shards, number) == pytest.approx(expected, abs=0.03)
    refused = build(raw, "--out", tmp_path / "b", "--audio", "stereo", "--audio-layout", "source")
    assert refused.exit_code == 2
    assert "differs from view to view" in refused.output


def test_eight_channels_are_cut_to_first_order_if_the_convention_is_named(
    raw: Path, tmp_path: Path
) -> None:
    field = encode_foa(noise(2.0), unit_vector(*AT))
    write_wav(raw / "a.wav", np.concatenate([field, 0.5 * field[::-1]]))
    refused = build(raw, "--out", tmp_path / "a", "--views", 1)
    assert refused.exit_code == 2
    assert "8 channels, which is no full order of ambisonics" in refused.output
    result = build(raw, "--out", tmp_path / "b", "--views", 1, "--foa-convention", "ambix")
    assert result.exit_code == 0, result.output
    sound, matrix = ShardSet(tmp_path / "b").foa(0, 0, 40_000)
    assert intensity_direction(rotate_foa(sound, matrix.T)) == pytest.approx(AT, abs=0.5)


def test_half_of_the_views_by_energy_look_at_the_sound(raw: Path, tmp_path: Path) -> None:
    result = build(raw, "--out", tmp_path / "set", "--viewpoints", "energy", "--views", 4)
    assert result.exit_code == 0, result.output
    views = ShardSet(tmp_path / "set").info(0).views
    centres = unit_vector([v.azimuth_deg for v in views], [v.elevation_deg for v in views])
    arcs = np.degrees(np.arccos(np.clip(centres @ unit_vector(*AT), -1, 1)))
    assert arcs[0] < 20
    assert arcs[1:].min() > 36 - 20
    between = np.degrees(np.arccos(np.clip(centres @ centres.T, -1, 1)))
    assert between[~np.eye(4, dtype=bool)].min() >= 36
    # The views depend on the audio, and the same audio gives the same views.
    again = build(raw, "--out", tmp_path / "again", "--viewpoints", "energy", "--views", 4)
    assert again.exit_code == 0
    assert ShardSet(tmp_path / "again").info(0).views == views
    write_wav(raw / "a.wav", encode_foa(noise(2.0), unit_vector(-120, 0)))
    moved = build(raw, "--out", tmp_path / "moved", "--viewpoints", "energy", "--views", 4)
    assert moved.exit_code == 0
    first = ShardSet(tmp_path / "moved").info(0).views[0]
    assert unit_vector(first.azimuth_deg, first.elevation_deg) @ unit_vector(-120, 0) > 0.93


def test_a_grid_is_evenly_spaced_on_the_horizon(raw: Path, tmp_path: Path) -> None:
    result = build(
        raw, "--out", tmp_path / "set", "--viewpoints", "grid", "--views", 6, "--hfov", "40:70"
    )
    assert result.exit_code == 0, result.output
    views = ShardSet(tmp_path / "set").info(0).views
    assert [v.azimuth_deg for v in views] == [0, 60, 120, 180, -120, -60]
    assert {(v.elevation_deg, v.hfov_deg, v.vfov_deg) for v in views} == {(0.0, 70.0, 70.0)}


def test_silent_static_and_mono_clips_are_dropped_and_listed(raw: Path, tmp_path: Path) -> None:
    kinds = {
        "silent": 1e-5 * encode_foa(noise(2.0), unit_vector(0, 0)),
        "mono": np.vstack([noise(2.0), np.zeros((3, 96_000))]).astype(np.float32),
        "static": sum(encode_foa(noise(2.0, seed), unit_vector(90 * seed, 0)) for seed in range(4)),
    }
    write_wav(raw / "a.wav", kinds["static"])
    for name, sound in kinds.items():
        frames = [FRAME if name == "static" else np.roll(FRAME, 4 * n, axis=1) for n in range(48)]
        write_video(raw / f"{name}.mp4", frames)
        write_wav(raw / f"{name}.wav", sound)
    options = ["--views", 2, "--drop-silent", -60, "--drop-static", 0.5, "--drop-mono", 0.01]
    result = build(raw, "--out", tmp_path / "set", *options)
    assert result.exit_code == 0, result.output
    assert "3 clips were dropped" in result.output
    assert ShardSet(tmp_path / "set").keys == ["a-0"]
    lines = (tmp_path / "set" / "dropped.jsonl").read_text().splitlines()
    dropped = {line["key"]: line for line in map(json.loads, lines)}
    assert dropped["silent-0"]["level_dbfs"] < -100
    assert "it is silent" in dropped["silent-0"]["reason"]
    assert dropped["static-0"]["change"] < 0.4
    assert dropped["static-0"]["spatiality"] > 0.3
    assert dropped["static-0"]["reason"].startswith("its picture is static (change ")
    assert dropped["mono-0"]["spatiality"] < 1e-3
    assert "its sound is not spatial" in dropped["mono-0"]["reason"]
    # Dropped clips are not made again by --append, and stay listed.
    write_video(raw / "later.mp4", [np.roll(FRAME, 4 * n, axis=1) for n in range(48)])
    write_wav(raw / "later.wav", kinds["static"])
    grown = build(raw, "--out", tmp_path / "set", *options, "--append")
    assert grown.exit_code == 0, grown.output
    assert sorted(ShardSet(tmp_path / "set").keys) == ["a-0", "later-0"]
    assert (tmp_path / "set" / "dropped.jsonl").read_text().splitlines() == lines
    kept = build(raw, "--out", tmp_path / "all", "--views", 2)
    assert len(ShardSet(tmp_path / "all")) == 5, kept.output
