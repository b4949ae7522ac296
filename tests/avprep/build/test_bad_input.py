"""Bad input: one sentence names the file and the remedy, and all other recordings are built."""

from __future__ import annotations

import json
import os
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from avprep.cli.main import main
from avprep.errors import ClipError
from avprep.recordings.events import read_starss_events
from shards.geometry import encode_foa, unit_vector
from shards.reader import ShardSet
from tests.fuzz.mutations import claim_size
from tests.support.media import (
    dot_plane,
    equirectangular_texture,
    grey_frame,
    noise,
    write_dot_recording,
    write_video,
    write_wav,
)

FAST = ["--clip-duration", "2", "--views", "2", "--audio-layout", "source"]
FRAME = grey_frame(dot_plane(160, 320, 40, 15, 6))


def build(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["build-shards", *map(str, arguments), *FAST])


def wave(channels: int = 4) -> np.ndarray:
    foa = encode_foa(noise(2.0), unit_vector(40, 15))
    return np.concatenate([foa] * 2)[:channels]


def truncated_index(raw: Path) -> str:
    video = write_dot_recording(raw, "bad")
    video.write_bytes(video.read_bytes()[:-400])  # the moov box is at the end
    return "truncated"


def truncated_content(raw: Path) -> str:
    """The index is complete, but two thirds of the file are missing."""
    raw.mkdir(exist_ok=True)
    height, width = FRAME.shape[0] * 2 // 3, FRAME.shape[1]
    texture = equirectangular_texture(height, width)
    frames = [grey_frame(np.roll(texture, 7 * number, axis=1)) for number in range(48)]
    write_video(raw / "whole.mkv", frames, audio=wave())
    content = (raw / "whole.mkv").read_bytes()
    (raw / "whole.mkv").unlink()
    (raw / "bad.mkv").write_bytes(content[: len(content) // 3])
    return "truncated or damaged: download it again"


def no_audio(raw: Path) -> str:
    write_video(raw / "bad.mp4", [FRAME] * 48)
    return "has no audio track; put its ambisonics beside it"


def two_channels(raw: Path) -> str:
    write_video(raw / "bad.mkv", [FRAME] * 48, audio=wave(2), layout="stereo")
    return "has 2 channels, which is not ambisonics"


def surround(raw: Path) -> str:
    write_video(raw / "bad.mkv", [FRAME] * 48, audio=wave(6), layout="5.1(side)")
    return "not YouTube ambisonics"


def stereo_in_surround(raw: Path) -> str:
    sound = wave(6)
    sound[2:] = 0
    write_video(raw / "bad.mkv", [FRAME] * 48, audio=sound, layout="5.1(side)")
    return "probably stereo in a 5.1 track"


def empty(raw: Path) -> str:
    (raw / "bad.mp4").write_bytes(b"")
    return "is empty (0 bytes)"


def text(raw: Path) -> str:
    (raw / "bad.mp4").write_text("Sign in to confirm your age.\n" * 50)
    return "not the kind of file its name says"


def playlist(raw: Path) -> str:
    """A playlist that points elsewhere must not be followed."""
    (raw / "bad.mp4").write_text("#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\ngood.mp4\n")
    return "not the kind of file its name says"


def nan_samples(raw: Path) -> str:
    write_dot_recording(raw, "bad")
    sound = wave()
    sound[2, 100:200] = np.nan
    write_wav(raw / "bad.wav", sound)
    return "100 samples that are NaN"


def too_short(raw: Path) -> str:
    write_dot_recording(raw, "bad", seconds=0.4)
    return "at least 1 s"


def short_audio(raw: Path) -> str:
    write_dot_recording(raw, "bad")
    write_wav(raw / "bad.wav", wave()[:, :24_000])
    return "has only 0.50 s of video with audio"


def two_audio_files(raw: Path) -> str:
    write_dot_recording(raw, "bad")
    write_wav(raw / "bad.flac", wave())
    return "several audio files beside it (bad.wav, bad.flac)"


def audio_named_as_video(raw: Path) -> str:
    write_wav(raw / "bad.mp4", wave())
    return "no video track"


def speech_in_surround(raw: Path) -> str:
    sound = wave(6)
    sound[[0, 1, 3, 4, 5]] = 0
    write_video(raw / "bad.mkv", [FRAME] * 48, audio=sound, layout="5.1(side)")
    return "probably speech in a 5.1 track"


def impossibly_loud(raw: Path) -> str:
    write_dot_recording(raw, "bad")
    write_wav(raw / "bad.wav", 1e20 * wave())
    return "peaks at"


def impossible_duration(raw: Path) -> str:
    """A duration that would give millions of clips."""
    raw.mkdir(exist_ok=True)
    write_video(raw / "bad.mkv", [FRAME] * 48, audio=wave())
    content = bytearray((raw / "bad.mkv").read_bytes())
    struct.pack_into(">d", content, content.index(b"\x44\x89\x88") + 3, 1e8)
    (raw / "bad.mkv").write_bytes(content)
    return "bytes cannot hold"


def one_sample_per_second(raw: Path) -> str:
    write_dot_recording(raw, "bad")
    content = bytearray((raw / "bad.wav").read_bytes())
    struct.pack_into("<I", content, 24, 1)
    (raw / "bad.wav").write_bytes(content)
    return "its sound has 1 samples a second"


def huge_frames(raw: Path) -> str:
    """A file of a few kilobytes whose frames would take gigabytes."""
    video = write_dot_recording(raw, "bad")
    content = bytearray(video.read_bytes())
    assert claim_size(content, 16_000, 10_240) == "H.264 parameter set of 16000×10240"
    video.write_bytes(content)
    return "its picture has 16000×10240 pixels"


def unknown_codec(raw: Path) -> str:
    raw.mkdir(exist_ok=True)
    write_video(raw / "bad.mov", [FRAME] * 48, audio=wave())
    content = (raw / "bad.mov").read_bytes()
    (raw / "bad.mov").write_bytes(content.replace(b"fl32", b"zzzz"))
    return "has no audio track"


CASES = [
    impossible_duration,
    one_sample_per_second,
    huge_frames,
    unknown_codec,
    truncated_index,
    truncated_content,
    no_audio,
    two_channels,
    surround,
    stereo_in_surround,
    empty,
    text,
    playlist,
    nan_samples,
    too_short,
    short_audio,
    two_audio_files,
    audio_named_as_video,
    speech_in_surround,
    impossibly_loud,
]


@dataclass(frozen=True)
class Built:
    """What one build made of the recordings of all cases, each named as its case, and a good one.
    ``expected`` is a part of each reason."""

    raw: Path
    out: Path
    result: Result
    expected: dict[str, str]


@pytest.fixture(scope="module")
def all_bad(tmp_path_factory: pytest.TempPathFactory) -> Built:
    raw, out = tmp_path_factory.mktemp("raw"), tmp_path_factory.mktemp("set") / "set"
    write_dot_recording(raw, "good")
    expected = {}
    for make in CASES:
        name, alone = make.__name__, tmp_path_factory.mktemp("case")
        expected[name] = make(alone).replace("bad.", f"{name}.")
        for file in alone.iterdir():
            assert file.stem == "bad"
            file.rename(raw / f"{name}{file.suffix}")
    return Built(raw, out, build(raw, "--out", out, "--workers", 1), expected)


def test_bad_recordings_are_reported_and_the_others_are_built(all_bad: Built) -> None:
    out, result = all_bad.out, all_bad.result
    assert result.exit_code == 1, result.output
    assert "Traceback" not in result.output
    lines = [json.loads(line) for line in (out / "failures.jsonl").read_text().splitlines()]
    assert sorted(line["source"] for line in lines) == sorted(all_bad.expected)
    assert ShardSet(out).keys == ["good-0"]
    assert not list(out.rglob("*.partial"))
    again = build(all_bad.raw, "--out", out)
    assert again.exit_code == 1, "the same command reports the same"
    assert "failures.jsonl" in again.output


@pytest.mark.parametrize("name", [make.__name__ for make in CASES])
def test_the_reason_names_the_file_and_what_is_wrong(name: str, all_bad: Built) -> None:
    lines = map(json.loads, (all_bad.out / "failures.jsonl").read_text().splitlines())
    (line,) = (line for line in lines if line["source"] == name)
    assert set(line) == {"source", "stage", "reason"}
    assert all_bad.expected[name] in line["reason"]
    assert f"{name}." in line["reason"]
    assert line["reason"] in all_bad.result.output


def test_of_recordings_with_the_same_id_the_first_is_built(tmp_path: Path) -> None:
    raw, out = tmp_path / "raw", tmp_path / "set"
    for name in ("a", "b"):
        write_dot_recording(raw, name)
        (raw / f"{name}.info.json").write_text('{"id": "same"}')
    write_dot_recording(raw, "c")
    (raw / "c.info.json").write_text("[" * 100_000)
    result = build(raw, "--out", out)
    assert result.exit_code == 1, result.output
    assert "b.mp4 would get the key same-0 of a.mp4; remove one of them" in result.output
    assert sorted(ShardSet(out).keys) == ["c-0", "same-0"]


@pytest.mark.parametrize(
    "row",
    [
        *("nan,1,0,10,5", "0,inf,0,10,5", "0,1,0,1e999,5", "0,1", "é"),
        *("0,1.7,0,10,5", "0,-1,0,10,5", "0.5,1,0,10,5", "0,1,0.5,10,5"),
        "0,1,0,0.98,0.17,0.09,1.5",  # a system's output: a vector and a distance in metres
    ],
)
def test_an_invalid_label_file_is_reported(row: str, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"0,1,0,10,5\n{row}\n")
    with pytest.raises(ClipError, match=r"a\.csv is not a STARSS label file"):
        read_starss_events(path, 0.0, 10.0)


def test_a_distance_of_0_is_unknown(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("0,1,0,10,5,0\n1,1,0,10,5,250\n")
    unknown, known = read_starss_events(path, 0.0, 10.0)
    assert "distance_m" not in unknown
    assert known["distance_m"] == 2.5


def test_without_a_single_good_clip_no_set_is_made(tmp_path: Path) -> None:
    raw, out = tmp_path / "raw", tmp_path / "set"
    raw.mkdir()
    no_audio(raw)
    result = build(raw, "--out", out)
    assert result.exit_code == 2
    assert "no clip could be put into the set" in result.output
    assert not (out / "manifest.json").exists()
    # After a repair, the same command builds the set.
    write_wav(raw / "bad.wav", wave())
    assert build(raw, "--out", out).exit_code == 0


NAMES = ["a b.c", "ünï — 音", 'it\'s "quoted"', "-rf", "a;b|c$(d)", "%04d", "x" * 120, "file:y"]


def test_file_names_may_hold_any_character(tmp_path: Path) -> None:
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


def test_a_name_that_is_not_utf8_is_reported_and_the_others_are_built(tmp_path: Path) -> None:
    raw, out = tmp_path / "raw", tmp_path / "set"
    write_dot_recording(raw, "good")
    write_dot_recording(raw, "bad").rename(raw / os.fsdecode(b"caf\xe9.mp4"))
    (raw / "bad.wav").unlink()
    result = build(raw, "--out", out)
    assert result.exit_code == 1, result.output
    assert "the name of caf\ufffd.mp4 is not valid UTF-8; rename it" in result.output
    assert ShardSet(out).keys == ["good-0"]
