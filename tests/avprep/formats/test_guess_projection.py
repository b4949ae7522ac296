"""What the pixels of a video say about its projection, and that they can say "none of these"."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest

from avprep.errors import ClipError
from avprep.formats.decide import FormatOverrides, VideoFormat, decide_video_format
from avprep.formats.guess_projection import ProjectionGuess, guess_from_frames
from avprep.media.probe import probe
from avprep.sphere.crop import equirectangular_directions
from shards.geometry import unit_vector
from tests.avprep.formats.boxes import add_sv3d, box, equi, prhd
from tests.support.known_truth import (
    Image,
    build_and_look,
    converted,
    is_right,
    plane_wave,
    run_ffmpeg,
    scene_frame,
    write_recording,
)
from tests.support.media import grey_frame, write_video, write_wav

HEIGHT, WIDTH = 480, 960
NOTE = {"requested_formats": [{"format_note": "2160s, mesh"}, {"format_note": "ambisonic"}]}


@cache
def place() -> Image:
    """The luma of a place with things everywhere, edges and little grain. Not to be changed."""
    rng, directions = np.random.default_rng(0), equirectangular_directions(HEIGHT, WIDTH)
    luma = 110 + 40 * np.sin(np.arctan2(directions[..., 2], directions[..., 0]))
    for _ in range(1200):
        along = directions @ unit_vector(rng.uniform(-180, 180), rng.uniform(-90, 90))
        luma[along > np.cos(np.radians(rng.uniform(1, 6)))] = rng.uniform(20, 230)
    made = np.asarray(cv2.GaussianBlur(luma, (3, 3), 0)).astype(np.uint8)
    made.flags.writeable = False
    return made


def other_eye(luma: Image) -> Image:
    return np.roll(luma, 8, axis=1)


def pair(luma: Image, axis: int = 1) -> Image:
    """Two eyes' images."""
    return np.concatenate([luma, np.roll(luma, 3, axis=1)], axis=axis)


def v360(luma: Image, output: str, size: tuple[int, int]) -> Image:
    return converted(grey_frame(luma), output, *size)[: size[0]]


def in_circles(luma: Image, count: int) -> Image:
    """Black around circles side by side."""
    height, width = luma.shape
    y, x = np.indices(luma.shape) + 0.5
    outside = np.hypot(x % (width / count) - width / count / 2, y - height / 2) > height / 2
    return np.where(outside, 16, luma).astype(np.uint8)


def guess(luma: Image, stereo: str | None = None) -> ProjectionGuess:
    """The guess from a frame as `sample_frames` shrinks it."""
    height = 270 if luma.shape[1] >= 1.4 * luma.shape[0] else 540
    size = (round(height * luma.shape[1] / luma.shape[0]), height)
    small = cv2.resize(luma, size, interpolation=cv2.INTER_AREA).astype(float)
    found = guess_from_frames([np.asarray(small)], luma.shape, stereo)
    assert found is not None
    return found


CUBES = {"eac": (540, 960), "c3x2": (640, 960), "c6x1": (240, 1440)}
NONE: dict[str, Callable[[], Image]] = {
    "a dual fisheye": lambda: in_circles(
        v360(place(), "dfisheye:h_fov=190:v_fov=190", (480, 960)), 2
    ),
    "one that fills its frame": lambda: v360(place(), "dfisheye:h_fov=200:v_fov=200", (480, 960)),
    "a fisheye": lambda: in_circles(v360(place(), "fisheye:h_fov=200:v_fov=200", (480, 480)), 1),
    "a flat picture": lambda: v360(place(), "flat:h_fov=90:v_fov=59", (540, 960)),
    "a row of a cubemap": lambda: v360(place(), "eac", (640, 960))[:320],
    "YouTube's cubemap for two eyes": lambda: np.rot90(
        pair(v360(place(), "eac", (320, 640)), axis=0)
    ),
}
"""What makes each: not before its test, since every worker of pytest-xdist imports all tests."""


@pytest.mark.parametrize("stretched", [False, True])
def test_an_equirectangular_picture_is_recognised(stretched: bool) -> None:
    luma = cv2.resize(place(), (640, 360)) if stretched else place()
    found = guess(np.asarray(luma))
    assert (found.projection, found.stereo, found.sure) == ("equirect", "mono", True)


@pytest.mark.parametrize("name", CUBES)
def test_a_cubemap_is_recognised(name: str) -> None:
    found = guess(v360(place(), name, CUBES[name]))
    assert (found.projection, found.stereo) == (
        name.replace("c3", "cube3").replace("c6", "cube6"),
        "mono",
    )
    assert found.sure


@pytest.mark.parametrize("name", NONE)
def test_what_shows_no_known_projection_is_told(name: str) -> None:
    found = guess(np.ascontiguousarray(NONE[name]()))
    assert found.projection is None, found
    assert found.remedy


