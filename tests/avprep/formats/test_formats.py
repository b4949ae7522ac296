"""All formats of video and audio give the same samples."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from avprep.foa.energy_map import intensity_direction
from avprep.formats.audio_tags import read_audio_tags
from avprep.media.probe import probe
from shards.geometry import encode_foa, unit_vector
from shards.reader import ShardSet
from tests.avprep.sphere.test_projections import HEIGHT, WIDTH, convert
from tests.support.media import (
    build,
    centroid,
    dot_plane,
    equirectangular_texture,
    grey_frame,
    insert_box,
    noise,
    write_audio,
    write_video,
    write_wav,
)

DIRECTION = (40.0, 15.0)


@pytest.fixture(scope="module")
def frame() -> NDArray[np.uint8]:
    """A dot on a texture that is continuous around the sphere."""
    ground = equirectangular_texture(HEIGHT, WIDTH).astype(float) * 0.5 + 20
    dot = (dot_plane(HEIGHT, WIDTH, *DIRECTION, 3) - 40) / 180.0
    return grey_frame(np.rint(ground + (235 - ground) * dot).astype(np.uint8))


def write_plane_wave(raw: Path) -> None:
    write_wav(raw / "a.wav", encode_foa(noise(1.0), unit_vector(*DIRECTION)))


def build_and_check(raw: Path, tmp_path: Path, *options: object) -> str:
    """Build a set and check that dot and sound are at the front of a view in their direction."""
    views = tmp_path / "views.json"
    views.write_text('[{"azimuth_deg": 40, "elevation_deg": 15, "hfov_deg": 40}]')
    arguments = ["--viewpoints", views, "--clip-duration", 1, "--workers", 1, *options]
    result = build(raw, "--out", tmp_path / "set", *arguments)
    assert result.exit_code == 0, result.output
    shards = ShardSet(tmp_path / "set")
    crop = shards.frames(0, 0, 4, 1)[0, :, :, 1].astype(float)
    bright = np.where(crop > 190, 220, 40).astype(np.uint8)
    assert centroid(bright) == pytest.approx((56, 56), abs=1.0)
    sound, _ = shards.foa(0, 0, 24_000)
    assert intensity_direction(sound) == pytest.approx((0, 0), abs=1.0)
    return result.output


def stereo_frame(frame: NDArray[np.uint8], axis: int) -> NDArray[np.uint8]:
    """The images of two eyes, the right eye's shifted a little."""
    luma = frame[:HEIGHT]
    other = np.roll(luma, 5, axis=1)
    pair = np.concatenate([luma, other], axis=axis)
    return grey_frame(np.ascontiguousarray(pair))


def test_a_youtube_eac_video_is_recognised_by_its_info_json(
    frame: NDArray[np.uint8], tmp_path: Path
) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    write_video(raw / "a.mkv", [convert(frame, "eac", (540, 960))] * 24)
    (raw / "a.info.json").write_text(json.dumps({"requested_formats": [{"format_note": "mesh"}]}))
    write_plane_wave(raw)
    build_and_check(raw, tmp_path)


@pytest.mark.parametrize(
    ("v360", "size"), [("eac", (540, 960)), ("c3x2", (640, 960)), ("c6x1", (240, 1440))]
)
def test_a_cubemap_is_recognised_by_its_pixels(
    v360: str, size: tuple[int, int], frame: NDArray[np.uint8], tmp_path: Path
) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    write_video(raw / "a.mp4", [convert(frame, v360, size)] * 24)
    write_plane_wave(raw)
    build_and_check(raw, tmp_path)


@pytest.mark.parametrize("axis", [0, 1], ids=["top-bottom", "left-right"])
@pytest.mark.parametrize("tagged", [True, False], ids=["tagged", "guessed"])
def test_the_left_eye_of_stereo_video_is_used(
    axis: int, tagged: bool, frame: NDArray[np.uint8], tmp_path: Path
) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    mode = {"stereo_mode": ("top_bottom", "left_right")[axis]} if tagged else {}
    write_video(raw / "a.mkv", [stereo_frame(frame, axis)] * 24, metadata=mode)
    write_plane_wave(raw)
    build_and_check(raw, tmp_path)


