"""Tracks that do not begin or end together: clips exist where picture and sound both do."""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avprep.media.ffmpeg import AudioRequest, FfmpegAudioDecoder
from avprep.media.probe import Media, probe
from avprep.media.timeline import shared_timeline
from avprep.media.tracks import AudioTrack, VideoTrack
from avprep.recordings.clips import cut_clips
from avprep.recordings.recording import Recording
from tests.support.known_truth import (
    FPS,
    apart_deg,
    build_and_look,
    dot_frame,
    is_right,
    plane_wave,
    run_ffmpeg,
    write_recording,
)
from tests.support.media import write_video, write_wav


def write_lengths(path: Path, picture_s: float, sound_s: float, delay_s: float = 0.0) -> Path:
    """One file with the dot's picture and the plane wave, ``delay_s`` later, of these lengths."""
    parts = path.parent.parent / "parts"
    for folder in (path.parent, parts):
        folder.mkdir(parents=True, exist_ok=True)
    write_video(parts / "v.mp4", [dot_frame(height=160, width=320)] * round(FPS * picture_s))
    write_wav(parts / "a.wav", plane_wave(seconds=sound_s))
    run_ffmpeg(
        *("-i", parts / "v.mp4", "-itsoffset", delay_s, "-i", parts / "a.wav"),
        *("-map", "0:v", "-map", "1:a", "-c:v", "copy", "-c:a", "aac", "-b:a", "512k"),
        *(("-f", "mpegts") if path.stem == "ts" else ()),
        path,
    )
    return path


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "ts.mp4"])
@pytest.mark.parametrize(("picture_s", "sound_s"), [(14.0, 14.8), (14.0, 13.2)])
def test_the_last_clip_ends_where_the_shorter_track_does(
    name: str, picture_s: float, sound_s: float, tmp_path: Path
) -> None:
    write_lengths(tmp_path / "raw" / name, picture_s, sound_s)
    built = build_and_look(tmp_path / "raw", tmp_path / "out", "--projection", "equirect")
    assert built.result.exit_code == 0
    lengths = [clip.duration_s for clip in built.clips]
    assert lengths == pytest.approx([5, 5, min(picture_s, sound_s) - 10], abs=0.1)
    assert all(map(is_right, built.clips))
    early, other = ("picture", "sound") if sound_s > picture_s else ("sound", "picture")
    assert f"its {early} ends 0.8 s before its {other}; clips end where both are" in built.output


def test_audio_that_begins_late_begins_the_clips(tmp_path: Path) -> None:
    write_lengths(tmp_path / "raw/a.mkv", 8.0, 5.0, delay_s=2.0)
    built = build_and_look(tmp_path / "raw", tmp_path / "out", "--projection", "equirect")
    assert built.result.exit_code == 0
    (clip,) = built.clips
    assert (clip.file_start_s, clip.duration_s) == pytest.approx((2.0, 5.0), abs=0.05)
    assert is_right(clip)
    assert "its sound begins 2.0 s after its picture; clips begin where both are" in built.output


