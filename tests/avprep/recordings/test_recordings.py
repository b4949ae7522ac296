"""Recordings of all kinds, built into sets."""

from __future__ import annotations

import io
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from avprep.foa.energy_map import intensity_direction
from avprep.formats.decide import FormatOverrides
from avprep.recordings.clips import clip_key
from avprep.recordings.find_clips import FoundClips, ListFiles, find_clips
from shards.geometry import (
    encode_foa,
    rotate_foa,
    unit_vector,
)
from shards.reader import ShardSet
from tests.support.media import (
    FAST,
    build,
    centroid,
    dot_plane,
    grey_frame,
    noise,
    write_audio,
    write_dot_recording,
    write_video,
    write_wav,
)


def test_a_remainder_of_half_a_clip_becomes_a_clip(tmp_path: Path) -> None:
    write_dot_recording(tmp_path / "raw", "long", seconds=5.2)
    write_dot_recording(tmp_path / "raw", "short", seconds=1.5)
    result = build(tmp_path / "raw", "--out", tmp_path / "set", *FAST)
    assert result.exit_code == 0, result.output
    shards = ShardSet(tmp_path / "set")
    found = {key: shards.info(i).duration_s for i, key in enumerate(shards.keys)}
    assert found == {"long-0": 2.0, "long-2": 2.0, "long-4": 1.1875, "short-0": 1.5}