def test_a_part_of_the_sphere_is_recognised_by_its_sv3d_box(
    frame: NDArray[np.uint8], tmp_path: Path
) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    luma = np.ascontiguousarray(frame[60:HEIGHT, WIDTH // 4 : -WIDTH // 4])
    write_video(raw / "a.mp4", [grey_frame(luma)] * 24)
    bounds = [round(share * 2**32) for share in (60 / HEIGHT, 0, 0.25, 0.25)]
    header = struct.pack(">I4sI", 13, b"svhd", 0) + b"\0"
    pose = struct.pack(">I4sIiii", 24, b"prhd", 0, 0, 0, 0)
    equi = struct.pack(">I4sIIIII", 28, b"equi", 0, *bounds)
    proj = struct.pack(">I4s", 8 + len(pose + equi), b"proj") + pose + equi
    insert_box(raw / "a.mp4", b"avc1", b"sv3d", header + proj)
    write_plane_wave(raw)
    build_and_check(raw, tmp_path)


def test_the_display_matrix_rotates_frames(frame: NDArray[np.uint8], tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    rotated = grey_frame(np.ascontiguousarray(frame[:HEIGHT][::-1, ::-1]))
    write_video(raw / "a.mp4", [rotated] * 24, rotation_deg=180)
    write_plane_wave(raw)
    build_and_check(raw, tmp_path, "--projection", "equirect")


def test_unclear_formats_are_reported(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    write_video(raw / "a.mp4", [grey_frame(np.full((160, 320), 90, dtype=np.uint8))] * 24)
    foa = encode_foa(noise(1.0), unit_vector(*DIRECTION))
    n3d = foa * np.array([[1], [3**0.5], [3**0.5], [3**0.5]], dtype=np.float32)
    write_wav(raw / "a.wav", n3d)
    result = build(raw, "--out", tmp_path / "set", "--clip-duration", 1, "--workers", 1)
    assert result.exit_code == 0
    assert "check: a.mp4: its picture is taken as equirect" in result.output
    assert "a.mp4: its sound is taken as ambiX" in result.output
    assert "--foa-convention names another" in result.output


def to_convention(convention: str, foa: NDArray[np.float32]) -> NDArray[np.float32]:
    w, y, z, x = foa
    root = np.float32(3**0.5)
    return {
        "fuma": np.stack([w / np.float32(2**0.5), x, y, z]),
        "n3d": np.stack([w, root * y, root * z, root * x]),
        "ambix": foa,
    }[convention]


@pytest.mark.parametrize("convention", ["fuma", "n3d", "ambix"])
def test_the_users_convention_is_used(
    convention: str, frame: NDArray[np.uint8], tmp_path: Path
) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    write_video(raw / "a.mp4", [frame] * 24)
    field = encode_foa(noise(1.0), unit_vector(*DIRECTION))
    write_wav(raw / "a.wav", to_convention(convention, field))
    output = build_and_check(raw, tmp_path, "--foa-convention", convention)
    assert "its sound" not in output
    sound, _ = ShardSet(tmp_path / "set").foa(0, 0, 24_000)
    w, others = sound[0], sound[1:]
    assert np.square(others).sum() == pytest.approx(np.square(w).sum(), rel=1e-2)


def test_an_sa3d_box_maps_the_channels(frame: NDArray[np.uint8], tmp_path: Path) -> None:
    """W, X, Y, Z after head-locked stereo, in PCM: this could not be guessed."""
    raw = tmp_path / "raw"
    raw.mkdir()
    w, y, z, x = encode_foa(noise(1.0), unit_vector(*DIRECTION))
    loud = 0.5 * np.float32(noise(1.0, seed=3))
    six = np.stack([loud, -loud, w, x, y, z])
    write_video(raw / "a.mov", [frame] * 24, audio=six, layout="hexagonal")
    components = [4, 5, 0, 3, 1, 2]
    box = struct.pack(">BBIBBI6I", 0, 0x80, 1, 0, 0, 6, *components)
    insert_box(raw / "a.mov", b"fl32", b"SA3D", box)
    output = build_and_check(raw, tmp_path)
    assert "its sound" not in output


def test_opus_with_mapping_family_2_is_ambix(frame: NDArray[np.uint8], tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    write_video(raw / "a.mp4", [frame] * 24)
    field = encode_foa(noise(1.1), unit_vector(*DIRECTION))
    path = raw / "a.opus"
    write_audio(path, "libopus", field, "ambisonic 1", {"mapping_family": "2"})
    audio = probe(path).audio
    assert audio is not None
    tags = read_audio_tags(path, audio)
    assert tags is not None
    assert tags.reason == "Opus mapping family 2"
    output = build_and_check(raw, tmp_path)
    assert "its sound" not in output


def test_samples_reveal_w_and_the_normalization() -> None:
    from avprep.foa.channel_analysis import analyse_channels

    rng = np.random.default_rng(1)
    directions = unit_vector(rng.uniform(-180, 180, 8), rng.uniform(-60, 60, 8))
    field = np.concatenate([encode_foa(noise(0.3, i), d) for i, d in enumerate(directions)], axis=1)
    for convention, name in (("ambix", "SN3D"), ("fuma", "FuMa"), ("n3d", "N3D")):
        analysis = analyse_channels(np.asarray(to_convention(convention, field), dtype=np.float32))
        assert analysis is not None
        assert analysis.is_sure
        assert (analysis.w, analysis.normalization) == (0, name)
        assert not analysis.looks_like_capsules
    capsules = np.stack([field[0] + 0.5 * field[channel] for channel in (1, 2, 3, 0)])
    analysis = analyse_channels(capsules.astype(np.float32))
    assert analysis is not None
    assert analysis.looks_like_capsules


def test_the_users_options_override_a_layouts_formats(
    frame: NDArray[np.uint8], tmp_path: Path
) -> None:
    raw = tmp_path / "raw"
    for folder in ("video", "audio"):
        (raw / folder).mkdir(parents=True)
    write_video(raw / "video" / "abc-0.mp4", [convert(frame, "eac", (540, 960))] * 240)
    field = encode_foa(noise(10.0), unit_vector(*DIRECTION))
    write_wav(raw / "audio" / "abc-0.wav", field)
    build_and_check(raw, tmp_path, "--projection", "eac")
