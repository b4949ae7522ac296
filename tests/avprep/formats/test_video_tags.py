"""What containers say about projection and eyes is honoured, or refused by name."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path

import numpy as np
import pytest

from avprep.errors import ClipError
from avprep.formats.container_tags import VideoTags, read_video_tags
from avprep.formats.decide import FormatOverrides, VideoFormat, decide_video_format
from avprep.media.tracks import VideoTrack
from avprep.sphere.projections import Sphere
from tests.avprep.formats.boxes import (
    add_st3d,
    add_sv3d,
    add_to_track,
    add_v1,
    box,
    cbmp,
    crop_fields,
    equi,
    prhd,
    spherical_v1,
    vexu,
)
from tests.avprep.sphere.test_mesh import (
    equirect_patches,
    mesh_box,
    moved,
    mshp,
)
from tests.support.known_truth import (
    build_and_look,
    dot_frame,
    is_right,
    plane_wave,
    run_ffmpeg,
    write_recording,
)
from tests.support.media import grey_frame, insert_box, write_video, write_wav

SIZE = (64, 128)
KNOWN = FormatOverrides()


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An mp4 of two grey frames, without any tags."""
    path = tmp_path_factory.mktemp("bare") / "bare.mp4"
    write_video(path, [grey_frame(np.full(SIZE, 80, np.uint8))] * 2)
    return path


@pytest.fixture
def path(bare: Path, tmp_path: Path) -> Path:
    return shutil.copy(bare, tmp_path / "a.mp4")


def track(path: Path, width: int = SIZE[1], height: int = SIZE[0]) -> VideoTrack:
    """The first track of a file of tests."""
    return VideoTrack(width, height, 2, False, track_id=1 if path.suffix == ".mp4" else 0)


def tags(path: Path) -> VideoTags:
    return read_video_tags(path, track(path))


def decide(path: Path, **options: str) -> VideoFormat:
    overrides = FormatOverrides(**options)  # type: ignore[arg-type]
    return decide_video_format(path, track(path), 1.0, overrides)[0]


def test_a_cropped_area_of_spherical_video_v1_is_honoured(tmp_path: Path) -> None:
    """A front part of 180°×90°, whose fields stand in Spherical Video V1's text."""
    part = dot_frame(height=320, width=640)[:320][80:240, 160:480]
    frame = grey_frame(np.ascontiguousarray(part))
    path = write_recording(tmp_path / "raw", "part", frame, seconds=2.0)
    add_v1(path, **crop_fields(320, 160, 640, 320, 160, 80))
    built = build_and_look(tmp_path / "raw", tmp_path / "set")
    assert built.result.exit_code == 0, built.output
    assert "its picture" not in built.output
    assert len(built.clips) == 1
    assert is_right(built.clips[0])


@pytest.mark.parametrize("axis", [0, 1], ids=["bottom-top", "right-left"])
def test_the_left_eye_is_taken_where_the_right_one_is_first(axis: int, tmp_path: Path) -> None:
    """By Matroska's stereo modes 2 and 11, st3d's 4, and the option. The right eye's image is that
    of another direction."""
    raw, frames = tmp_path / "raw", (dot_frame(-100, -20), dot_frame())
    pair = np.concatenate([frame[:320] for frame in frames], axis=axis)
    frame = grey_frame(np.ascontiguousarray(pair))
    name = ("bottom_top", "right_left")[axis]
    raw.mkdir()
    write_video(raw / "mkv.mkv", [frame] * 24, metadata={"stereo_mode": name})
    write_video(raw / "mp4.mp4", [frame] * 24)
    add_sv3d(raw / "mp4.mp4", prhd(), equi())
    if axis == 1:
        add_st3d(raw / "mp4.mp4", 4)
    else:
        insert_box(raw / "mp4.mp4", b"avc1", b"vexu", vexu(eyes=11, packing=b"over"))
    for stem in ("mkv", "mp4"):
        write_wav(raw / f"{stem}.wav", plane_wave(seconds=1.0))
    built = build_and_look(raw, tmp_path / "tagged", "--projection", "equirect")
    assert [is_right(clip) for clip in built.clips] == [True, True], built.output
    (raw / "mkv.mkv").unlink()
    mode = name.replace("_", "-")
    stated = ("--projection", "equirect", "--stereo", mode)
    built = build_and_look(raw, tmp_path / "stated", *stated)
    assert [is_right(clip) for clip in built.clips] == [True], built.output


@pytest.mark.parametrize(
    ("inside", "sphere"),
    [
        ((prhd(), equi()), Sphere()),
        ((equi(),), Sphere()),
        ((prhd(0.005, -0.005, 0), box(b"free"), equi()), Sphere()),
        ((prhd(), equi(0.25, 0.125, 0.25, 0)), Sphere(bounds=(0.25, 0.125, 0.25, 0.0))),
        ((prhd(), cbmp()), Sphere("cube3x2")),
    ],
)
def test_sv3d_is_honoured(inside: tuple[bytes, ...], sphere: Sphere, path: Path) -> None:
    add_sv3d(path, *inside)
    assert tags(path) == VideoTags(sphere)
    assert decide(path).sphere == sphere


