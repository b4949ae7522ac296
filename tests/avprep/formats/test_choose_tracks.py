"""Files with several tracks: the picture and the ambisonics are found, or the user is asked."""

from __future__ import annotations

import shlex
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from avprep.cli.main import main
from avprep.media.ffmpeg import ffmpeg_path
from tests.support.known_truth import (
    FPS,
    build_and_look,
    dot_frame,
    is_right,
    plane_wave,
    run_ffmpeg,
)
from tests.support.media import noise, write_video, write_wav

SECONDS = 2.0


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture, its ambisonics, other ambisonics, a stereo mix, a mono signal and a cover."""
    folder = tmp_path_factory.mktemp("parts")
    frame = dot_frame(height=160, width=320)
    write_video(folder / "picture.mp4", [frame] * round(FPS * SECONDS))
    small = dot_frame(-90.0, -20.0, height=80, width=160)
    write_video(folder / "other.mp4", [small] * round(FPS * SECONDS))
    write_video(folder / "row.mp4", [dot_frame(height=80, width=320)] * FPS)
    write_wav(folder / "foa.wav", plane_wave(seconds=SECONDS))
    write_wav(folder / "foa2.wav", plane_wave(-90.0, -20.0, SECONDS))
    write_wav(folder / "stereo.wav", np.tile(noise(SECONDS, 9), (2, 1)).astype(np.float32))
    for number, channel in enumerate(plane_wave(seconds=SECONDS)):
        write_wav(folder / f"mono{number}.wav", channel[None])
    run_ffmpeg(*("-f", "lavfi", "-i", "testsrc=s=96x96:d=1", "-frames:v", 1, folder / "cover.jpg"))
    return folder


def mux(parts: Path, out: Path, *names: str, options: tuple[str, ...] = ()) -> Path:
    """One file with the tracks of several, in that order."""
    out.parent.mkdir(parents=True, exist_ok=True)
    inputs = [word for name in names for word in ("-i", str(parts / name))]
    maps = [word for number in range(len(names)) for word in ("-map", str(number))]
    copied = ["-c:v", "copy", "-c:a", "pcm_s24le"]
    run_ffmpeg(*inputs, *maps, *copied, *options, out)
    return out


def test_a_video_that_is_coded_as_pictures_is_no_still(parts: Path, tmp_path: Path) -> None:
    path = tmp_path / "raw/a.mov"
    path.parent.mkdir()
    run_ffmpeg(
        *("-i", parts / "picture.mp4", "-i", parts / "foa.wav", "-r", 6, "-c:v", "png"),
        *("-c:a", "pcm_s16le", path),
    )
    built = build_and_look(tmp_path / "raw", tmp_path / "out", "--projection", "equirect")
    assert is_right(built.clips[0])


@pytest.mark.parametrize("suffix", ["mkv", "mov"])
def test_ambisonics_behind_a_stereo_mix_are_taken_and_named(
    parts: Path, tmp_path: Path, suffix: str
) -> None:
    mux(parts, tmp_path / f"raw/a.{suffix}", "picture.mp4", "stereo.wav", "foa.wav")
    built = build_and_look(tmp_path / "raw", tmp_path / "out")
    assert built.result.exit_code == 0
    assert len(built.clips) == 1
    assert is_right(built.clips[0])
    assert "its sound is track 2 (pcm_s24le, 4 channels), since track 1" in built.output


def test_a_cover_before_the_picture_is_passed_over(parts: Path, tmp_path: Path) -> None:
    attached = ("-disposition:v:1", "attached_pic")
    path = tmp_path / "raw/a.mp4"
    names = ("picture.mp4", "foa.wav", "cover.jpg")
    mux(parts, path, *names, options=("-c:a", "aac", "-b:a", "512k", *attached))
    put_cover_first(path)
    built = build_and_look(tmp_path / "raw", tmp_path / "out")
    assert built.result.exit_code == 0
    assert is_right(built.clips[0])
    assert "track 0 (mjpeg, 96×96, a still)" in inspected(path)


def put_cover_first(path: Path) -> None:
    """Move the user data, which hold the cover, before the tracks, as cameras and taggers do."""
    data = bytearray(path.read_bytes())
    moov = data.rindex(b"moov") - 4
    (length,) = struct.unpack_from(">I", data, moov)
    children, at = [], moov + 8
    while at < moov + length:
        (size,) = struct.unpack_from(">I", data, at)
        children.append(bytes(data[at : at + size]))
        at += size
    children.sort(key=lambda child: {b"mvhd": 0, b"udta": 1}.get(child[4:8], 2))
    data[moov + 8 : moov + length] = b"".join(children)
    path.write_bytes(data)


def inspected(path: Path, *options: str) -> str:
    result = CliRunner().invoke(main, ["inspect", str(path), *options])
    assert result.exit_code == 0, result.output
    return result.output


def test_a_moving_mjpeg_track_is_no_cover(parts: Path, tmp_path: Path) -> None:
    path = tmp_path / "raw/a.mov"
    path.parent.mkdir()
    run_ffmpeg(
        *("-i", parts / "picture.mp4", "-i", parts / "foa.wav", "-c:v", "mjpeg", "-q:v", 2),
        *("-c:a", "pcm_s16le", path),
    )
    built = build_and_look(tmp_path / "raw", tmp_path / "out", "--projection", "equirect")
    assert is_right(built.clips[0])


def test_of_two_tracks_that_can_be_ambisonics_the_user_names_one(
    parts: Path, tmp_path: Path
) -> None:
    mux(parts, tmp_path / "raw/a.mkv", "picture.mp4", "foa2.wav", "foa.wav")
    asked = build_and_look(tmp_path / "raw", tmp_path / "out")
    assert asked.clips == ()
    why = (tmp_path / "out/failures.jsonl").read_text()
    assert "track 1 (pcm_s24le, 4 channels) and track 2 (pcm_s24le, 4 channels)" in why
    assert "--audio-track" in why
    built = build_and_look(tmp_path / "raw", tmp_path / "out2", "--audio-track", 2)
    assert built.result.exit_code == 0
    assert is_right(built.clips[0])


def test_of_two_pictures_the_user_names_one(parts: Path, tmp_path: Path) -> None:
    path = mux(parts, tmp_path / "raw/a.mkv", "other.mp4", "foa.wav", "picture.mp4")
    asked = build_and_look(tmp_path / "raw", tmp_path / "out")
    assert asked.clips == ()
    why = (tmp_path / "out/failures.jsonl").read_text()
    assert "track 0 (h264, 160×80) and track 2 (h264, 320×160)" in why
    assert "--video-track" in why
    built = build_and_look(tmp_path / "raw", tmp_path / "out2", "--video-track", 2)
    assert built.result.exit_code == 0
    assert is_right(built.clips[0])
    assert "has no video track 1; it has track 0 (h264, 160×80), track 1 (pcm_s24le" in inspected(
        path, "--video-track", "1"
    )


def test_two_rows_of_a_cubemap_are_refused_with_the_way_out(parts: Path, tmp_path: Path) -> None:
    mux(parts, tmp_path / "raw/a.mkv", "row.mp4", "row.mp4", "foa.wav")
    assert build_and_look(tmp_path / "raw", tmp_path / "out").clips == ()
    why = (tmp_path / "out/failures.jsonl").read_text()
    assert "in two tracks" in why
    assert "GoPro Player" in why


def test_four_mono_tracks_are_refused_with_a_command_that_works(
    parts: Path, tmp_path: Path
) -> None:
    mono = [f"mono{number}.wav" for number in range(4)]
    path = mux(parts, tmp_path / "raw/a.mov", "picture.mp4", *mono)
    text = inspected(path)
    assert "has 4 audio tracks of one channel each" in text
    command = text[text.index("ffmpeg -i IN") :].splitlines()[0]
    merged = tmp_path / "merged/a.mov"
    merged.parent.mkdir()
    words = {"ffmpeg": ffmpeg_path(), "IN": str(path), "OUT.mov": str(merged)}
    subprocess.run(
        [words.get(word, word) for word in shlex.split(command)],
        check=True,
        stdin=subprocess.DEVNULL,
        capture_output=True,
    )
    built = build_and_look(tmp_path / "merged", tmp_path / "out")
    assert is_right(built.clips[0])


def test_audio_without_ambisonics_is_refused_with_its_tracks_named(
    parts: Path, tmp_path: Path
) -> None:
    path = mux(parts, tmp_path / "a.mkv", "picture.mp4", "stereo.wav", "mono0.wav")
    text = inspected(path)
    assert "no ambisonics among its audio tracks (track 1 (pcm_s24le, 2 channels) and track" in text


def test_parts_of_iamf_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    element = (
        "type=iamf_audio_element:id=1:st=0:st=1:st=2:st=3:audio_element_type=scene,"
        "layer=ch_layout=ambisonic\\ 1:ambisonics_mode=mono"
    )
    mix = (
        "type=iamf_mix_presentation:id=3:stg=0:annotations=en-us=x,"
        "submix=parameter_id=100:parameter_rate=48000|"
        "element=stg=0:parameter_id=100:annotations=en-us=x|"
        "layout=sound_system=stereo:integrated_loudness=0"
    )
    split = "aformat=channel_layouts=mono,asplit=4[a][b][c][d]"
    command = [
        *("-f", "lavfi", "-i", "sine=duration=1", "-filter_complex", f"[0:a]{split}"),
        *(word for name in "abcd" for word in ("-map", f"[{name}]")),
        *("-c:a", "libopus", "-ar", 48000, "-strict", "experimental"),
        *(word for n in range(4) for word in ("-streamid", f"{n}:{n}")),
        *("-stream_group", element, "-stream_group", mix, path),
    ]
    try:
        run_ffmpeg(*command)
    except subprocess.CalledProcessError:
        pytest.skip("this ffmpeg writes no IAMF")
    text = inspected(path)
    if "track 3" not in text:
        pytest.skip("this PyAV reads no IAMF")
    assert "holds its sound as IAMF" in text


def test_audio_of_an_unknown_codec_is_named(parts: Path, tmp_path: Path) -> None:
    path = mux(parts, tmp_path / "raw/a.mp4", "picture.mp4", "foa.wav", options=("-c:a", "aac"))
    content = bytearray(path.read_bytes().replace(b"mp4a", b"zzzz"))
    kind = content.index(b"\x04\x80\x80\x80", content.index(b"esds")) + 5
    assert content[kind] == 0x40  # MPEG-4 audio (ISO/IEC 14496-1)
    content[kind] = 0xEE
    path.write_bytes(content)
    assert build_and_look(tmp_path / "raw", tmp_path / "out").clips == ()
    why = (tmp_path / "out/failures.jsonl").read_text()
    assert "has no audio track, only track 1 (audio of an unknown codec)" in why
