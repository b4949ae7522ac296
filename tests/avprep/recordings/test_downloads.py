"""What yt-dlp leaves beside its downloads, and files with one id."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

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
    is_right,
    plane_wave,
    run_ffmpeg,
)
from tests.support.media import write_audio, write_video

NAME = "A walk [-bcDEF_1234]"


def write_parts(raw: Path) -> tuple[Path, Path]:
    """The parts of a download: f313 holds the video, f338 the ambisonics."""
    raw.mkdir(parents=True)
    video, audio = raw / f"{NAME}.f313.webm", raw / f"{NAME}.f338.webm"
    write_video(raw / "v.mkv", [SMALL] * round(24 * SECONDS))
    run_ffmpeg("-i", raw / "v.mkv", "-c:v", "libvpx", "-deadline", "realtime", "-b:v", "2M", video)
    (raw / "v.mkv").unlink()
    field = np.pad(plane_wave(seconds=SECONDS), ((0, 0), (0, 960)))
    write_audio(raw / "a.opus", "libopus", field, "ambisonic 1", {"mapping_family": "2"})
    run_ffmpeg("-i", raw / "a.opus", "-c", "copy", audio)
    (raw / "a.opus").unlink()
    return video, audio


@pytest.mark.parametrize("info", [True, False])
@pytest.mark.parametrize("merged", [True, False])
def test_a_download_and_its_parts_are_one_recording(
    merged: bool, info: bool, tmp_path: Path
) -> None:
    """With ``yt-dlp -k``, or where it could not merge them."""
    raw = tmp_path / "raw"
    video, audio = write_parts(raw)
    if merged:
        run_ffmpeg("-i", video, "-i", audio, "-c", "copy", raw / f"{NAME}.webm")
    if info:
        content = {"id": "-bcDEF_1234", "format_note": "equi"}
        (raw / f"{NAME}.info.json").write_text(json.dumps(content))
    built = build_and_look(raw, tmp_path / "set")
    assert built.result.exit_code == 0, built.output
    assert "left out" not in built.output
    file = f"{NAME}.webm" if merged else video.name
    assert [(clip.file, is_right(clip)) for clip in built.clips] == [(file, True)]
    (recording,) = found_in(raw).recordings
    assert recording.source == ("-bcDEF_1234" if info else NAME)
    inspected = {Path(i["file"]).name: i for i in json.loads(inspect(raw, "--json").stdout)}
    if merged:
        assert set(inspected) == {f"{NAME}.webm"}
    else:
        assert not any("no sound" in what for what in inspected[video.name]["suspicious"])


def test_parts_of_which_there_are_several_are_refused_by_name(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    video, audio = write_parts(raw)
    shutil.copy(audio, raw / f"{NAME}.f251.webm")
    (failure,) = found_in(raw).failures
    assert f"several parts ({video.name}, {NAME}.f251.webm, {audio.name})" in failure.reason
    assert found_in(raw).recordings == []


def test_recordings_that_are_named_as_parts_stay_recordings(tmp_path: Path) -> None:
    """Floors, say: each has its own sound, inside or beside it."""
    raw = tmp_path / "raw"
    for name in ("house", "house.f1", "house.f2"):
        write_small(raw, name)
    wave = plane_wave(seconds=SECONDS)
    write_video(raw / "yard.mkv", [SMALL] * 24, audio=wave)
    shutil.copy(raw / "yard.mkv", raw / "yard.f2.mkv")
    shutil.copy(raw / "yard.mkv", raw / "yard.temp.mkv")
    assert len(files_found(raw)) == 6


def test_of_two_files_with_one_id_the_one_with_ambisonics_gets_the_key(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    wave = plane_wave(seconds=SECONDS)
    write_video(raw / "A walk [abcDEF_1234].mkv", [SMALL] * 60)
    write_video(raw / "B walk [abcDEF_1234].mkv", [SMALL] * 48, audio=wave[:2], layout="stereo")
    for letter in "CD":
        write_video(raw / f"{letter} walk [abcDEF_1234].mkv", [SMALL] * 48, audio=wave)
    for letter in "ABCD":
        info = raw / f"{letter} walk [abcDEF_1234].info.json"
        info.write_text('{"id": "abcDEF_1234", "format_note": "equi"}')
    built = build_and_look(raw, tmp_path / "set")
    assert built.result.exit_code == 1
    assert [(clip.file[0], is_right(clip)) for clip in built.clips] == [("C", True)]
    lines = (tmp_path / "set" / "failures.jsonl").read_text().splitlines()
    reasons = [json.loads(line)["reason"] for line in lines]
    assert [reason.partition("]")[0][0] for reason in reasons] == ["A", "B", "D"]
    assert "has no ambisonics, and C walk" in reasons[0]
    assert "has no ambisonics, and C walk" in reasons[1]
    assert "would get the key abcDEF_1234-0 of C walk" in reasons[2]


def test_audio_that_no_video_has_the_name_of_is_counted(tmp_path: Path) -> None:
    """As of a recorder that names its files otherwise than the camera."""
    raw = touch(tmp_path, "GX01.MP4", "ZOOM1.WAV", "day/ZOOM2.WAV", "a.mp4", "a.wav", "b.f140.m4a")
    assert found_in(raw).not_read == "audio without a video of its name: 2 x .wav, 1 x .m4a"
    touch(raw, "b.mp4", "b.info.json")
    assert found_in(raw).not_read == "audio without a video of its name: 2 x .wav"