def test_audio_inside_the_video_is_replaced_by_an_audio_file_beside_it(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    azimuths = {"inside": 70.0, "side": -70.0}
    frame = grey_frame(dot_plane(160, 320, 0, 0, 6))
    for name in azimuths:
        # The audio inside comes from +70°, that of the file beside the second video from -70°.
        wave = encode_foa(noise(1.0), unit_vector(70, 10))
        write_video(raw / f"{name}.mkv", [frame] * 24, audio=wave)
    write_wav(raw / "side.wav", encode_foa(noise(1.0), unit_vector(-70, 10)))
    write_video(raw / "aac.mp4", [frame] * 24, audio=encode_foa(noise(1.0), unit_vector(70, 10)))
    azimuths["aac"] = 70.0
    views = tmp_path / "front.json"
    views.write_text('[{"azimuth_deg": 0, "elevation_deg": 0, "hfov_deg": 90}]')
    result = build(raw, "--out", tmp_path / "set", "--viewpoints", views, "--clip-duration", 1)
    assert result.exit_code == 0, result.output
    shards = ShardSet(tmp_path / "set")
    for sample, source in enumerate(shards.sources):
        sound, _ = shards.foa(sample, 0, shards.info(sample).audio.samples)
        assert intensity_direction(sound) == pytest.approx((azimuths[source], 10), abs=1.0)


def test_loud_audio_is_scaled_and_never_clipped(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    write_dot_recording(raw, "loud", seconds=1.0)
    # A plane wave along the diagonal at full scale: each axis is below 1, the sum is above.
    hot = 1.4 * encode_foa(np.sin(np.arange(48000) * 0.05), unit_vector(45, 35))
    write_wav(raw / "loud.wav", hot)
    result = build(raw, "--out", tmp_path / "set", *FAST)
    assert result.exit_code == 0, result.output
    shards = ShardSet(tmp_path / "set")
    assert 0.70 < shards.info(0).audio.gain < 0.72
    flac, _ = soundfile.read(io.BytesIO(shards.member(0, "view00.flac")))
    assert np.abs(flac).max() < 1.0
    sound, matrix = shards.foa(0, 0, 24_000)
    assert np.abs(rotate_foa(sound, matrix.T)[0]).max() == pytest.approx(1.4, abs=0.01)


def test_split_lists_decide_the_split_of_each_recording(raw: Path, tmp_path: Path) -> None:
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / "train.txt").write_text("a\nb.mp4\n")
    (lists / "test.txt").write_text("c\n")
    result = build(raw, "--out", tmp_path / "set", *FAST, "--splits", lists)
    assert result.exit_code == 0, result.output
    assert "2 clips are in no split list" in result.output
    assert set(ShardSet(tmp_path / "set", "train").sources) == {"a", "b"}
    assert set(ShardSet(tmp_path / "set", "test").sources) == {"c"}
    (lists / "test.txt").write_text("c\na\n")
    clash = build(raw, "--out", tmp_path / "other", *FAST, "--splits", lists)
    assert clash.exit_code == 2
    assert "a is listed in" in clash.output


def test_yt360_clips_with_youtubes_channel_order_and_split_lists(tmp_path: Path) -> None:
    """Six AAC channels X, Y, W, 0, Z, 0; ids of 11 characters that may begin with a dash."""
    raw = tmp_path / "raw"
    for folder in ("video", "audio"):
        (raw / folder).mkdir(parents=True)
    azimuths = {"-abcDEF_123": 130.0, "kqAZkf5Odyw": -35.0}
    frame = grey_frame(dot_plane(160, 320, 0, 0, 6))
    for name, azimuth in azimuths.items():
        # Stereo inside the video must not be read as ambisonics.
        stereo = np.float32(noise(10.0)[None].repeat(2, axis=0))
        write_video(raw / "video" / f"{name}-80.mp4", [frame] * 240, audio=stereo, layout="stereo")
        w, y, z, x = encode_foa(noise(10.0, seed=1), unit_vector(azimuth, 20))
        six = np.stack([x, y, w, 0 * w, z, 0 * w])
        write_audio(raw / "audio" / f"{name}-80.m4a", "aac", six, "5.1")
    (raw / "train.txt").write_text("-abcDEF_123\n")
    (raw / "test.txt").write_text("kqAZkf5Odyw\n")
    (raw / "video" / "readme.txt").write_text("not a video")
    write_video(raw / "video" / "alone-7.mp4", [frame] * 24)
    result = build(raw, "--out", tmp_path / "set", "--views", 2)
    assert result.exit_code == 1
    assert "video/alone-7.mp4 has no audio file audio/alone-7.m4a" in result.output
    for split, name in (("train", "-abcDEF_123"), ("test", "kqAZkf5Odyw")):
        shards = ShardSet(tmp_path / "set", split)
        assert (shards.keys, shards.sources) == ([f"{name}-80"], [name])
        assert shards.info(0).start_s == 80
        sound, matrix = shards.foa(0, 24_000, 192_000)
        direction = intensity_direction(rotate_foa(sound, matrix.T))
        assert direction == pytest.approx((azimuths[name], 20), abs=1.0)


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.parametrize("rate", [24, 25, 30, 60, 16])
def test_a_crop_shows_the_frame_that_is_displayed_at_its_time(
    rate: int, suffix: str, tmp_path: Path
) -> None:
    """Each source frame has its own grey level; frame n of the crop is displayed at n/16 s."""
    raw = tmp_path / "raw"
    raw.mkdir()
    plane = np.ones((80, 160), dtype=np.uint8)
    greys = 30 + 3 * (np.arange(2 * rate) % 64)
    write_video(
        raw / f"a.{suffix}", [grey_frame(grey * plane) for grey in greys.astype(np.uint8)], rate
    )
    write_wav(raw / "a.wav", encode_foa(noise(2.0), unit_vector(0, 0)))
    result = build(raw, "--out", tmp_path / "set", *FAST)
    assert result.exit_code == 0, result.output
    shown = _luma(ShardSet(tmp_path / "set").member(0, "view00.mp4"))
    on_screen = np.floor(np.arange(32) * rate / 16 + 1e-9).astype(int)
    np.testing.assert_allclose(shown, greys[on_screen], atol=1)


def _luma(mp4: bytes) -> np.ndarray:
    """Mean of each frame's luma."""
    with av.open(io.BytesIO(mp4)) as video:
        return np.array([f.to_ndarray()[: f.height].mean() for f in video.decode(video=0)])


@pytest.mark.parametrize("kind", ["odd size", "full range"])
def test_odd_frame_sizes_and_full_range_are_supported(kind: str, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    size = (321, 641) if kind == "odd size" else (320, 640)
    luma = dot_plane(*size, 40, 15, 6)
    with av.open(str(raw / "a.mkv"), "w") as container:
        stream = container.add_stream("libx264", rate=16, options={"crf": "5"})
        stream.height, stream.width = size
        stream.pix_fmt = "yuv444p"
        if kind == "full range":
            stream.codec_context.color_range = 2
        for _ in range(16):
            planes = np.stack([luma, *np.full((2, *size), 128, dtype=np.uint8)])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(planes, format="yuv444p")))
        container.mux(stream.encode(None))
    write_wav(raw / "a.wav", encode_foa(noise(1.0), unit_vector(40, 15)))
    views = tmp_path / "views.json"
    views.write_text('[{"azimuth_deg": 40, "elevation_deg": 15, "hfov_deg": 60}]')
    result = build(raw, "--out", tmp_path / "set", "--viewpoints", views, "--clip-duration", 1)
    assert result.exit_code == 0, result.output
    mp4 = ShardSet(tmp_path / "set").member(0, "view00.mp4")
    with av.open(io.BytesIO(mp4)) as video:
        crop = next(video.decode(video=0)).to_ndarray(format="yuv420p")[:112]
    assert centroid(crop) == pytest.approx((56, 56), abs=0.25)
    dark = 40 if kind == "odd size" else 16 + 40 * 219 / 255
    assert np.median(crop[:10]) == pytest.approx(dark, abs=1.5)