def test_lenses_that_lie_on_their_sides_are_told() -> None:
    """As in the frames of Ricoh's Theta and Samsung's Gear 360."""
    lenses = [
        v360(place(), f"fisheye:h_fov=190:v_fov=190:yaw={yaw}:roll={roll}", (440, 440))
        for yaw, roll in ((0, 90), (180, -90))
    ]
    frame = np.full((HEIGHT, WIDTH), 16, np.uint8)
    for left, lens in zip((20, 500), lenses, strict=True):
        frame[12:452, left : left + 440] = in_circles(lens, 1)
    found = guess(frame)
    assert found.projection is None
    assert "two lenses" in found.reason


@pytest.mark.parametrize("bars", ["above and below", "left and right"])
def test_black_bars_are_no_borders(bars: str) -> None:
    frame = np.full((540, 960), 16, np.uint8)
    if bars == "above and below":
        frame[70:470] = v360(place(), "flat:h_fov=90:v_fov=45", (400, 960))
    else:
        frame[:, 120:840] = v360(place(), "flat:h_fov=90:v_fov=74", (540, 720))
    assert not guess(frame).sure


@pytest.mark.parametrize(("axis", "stereo"), [(0, "top-bottom"), (1, "left-right")])
def test_two_eyes_that_only_pixels_suggest_are_never_sure(axis: int, stereo: str) -> None:
    found = guess(pair(place(), axis))
    assert (found.projection, found.stereo, found.sure) == ("equirect", stereo, False)
    assert stereo in found.reason
    assert guess(pair(place(), axis), stereo).sure  # the container says so


@pytest.mark.parametrize(("axis", "stereo"), [(0, "top-bottom"), (1, "left-right")])
def test_half_spheres_of_two_eyes_are_told(axis: int, stereo: str) -> None:
    halves = [eye[:, 240:720] for eye in (place(), np.roll(place(), 3, axis=1))]
    found = guess(np.concatenate(halves, axis=axis))
    assert (found.projection, found.stereo, found.sure) == ("half-equirect", stereo, False)


def test_a_uniform_picture_tells_nothing() -> None:
    assert guess_from_frames([np.full((270, 540), 16.0)], (270, 540)) is None


# Whole builds of files that are easily taken for something else.


