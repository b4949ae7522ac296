"""Bad input: one sentence naming the file and the remedy, and everything else goes in."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from avprep.cli import main
from avprep.errors import ClipError
from avprep.truth import starss_events
from shards.geometry import encode_foa, unit_vector
from shards.reader import ShardSet
from tests.media import (
    dot_plane,
    grey_frame,
    noise,
    write_dot_recording,
    write_video,
    write_wav,
)
from tests.mutations import claim_size

FAST = ["--clip-duration", "2", "--views", "2", "--audio-layout", "source"]
FRAME = grey_frame(dot_plane(160, 320, 40, 15, 6))


def build(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["build-shards", *map(str, arguments), *FAST])


def wave(channels: int = 4) -> np.ndarray:
    foa = encode_foa(noise(2.0), unit_vector(40, 15))
    return np.concatenate([foa] * 2)[:channels]


def truncated_index(raw: Path) -> str:
    video = write_dot_recording(raw, "bad")
    video.write_bytes(video.read_bytes()[:-400])  # the moov box stands at the end
    return "truncated"


def truncated_content(raw: Path) -> str:
    """The index is whole and stands first, but half of the frames are missing."""
    raw.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    frames = [rng.integers(30, 220, FRAME.shape, dtype=np.uint8) for _ in range(48)]
    write_video(raw / "whole.mkv", frames, sound=wave())
    content = (raw / "whole.mkv").read_bytes()
    (raw / "whole.mkv").unlink()
    (raw / "bad.mkv").write_bytes(content[: len(content) // 3])
    return "truncated or damaged: download it again"


def no_sound(raw: Path) -> str:
    write_video(raw / "bad.mp4", [FRAME] * 48)
    return "has no sound; put its ambisonic sound beside it"


def two_channels(raw: Path) -> str:
    write_video(raw / "bad.mkv", [FRAME] * 48, sound=wave(2), layout="stereo")
    return "has 2 channels, which is no ambisonics"


def surround(raw: Path) -> str:
    write_video(raw / "bad.mkv", [FRAME] * 48, sound=wave(6), layout="5.1(side)")
    return "no YouTube ambisonics"


def stereo_in_surround(raw: Path) -> str:
    sound = wave(6)
    sound[2:] = 0
    write_video(raw / "bad.mkv", [FRAME] * 48, sound=sound, layout="5.1(side)")
    return "probably stereo in a 5.1 track"


def empty(raw: Path) -> str:
    (raw / "bad.mp4").write_bytes(b"")
    return "is empty (0 bytes)"


def text(raw: Path) -> str:
    (raw / "bad.mp4").write_text("Sign in to confirm your age.\n" * 50)
    return "of another kind than its name says"


def playlist(raw: Path) -> str:
    """A playlist that points elsewhere must not be followed."""
    (raw / "bad.mp4").write_text("#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\ngood.mp4\n")
    return "of another kind than its name says"


def not_a_number(raw: Path) -> str:
    write_dot_recording(raw, "bad")
    sound = wave()
    sound[2, 100:200] = np.nan
    write_wav(raw / "bad.wav", sound)
    return "100 samples that are NaN"


def too_short(raw: Path) -> str:
    write_dot_recording(raw, "bad", seconds=0.4)
    return "at least 1 s"


def short_sound(raw: Path) -> str:
    write_dot_recording(raw, "bad")
    write_wav(raw / "bad.wav", wave()[:, :24_000])
    return "has only 0.50 s of picture with sound"


def two_side_files(raw: Path) -> str:
    write_dot_recording(raw, "bad")
    write_wav(raw / "bad.flac", wave())
    return "several sound files beside it (bad.wav, bad.flac)"


def picture_only_in_name(raw: Path) -> str:
    write_wav(raw / "bad.mp4", wave())
    return "no picture"


def speech_in_surround(raw: Path) -> str:
    sound = wave(6)
    sound[[0, 1, 3, 4, 5]] = 0
    write_video(raw / "bad.mkv", [FRAME] * 48, sound=sound, layout="5.1(side)")
    return "probably speech in a 5.1 track"


def no_sound_at_all(raw: Path) -> str:
    write_dot_recording(raw, "bad")
    write_wav(raw / "bad.wav", 1e20 * wave())
    return "peaks at"


def endless(raw: Path) -> str:
    """A length that would make billions of clips."""
    raw.mkdir(exist_ok=True)
    write_video(raw / "bad.mkv", [FRAME] * 48, sound=wave())
    content = bytearray((raw / "bad.mkv").read_bytes())
    struct.pack_into(">d", content, content.index(b"\x44\x89\x88") + 3, 1e8)
    (raw / "bad.mkv").write_bytes(content)
    return "bytes cannot hold"


def one_sample_a_second(raw: Path) -> str:
    write_dot_recording(raw, "bad")
    content = bytearray((raw / "bad.wav").read_bytes())
    struct.pack_into("<I", content, 24, 1)
    (raw / "bad.wav").write_bytes(content)
    return "its sound has 1 samples a second"


def huge_picture(raw: Path) -> str:
    """A file of some kilobytes whose frames would take gigabytes."""
    video = write_dot_recording(raw, "bad")
    content = bytearray(video.read_bytes())
    assert claim_size(content, 16_000, 10_240) == "H.264 parameter set of 16000×10240"
    video.write_bytes(content)
    return "its picture has 16000×10240 pixels"


def unknown_codec(raw: Path) -> str:
    raw.mkdir(exist_ok=True)
    write_video(raw / "bad.mov", [FRAME] * 48, sound=wave())
    content = (raw / "bad.mov").read_bytes()
    (raw / "bad.mov").write_bytes(content.replace(b"fl32", b"zzzz"))
    return "has no sound"


CASES = [
    endless,
    one_sample_a_second,
    huge_picture,
    unknown_codec,
    truncated_index,
    truncated_content,
    no_sound,
    two_channels,
    surround,
    stereo_in_surround,
    empty,
    text,
    playlist,
    not_a_number,
    too_short,
    short_sound,
    two_side_files,
    picture_only_in_name,
    speech_in_surround,
    no_sound_at_all,
]


@pytest.mark.parametrize("make", CASES, ids=lambda make: make.__name__)
def test_a_bad_recording_is_named_and_the_others_go_in(make, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    raw, out = tmp_path / "raw", tmp_path / "set"
    write_dot_recording(raw, "good")
    expected = make(raw)
    result = build(raw, "--out", out, "--workers", 1)
    assert result.exit_code == 1, result.output
    assert "Traceback" not in result.output
    lines = [json.loads(line) for line in (out / "failures.jsonl").read_text().splitlines()]
    assert len(lines) == 1
    assert set(lines[0]) == {"source", "stage", "reason"}
    assert lines[0]["source"] == "bad"
    assert expected in lines[0]["reason"]
    assert "bad." in lines[0]["reason"]
    assert expected in result.output
    assert ShardSet(out).keys == ["good-0"]
    assert not list(out.rglob("*.partial"))
    again = build(raw, "--out", out)
    assert again.exit_code == 1, "the same command says the same"
    assert "failures.jsonl" in again.output


def test_recordings_of_one_name_cost_all_but_the_first(tmp_path: Path) -> None:
    raw, out = tmp_path / "raw", tmp_path / "set"
    for name in ("a", "b"):
        write_dot_recording(raw, name)
        (raw / f"{name}.info.json").write_text('{"id": "same"}')
    write_dot_recording(raw, "c")
    (raw / "c.info.json").write_text("[" * 100_000)
    result = build(raw, "--out", out)
    assert result.exit_code == 1, result.output
    assert "b.mp4 would get the key same-0 as a.mp4 does; rename one" in result.output
    assert sorted(ShardSet(out).keys) == ["c-0", "same-0"]


@pytest.mark.parametrize("row", ["nan,1,0,10,5", "0,inf,0,10,5", "0,1,0,1e999,5", "0,1", "é"])
def test_labels_that_are_none_are_said(row: str, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"0,1,0,10,5\n{row}\n")
    with pytest.raises(ClipError, match=r"a\.csv is no STARSS label file"):
        starss_events(path, 0.0, 10.0)


def test_every_clip_bad_makes_no_set(tmp_path: Path) -> None:
    raw, out = tmp_path / "raw", tmp_path / "set"
    raw.mkdir()
    no_sound(raw)
    result = build(raw, "--out", out)
    assert result.exit_code == 2
    assert "none of the clips went into a set" in result.output
    assert not (out / "manifest.json").exists()
    # Mended, the same command builds it.
    write_wav(raw / "bad.wav", wave())
    assert build(raw, "--out", out).exit_code == 0


NAMES = ["a b.c", "ünï — 音", 'it\'s "quoted"', "-rf", "a;b|c$(d)", "%04d", "x" * 120, "file:y"]


def test_names_of_any_kind_go_in(tmp_path: Path) -> None:
    raw, out = tmp_path / "raw", tmp_path / "set"
    for name in NAMES:
        write_dot_recording(raw, name)
    result = build(raw, "--out", out)
    assert result.exit_code == 0, result.output
    shards = ShardSet(out)
    assert sorted(shards.sources) == sorted(NAMES)
    assert len(set(shards.keys)) == len(NAMES)
    for key in shards.keys:
        assert all(c.isascii() and (c.isalnum() or c in "_-") for c in key)
    assert shards.frames(0, 1, 0, 8).shape == (8, 112, 112, 3)


def test_a_name_that_is_no_utf8_is_said_and_the_others_go_in(tmp_path: Path) -> None:
    raw, out = tmp_path / "raw", tmp_path / "set"
    write_dot_recording(raw, "good")
    write_dot_recording(raw, "bad").rename(raw / os.fsdecode(b"caf\xe9.mp4"))
    (raw / "bad.wav").unlink()
    result = build(raw, "--out", out)
    assert result.exit_code == 1, result.output
    assert "the name of caf\ufffd.mp4 is not valid UTF-8; rename it" in result.output
    assert ShardSet(out).keys == ["good-0"]


def test_a_file_that_cannot_grow_is_said_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    """A limit on files' sizes, as a full disk is, but for everybody."""
    raw, out = tmp_path / "raw", tmp_path / "set"
    for name in "abc":
        write_dot_recording(raw, name)
    limit = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)); "
    start = f"{limit}from avprep.cli import main; main(sys.argv[1:])"
    arguments = ["build-shards", str(raw), "--out", str(out), *FAST]
    run = subprocess.run(
        [sys.executable, "-c", start, *arguments], capture_output=True, text=True, check=False
    )
    assert run.returncode == 2, run.stderr
    assert "cannot be written: File too large" in run.stderr
    assert "Traceback" not in run.stderr
    assert not list(out.rglob("*.partial"))
    assert not list(out.rglob("*.tar"))
    assert not (out / "manifest.json").exists()
    assert build(raw, "--out", out).exit_code == 0
    assert len(ShardSet(out)) == 3