def test_a_file_without_a_duration_is_cut_into_clips(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    write_dot_recording(raw, "whole", seconds=4.0)
    with (
        av.open(str(raw / "whole.mp4")) as whole,
        av.open(str(raw / "live.mkv"), "w", options={"live": "1"}) as live,
    ):
        stream = live.add_stream_from_template(whole.streams.video[0])
        for packet in whole.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                live.mux(packet)
    with av.open(str(raw / "live.mkv")) as live:
        assert live.duration is None
    (raw / "whole.wav").rename(raw / "live.wav")
    (raw / "whole.mp4").unlink()
    result = build(raw, "--out", tmp_path / "set", *FAST)
    assert result.exit_code == 0, result.output
    assert sorted(ShardSet(tmp_path / "set").keys) == ["live-0", "live-2"]


def test_float_audio_in_16_bit_units_keeps_its_level(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    write_dot_recording(raw, "a", seconds=1.0)
    wave = 2e4 * encode_foa(np.sin(np.arange(48000) * 0.05), unit_vector(45, 35))
    write_wav(raw / "a.wav", wave)
    result = build(raw, "--out", tmp_path / "set", *FAST)
    assert result.exit_code == 0, result.output
    shards = ShardSet(tmp_path / "set")
    sound, _ = shards.foa(0, 0, 24_000)
    assert np.abs(sound[0]).max() == pytest.approx(2e4, rel=0.01)


def test_a_key_holds_whole_seconds_or_milliseconds() -> None:
    assert clip_key("a", 1e6) == "a-1000000"
    assert clip_key("a", 2.5) == "a-2500ms"


def test_only_a_part_of_a_recording_is_used(tmp_path: Path) -> None:
    write_dot_recording(tmp_path, "walk", seconds=4.0)

    def found(*part_s: float) -> FoundClips:
        return find_clips(
            tmp_path,
            "folder",
            ListFiles(),
            2.0,
            FormatOverrides(projection="equirect"),
            map,
            part_s,
        )

    part = found(0.5, 3.5)
    assert [(clip.offset_s, clip.duration_s) for clip in part.clips] == [(0.5, 2.0), (2.5, 1.0)]
    assert [doubt for doubt in part.doubts if "only 0.5 s to 3.5 s are used" in doubt]
    whole = found(0.0, 60.0)
    assert [(clip.offset_s, clip.duration_s) for clip in whole.clips] == [(0.0, 2.0), (2.0, 2.0)]
    assert not [doubt for doubt in whole.doubts if "are used" in doubt]
    past = found(4.5, 60.0)
    assert not past.clips
    assert "and none from 4.5 s to 60 s" in past.failures[0].reason
