"""What is heard in closed forms: fields that fit their convention, and all that is none."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray

from avprep.cli.main import main
from avprep.formats.decide_audio import AudioFormat, describe_doubts
from avprep.formats.listen import hear
from shards.geometry import encode_foa, unit_vector
from tests.avprep.formats.test_formats import to_convention
from tests.support.media import (
    build,
    dot_plane,
    grey_frame,
    insert_box,
    noise,
    write_audio,
    write_video,
    write_wav,
)

Audio = NDArray[np.float32]
AMBIX = AudioFormat("ambix", None, "SA3D box, ACN and SN3D")
FUMA = AudioFormat("fuma", None, ".amb files are FuMa")
N3D = AudioFormat("n3d", None, "by --foa-convention")


def sources(seed: int = 1, count: int = 8, seconds: float = 0.4) -> Audio:
    """Sounds from directions all around, one after the other (4, samples)."""
    rng = np.random.default_rng(seed)
    directions = unit_vector(rng.uniform(-180, 180, count), rng.uniform(-60, 60, count))
    parts = [encode_foa(noise(seconds, seed + i), d) for i, d in enumerate(directions)]
    return np.concatenate(parts, axis=1)


def diffuse(seed: int = 2, seconds: float = 3.0) -> Audio:
    """Independent noise from 100 directions spread over the sphere."""
    rng = np.random.default_rng(seed)
    directions = rng.normal(size=(100, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    waves = 0.1 * rng.standard_normal((100, round(48000 * seconds)))
    field = np.concatenate([waves.sum(axis=0, keepdims=True), directions[:, [1, 2, 0]].T @ waves])
    return (field / 10).astype(np.float32)


def room(seed: int = 3) -> Audio:
    """Music in a room: notes from three directions at once, with a diffuse tail 6 dB below."""
    rng, seconds = np.random.default_rng(seed), 3.0
    times = np.arange(round(48000 * seconds)) / 48000
    field = 0.4 * diffuse(seed, seconds)
    for azimuth_deg, root_hz in ((30, 220.0), (-40, 330.0), (10, 277.2)):
        notes = np.zeros_like(times)
        for start in np.arange(0, seconds, 0.25):
            note = root_hz * 2 ** (rng.integers(0, 12) / 12)
            after = np.clip(times - start, 0, None)
            tones = sum(np.sin(2 * np.pi * note * k * times) / k for k in (1, 2, 3, 4, 5))
            notes += (times >= start) * np.exp(-6 * after) * tones
        field = field + encode_foa(0.05 * notes, unit_vector(azimuth_deg, -5))
    return np.asarray(field, dtype=np.float32)


def capsules(field: Audio) -> Audio:
    """The four cardioids of a tetrahedral microphone."""
    w, y, z, x = field
    signs = [(1, 1, 1), (1, -1, -1), (-1, 1, -1), (-1, -1, 1)]
    parts = [(w + 0.577 * (a * x + b * y + c * z)) / 2 for a, b, c in signs]
    return np.stack(parts).astype(np.float32)


def microphone(field: Audio, seed: int = 5) -> Audio:
    """Sounds of a real microphone: each channel is up to 3 dB off, differently at each pitch."""
    rng = np.random.default_rng(seed)
    spectra = np.fft.rfft(field, axis=1)
    points = np.linspace(0, 1, spectra.shape[1])
    gains_db = [np.interp(points, np.linspace(0, 1, 25), rng.uniform(-3, 3, 25)) for _ in field]
    return np.fft.irfft(spectra * 10 ** (np.array(gains_db) / 20), field.shape[1]).astype(
        np.float32
    )


def speakers(overlap: bool) -> Audio:
    """Four microphones at four people, who speak in turn or all at once."""
    waves = [gain * noise(3.0, seed) for seed, gain in enumerate((0.5, 3.0, 2.0, 1.5))]
    if not overlap:
        for number, wave in enumerate(waves):
            turn = np.arange(len(wave)) // 12000 % 4
            wave *= np.where(turn == number, 1.0, 0.01)
    return np.stack(waves).astype(np.float32)


FIELDS: dict[str, Callable[[], Audio]] = {
    "level": lambda: encode_foa(noise(2.0), unit_vector(40, 0)),
    "diagonal": lambda: encode_foa(noise(2.0), unit_vector(45, 35.26)),
    "sources": sources,
    "diffuse": diffuse,
    "room": room,
    "microphone": lambda: microphone(sources()),
    "microphone in a room": lambda: microphone(room()),
    "mostly one direction": lambda: encode_foa(noise(3.0), unit_vector(25, 5)) + 0.1 * diffuse(),
    "quiet": lambda: np.float32(10 ** (-45 / 20)) * sources(),
}
"""What makes each: not before its test, since every worker of pytest-xdist imports all tests."""


@pytest.mark.parametrize("name", FIELDS)
def test_fields_read_as_what_they_are_are_not_accused(name: str) -> None:
    field = FIELDS[name]()
    for audio_format in (AMBIX, FUMA, N3D):
        raw = np.asarray(to_convention(audio_format.convention, field), dtype=np.float32)
        if name == "diagonal" and audio_format is N3D:
            continue  # there W, Y, Z and X are equal, as mono in four channels is
        assert hear(raw, audio_format).contradiction is None
    w, y, z, x = field
    zero = np.zeros_like(w)
    youtube = AudioFormat("youtube", None, "six channels")
    assert hear(np.stack([x, y, w, zero, z, zero]), youtube).contradiction is None


@pytest.mark.parametrize(
    ("raw", "audio_format", "sentence"),
    [
        (to_convention("fuma", sources()), AMBIX, "sounds like FuMa, W in channel 0"),
        (to_convention("n3d", sources()), AMBIX, "sounds like N3D, W in channel 0"),
        (to_convention("n3d", sources()), FUMA, "sounds like N3D, W in channel 0"),
        (sources(), FUMA, "sounds like SN3D, W in channel 0"),
        (sources(), N3D, "sounds like SN3D, W in channel 0"),
        (
            sources()[[1, 2, 3, 0]],
            AMBIX,
            "SN3D, W in channel 3 of W, Y, Z, X, its fourth one",
        ),
        (
            sources()[[1, 0, 2, 3]],
            FUMA,
            "SN3D, W in channel 3 of W, Y, Z, X, its second one",
        ),
        (capsules(sources()), AMBIX, "alike, as those of a raw microphone"),
        (lambda: capsules(room()), AMBIX, "alike, as those of a raw microphone"),
        (np.repeat(sources()[:1], 4, axis=0), AMBIX, "all four channels hold the same signal"),
        (sources()[:1] * np.eye(4, 1, dtype=np.float32), AMBIX, "only its W sounds: it is mono"),
        (
            sources()[:1] * np.array([[1], [2], [0.1], [0.5]], np.float32),
            AMBIX,
            "one signal, at levels that no direction has",
        ),
        (
            encode_foa(noise(2.0), unit_vector(0, 0)),
            AMBIX,
            "its second (Y) and third (Z) channels are silent: it is mono, or a single sound",
        ),
        (speakers(overlap=False), AMBIX, "nothing in common"),
        (speakers(overlap=True), AMBIX, "nothing in common"),
        (sources() * np.eye(4)[[0]].T[::-1], AMBIX, "which should be W, is silent"),
        (0 * sources(), AMBIX, "it is silent in the seconds that were listened to"),
        (1e-5 * sources(), AMBIX, "it is silent"),
    ],
)
def test_what_speaks_against_a_reading_is_heard(
    raw: Audio | Callable[[], Audio], audio_format: AudioFormat, sentence: str
) -> None:
    sound = raw() if callable(raw) else raw
    heard = hear(np.asarray(sound, dtype=np.float32), audio_format)
    assert heard.contradiction is not None
    assert sentence in heard.contradiction
    assert heard.confidence <= 0.1


@pytest.mark.parametrize(
    ("silent", "convention", "sentence"),
    [
        ([3], AMBIX, "its fourth (X) channel is silent, as in horizontal B-format in FuMa's order"),
        ([2], AMBIX, "its third (Z) channel is silent: it is horizontal B-format, without heights"),
        ([1], AMBIX, "its second (Y) channel is silent"),
        ([3], FUMA, "its fourth (Z) channel is silent: it is horizontal B-format"),
        ([1], FUMA, "its second (X) channel is silent"),
        (
            [2, 3],
            AMBIX,
            "its third (Z) and fourth (X) channels are silent: it may be mono or stereo",
        ),
    ],
)
@pytest.mark.parametrize("lossy", [False, True], ids=["zero", "nearly zero"])
def test_silent_directional_channels_are_said(
    silent: list[int], convention: AudioFormat, sentence: str, lossy: bool
) -> None:
    raw = np.asarray(to_convention(convention.convention, sources()), dtype=np.float32)
    raw[silent] *= 1e-5 * lossy
    contradiction = hear(raw, convention).contradiction
    assert contradiction is not None
    assert contradiction.startswith(sentence)


def test_the_sentence_says_what_was_assumed_and_what_was_heard() -> None:
    fuma = np.asarray(to_convention("fuma", sources()), dtype=np.float32)
    guess = AudioFormat("ambix", None, "nothing says which", sure=False)
    (assumed,) = describe_doubts(guess, hear(fuma, guess))
    assert assumed.startswith(
        "its sound is taken as ambiX (nothing says which), but it sounds like"
    )
    (stated,) = describe_doubts(AMBIX, hear(fuma, AMBIX))
    assert stated.startswith("its sound is read as ambiX (SA3D box, ACN and SN3D), but it sounds")
    assert "like FuMa, W in channel 0 of W, Y, Z, X (+3.0 dB ± 0.0, clear); --foa-con" in stated
    (unclear,) = describe_doubts(guess, hear(diffuse(), guess))
    assert "(nothing says which), but neither its container nor its sound is clear" in unclear
    (only,) = describe_doubts(guess, hear(sources(), guess))
    assert only.startswith("its sound is taken as ambiX (nothing says which); --foa-convention")
    assert describe_doubts(AMBIX, hear(sources(), AMBIX)) == ()
    assert describe_doubts(AMBIX, None) == ()
    assert describe_doubts(AudioFormat("youtube"), hear(sources(), AudioFormat("youtube"))) == ()


def write_picture(path: Path, seconds: float, audio: Audio | None = None) -> None:
    frames = [grey_frame(dot_plane(80, 160, 40, 15, 6))] * round(24 * seconds)
    write_video(path, frames, audio=audio)


def check_lines(output: str) -> list[str]:
    return [line for line in output.splitlines() if ": its sound is " in line]


def test_builds_and_inspect_say_the_same_of_stated_and_assumed_formats(tmp_path: Path) -> None:
    """An SA3D box over FuMa, Opus' family 2 over mono, a WAV of four tracks, and good ones."""
    raw = tmp_path / "raw"
    raw.mkdir()
    fuma = np.asarray(to_convention("fuma", sources(count=6)), dtype=np.float32)
    box = struct.pack(">BBIBBI4I", 0, 0, 1, 0, 0, 4, 0, 1, 2, 3)
    for name, field in (("box", fuma), ("right-box", sources(count=6))):
        write_picture(raw / f"{name}.mov", 2.4, field)
        insert_box(raw / f"{name}.mov", b"fl32", b"SA3D", box)
    for name, field in (("opus", np.repeat(fuma[:1], 4, axis=0)), ("right-opus", sources(count=6))):
        write_picture(raw / f"{name}.mp4", 2.4)
        write_audio(raw / f"{name}.opus", "libopus", field, "ambisonic 1", {"mapping_family": "2"})
    write_picture(raw / "spots.mp4", 2.4)
    write_wav(raw / "spots.wav", speakers(overlap=False))
    fast = ["--clip-duration", 2, "--views", 1, "--workers", 1, "--projection", "equirect"]
    built = build(raw, "--out", tmp_path / "set", *fast)
    assert built.exit_code == 0, built.output
    lines = {line.split(": ")[1]: line for line in check_lines(built.output)}
    assert sorted(lines) == ["box.mov", "opus.mp4", "spots.mp4"]
    assert "read as ambiX (SA3D box, ACN and SN3D), but it sounds like FuMa" in lines["box.mov"]
    assert "read as ambiX (Opus mapping family 2), but all four channels" in lines["opus.mp4"]
    assert "(4 channels and nothing that says which; ambiX is usual)" in lines["spots.mp4"]
    assert "but its channels have nothing in common" in lines["spots.mp4"]
    shown = CliRunner().invoke(main, ["inspect", str(raw), "--json", "--workers", "1"])
    for item in json.loads(shown.stdout):
        path = Path(item["file"])
        if item["audio"] is None:
            continue  # a picture, whose sound lies beside it
        name = f"{path.stem}.mov" if path.suffix == ".mov" else f"{path.stem}.mp4"
        said = [what for what in item["suspicious"] if what.startswith("its sound is")]
        assert said == [lines[name].partition(f"{name}: ")[2]] if name in lines else not said
        assert item["audio"]["sure"] == (name not in lines)
        assert (item["audio"]["confidence"] == 1) == (name not in lines)