@pytest.mark.parametrize(
    ("inside", "named"),
    [
        ((prhd(30, 0, 0), equi()), "a turned sphere (yaw 30°, pitch 0°, roll 0°)"),
        ((prhd(0, 0, -0.5), cbmp()), "a turned sphere (yaw 0°, pitch 0°, roll -0.5°)"),
        ((prhd(), cbmp(layout=3)), "a cubemap of layout 3"),
        ((prhd(), cbmp(padding=8)), "a cubemap with 8 pixels of padding"),
        ((prhd(), box(b"cbmp", bytes(4))), "a cubemap in an unknown form"),
        ((prhd(), box(b"equi", b"\1" + bytes(19))), "an equirectangular projection in an unknown"),
        ((prhd(), equi(0.5, 0, 0.499, 0)), "bounds of an equirectangular frame"),
        ((prhd(), box(b"abcd", bytes(20))), "the projection 'abcd'"),
        ((prhd(), equi(), cbmp()), "several projections"),
        ((prhd(),), "a sphere without a projection"),
        ((box(b"prhd", bytes(8)), equi()), "a pose (prhd) that is cut off"),
    ],
)
def test_what_sv3d_says_and_cannot_be_honoured_is_refused_by_name(
    inside: tuple[bytes, ...], named: str, path: Path
) -> None:
    add_sv3d(path, *inside)
    with pytest.raises(ClipError) as refusal:
        decide(path)
    assert f"a.mp4 says that it shows {named}" in str(refusal.value)
    assert "--projection" in str(refusal.value)
    assert decide(path, projection="eac").sphere == Sphere("eac")  # the frames as they are


@pytest.mark.parametrize("name", [b"mshp", b"ytmp"])
def test_a_mesh_is_no_equirectangular_projection(name: bytes, path: Path) -> None:
    add_sv3d(path, prhd(), box(name, b"content"))
    add_st3d(path, 3)
    found = tags(path)
    assert found.mesh is not None
    assert found.mesh.content == b"content"
    assert (found.sphere, found.refused, found.stereo) == (None, None, None)


def test_a_mesh_of_a_known_projection_is_that_projection(path: Path) -> None:
    """VR180, whose two meshes say where each eye's image is."""
    half = equirect_patches((0.25, 0, 0.25, 0))
    eyes = [mesh_box(moved(half, x, 0, 0.5, 1)) for x in (0, 0.5)]
    add_sv3d(path, prhd(), box(b"mshp", mshp(*eyes)))
    add_st3d(path, 3)
    assert tags(path) == VideoTags(Sphere(bounds=(0.25, 0, 0.25, 0)), "left-right")
    assert decide(path).stereo == "left-right"


@pytest.mark.parametrize(
    ("mode", "stereo"),
    [(0, "mono"), (1, "top-bottom"), (2, "left-right"), (4, "right-left"), (3, None), (9, None)],
)
def test_st3d_is_honoured_or_refused(mode: int, stereo: str | None, path: Path) -> None:
    add_sv3d(path, prhd(), equi())
    add_st3d(path, mode)
    assert tags(path).stereo == stereo
    if stereo is None:
        with pytest.raises(ClipError, match=r"two eyes.*--stereo"):
            decide(path)
    assert decide(path, stereo="left-right").stereo == "left-right"


@pytest.mark.parametrize(
    ("content", "sphere", "stereo", "refused"),
    [
        (vexu(b"equi", 3, b"side"), Sphere(), "left-right", None),
        (vexu(b"equi", 11, b"side"), Sphere(), "right-left", None),
        (vexu(b"hequ", 3, b"over"), Sphere(bounds=(0.25, 0, 0.25, 0)), "top-bottom", None),
        (vexu(b"hequ", 1), Sphere(bounds=(0.25, 0, 0.25, 0)), "mono", None),
        (vexu(b"rect"), None, None, "flat frames (rectilinear)"),
        (vexu(b"fish"), None, None, "a fisheye whose lens is not described"),
        (vexu(b"prim"), None, None, "the projection 'prim'"),
    ],
)
def test_apples_boxes_are_honoured_or_refused(
    content: bytes, sphere: Sphere | None, stereo: str | None, refused: str | None, path: Path
) -> None:
    insert_box(path, b"avc1", b"vexu", content)
    assert tags(path) == VideoTags(sphere, stereo, refused=refused)


def test_two_eyes_in_layers_are_one_image_and_in_an_unknown_layout_refused(path: Path) -> None:
    """Decoders give one eye of MV-HEVC."""
    insert_box(path, b"avc1", b"vexu", vexu(b"equi", 3))
    assert "does not state" in str(tags(path).refused_stereo)
    insert_box(path, b"avc1", b"lhvC", b"")
    assert tags(path) == VideoTags(Sphere(), "mono")


