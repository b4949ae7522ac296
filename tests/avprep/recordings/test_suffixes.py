"""Videos and audio files of every suffix, in any case."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from avprep.look.find_media import find_media_files
from avprep.recordings.beside import track_kinds
from avprep.recordings.recording import AUDIO_SUFFIXES, VIDEO_SUFFIXES
from shards.reader import ShardSet
from tests.avprep.recordings.folders import (
    SECONDS,
    SMALL,
    files_found,
    found_in,
    inspect,
    touch,
    write_small,
)
from tests.support.known_truth import (
    build_and_look,
    dot_frame,
    is_right,
    plane_wave,
    run_ffmpeg,
)
from tests.support.media import write_audio, write_video, write_wav

QUICK = ["-deadline", "realtime", "-cpu-used", "8", "-b:v", "2M"]
# Theora stores equal frames as empty packets.
ENCODERS = {".ogv": ["libtheora", "-q:v", "9"], ".webm": ["libvpx", *QUICK]}
STATED = ["--projection", "equirect", "--foa-convention", "ambix"]


def test_a_wav_in_capitals_is_the_sound_of_a_video_in_capitals(tmp_path: Path) -> None:
    """As cameras and recorders name their files; the video has a rough sound of its own."""
    raw = tmp_path / "raw"
    raw.mkdir()
    own = plane_wave(-100, -20, SECONDS, seed=3)
    write_video(raw / "v.mp4", [SMALL] * round(24 * SECONDS), audio=own)
    (raw / "v.mp4").rename(raw / "camera.MP4")
    write_wav(raw / "camera.WAV", plane_wave(seconds=SECONDS))
    built = build_and_look(raw, tmp_path / "set")
    assert built.result.exit_code == 0, built.output
    assert [is_right(clip) for clip in built.clips] == [True], built.clips
    (item,) = (i for i in json.loads(inspect(raw, "--json").stdout) if i["video"] is not None)
    assert item["audio"]["replaced_by"].endswith("camera.WAV")


@pytest.mark.parametrize(
    ("layout", "names", "sound"),
    [
        ("folder", ["a.MP4", "a.Wav"], "a.Wav"),
        ("yt360", ["video/abcdefghijk-10.MP4", "audio/abcdefghijk-10.M4A"], "abcdefghijk-10.M4A"),
        ("sphere360", ["abcdefghijk_10.WEBM"], "abcdefghijk_10.WEBM"),
        ("yt-ambigen", ["video/abcdefghijk_5.MP4", "audio/abcdefghijk_5.OPUS"], None),
        ("starss", ["foa_dev/dev-test-a/x.WAV", "video_dev/dev-test-a/x.MP4"], "x.WAV"),
        ("yt-dlp", ["a.WEBM", "a.OPUS", "a.info.json"], "a.OPUS"),
        ("ucf101", ["YoYo/v_YoYo_g01_c01.AVI", "l/trainlist01.TXT"], None),
        ("hmdb51", ["wave/a.AVI", "l/wave_test_split1.TXT"], None),
        ("kinetics", ["train/zumba/abcdefghijk_000010_000020.MP4"], None),
    ],
)
def test_suffixes_may_be_in_capitals_in_every_layout(
    layout: str, names: list[str], sound: str | None, tmp_path: Path
) -> None:
    touch(tmp_path, *names)
    for path in tmp_path.rglob("*.TXT"):
        path.write_text("YoYo/v_YoYo_g01_c01.avi 1\n" if layout == "ucf101" else "a.avi 1\n")
    found = found_in(tmp_path)
    assert (found.layout, found.failures) == (layout, [])
    (recording,) = found.recordings
    assert recording.file in names
    assert sound is None or recording.audio.name == sound


def test_names_that_differ_in_case_alone_are_two_audio_files(tmp_path: Path) -> None:
    found = found_in(touch(tmp_path, "a.mp4", "a.wav", "a.WAV", "A.flac"))
    (failure,) = found.failures
    assert "several audio files beside it (a.WAV, a.wav)" in failure.reason


def test_a_video_of_every_suffix_is_built(tmp_path: Path) -> None:
    """With its sound beside it; transport streams begin at a late time stamp."""
    raw, video = tmp_path / "raw", write_small(tmp_path, "v")
    raw.mkdir()
    for suffix in VIDEO_SUFFIXES:
        path = raw / f"in_{suffix[1:]}{suffix}"
        run_ffmpeg("-i", video, "-c:v", *ENCODERS.get(suffix, ["copy"]), path)
        shutil.copy(tmp_path / "v.wav", path.with_suffix(".wav"))
    built = build_and_look(raw, tmp_path / "set", *STATED)
    assert built.result.exit_code == 0, built.output
    files = sorted(f"in_{suffix[1:]}{suffix}" for suffix in VIDEO_SUFFIXES)
    assert [(clip.file, is_right(clip)) for clip in built.clips] == [(f, True) for f in files]


def test_picture_and_sound_are_in_step_where_time_stamps_begin_late(tmp_path: Path) -> None:
    """The dot jumps, and the sound begins, after 6.5 s."""
    raw = tmp_path / "raw"
    raw.mkdir()
    elsewhere = dot_frame(90, 0, 80, 160, 6)
    small = dot_frame(height=80, width=160, sigma_deg=6)
    write_video(tmp_path / "v.mp4", [elsewhere if n < 6.5 * 24 else small for n in range(240)])
    wave = plane_wave(seconds=10.0)
    wave[:, : round(6.5 * 48000)] *= 0.001
    for suffix in (".mts", ".ogv"):
        write_wav(raw / f"in_{suffix[1:]}.wav", wave)
        encoder = ENCODERS.get(suffix, ["copy"])
        run_ffmpeg("-i", tmp_path / "v.mp4", "-c:v", *encoder, raw / f"in_{suffix[1:]}{suffix}")
    built = build_and_look(raw, tmp_path / "set", *STATED)
    assert built.result.exit_code == 0, built.output
    shards = ShardSet(tmp_path / "set")
    for key in ("in_mts-5", "in_ogv-5"):
        second = shards.keys.index(key)
        level = np.abs(shards.foa(second, 0, 5 * 24_000)[0][0])
        assert np.argmax(level > 0.05) / 24_000 == pytest.approx(1.5, abs=0.01)
        left = shards.frames(second, 1, 0, 5 * 16).astype(float).max(axis=(1, 2, 3))
        assert np.argmax(left < 225) / 16 == 1.5


def test_an_audio_file_of_every_suffix_is_the_sound(tmp_path: Path) -> None:
    raw, video = tmp_path / "raw", write_small(tmp_path, "v")
    raw.mkdir()
    field = np.pad(plane_wave(seconds=SECONDS), ((0, 0), (0, 960)))
    opus = tmp_path / "a.opus"
    write_audio(opus, "libopus", field, "ambisonic 1", {"mapping_family": "2"})
    codecs = {".ogg": ["libvorbis", "-q:a", "9"], ".m4a": ["aac", "-b:a", "512k"]}
    codecs |= {".flac": ["flac"], ".w64": ["pcm_s24le"]}
    sounds = {}
    for suffix in (*AUDIO_SUFFIXES, ".webm"):
        name = f"in_{suffix[1:]}"
        shutil.copy(video, raw / f"{name}.mp4")
        sounds[raw / f"{name}.mp4"] = path = raw / f"{name}{suffix}"
        if suffix in (".wav", ".amb"):
            shutil.copy(tmp_path / "v.wav", path)
        elif suffix in (".opus", ".webm", ".mka"):
            run_ffmpeg("-i", opus, "-c", "copy", path)
        else:
            codec = codecs.get(suffix, ["pcm_s24be"])
            run_ffmpeg("-i", tmp_path / "v.wav", "-c:a", *codec, path)
    built = build_and_look(raw, tmp_path / "set", *STATED)
    assert built.result.exit_code == 0, built.output
    files = sorted(video.name for video in sounds)
    assert [(clip.file, is_right(clip)) for clip in built.clips] == [(f, True) for f in files]
    inspected = {file.path: file.separate for file in find_media_files((raw,)).files}
    assert {video: inspected[video] for video in sounds} == sounds


def test_a_webm_with_a_picture_beside_a_video_is_a_recording(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    video = write_small(raw, "a")
    run_ffmpeg("-i", video, "-c:v", "libvpx", *QUICK, raw / "a.webm")
    assert track_kinds(raw / "a.webm") == {"video"}
    assert files_found(raw) == ["a.mp4", "a.webm"]


def test_a_copy_of_another_kind_does_not_change_a_recordings_key(tmp_path: Path) -> None:
    found = found_in(touch(tmp_path, "a.mp4", "a.m4v", "b.mp4", "b.mkv", "c.3gp"))
    sources = [recording.source for recording in found.recordings]
    assert sources == ["a.m4v", "a", "b.mkv", "b.mp4", "c"]


def test_programs_are_no_transport_streams(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "player.mts")
    (tmp_path / "index.ts").write_text('export const name = "a";\n')
    (tmp_path / "player.mts").write_bytes(b"\x00\x00\x01\x90\x47" + bytes(600))
    found = found_in(tmp_path)
    assert [recording.file for recording in found.recordings] == ["a.mp4", "player.mts"]
    assert found.not_read == "not read: 1 x .ts"