@pytest.mark.parametrize("command", ["demo", "preview"])
def test_other_commands_say_what_they_cannot_write(command: str, tmp_path: Path) -> None:
    write_dot_recording(tmp_path / "raw", "-a")
    assert build(tmp_path / "raw", "--out", tmp_path / "set").exit_code == 0
    (tmp_path / "file").write_text("")
    target = tmp_path / "file" / "x"
    arguments = {
        "demo": [str(target), "--clips", "1"],
        "preview": [str(tmp_path / "set"), "-a-0", "--out", str(target)],
    }
    result = CliRunner().invoke(main, [command, *arguments[command]])
    assert result.exit_code == 2
    assert "Not a directory" in result.output
    (tmp_path / "raw" / "-a.mp4").write_bytes(b"nothing")
    shown = ["preview", str(tmp_path / "set"), "--raw", str(tmp_path / "raw")]
    result = CliRunner().invoke(main, [*shown, "--out", str(tmp_path / "x.png")])
    assert result.exit_code == 2
    assert "cannot be decoded" in result.output


def test_a_missing_package_is_named_with_its_remedy() -> None:
    for command, package, extra in (("avprep", "ffmpeg", "prep"), ("avtrain", "torch", "train")):
        arguments = {"avprep": ["build-shards", "x", "--out", "y"], "avtrain": ["pretrain", "x"]}
        code = (
            f"import sys; sys.modules[{package!r}] = None; from {command}.cli import main; "
            f"main({arguments[command]})"
        )
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert run.returncode == 2, run.stderr
        assert f"{package} is not installed; `pip install 'avsa360[{extra}]'`" in run.stderr
        assert "Traceback" not in run.stderr


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_said_and_leaves_nothing_half_written(
    small_disk: Path, tmp_path: Path
) -> None:
    raw, out = tmp_path / "raw", small_disk / "set"
    for name in "abcde":
        write_dot_recording(raw, name)
    for workers in (1, 2):
        result = build(raw, "--out", out, "--workers", workers)
        assert result.exit_code == 2
        assert f"the disk of {out} is full" in result.output
        assert not (out / "manifest.json").exists()
        finished = {path.stem for path in out.glob("train/train-*.tar")}
        assert {path.name[:12] for path in out.glob("train/*.index.json")} == finished
    subprocess.run(["mount", "-o", "remount,size=20m", str(small_disk)], check=True)
    assert build(raw, "--out", out).exit_code == 0
    assert len(ShardSet(out)) == 5