@pytest.mark.parametrize(
    ("fields", "sphere", "stereo"),
    [
        ({}, Sphere(), None),
        ({"StereoMode": "top-bottom"}, Sphere(), "top-bottom"),
        ({"StereoMode": "left-right"}, Sphere(), "left-right"),
        ({"Spherical": "false"}, None, None),
        (crop_fields(128, 64, 128, 64, 0, 0), Sphere(), None),
        (crop_fields(128, 64, 256, 128, 64, 0), Sphere(bounds=(0.25, 0, 0.25, 0.5)), None),
        (
            {**crop_fields(128, 128, 256, 128, 64, 0), "StereoMode": "top-bottom"},
            None,  # one eye's image is 128×32
            "top-bottom",
        ),
        ({"InitialViewHeadingDegrees": 90}, Sphere(), None),  # where players look first
    ],
)
def test_spherical_video_v1_is_honoured(
    fields: dict[str, object], sphere: Sphere | None, stereo: str | None, path: Path
) -> None:
    add_v1(path, **fields)
    assert (tags(path).sphere, tags(path).stereo) == (sphere, stereo)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"ProjectionType": "cubemap"}, "the projection 'cubemap'"),
        ({"Stitched": "false"}, "the images of several lenses, which are not stitched"),
        (crop_fields(128, 64, 200, 100, 100, 0), "contradict each other"),
        (crop_fields(128, 64, 256, 128, -64, 0), "CroppedAreaLeftPixels '-64'"),
        (crop_fields(0, 64, 256, 128, 0, 0), "contradict each other"),
        ({"CroppedAreaLeftPixels": "equirectangular"}, "CroppedAreaLeftPixels"),
        ({"CroppedAreaLeftPixels": 10}, "contradict each other"),
        (crop_fields(64, 64, 256, 128, 64, 0), "does not fit the shape of its frames"),
        (crop_fields(128, 64, 256, 256, 64, 0), "does not fit the shape of its frames"),
    ],
)
def test_what_spherical_video_v1_says_and_cannot_be_honoured_is_refused_by_name(
    fields: dict[str, object], named: str, path: Path
) -> None:
    add_v1(path, **fields)
    with pytest.raises(ClipError) as refusal:
        decide(path)
    assert named in str(refusal.value)


def test_version_2_goes_before_version_1(path: Path) -> None:
    add_v1(path, ProjectionType="other", StereoMode="left-right")
    add_sv3d(path, prhd(), equi())
    assert tags(path) == VideoTags(Sphere(), "left-right")


def test_spherical_video_v1_may_stand_beside_the_tracks(path: Path) -> None:
    add_to_track(path, box(b"free"))
    data = bytearray(path.read_bytes())
    new = box(b"uuid", spherical_v1(StereoMode="left-right"))
    moov = data.rindex(b"moov") - 4
    (length,) = struct.unpack_from(">I", data, moov)
    data[moov + length : moov + length] = new
    struct.pack_into(">I", data, moov, length + len(new))
    path.write_bytes(data)
    assert tags(path) == VideoTags(Sphere(), "left-right")


def test_entities_and_comments_are_not_followed(path: Path) -> None:
    bomb = '<!DOCTYPE x [<!ENTITY a "aaaaaaaa">]>' + "<!-- <GSpherical:StereoMode>left-right"
    add_to_track(path, box(b"uuid", spherical_v1()[:16] + bomb.encode() + b"x" * 100_000))
    assert tags(path) == VideoTags()


def test_tags_are_those_of_the_chosen_track(bare: Path, tmp_path: Path) -> None:
    """The second video track is a half sphere, the first one has no tags."""
    other = shutil.copy(bare, tmp_path / "half.mp4")
    add_sv3d(other, prhd(), equi(0.25, 0, 0.25, 0))
    unofficial = ("-c", "copy", "-strict", "unofficial")
    for suffix in ("mp4", "mkv"):
        both = tmp_path / f"both.{suffix}"
        run_ffmpeg("-i", bare, "-i", other, "-map", "0:v", "-map", "1:v", *unofficial, both)
        found = [
            read_video_tags(both, VideoTrack(128, 64, 2, False, index=n, track_id=n + 1)).sphere
            for n in range(2)
        ]
        assert found == [None, Sphere(bounds=(0.25, 0, 0.25, 0))]


def test_sample_entries_that_contradict_each_other_are_refused(path: Path) -> None:
    add_sv3d(path, prhd(), equi())
    data = bytearray(path.read_bytes())
    start = data.index(b"avc1", data.rindex(b"moov")) - 4
    (length,) = struct.unpack_from(">I", data, start)
    second = bytes(data[start : start + length]).replace(b"equi", b"abcd")
    count = data.rindex(b"stsd", 0, start) + 8
    struct.pack_into(">I", data, count, 2)
    data[start + length : start + length] = second
    for parent in (b"stsd", b"stbl", b"minf", b"mdia", b"trak", b"moov"):
        place = data.rindex(parent, 0, start) - 4
        (old,) = struct.unpack_from(">I", data, place)
        struct.pack_into(">I", data, place, old + length)
    path.write_bytes(data)
    assert "different things" in str(tags(path).refused)
