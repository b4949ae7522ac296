"""Whatever a file claims of itself, little is read of it, and nothing but ClipError is raised."""

from __future__ import annotations

import io
import struct
import tracemalloc
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from avprep.errors import ClipError
from avprep.formats.audio_tags import read_audio_tags, unreadable_audio
from avprep.formats.container_tags import VideoTags, read_video_tags
from avprep.formats.matroska import read_matroska_tracks
from avprep.formats.mp4_boxes import read_mp4_index
from avprep.media.tracks import AudioTrack, VideoTrack
from avprep.sphere.projections import Sphere
from tests.avprep.formats.boxes import (
    add_st3d,
    add_sv3d,
    add_v1,
    box,
    crop_fields,
    element,
    equi,
    matroska,
    prhd,
    projection,
    sa3d,
    vexu,
    video_entry,
)
from tests.support.known_truth import plane_wave
from tests.support.media import grey_frame, insert_box, write_video

VIDEO = VideoTrack(128, 64, 2, False, track_id=1)
AUDIO = AudioTrack(4, 48000, "pcm_f32le", index=1, track_id=2)
QUARTER = Sphere(bounds=(0.25, 0.0, 0.25, 0.0))
ENTRY = video_entry(projection(1, equi(0.25, 0, 0.25, 0)[8:]), element(0x53B8, b"\3"))
MOST_READ = 20_000_000


def tags(path: Path) -> VideoTags:
    return read_video_tags(path, VIDEO)


def read_all(path: Path) -> None:
    """Everything that reads containers; ClipError is an answer."""
    read_mp4_index(path)
    read_matroska_tracks(path)
    read_video_tags(path, VIDEO)
    unreadable_audio(path)
    for audio in (AUDIO, AudioTrack(6, 48000, "opus", b"OpusHead" + bytes(11))):
        with suppress(ClipError):
            read_audio_tags(path, audio)


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """Small files with every kind of tag."""
    path = tmp_path_factory.mktemp("seeds") / "a.mov"
    write_video(
        path, [grey_frame(np.full((64, 128), 80, np.uint8))] * 2, audio=plane_wave(seconds=0.1)
    )
    insert_box(path, b"fl32", b"SA3D", sa3d(range(4)))
    add_v1(path, StereoMode="top-bottom", **crop_fields(128, 64, 256, 128, 64, 0))
    v1 = path.read_bytes()
    insert_box(path, b"avc1", b"vexu", vexu(b"equi", 3, b"side"))
    spatial = path.read_bytes()
    add_sv3d(path, prhd(), equi(0.25, 0, 0.25, 0))
    add_st3d(path, 1)
    wav = b"RIFF" + struct.pack("<I", 80) + b"WAVEfmt " + struct.pack("<I", 40) + bytes(40)
    chunk = struct.pack(">4sQ", b"desc", 32) + bytes(32)
    caf = b"caff\0\1\0\0" + chunk + struct.pack(">4sQHHI", b"chan", 12, 107, 4, 0)
    w64 = b"riff" + bytes(36) + b"fact" + bytes(12) + struct.pack("<Q", 32) + bytes(64)
    return [path.read_bytes(), spatial, v1, matroska(ENTRY, ENTRY), wav, caf, w64]


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_files_raise_nothing_but_clip_errors(
    seeds: list[bytes], tmp_path: Path, data: st.DataObject
) -> None:
    content = bytearray(data.draw(st.sampled_from(seeds)))
    # Where boxes are: media comes first in an mp4.
    start = max(content.rfind(b"moov") - 4, 0)
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(start, len(content) - 1))
        new = data.draw(st.one_of(st.binary(max_size=8), st.sampled_from(EXTREME)))
        if data.draw(st.booleans()):
            content[place : place + len(new)] = new
        else:
            content[place:place] = new
    path = tmp_path / "damaged"
    path.write_bytes(content)
    read_all(path)