def test_a_read_only_folder_is_said(small_disk: Path, tmp_path: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    write_dot_recording(tmp_path / "raw", "a")
    result = build(tmp_path / "raw", "--out", small_disk / "set")
    assert result.exit_code == 2
    assert "cannot be written: Read-only file system" in result.output


def test_an_output_that_is_no_folder_is_said(tmp_path: Path) -> None:
    write_dot_recording(tmp_path / "raw", "a")
    (tmp_path / "file").write_text("")
    result = build(tmp_path / "raw", "--out", tmp_path / "file" / "set")
    assert result.exit_code == 2
    assert f"{tmp_path / 'file'}" in result.output
    assert "cannot be written" in result.output


def test_a_folder_with_another_set_is_left_alone(tmp_path: Path) -> None:
    write_dot_recording(tmp_path / "raw", "a")
    write_dot_recording(tmp_path / "other", "b")
    assert build(tmp_path / "raw", "--out", tmp_path / "set").exit_code == 0
    before = {p: p.read_bytes() for p in (tmp_path / "set").rglob("*") if p.is_file()}
    refused = build(tmp_path / "other", "--out", tmp_path / "set")
    assert refused.exit_code == 2
    assert "holds another set (other recordings or split lists)" in refused.output
    assert {p: p.read_bytes() for p in (tmp_path / "set").rglob("*") if p.is_file()} == before
    # Foreign tars without a manifest are not overwritten either.
    (tmp_path / "foreign" / "train").mkdir(parents=True)
    (tmp_path / "foreign" / "train" / "train-000000.tar").write_bytes(b"precious")
    refused = build(tmp_path / "raw", "--out", tmp_path / "foreign")
    assert refused.exit_code == 2
    assert "tar files that are not of this build" in refused.output


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--views", "40"], "40 views do not fit with their centres 36° apart"),
        (["--hfov", "90:30"], "is no angle or MIN:MAX"),
        (["--hfov", "60:170"], "of up to 150 degrees"),
        (["--size", "111"], "--size 111 is odd"),
        (["--shard-size", "many"], "is no size such as 256MB"),
        (["--viewpoints", "nowhere.json"], "cannot be read"),
        (["--layout", "yt360"], "holds no video"),
    ],
)
def test_a_wrong_option_is_said_before_any_work(
    arguments: list[str], sentence: str, tmp_path: Path
) -> None:
    write_dot_recording(tmp_path / "raw", "a")
    command = ["build-shards", str(tmp_path / "raw"), "--out", str(tmp_path / "set"), *arguments]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 2
    assert sentence in result.output
    assert not (tmp_path / "set").exists()