def test_what_the_user_states_is_checked_too(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    write_picture(raw / "a.mp4", 2.4)
    write_wav(raw / "a.wav", sources(count=6))
    fast = ["--clip-duration", 2, "--views", 1, "--workers", 1, "--projection", "equirect"]
    wrong = build(raw, "--out", tmp_path / "wrong", *fast, "--foa-convention", "fuma")
    (line,) = check_lines(wrong.output)
    assert "its sound is read as FuMa (by --foa-convention), but it sounds like SN3D" in line
    right = build(raw, "--out", tmp_path / "right", *fast, "--foa-convention", "ambix")
    assert check_lines(right.output) == []


def test_a_pause_in_the_middle_is_not_silence(tmp_path: Path) -> None:
    field = np.concatenate([sources(count=6), np.zeros((4, 48000 * 7), np.float32)], axis=1)
    write_wav(tmp_path / "pause.wav", np.concatenate([field, sources(count=6)], axis=1))
    write_wav(tmp_path / "silent.wav", np.zeros((4, 48000 * 12), np.float32))
    paths = [str(tmp_path / name) for name in ("pause.wav", "silent.wav")]
    shown = CliRunner().invoke(main, ["inspect", *paths, "--json", "--workers", "1"])
    pause, silent = json.loads(shown.stdout)
    assert not any("silent" in what for what in pause["suspicious"])
    assert any("it is silent" in what for what in silent["suspicious"])
    assert (silent["audio"]["sure"], silent["audio"]["confidence"]) == (False, 0)


def test_a_channel_must_be_silent_all_along(tmp_path: Path) -> None:
    level = np.concatenate([sources(count=6)] * 4, axis=1)
    level[2] = 0
    write_wav(tmp_path / "level.wav", level)
    level[2, : 48000 * 3] = 0.01 * noise(3.0)
    write_wav(tmp_path / "partly.wav", level)
    paths = [str(tmp_path / name) for name in ("level.wav", "partly.wav")]
    shown = CliRunner().invoke(main, ["inspect", *paths, "--json", "--workers", "1"])
    heard = [" ".join(item["suspicious"]) for item in json.loads(shown.stdout)]
    assert ["its third (Z) channel is silent" in what for what in heard] == [True, False]
