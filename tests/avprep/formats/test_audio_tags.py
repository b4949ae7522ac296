"""What containers say about ambisonics is honoured, or refused by name."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from avprep.errors import ClipError
from avprep.formats.audio_tags import AudioTags, read_audio_tags, unreadable_audio
from avprep.media.probe import probe
from tests.avprep.formats.boxes import sa3d
from tests.support.known_truth import build_and_look, dot_frame, is_right, plane_wave, run_ffmpeg
from tests.support.media import grey_frame, insert_box, noise, write_audio, write_video, write_wav

B_FORMAT = bytes.fromhex("030000002107d3118644c8c1ca000000")
FLOAT = bytes.fromhex("0300000000001000800000aa00389b71")
FRAME = grey_frame(np.full((64, 128), 80, np.uint8))
Sound = NDArray[np.float32]


def tags(path: Path) -> AudioTags | None:
    audio = probe(path).audio
    assert audio is not None
    return read_audio_tags(path, audio)


def write_b_format(path: Path, sound: Sound) -> None:
    """Write a WAVE_FORMAT_EXTENSIBLE file, as RIFF or, for w64, as Sony's Wave64, with the GUID of
    ambisonic B-format."""
    kind = {".w64": "W64"}.get(path.suffix, "WAVEX")
    with soundfile.SoundFile(path, "w", 48000, len(sound), "FLOAT", format=kind) as file:
        file.write(sound.T)
    data = bytearray(path.read_bytes())
    if kind == "W64":  # libsndfile writes 16 bytes of the format, the rest stands in `fact`
        place = data.index(b"fmt ") + 24
        extension = struct.pack("<HHI", 22, 32, 0) + B_FORMAT
        data[place : place + 2] = b"\xfe\xff"
        data[place + 16 : place + 16] = extension
        struct.pack_into("<Q", data, place - 8, 24 + 16 + len(extension))
        struct.pack_into("<Q", data, 16, len(data))
    else:
        at = data.index(FLOAT)
        data[at : at + 16] = B_FORMAT
    path.write_bytes(data)


def fuma(field: Sound) -> Sound:
    w, y, z, x = field
    return np.stack([w / np.float32(np.sqrt(2)), x, y, z])


def test_the_guid_of_b_format_is_fuma_whatever_the_suffix(tmp_path: Path) -> None:
    for name in ("a.wav", "a.w64"):
        write_b_format(tmp_path / name, fuma(plane_wave(seconds=0.2)))
        found = tags(tmp_path / name)
        assert found == AudioTags(None, "its WAVE format says B-format, which is FuMa", "fuma")
    write_wav(tmp_path / "b.wav", plane_wave(seconds=0.2))
    assert tags(tmp_path / "b.wav") is None


def test_a_wav_file_of_b_format_is_heard_where_it_is(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    write_video(raw / "a.mp4", [dot_frame()] * 24)
    write_b_format(raw / "a.wav", fuma(plane_wave(seconds=1.0)))
    built = build_and_look(raw, tmp_path / "set", "--projection", "equirect")
    assert [is_right(clip) for clip in built.clips] == [True], built.output
    assert "its sound" not in built.output


@pytest.mark.parametrize("name", ["a.wav", "a.amb"])
def test_horizontal_b_format_is_refused_by_name(name: str, tmp_path: Path) -> None:
    """W, X, Y, U, V: the fourth channel is not Z."""
    write_b_format(tmp_path / name, np.float32(np.stack([noise(0.2, n) for n in range(5)])))
    with pytest.raises(ClipError, match=r"horizontal B-format \(5 channels"):
        tags(tmp_path / name)


@pytest.mark.parametrize(("tag", "convention"), [(107, "fuma"), (190, "ambix"), (191, "n3d")])
def test_a_layout_tag_for_ambisonics_is_followed(tag: int, convention: str, tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", plane_wave(seconds=0.2))
    path = tmp_path / "a.caf"
    run_ffmpeg("-i", tmp_path / "a.wav", path)
    data = bytearray(path.read_bytes())
    struct.pack_into(">HHI", data, data.index(b"chan") + 12, tag, 4, 0)
    path.write_bytes(data)
    found = tags(path)
    assert found is not None
    assert (found.convention, found.channels, found.sure) == (convention, None, True)
    assert "channel layout" in found.reason


def write_six(
    path: Path, sound: list[Sound], layout: str = "5.1", frame: NDArray[np.uint8] = FRAME
) -> Path:
    """AAC of six channels in the decoder's order, whose SA3D box numbers them 0 to 5."""
    write_video(path, [frame] * 24, audio=np.stack(sound), layout=layout)
    insert_box(path, b"mp4a", b"SA3D", sa3d(range(6), head_locked=True))
    return path


def test_the_sound_decides_between_two_orders_of_six_channels(tmp_path: Path) -> None:
    w, y, z, x = plane_wave(seconds=1.0)
    left, right = (np.float32(noise(1.0, seed)) for seed in (7, 8))
    youtube = tags(write_six(tmp_path / "a.mp4", [y, z, w, right, x, left]))
    reason = "SA3D box, ACN and SN3D, head-locked stereo dropped"
    assert youtube == AudioTags((2, 0, 1, 4), reason)
    ffmpegs = tags(write_six(tmp_path / "b.mp4", [w, y, z, x, left, right], "hexagonal"))
    assert ffmpegs is not None
    assert (ffmpegs.channels, ffmpegs.sure) == ((0, 1, 2, 3), True)
    assert ffmpegs.reason == f"{reason}, in the decoder's order, in which W is level with the rest"