EXTREME = [b"\xff" * 8, bytes(8), b"\x7f" + b"\xff" * 7, struct.pack(">Q", 1), b"\1" + b"\xff" * 7]


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    start=st.sampled_from([b"", box(b"ftyp"), box(b"ftyp") + b"\0\0\0\0moov", matroska()[:12]]),
    rest=st.binary(max_size=400),
)
def test_random_bytes_raise_nothing_but_clip_errors(
    start: bytes, rest: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "random"
    path.write_bytes(start + rest)
    read_all(path)


@pytest.mark.parametrize(
    "content",
    [
        box(b"ftyp") + box(b"moov", box(b"trak", box(b"uuid", bytes(3_000_000)) * 40)),
        box(b"ftyp") + box(b"moov", box(b"trak", box(b"tkhd")) * 60_000),
        box(b"ftyp") + box(b"moof") * 200_000,
        box(b"ftyp") + b"\0\0\0\0moov" + b"\0\0\0\0trak" * 50_000,
        matroska(element(0xAE, element(0xE0, element(0x7670, bytes(3_000_000)) * 40))),
        matroska(element(0xAE, element(0x83, b"\1")) * 60_000),
        matroska(element(0xAE, b"", size=(1 << 56) - 2) * 60_000),
    ],
    ids=["uuids", "tracks", "fragments", "nested", "contents", "entries", "sizes"],
)
def test_no_file_costs_much(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.write_bytes(content)
    read, real_open = 0, open

    class Counted(io.BufferedReader):
        def read(self, size: int | None = -1, /) -> bytes:
            nonlocal read
            found = super().read(size)
            read += len(found)
            return found

    def counting_open(name: Any, mode: str = "r") -> Any:
        assert mode == "rb"
        return Counted(real_open(name, "rb", buffering=0))

    tracemalloc.start()
    with patch("builtins.open", counting_open):
        read_mp4_index(path)
        read_matroska_tracks(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert read < MOST_READ
    assert peak < 3 * MOST_READ


@pytest.mark.parametrize("live", [False, True], ids=["sizes", "unknown sizes"])
def test_matroska_with_void_elements_and_in_any_order_is_read(live: bool, tmp_path: Path) -> None:
    """In a live stream, neither segment nor tracks nor clusters have a known size."""
    size = -1 if live else None
    void = element(0xEC, bytes(50))
    info = element(0x1549A966, void)
    tracks = element(0x1654AE6B, void + ENTRY, size)
    cluster = element(0x1F43B675, element(0xA3, bytes(20)), size)
    path = tmp_path / "a.webm"
    header = element(0x1A45DFA3, b"") + void
    path.write_bytes(header + element(0x18538067, void + info + void + tracks + cluster, size))
    assert tags(path) == VideoTags(QUARTER, "top-bottom")


def test_chunks_of_any_size_end_with_their_file(tmp_path: Path) -> None:
    path = tmp_path / "a.caf"
    for size in (1 << 62, (1 << 63) - 1, 1 << 63, (1 << 64) - 1):
        path.write_bytes(b"caff\0\1\0\0" + struct.pack(">4sQ", b"free", size))
        assert read_audio_tags(path, AUDIO) is None
        w64 = b"riff" + bytes(36) + bytes(16) + struct.pack("<Q", size)
        path.write_bytes(w64)
        assert read_audio_tags(path, AUDIO) is None


def test_matroskas_tracks_may_stand_after_its_clusters(tmp_path: Path) -> None:
    cluster = element(0x1F43B675, bytes(100))
    tracks = element(0x1654AE6B, ENTRY)

    def segment(place: int) -> bytes:
        seek = element(0x53AB, b"\x16\x54\xae\x6b") + element(0x53AC, struct.pack(">Q", place))
        head = element(0x114D9B74, element(0x4DBB, seek))
        return head + cluster + tracks

    path = tmp_path / "a.mkv"
    place = segment(0).index(tracks)
    for claimed, found in ((place, QUARTER), (place + 1, None), (1 << 60, None)):
        path.write_bytes(element(0x1A45DFA3, b"") + element(0x18538067, segment(claimed)))
        assert tags(path).sphere == found


def test_tracks_that_ffmpeg_does_not_count_are_not_counted(tmp_path: Path) -> None:
    """A track of buttons, one without a codec, and one whose codec is of another kind."""
    others = [
        video_entry(kind=0x12, codec=b"B_VOBBTN"),
        element(0xAE, element(0x83, b"\1")),
        video_entry(codec=b"A_OPUS"),
    ]
    path = tmp_path / "a.mkv"
    path.write_bytes(matroska(*others, ENTRY))
    assert tags(path).sphere == QUARTER


def test_sizes_larger_than_the_file_end_with_it(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    path.write_bytes(matroska(ENTRY, size=1 << 40))
    assert tags(path).sphere == QUARTER


def test_an_mp4_with_large_boxes_and_wide_headers_is_read(
    seeds: list[bytes], tmp_path: Path
) -> None:
    """64-bit sizes, an index at the beginning, and boxes that are longer than the one around."""
    path, content = tmp_path / "a.mp4", seeds[0]
    place = content.rindex(b"moov") - 4
    moov = content[place + 8 :]
    wide = struct.pack(">I4sQ", 1, b"moov", 16 + len(moov)) + moov
    for whole in (wide, struct.pack(">I4s", 0, b"moov") + moov, box(b"free") * 9 + wide):
        path.write_bytes(box(b"ftyp", b"isom") + whole)
        assert tags(path) == VideoTags(QUARTER, "top-bottom")
    longer = bytearray(content)
    at = longer.rindex(b"sv3d") - 4
    struct.pack_into(">I", longer, at, 1 << 31)
    path.write_bytes(longer)
    assert tags(path).sphere == QUARTER
