"""What Matroska and WebM say about projection and eyes is honoured, or refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from avprep.errors import ClipError
from avprep.formats.container_tags import VideoTags, read_video_tags
from avprep.sphere.projections import Sphere
from tests.avprep.formats.boxes import (
    cbmp,
    element,
    equi,
    matroska,
    projection,
    spherical_v1,
    video_entry,
)
from tests.avprep.formats.test_video_tags import decide, tags, track
from tests.avprep.sphere.test_mesh import cube_patches, mesh_box, mshp

EQUI = equi(0.25, 0.0, 0.25, 0.0)[8:]


@pytest.mark.parametrize(
    ("element", "sphere"),
    [
        (projection(1), Sphere()),
        (projection(1, EQUI), Sphere(bounds=(0.25, 0, 0.25, 0))),
        (projection(2, cbmp()[8:]), Sphere("cube3x2")),
    ],
)
def test_matroskas_projection_is_honoured(element: bytes, sphere: Sphere, tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    path.write_bytes(matroska(video_entry(element)))
    assert tags(path) == VideoTags(sphere)


@pytest.mark.parametrize(
    ("element", "named"),
    [
        (projection(1, yaw=90), "a turned sphere (yaw 90°, pitch 0°, roll 0°)"),
        (projection(1, EQUI, pitch=float("nan")), "a turned sphere"),
        (projection(2), "a cubemap in an unknown form"),
        (projection(2, cbmp(2)[8:]), "a cubemap of layout 2"),
        (projection(9), "the unknown projection 9"),
        (projection(0, yaw=30, roll=90), "a turned sphere (yaw 30°, pitch 0°, roll 90°)"),
    ],
)
def test_what_matroska_says_and_cannot_be_honoured_is_refused_by_name(
    element: bytes, named: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.mkv"
    path.write_bytes(matroska(video_entry(element)))
    with pytest.raises(ClipError) as refusal:
        decide(path)
    assert named in str(refusal.value)


def test_matroskas_mesh_and_rotation_are_told_from_projections(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    path.write_bytes(matroska(video_entry(projection(3, b"mesh"))))
    mesh = tags(path).mesh
    assert mesh is not None
    assert mesh.content == b"mesh"
    path.write_bytes(matroska(video_entry(projection(0, roll=90))))
    assert tags(path) == VideoTags(rotation_deg=90.0)
    path.write_bytes(matroska(video_entry(projection(0, yaw=180))))
    assert tags(path).mirrored


@pytest.mark.parametrize("mode", range(16))
def test_matroskas_stereo_modes_are_honoured_or_refused(mode: int, tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    path.write_bytes(matroska(video_entry(projection(1), element(0x53B8, bytes([mode])))))
    known = {0: "mono", 1: "left-right", 2: "bottom-top", 3: "top-bottom", 11: "right-left"}
    assert tags(path).stereo == known.get(mode)
    if mode not in known:
        with pytest.raises(ClipError, match=r"eyes.*--stereo"):
            decide(path)


def test_a_mesh_of_youtubes_cubemap_is_that_projection(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    path.write_bytes(matroska(video_entry(projection(3, mshp(mesh_box(cube_patches("eac")))))))
    assert read_video_tags(path, track(path, 960, 540)) == VideoTags(Sphere("eac"))


@pytest.mark.parametrize(("uid", "found"), [(7, True), (0, True), (8, False)])
def test_matroskas_tag_for_spherical_video_v1_is_that_of_its_track(
    uid: int, found: bool, tmp_path: Path
) -> None:
    text = spherical_v1(StereoMode="top-bottom")[16:]
    simple = element(0x45A3, b"SPHERICAL-VIDEO") + element(0x4487, text)
    targets = element(0x63C0, element(0x63C5, bytes([uid])) if uid else b"")
    every_tag = element(0x1254C367, element(0x7373, targets + element(0x67C8, simple)))
    entry = element(0xAE, element(0x83, b"\1") + element(0x86, b"V_TEST") + element(0x73C5, b"\7"))
    path = tmp_path / "a.mkv"
    segment = every_tag + element(0x1654AE6B, entry)
    path.write_bytes(element(0x1A45DFA3, b"") + element(0x18538067, segment))
    assert tags(path) == (VideoTags(Sphere(), "top-bottom") if found else VideoTags())