def test_a_dual_fisheye_is_refused_by_name(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    luma = v360(scene_frame()[:HEIGHT], "dfisheye:h_fov=195:v_fov=195", (HEIGHT, WIDTH))
    write_recording(raw, "two_lenses", grey_frame(in_circles(luma, 2)), seconds=2.0)
    built = build_and_look(raw, tmp_path / "set")
    assert built.clips == ()
    assert built.result.exit_code != 0
    assert "--projection dual-fisheye" in built.output
    named = ("--projection", "dual-fisheye", "--fisheye-fov", 195)
    built = build_and_look(raw, tmp_path / "named", *named)
    assert [is_right(clip) for clip in built.clips] == [True]


def test_a_mesh_of_half_spheres_is_no_cubemap(tmp_path: Path) -> None:
    """YouTube's "mesh" is VR180, too; grain hides the poles."""
    raw = tmp_path / "raw"
    raw.mkdir()
    luma = scene_frame()[:HEIGHT]
    eyes = [eye[:, 240:720] for eye in (luma, np.roll(luma, 6, axis=1))]
    frame = grey_frame(np.ascontiguousarray(np.concatenate(eyes, axis=1)))
    write_video(tmp_path / "v.mp4", [frame] * 48)
    write_wav(tmp_path / "a.wav", plane_wave(seconds=2.0))
    maps = ("-map", "0:v", "-map", "1:a", "-c:v", "copy", "-c:a", "pcm_s16le")
    inputs = ("-i", tmp_path / "v.mp4", "-i", tmp_path / "a.wav")
    run_ffmpeg(*inputs, *maps, raw / "VR walk [abcDEF_1234].mkv")
    (raw / "VR walk [abcDEF_1234].info.json").write_text(json.dumps({"id": "abcDEF_1234", **NOTE}))
    built = build_and_look(raw, tmp_path / "set")
    assert [is_right(clip) for clip in built.clips] == [True], built.output
    assert "taken as half-equirect, left-right: its .info.json says mesh" in built.output


def test_a_picture_that_repeats_itself_is_no_pair(tmp_path: Path) -> None:
    luma = np.full((HEIGHT, WIDTH), 70, np.uint8)
    luma[::40], luma[:, ::40], luma[1::40], luma[:, 1::40] = 150, 150, 150, 150
    directions = equirectangular_directions(HEIGHT, WIDTH)
    for n, (a, e) in enumerate(((-150, 60), (-90, 20), (0, 45), (100, -20), (170, -60), (60, -45))):
        luma[directions @ unit_vector(a, e) > np.cos(np.radians(7))] = 190 - 20 * n
    dot = np.exp((directions @ unit_vector(40, 15) - 1) / np.radians(4) ** 2)
    luma = np.rint(luma + (235 - luma) * dot).astype(np.uint8)
    write_recording(tmp_path / "raw", "room", grey_frame(luma), seconds=2.0)
    built = build_and_look(tmp_path / "raw", tmp_path / "set")
    assert [is_right(clip) for clip in built.clips] == [True], built.output
    assert "its halves look much alike" in built.output
    assert "--stereo" in built.output


# What containers and .info.json say, against the pixels.


def decide(path: Path) -> tuple[VideoFormat, tuple[str, ...]]:
    media = probe(path)
    assert media.video is not None
    return decide_video_format(path, media.video, media.duration_s, FormatOverrides())


def written(folder: Path, luma: Image, note: str = "", tag: bytes = b"") -> Path:
    """A video, with a note beside it, or an sv3d box's projection inside."""
    path = folder / "a.mp4"
    write_video(path, [grey_frame(np.ascontiguousarray(luma))] * 8)
    if note:
        path.with_suffix(".info.json").write_text(json.dumps({"format_note": note}))
    if tag:
        add_sv3d(path, prhd(), tag)
    return path


HALF = equi(left=0.25, right=0.25)


@pytest.mark.parametrize(
    ("luma", "tag"),
    [
        (place, equi()),
        (lambda: cv2.resize(place(), (640, 360)), equi()),
        (lambda: scene_frame()[:HEIGHT], equi()),
        (lambda: place()[:, 240:720], HALF),
        (lambda: np.full((HEIGHT, WIDTH), 90, np.uint8), equi()),
    ],
    ids=["whole", "stretched", "grain", "half", "uniform"],
)
def test_what_the_container_says_rightly_raises_no_doubt(
    luma: Callable[[], Image], tag: bytes, tmp_path: Path
) -> None:
    found, doubts = decide(written(tmp_path, luma(), tag=tag))
    assert found.sphere.projection == "equirect"
    assert found.sure
    assert doubts == ()


@pytest.mark.parametrize(
    ("luma", "tag", "seen"),
    [
        (lambda: v360(place(), "eac", (540, 960)), equi(), "go on across the borders of eac"),
        (lambda: pair(place(), 0), equi(), "two eyes (top-bottom)"),
        (NONE["a dual fisheye"], equi(), "circles of two lenses"),
        (NONE["a flat picture"], equi(), "borders of no projection"),
        (lambda: place()[:, 240:720], equi(), "does not go on from side to side"),
        (place, HALF, "go on across the borders of equirect"),
    ],
    ids=["cubemap", "two eyes", "lenses", "flat", "half", "whole"],
)
def test_what_pixels_say_against_the_container_is_said(
    luma: Callable[[], Image], tag: bytes, seen: str, tmp_path: Path
) -> None:
    path = written(tmp_path, luma(), tag=tag)
    found, doubts = decide(path)
    assert found.reason == "its container says equirect"
    assert len(doubts) == 1
    part = " for a part of the sphere" if tag is HALF else ""
    assert doubts[0].startswith(f"its container says equirect{part}, but ")
    assert seen in doubts[0]
    assert "--projection" in doubts[0]


def test_what_the_note_says_against_the_container_is_said(tmp_path: Path) -> None:
    found, doubts = decide(written(tmp_path, place(), "1080s, mesh", equi()))
    assert found.sphere.projection == "equirect"
    assert [doubt for doubt in doubts if "but its .info.json says mesh" in doubt]


def test_what_pixels_say_against_the_note_is_said(tmp_path: Path) -> None:
    found, doubts = decide(written(tmp_path, v360(place(), "eac", (540, 960)), "1080s, equi"))
    assert found.reason == "its .info.json says so"
    assert [doubt for doubt in doubts if "borders of eac" in doubt]
    found, doubts = decide(written(tmp_path, place(), "1080s, equi"))
    assert (found.sphere.projection, doubts) == ("equirect", ())


def test_a_mesh_is_what_its_pixels_show(tmp_path: Path) -> None:
    found, doubts = decide(written(tmp_path, v360(place(), "eac", (540, 960)), "1080s, mesh"))
    assert (found.sphere.projection, found.reason) == ("eac", "its .info.json says so")
    assert doubts == ()
    halves = pair(place()[:, 240:720])
    found, doubts = decide(written(tmp_path, halves, "1080s, mesh"))
    assert (found.sphere.bounds, found.stereo) == ((0.25, 0.0, 0.25, 0.0), "left-right")
    assert "half-equirect, left-right: its .info.json says mesh" in doubts[0]
    with pytest.raises(ClipError, match="in_trans=1"):
        decide(written(tmp_path, NONE["YouTube's cubemap for two eyes"](), "1080s, mesh"))
    with pytest.raises(ClipError, match="--projection"):
        decide(written(tmp_path, NONE["a flat picture"](), "1080s, mesh"))
    found, doubts = decide(written(tmp_path, np.full((540, 960), 90, np.uint8), "mesh"))
    assert found.sphere.projection == "eac"
    assert "--projection half-equirect" in doubts[0]


def test_a_mesh_in_the_container_is_what_its_pixels_show(tmp_path: Path) -> None:
    luma = v360(place(), "eac", (540, 960))
    found, doubts = decide(written(tmp_path, luma, tag=box(b"mshp", b"content")))
    assert (found.sphere.projection, doubts) == ("eac", ())
    assert found.reason == "its container says mesh"