def test_what_the_sound_does_not_decide_is_said(tmp_path: Path) -> None:
    """A single sound from above is as strong in Z as in W."""
    w, y, z, x = plane_wave(0, 90, seconds=1.0)
    silent = np.zeros_like(w)
    found = tags(write_six(tmp_path / "a.mp4", [w, y, z, x, silent, silent], "hexagonal"))
    assert found is not None
    assert (found.channels, found.sure) == ((2, 0, 1, 4), False)
    assert "in AAC's order, which its sound does not confirm" in found.reason


def test_builds_hear_six_channels_where_they_are_and_say_a_doubt(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    silent = np.zeros(48_000, np.float32)
    beside = plane_wave(seconds=1.0)
    above = plane_wave(0, 90, seconds=1.0)
    for name, field in (("beside", beside), ("above", above)):
        six = [*field, silent, silent]
        write_six(raw / f"{name}.mp4", six, "hexagonal", dot_frame())
    built = build_and_look(raw, tmp_path / "set", "--projection", "equirect")
    assert [is_right(clip) for clip in built.clips if clip.file == "beside.mp4"] == [True]
    said = [line for line in built.output.splitlines() if line.startswith("check:")]
    assert len(said) == 1
    assert said[0].startswith("check: above.mp4: its sound is taken as ambiX (SA3D box, ")
    assert "in AAC's order, which its sound does not confirm" in said[0]


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("four") / "four.mov"
    write_video(path, [FRAME] * 2, audio=plane_wave(seconds=0.2))
    return path


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (sa3d(range(4), count=6), "describes 6 channels, and its sound has 4"),
        (sa3d(range(3)), "describes 3 channels, and its sound has 4"),
        (sa3d([0, 1, 2, 2]), "without all of W, Y, Z and X"),
        (sa3d(range(4), order=0), "of order 0"),
        (b"\1" + sa3d(range(4))[1:], "of version 1"),
        (b"\0\1" + sa3d(range(4))[2:], "type 1"),
        (sa3d(range(4))[:6] + b"\1" + sa3d(range(4))[7:], "ordering 1"),
        (sa3d(range(4))[:7] + b"\2" + sa3d(range(4))[8:], "normalization 2"),
    ],
)
def test_an_sa3d_box_that_cannot_be_followed_is_refused_by_name(
    content: bytes, named: str, four: Path, tmp_path: Path
) -> None:
    path = shutil.copy(four, tmp_path / "a.mov")
    insert_box(path, b"fl32", b"SA3D", content)
    with pytest.raises(ClipError) as refusal:
        tags(path)
    assert named in str(refusal.value)
    assert "--foa-convention" in str(refusal.value)


def test_an_sa3d_box_of_fewer_channels_than_its_track_is_in_doubt_or_refused(
    tmp_path: Path,
) -> None:
    """ffmpeg would take each four of six PCM samples as four channels."""
    six = np.float32(np.stack([noise(0.2, n) for n in range(6)]))
    for path, entry in ((tmp_path / "a.mov", b"fl32"), (tmp_path / "a.mp4", b"mp4a")):
        write_video(path, [FRAME] * 2, audio=six, layout="hexagonal")
        insert_box(path, entry, b"SA3D", sa3d(range(4)))
    with pytest.raises(ClipError, match="describes 4 channels, and its sound has 6"):
        tags(tmp_path / "a.mov")
    found = tags(tmp_path / "a.mp4")
    assert found is not None
    assert not found.sure
    assert "for 4 of 6 channels" in found.reason


def ogg_crc(page: bytes) -> int:
    """The checksum of an Ogg page whose own field is 0 (RFC 3533)."""
    value = 0
    for byte in page:
        value ^= byte << 24
        for _ in range(8):
            value = ((value << 1) ^ (0x04C11DB7 if value & 0x80000000 else 0)) & 0xFFFFFFFF
    return value


def with_family_3(path: Path) -> Path:
    """Let an Opus file say that its channels lie behind a matrix."""
    data = bytearray(path.read_bytes())
    if path.suffix == ".mp4":
        data[data.rindex(b"dOps") + 14] = 3
    else:
        data[data.index(b"OpusHead") + 18] = 3
    if path.suffix == ".opus":
        size = 27 + data[26] + sum(data[27 : 27 + data[26]])
        data[22:26] = bytes(4)
        struct.pack_into("<I", data, 22, ogg_crc(data[:size]))
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("suffix", ["opus", "mp4", "mkv"])
def test_opus_family_3_is_refused_by_name(suffix: str, tmp_path: Path) -> None:
    raw, family = tmp_path / "raw", {"mapping_family": "2"}
    raw.mkdir()
    path = raw / f"a.{suffix}"
    write_audio(path, "libopus", plane_wave(seconds=0.5), "ambisonic 1", family)
    assert unreadable_audio(path) is None
    with_family_3(path)
    assert "Opus with mapping family 3" in (unreadable_audio(path) or "")
    if suffix == "opus":
        write_video(raw / "a.mp4", [FRAME] * 24)
        built = build_and_look(raw, tmp_path / "set")
        assert built.result.exit_code != 0
        assert "a.opus holds its sound as Opus with mapping family 3" in built.output


def test_iamf_and_mpeg_h_are_named(four: Path, tmp_path: Path) -> None:
    path, content = tmp_path / "a.mov", four.read_bytes()
    for name, said in ((b"iamf", "IAMF"), (b"mhm1", "MPEG-H")):
        path.write_bytes(content.replace(b"fl32", name))
        assert said in (unreadable_audio(path) or "")