def test_no_recordings_are_said(tmp_path: Path) -> None:
    missing = build(tmp_path / "nowhere", "--out", tmp_path / "set")
    assert missing.exit_code == 2
    assert "is no folder" in missing.output
    (tmp_path / "raw").mkdir()
    nothing = build(tmp_path / "raw", "--out", tmp_path / "set")
    assert nothing.exit_code == 2
    assert "holds no video" in nothing.output


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("[", "is no JSON"),
        ("[]", "holds no view"),
        ('[{"azimuth_deg": 0}]', "'hfov_deg' is missing"),
        (
            '[{"azimuth_deg": 0, "elevation_deg": 95, "hfov_deg": 60}]',
            "no direction: azimuth 0.0, elevation 95.0",
        ),
        ('[{"azimuth_deg": 0, "elevation_deg": 0, "hfov_deg": 60, "fov": 3}]', "unknown entries"),
        ('[{"azimuth_deg": 0, "elevation_deg": 0, "hfov_deg": 160}]', "is wider than 150"),
    ],
)
def test_a_wrong_viewpoints_file_is_said(content: str, sentence: str, tmp_path: Path) -> None:
    write_dot_recording(tmp_path / "raw", "a")
    (tmp_path / "views.json").write_text(content)
    arguments = ["--out", str(tmp_path / "set"), "--viewpoints", str(tmp_path / "views.json")]
    result = CliRunner().invoke(main, ["build-shards", str(tmp_path / "raw"), *arguments])
    assert result.exit_code == 2
    assert sentence in result.output