def write_moving(path: Path) -> list[float]:
    """A file of 15 s whose dot moves every second, with a key frame every 4 s; returns its
    azimuth in each second."""
    azimuths = [float(azimuth) for azimuth in np.linspace(-60, 60, 15)]
    frames = [dot_frame(azimuth, height=160, width=320) for azimuth in azimuths]
    parts = path.parent / "parts"
    parts.mkdir(parents=True, exist_ok=True)
    write_video(parts / "v.mp4", [frames[n // FPS] for n in range(FPS * 15)])
    write_wav(parts / "a.wav", plane_wave(seconds=15.0))
    run_ffmpeg(
        *("-i", parts / "v.mp4", "-i", parts / "a.wav", "-c:v", "libx264", "-g", 4 * FPS),
        *("-keyint_min", 4 * FPS, "-sc_threshold", 0, "-preset", "ultrafast"),
        *("-c:a", "pcm_s16le", path),
    )
    return azimuths


def cut_by_copying(whole: Path, cut: Path, begin_s: float, keeps_all: bool) -> None:
    """What a cutter that copies packets leaves from ``begin_s`` on: sound at once, the picture from
    the next key frame; or with ``keeps_all`` also the frames before it, which need others."""
    cut.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(whole)) as source, av.open(str(cut), "w") as target:
        streams = {s.index: target.add_stream_from_template(s) for s in source.streams}
        has_begun = False
        for packet in source.demux():
            if packet.pts is None or packet.dts is None or packet.time_base is None:
                continue
            if packet.pts * packet.time_base < begin_s:
                continue
            if packet.stream.type == "video" and not keeps_all:
                has_begun = has_begun or packet.is_keyframe
                if not has_begun:
                    continue
            shift = int(begin_s / packet.time_base)
            packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
            packet.stream = streams[packet.stream.index]
            target.mux(packet)


@pytest.mark.parametrize("keeps_all", [False, True])
@pytest.mark.parametrize("suffix", ["mkv", "mov"])
def test_a_picture_that_begins_late_shows_no_future_frame(
    suffix: str, keeps_all: bool, tmp_path: Path
) -> None:
    azimuths = write_moving(tmp_path / "whole.mkv")
    cut_by_copying(tmp_path / "whole.mkv", tmp_path / f"raw/cut.{suffix}", 1.0, keeps_all)
    built = build_and_look(tmp_path / "raw", tmp_path / "out", "--projection", "equirect")
    assert built.result.exit_code == 0
    assert len(built.clips) == 2
    assert built.clips[0].file_start_s == pytest.approx(3.0, abs=0.1)
    for clip in built.clips:
        second = int(clip.file_start_s + clip.duration_s / 2 + 1.0)
        assert apart_deg(clip.seen_deg, (azimuths[second], 15.0)) < 2
        assert apart_deg(clip.heard_deg, (40.0, 15.0)) < 6
    assert "its picture begins 3.0 s after its sound; clips begin where both are" in built.output


def test_a_clip_of_fixed_times_without_its_beginning_is_refused_by_reason(tmp_path: Path) -> None:
    """The names of this layout state where clips begin, so that they cannot begin later."""
    write_moving(tmp_path / "whole.mkv")
    cut_by_copying(tmp_path / "whole.mkv", tmp_path / "raw/video/abc-0.mkv", 1.0, False)
    (tmp_path / "raw/audio").mkdir()
    write_wav(tmp_path / "raw/audio/abc-0.wav", plane_wave(seconds=10.0))
    built = build_and_look(tmp_path / "raw", tmp_path / "out")
    assert [clip.start_s for clip in built.clips] == [5.0]
    (failure,) = map(json.loads, (tmp_path / "out/failures.jsonl").read_text().splitlines())
    assert "no picture and sound together in the first 3.0 s" in failure["reason"]
    assert "download it again" not in failure["reason"]


def test_an_audio_file_that_ends_early_ends_the_clips(tmp_path: Path) -> None:
    write_recording(tmp_path / "raw", frame=dot_frame(height=160, width=320), seconds=14.0)
    write_wav(tmp_path / "raw/clip.wav", plane_wave(seconds=8.0))
    built = build_and_look(tmp_path / "raw", tmp_path / "out", "--projection", "equirect")
    assert built.result.exit_code == 0
    assert [clip.duration_s for clip in built.clips] == [5.0, 3.0]
    assert "its sound ends 6.0 s before its picture" in built.output


def test_a_damaged_beginning_shows_no_future_frame(tmp_path: Path) -> None:
    write_moving(tmp_path / "whole.mkv")
    (tmp_path / "raw").mkdir()
    path = tmp_path / "raw/a.mov"
    run_ffmpeg("-i", tmp_path / "whole.mkv", "-c", "copy", path)
    with av.open(str(path)) as container:
        first = next(container.demux(video=0))
        position, size = first.pos, first.size
    with open(path, "r+b") as file:
        file.seek(position)
        file.write(bytes(size))
    built = build_and_look(tmp_path / "raw", tmp_path / "out", "--projection", "equirect")
    assert built.result.exit_code == 1
    assert [clip.file_start_s for clip in built.clips] == [5.0, 10.0]
    assert "no frame that can be decoded in the 4.0 s from second 0 on" in built.output


@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
def test_subtitles_that_last_longer_are_no_sign_of_damage(suffix: str, tmp_path: Path) -> None:
    path = write_lengths(tmp_path / f"parts/a.{suffix}", 8.0, 8.0)
    (tmp_path / "a.srt").write_text("1\n00:00:01,000 --> 00:00:10,000\nHello\n")
    (tmp_path / "raw").mkdir(exist_ok=True)
    copied = ("-c", "copy", "-c:s", "srt" if suffix == "mkv" else "mov_text")
    run_ffmpeg("-i", path, "-i", tmp_path / "a.srt", *copied, tmp_path / f"raw/a.{suffix}")
    built = build_and_look(tmp_path / "raw", tmp_path / "out", "--projection", "equirect")
    assert built.result.exit_code == 0
    assert [clip.duration_s for clip in built.clips] == [5.0, 3.0]


def test_a_truncated_file_is_still_called_damaged(tmp_path: Path) -> None:
    path = write_lengths(tmp_path / "raw/a.mkv", 14.0, 14.0)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    built = build_and_look(tmp_path / "raw", tmp_path / "out", "--projection", "equirect")
    assert built.result.exit_code == 1
    assert "it is truncated or damaged: download it again" in built.output


def test_tracks_tell_when_they_begin_and_end(tmp_path: Path) -> None:
    for name in ("a.mkv", "a.mp4", "ts.mp4"):
        path = write_lengths(tmp_path / "raw" / name, 6.0, 3.0, delay_s=1.5)
        media = probe(path)
        assert media.video is not None
        assert media.audio is not None
        assert media.audio.end_s is not None
        begin_s = media.audio.begin_s - media.start_s
        assert begin_s == pytest.approx(1.5, abs=0.05)
        assert media.audio.end_s - media.start_s == pytest.approx(4.5, abs=0.1)
        assert media.video.begin_s == pytest.approx(media.start_s, abs=0.1)


def test_sound_far_behind_the_beginning_begins_the_clips(tmp_path: Path) -> None:
    """Later than where ffmpeg looks for tracks before it states when they begin."""
    write_lengths(tmp_path / "raw/a.mkv", 18.0, 6.0, delay_s=12.0)
    built = build_and_look(tmp_path / "raw", tmp_path / "out", "--projection", "equirect")
    assert built.result.exit_code == 0
    (clip,) = built.clips
    assert (clip.file_start_s, clip.duration_s) == pytest.approx((12.0, 5.0), abs=0.05)


def test_picture_and_sound_that_are_never_together_are_refused(tmp_path: Path) -> None:
    write_lengths(tmp_path / "raw/a.mkv", 4.0, 4.0, delay_s=6.0)
    built = build_and_look(tmp_path / "raw", tmp_path / "out", "--projection", "equirect")
    assert built.clips == ()
    assert "never together" in (tmp_path / "out/failures.jsonl").read_text()


def test_an_avi_without_its_first_key_frame_stays_in_step(tmp_path: Path) -> None:
    azimuths = write_moving(tmp_path / "whole.mkv")
    run_ffmpeg(  # with B-frames, for which decoders wait
        *("-i", tmp_path / "whole.mkv", "-c:v", "libx264", "-bf", 2, "-g", 4 * FPS),
        *("-keyint_min", 4 * FPS, "-sc_threshold", 0, "-c:a", "copy", tmp_path / "whole.mov"),
    )
    (tmp_path / "raw").mkdir()
    cut = tmp_path / "raw/cut.avi"
    run_ffmpeg("-i", tmp_path / "whole.mov", "-ss", 1, "-c", "copy", cut)
    built = build_and_look(tmp_path / "raw", tmp_path / "out", "--projection", "equirect")
    assert built.result.exit_code == 0
    assert built.clips[0].file_start_s == pytest.approx(3.0, abs=0.1)
    for clip in built.clips:
        second = int(clip.file_start_s + clip.duration_s / 2 + 1.0)
        assert apart_deg(clip.seen_deg, (azimuths[second], 15.0)) < 2


@pytest.mark.parametrize("start_s", [4.5, 5.0, 5.5, 6.0])
def test_an_edit_list_is_not_applied_again_after_a_seek(start_s: float, tmp_path: Path) -> None:
    """A cut by stream copy into mov keeps what is before it, and hides it with an edit list."""
    write_moving(tmp_path / "whole.mkv")
    run_ffmpeg("-i", tmp_path / "whole.mkv", "-c", "copy", tmp_path / "whole.mov")
    path = tmp_path / "cut.mov"
    run_ffmpeg("-ss", 2.3, "-i", tmp_path / "whole.mov", "-c", "copy", path)
    media = probe(path)
    assert media.audio is not None
    track = media.audio
    request = AudioRequest(
        *(path, track.index, media.start_s, media.start_s + start_s, 1.0, 0.02, track.channels),
        *(track.sample_rate, False, 60.0, True),
    )
    with FfmpegAudioDecoder(request) as decoder:
        audio = decoder.audio()
    assert np.abs(audio[:, :2000]).max() > 0.01


def test_a_transport_stream_beside_another_file_counts_from_its_own_start() -> None:
    """ffmpeg begins every one at 1.4 s; two of them were cut from one stream."""
    video, audio = VideoTrack(64, 32, 1, False), AudioTrack(4, 48000, "aac")
    stream = Media(10.0, video, None, 1.44, True, container="mpegts")
    for container, start_s, aligned in (("mov,mp4", 0.0, False), ("mpegts", 1.4, True)):
        sound = Media(10.0, None, audio, start_s, True, container=container)
        found = shared_timeline(stream, sound, same_file=False, flat=False)
        assert (found.video_zero_s, found.audio_zero_s) == (
            (1.4, 1.4) if aligned else (1.44, start_s)
        )


def test_less_than_the_shortest_clip_is_no_clip() -> None:
    recording = Recording("a", Path("a.mp4"), Path("a.mp4"), "a.mp4")
    for length_s, count in ((3.83, 3), (4.0, 4), (0.9, 1)):
        assert len(cut_clips(recording, 0.0, length_s, 1.0)) == count


times = st.floats(0, 60, allow_nan=False)


@given(times, times, times, times, st.floats(1, 20))
def test_every_clip_lies_where_both_tracks_are(
    picture_from: float, picture_s: float, sound_from: float, sound_s: float, clip_s: float
) -> None:
    picture_to, sound_to = picture_from + picture_s, sound_from + sound_s
    start_s = min(picture_from, sound_from)
    video = VideoTrack(64, 32, 1, False, begin_s=picture_from, end_s=picture_to)
    audio = AudioTrack(4, 48000, "aac", begin_s=sound_from, end_s=sound_to)
    media = Media(max(picture_to, sound_to) - start_s, video, audio, start_s, True)
    timeline = shared_timeline(media, media, same_file=True, flat=False)
    recording = Recording("a", Path("a.mp4"), Path("a.mp4"), "a.mp4")
    both_from, both_to = max(picture_from, sound_from), min(picture_to, sound_to)
    for clip in cut_clips(recording, timeline.begin_s, timeline.planned_end_s, clip_s):
        assert clip.offset_s + start_s > both_from - 0.5001
        if both_to - both_from > 1:
            assert clip.offset_s + clip.duration_s + start_s < both_to + 0.5001
