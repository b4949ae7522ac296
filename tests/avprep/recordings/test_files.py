"""Which files of a folder are recordings: suffixes in any case, links, hidden and unreadable
folders, files that are not read, and what yt-dlp leaves."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from avprep.cli.main import main
from avprep.media.track_kinds import track_kinds
from avprep.recordings.layouts import FoundRecordings, find_recordings
from avprep.recordings.recording import AUDIO_SUFFIXES, VIDEO_SUFFIXES
from tests.support.known_truth import (
    build_and_look,
    dot_frame,
    is_right,
    plane_wave,
    run_ffmpeg,
    write_recording,
)
from tests.support.media import write_audio, write_video, write_wav

SMALL = dot_frame(height=160, width=320, sigma_deg=6)
SECONDS = 2.0


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return folder


def found_in(raw: Path, layout: str = "auto") -> FoundRecordings:
    return find_recordings(raw, layout)


def files_found(raw: Path, layout: str = "auto") -> list[str]:
    return [recording.file for recording in found_in(raw, layout).recordings]


def inspect(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["inspect", *map(str, arguments), "--workers", "1"])


def write_small(folder: Path, name: str) -> Path:
    return write_recording(folder, name, SMALL, SECONDS)


# Suffixes


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


@pytest.mark.parametrize("suffix", VIDEO_SUFFIXES)
def test_a_video_of_every_suffix_is_built(suffix: str, tmp_path: Path) -> None:
    """With its sound beside it; transport streams begin at a late time stamp."""
    raw = tmp_path / "raw"
    video = write_small(raw, "v")
    (raw / "v.wav").rename(raw / "clip.wav")
    # Grain, since Theora stores equal frames as empty packets.
    theora = ["libtheora", "-q:v", "9", "-vf", "noise=alls=3:allf=t"]
    encoder = {".ogv": theora, ".webm": ["libvpx", "-b:v", "2M"]}
    run_ffmpeg("-i", video, "-c:v", *encoder.get(suffix, ["copy"]), raw / f"clip{suffix}")
    video.unlink()
    built = build_and_look(raw, tmp_path / "set")
    assert built.result.exit_code == 0, built.output
    assert [is_right(clip) for clip in built.clips] == [True], built.clips


@pytest.mark.parametrize("suffix", [*AUDIO_SUFFIXES, ".webm"])
def test_an_audio_file_of_every_suffix_is_the_sound(suffix: str, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    video = write_small(raw, "clip")
    wav, path = raw / "clip.wav", raw / f"clip{suffix}"
    if suffix in (".opus", ".webm", ".mka"):
        field = np.pad(plane_wave(seconds=SECONDS), ((0, 0), (0, 960)))
        write_audio(tmp_path / "a.opus", "libopus", field, "ambisonic 1", {"mapping_family": "2"})
        run_ffmpeg("-i", tmp_path / "a.opus", "-c", "copy", path)
    elif suffix == ".amb":
        wav.rename(path)
    elif suffix != ".wav":
        quality = {".ogg": ["libvorbis", "-q:a", "9"], ".m4a": ["aac", "-b:a", "512k"]}
        codec = quality.get(suffix, ["flac"] if suffix == ".flac" else ["pcm_s24be"])
        codec = ["pcm_s24le"] if suffix == ".w64" else codec
        run_ffmpeg("-i", wav, "-c:a", *codec, path)
    if suffix != ".wav":
        wav.unlink(missing_ok=True)
    options = ["--foa-convention", "ambix"] if suffix == ".amb" else []
    built = build_and_look(raw, tmp_path / "set", *options)
    assert built.result.exit_code == 0, built.output
    assert [(clip.file, is_right(clip)) for clip in built.clips] == [("clip.mp4", True)]
    by_name = {Path(i["file"]).name: i for i in json.loads(inspect(raw, "--json").stdout)}
    if by_name[video.name]["audio"]:
        assert by_name[video.name]["audio"]["replaced_by"].endswith(path.name)


def test_a_webm_with_a_picture_beside_a_video_is_a_recording(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    video = write_small(raw, "a")
    run_ffmpeg("-i", video, "-c:v", "libvpx", "-b:v", "1M", raw / "a.webm")
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


# Folders


def test_hidden_folders_are_as_hidden_as_hidden_files(tmp_path: Path) -> None:
    """Trash and snapshots hold the same recording again."""
    raw = tmp_path / "raw"
    write_small(raw, "good")
    hidden = (".Trash-1000/files", ".snapshot/daily.0", "@eaDir", "day/__MACOSX", "#recycle")
    for folder in hidden:
        write_small(raw / folder, "good")
    (raw / "._good.mp4").write_bytes(b"x")
    for suffix in ("m4v", "mts"):
        run_ffmpeg("-i", raw / "good.mp4", "-c", "copy", raw / f"other.{suffix}")
    built = build_and_look(raw, tmp_path / "set")
    assert built.result.exit_code == 1, "the others are videos without sound"
    assert [(clip.file, is_right(clip)) for clip in built.clips] == [("good.mp4", True)]
    assert "other.m4v has no audio track" in built.output
    assert "other.mts has no audio track" in built.output
    names = sorted(Path(item["file"]).name for item in json.loads(inspect(raw, "--json").stdout))
    assert names == ["good.mp4", "good.wav", "other.m4v", "other.mts"]


def test_links_to_folders_are_entered_and_loops_are_not(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    touch(raw, "day1/a.mp4", "z/b.mp4")
    touch(tmp_path, "other.mp4", "disk2/day2/c.mp4", "disk2/day3/d.mp4")
    (raw / "day2").symlink_to(tmp_path / "disk2" / "day2")
    (raw / "again").symlink_to(raw / "day1")  # its own path is preferred
    (raw / "again2").symlink_to(tmp_path / "disk2" / "day2")
    (raw / "all").symlink_to(tmp_path / "disk2")  # only what is not there already
    (raw / "z" / "up").symlink_to(raw)
    (raw / "z" / "here").symlink_to(".")
    (raw / "up").symlink_to(tmp_path)
    (tmp_path / "disk2" / "back").symlink_to(raw)
    (raw / "self").symlink_to("self")
    (raw / "e.mp4").symlink_to(raw / "z" / "b.mp4")
    found = found_in(raw)
    assert [recording.file for recording in found.recordings] == [
        *("again2/c.mp4", "all/day3/d.mp4", "day1/a.mp4", "e.mp4", "z/b.mp4")
    ]
    assert [failure.source for failure in found.failures] == ["self"]


def test_a_dataset_may_lie_on_two_disks(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    touch(tmp_path, "1/abcdefghijk-10.mp4", "2/abcdefghijk-10.m4a", "3/x.mp4", "4/x.wav")
    (raw / "video").symlink_to(tmp_path / "1")
    (raw / "audio").symlink_to(tmp_path / "2")
    assert files_found(raw) == ["video/abcdefghijk-10.mp4"]


def test_links_to_what_is_not_there_are_named(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4")
    (tmp_path / "b.mp4").symlink_to("/not/mounted/b.mp4")
    (tmp_path / "disk2").symlink_to("/not/mounted")
    (tmp_path / "notes.txt").symlink_to("/not/mounted/notes.txt")
    found = found_in(tmp_path)
    assert [failure.reason for failure in found.failures] == [
        "b.mp4 is a link to /not/mounted/b.mp4, which does not exist; mend or remove the link",
        "disk2 is a link to /not/mounted, which does not exist; mend or remove the link",
    ]


def test_folders_that_cannot_be_read_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = tmp_path / "raw"
    write_small(raw, "good")
    write_small(raw / "day 2", "lost")
    scandir = os.scandir

    def refuse(path: Path) -> object:
        if Path(path).name == "day 2":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    reason = "day 2 cannot be read (Permission denied); allow it, or move it"
    built = build_and_look(raw, tmp_path / "set")
    assert built.result.exit_code == 1
    assert f"left out: day 2: {reason}" in built.output
    assert [clip.file for clip in built.clips] == ["good.mp4"]
    (line,) = (tmp_path / "set" / "failures.jsonl").read_text().splitlines()
    assert json.loads(line) == {"source": "day 2", "stage": "find", "reason": reason}
    inspected = inspect(raw, raw / "good.mp4")
    assert inspected.exit_code == 1
    assert inspected.stderr.count(reason) == 1
    assert "good.mp4" in inspected.stdout


# Files that are not read


def test_files_of_unknown_suffix_are_counted(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    write_small(raw, "good")
    touch(raw, "a.360", "b.360", "c.INSV", "notes.txt", "good.srt", "README", "Mr. Smith")
    touch(raw, "x.webm.part", "x.f313.webm.part-Frag12.part", "x.webm.ytdl", "y.info.json")
    touch(raw, "y.temp.webm", ".hidden.360")
    built = build_and_look(raw, tmp_path / "set")
    line = (
        "not read: 2 x .360, 1 x .insv; unfinished downloads: 2 x .part, 1 x .temp.webm, 1 x .ytdl"
    )
    assert built.result.exit_code == 0, built.output
    assert built.result.stderr.splitlines().count(line) == 1
    inspected = inspect(raw)
    assert inspected.exit_code == 0
    assert line in inspected.stderr.splitlines()


def test_a_folder_without_recordings_says_what_it_holds(tmp_path: Path) -> None:
    touch(tmp_path, *(f"GS01{number}.360" for number in range(3)))
    built = CliRunner().invoke(main, ["build-shards", str(tmp_path), "--out", str(tmp_path / "s")])
    assert built.exit_code == 2
    assert (
        "of layout folder (not read: 3 x .360); export .360 files with GoPro Player as "
        "equirectangular video, or name the folder" in built.output
    )
    inspected = inspect(tmp_path)
    assert inspected.exit_code == 2
    assert "holds no video or sound (not read: 3 x .360)" in inspected.output


# What yt-dlp leaves

NAME = "A walk [-bcDEF_1234]"


def write_parts(raw: Path) -> tuple[Path, Path]:
    """The parts of a download: f313 holds the video, f338 the ambisonics."""
    raw.mkdir(parents=True)
    video, audio = raw / f"{NAME}.f313.webm", raw / f"{NAME}.f338.webm"
    write_video(raw / "v.mkv", [SMALL] * round(24 * SECONDS))
    run_ffmpeg("-i", raw / "v.mkv", "-c:v", "libvpx", "-b:v", "2M", video)
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
