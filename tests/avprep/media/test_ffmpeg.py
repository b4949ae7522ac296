"""An ffmpeg that does not run, or is ended at its work, is said as that."""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from avprep.cli.main import main
from avprep.errors import ClipError, UserError
from avprep.media import find_ffmpeg as finding
from avprep.media.ffmpeg import AudioRequest, FfmpegAudioDecoder, describe, ffmpeg_path
from avprep.media.find_ffmpeg import find_ffmpeg
from shards.geometry import encode_foa, unit_vector
from tests.support.media import (
    dot_plane,
    grey_frame,
    insert_box,
    noise,
    write_dot_recording,
    write_video,
    write_wav,
)

LIBRARY = "error while loading shared libraries: libx264.so.164: cannot open shared object file"
VERSION = 'case "$*" in *-version) echo "ffmpeg version 9.8.7 Copyright"; exit 0;; esac'


@pytest.fixture(autouse=True)
def _ask_again() -> Iterator[None]:
    """Which ffmpeg is taken is remembered by a process: forget it around each test."""
    find_ffmpeg.cache_clear()
    yield
    find_ffmpeg.cache_clear()


def script(path: Path, *lines: str, mode: int = 0o755) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    path.chmod(mode)
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def foreign_program(path: Path) -> None:
    """A program for another processor (ELF, 64 bits, machine 243: RISC-V)."""
    header = b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHI", 2, 243, 1)
    path.write_bytes(header + bytes(200))
    path.chmod(0o755)


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        ([f'echo "{LIBRARY}" >&2; exit 127'], f"exit status 127 ({LIBRARY})"),
        (["kill -9 $$"], "it was ended by signal 9 (Killed), as if memory ran short"),
        (["exit 137"], "it was ended by signal 9 (Killed), as if memory ran short"),
        (["kill -4 $$"], "it was ended by signal 4"),
        (["echo hello"], "is no ffmpeg: it answers -version with 'hello'"),
        (["sleep 20"], "it does not answer -version within 0.5 s"),
    ],
)
def test_an_ffmpeg_that_does_not_run_is_said_before_anything_is_read(
    lines: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "a.mp4").write_text("not looked at")
    monkeypatch.setattr(finding, "_VERSION_TIMEOUT_S", 0.5)
    fake = script(tmp_path / "ffmpeg", *lines)
    monkeypatch.setenv("AVPREP_FFMPEG", str(fake))
    for command in (
        ["build-shards", tmp_path / "raw", "--out", tmp_path / "set"],
        ["inspect", tmp_path / "raw"],
    ):
        result = run(*command)
        assert result.exit_code == 2
        assert f"AVPREP_FFMPEG is {fake}, which " in result.output
        assert sentence in result.output
        assert "; correct or unset it" in result.output
        assert result.output.count("\n") == 1, "said once"
    assert not (tmp_path / "set").exists()


def test_a_program_for_another_processor_or_without_permission_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    foreign_program(tmp_path / "riscv")
    script(tmp_path / "closed", "exit 0", mode=0o644)
    (tmp_path / "no-shell").write_text("#!/nowhere/sh\n")
    (tmp_path / "no-shell").chmod(0o755)
    for name, sentence in {
        "riscv": "does not run (Exec format error)",
        "closed": "which cannot be executed",
        "no-shell": "does not run (what it needs to start is missing: No such file or directory)",
        "nothing": "which is not a program",
    }.items():
        monkeypatch.setenv("AVPREP_FFMPEG", str(tmp_path / name))
        with pytest.raises(UserError) as raised:
            find_ffmpeg()
        assert sentence in str(raised.value)


def test_the_wheels_ffmpeg_replaces_a_broken_one_of_the_path_and_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = script(tmp_path / "bin" / "ffmpeg", f'echo "{LIBRARY}" >&2; exit 127')
    monkeypatch.delenv("AVPREP_FFMPEG", raising=False)
    monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
    write_dot_recording(tmp_path / "raw", "a")
    built = run("build-shards", tmp_path / "raw", "--out", tmp_path / "set", "--views", 2)
    assert built.exit_code == 0, built.output
    found = find_ffmpeg()
    assert "imageio_ffmpeg" in found.path
    said = f"check: {fake} (from the PATH) does not run: it ended with exit status 127 ({LIBRARY})"
    assert f"{said}; {found.path} ({found.version}) is used instead" in built.output
    assert f'"ffmpeg": "{found.version}"' in (tmp_path / "set" / "manifest.json").read_text()
    assert said in run("inspect", tmp_path / "raw" / "a.wav").stderr
    find_ffmpeg.cache_clear()
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    alone = run("inspect", tmp_path / "raw")
    assert alone.exit_code == 2
    assert said.removeprefix("check: ") in alone.output
    assert "repair it, `pip install imageio-ffmpeg`" in alone.output


def ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *lines: str) -> Path:
    """Take an ffmpeg that states its version, and else does what ``lines`` say."""
    fake = script(tmp_path / "bin" / "ffmpeg", VERSION, *lines)
    monkeypatch.setenv("AVPREP_FFMPEG", str(fake))
    return fake


def request(path: Path) -> AudioRequest:
    return AudioRequest(
        audio=path,
        track=0,
        file_start_s=0,
        start_s=0,
        duration_s=1,
        max_slip_s=0.02,
        channels=4,
        sample_rate=48000,
        plain_layout=False,
        timeout_s=20,
    )


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        ("kill -9 $$", "a.mp4 could not be read with FAKE: it was ended by signal 9 (Killed)"),
        ("exit 137", "as if memory ran short; allow it more memory, or use fewer --workers"),
        ("kill -11 $$", "(Segmentation fault); the file is damaged, or name another ffmpeg"),
        ("echo 'a: Invalid data' >&2; exit 183", "a.mp4 is no video or sound to FAKE (a: Invalid"),
    ],
)
def test_a_failed_description_is_no_description(
    lines: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = ended(tmp_path, monkeypatch, lines)
    with pytest.raises(ClipError) as raised:
        describe(tmp_path / "a.mp4")
    assert sentence.replace("FAKE", str(fake)) in str(raised.value)


def test_a_decoder_that_was_ended_is_no_damaged_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.wav"
    write_wav(path, encode_foa(noise(1.0), unit_vector(40, 15)))
    with FfmpegAudioDecoder(request(path)) as decoder:
        assert decoder.audio().shape == (4, 48000)
        assert decoder.message == ""
    find_ffmpeg.cache_clear()
    ended(tmp_path, monkeypatch, "head -c 4000 /dev/zero; kill -9 $$")
    with FfmpegAudioDecoder(request(path)) as decoder, pytest.raises(ClipError) as raised:
        decoder.audio()
    assert "signal 9 (Killed), as if memory ran short" in str(raised.value)
    find_ffmpeg.cache_clear()
    ended(tmp_path, monkeypatch, f'echo "{LIBRARY}" >&2; exit 127')
    with FfmpegAudioDecoder(request(path)) as decoder, pytest.raises(UserError) as stopped:
        decoder.audio()
    assert f"does not run: it ended with exit status 127 ({LIBRARY})" in str(stopped.value)
    find_ffmpeg.cache_clear()
    ended(tmp_path, monkeypatch, "exit 3")
    with FfmpegAudioDecoder(request(path)) as decoder:
        assert decoder.audio().shape == (4, 0)
        assert decoder.message == "ffmpeg ended with exit status 3"


def test_a_build_says_that_ffmpeg_was_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file has an SA3D box, so that its sound is decoded by ffmpeg."""
    video = write_dot_recording(tmp_path / "raw", "a")
    video.with_suffix(".wav").unlink()
    write_dot_recording(tmp_path / "raw", "good")
    frames = [grey_frame(dot_plane(160, 320, 40, 15, 6))] * 48
    sound = encode_foa(noise(2.0), unit_vector(40, 15))
    write_video(tmp_path / "raw" / "a.mov", frames, audio=sound)
    video.unlink()
    box = struct.pack(">BBIBBI4I", 0, 0, 1, 0, 0, 4, 0, 1, 2, 3)
    insert_box(tmp_path / "raw" / "a.mov", b"fl32", b"SA3D", box)
    real = ffmpeg_path()
    find_ffmpeg.cache_clear()
    listening = 'case "$*" in *f32le*) kill -9 $$;; esac'
    ended(tmp_path, monkeypatch, listening, f'exec "{real}" "$@"')
    command = ["build-shards", tmp_path / "raw", "--out", tmp_path / "set", "--clip-duration", 2]
    result = run(*command, "--views", 2, "--workers", 1)
    assert result.exit_code == 1, result.output
    assert "a.mov could not be read with" in result.output
    assert "signal 9 (Killed), as if memory ran short; allow it more memory" in result.output
    assert "download" not in result.output
