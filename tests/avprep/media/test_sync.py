"""Synchrony: flashes and clicks that coincide in a recording do so in its samples, at their times.

The contract: frame n of a crop is what a player shows n/fps seconds after the clip's start, and
sample m of its audio what it plays m/sample_rate seconds after it.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from avprep.media.ffmpeg import ffmpeg_path
from shards.reader import ShardSet
from tests.support.media import build, grey_frame, write_audio, write_wav

FPS, RATE, SOURCE_RATE = 16, 24000, 48000
CLIP_S = 1.3
HEIGHT, WIDTH = 80, 160
DARK, WHITE = 40, 220
FLASH_S = 0.15
FLASH_TIMES_S = (0.33, 0.9, 1.83, 2.42, 3.13)
"""Nominal times of flashes; each starts with the source's next frame, together with its click."""
STAMP_S = 0.002
"""Tolerance of time stamps: Matroska rounds to 1 ms."""
LOSSY_S = 0.003

Frames = dict[float, bool]
"""Time of each frame -> whether it is white."""


@dataclass(frozen=True)
class Case:
    """A recording of 4 s: the times of its frames, the start of its audio, and how it is stored.

    ``offset_s`` is added to all time stamps; ``cut_s`` seconds were cut from its start without
    encoding it again; ``gap_s`` seconds of its audio are missing from 0.5 s on.
    """

    times: tuple[float, ...]
    suffix: str = "mp4"
    codec: str = "libx264"
    options: dict[str, str] = field(default_factory=lambda: {"g": "48", "bf": "2"})
    pix_fmt: str = "yuv420p"
    audio: str | None = "aac"
    side: str | None = None
    audio_start_s: float = 0.0
    offset_s: float = 0.0
    cut_s: float = 0.0
    gap_s: float = 0.0
    muxer: dict[str, str] = field(default_factory=dict)


def constant(fps: float, begin_s: float = 0.0) -> tuple[float, ...]:
    return tuple(begin_s + n / fps for n in range(round((4.0 - begin_s) * fps)))


def irregular() -> tuple[float, ...]:
    """Frames 5 to 130 ms apart, and some that last half a second or more."""
    steps = np.random.default_rng(5).uniform(0.005, 0.13, 80)
    steps[[8, 16, 25]] = (0.55, 0.9, 0.7)
    times = np.round(np.concatenate([[0.0], np.cumsum(steps)]), 3)
    return tuple(float(t) for t in times[times < 4.0])


EVERY_HALF_SECOND = {"g": "12", "bf": "2", "sc_threshold": "0"}
SECOND_KEY_S = 0.5
X265 = {"x265-params": "log-level=none:bframes=3:keyint=60"}
VP9 = {"deadline": "realtime", "cpu-used": "8", "g": "60"}
CASES = {
    "rate24": Case(constant(24)),
    "rate25-long-gop": Case(constant(25), "mkv", options={"g": "500", "bf": "3"}, audio="libopus"),
    "rate29.97": Case(constant(30000 / 1001), options={"g": "90", "bf": "3"}),
    "rate60": Case(constant(60), "mkv", audio="pcm_f32le"),
    "rate10": Case(constant(10)),
    "variable-mp4": Case(irregular()),
    "variable-mkv": Case(irregular(), "mkv", audio="libopus"),
    "variable-mkv-pcm": Case(irregular(), "mkv", audio="pcm_f32le"),
    "sound-late-mp4": Case(constant(24), audio_start_s=0.7),
    "sound-late-mkv": Case(constant(24), "mkv", audio="libopus", audio_start_s=0.7),
    "picture-late-mp4": Case(constant(24, 0.5)),
    "picture-late-mkv": Case(constant(25, 0.5), "mkv", audio="libopus"),
    "both-at-10-mp4": Case(constant(24), offset_s=10.0),
    "both-at-10-mkv": Case(constant(24), "mkv", audio="pcm_f32le", offset_s=10.0),
    "fragments-mp4": Case(constant(24), muxer={"movflags": "frag_keyframe+empty_moov+delay_moov"}),
    "cut-mp4": Case(constant(24), options={"g": "24", "bf": "2"}, cut_s=15 / 24),
    "cut-mkv": Case(constant(24), "mkv", options=EVERY_HALF_SECOND, cut_s=0.7),
    "opus-mp4": Case(constant(24), audio="libopus"),
    "opus-webm": Case(constant(30), "webm", "libvpx-vp9", VP9, audio="libopus"),
    "gap-mkv": Case(constant(24), "mkv", audio="pcm_f32le", gap_s=0.07),
    "ten-bit-h264": Case(constant(24), pix_fmt="yuv420p10le"),
    "ten-bit-hevc": Case(constant(24), "mkv", "libx265", X265, "yuv420p10le", "libopus"),
    "side-wav": Case(constant(24), audio=None, side="wav"),
    "side-flac": Case(constant(25), "mkv", audio=None, side="flac"),
    "side-m4a": Case(constant(24), audio=None, side="m4a"),
    "side-opus": Case(constant(24), audio=None, side="opus"),
    "side-m4a-late": Case(constant(24), audio=None, side="m4a", audio_start_s=0.7),
    "side-m4a-early": Case(constant(24, 0.5), audio=None, side="m4a"),
    "side-m4a-both-at-10": Case(constant(24), audio=None, side="m4a", offset_s=10.0),
    "side-wav-of-picture-at-10": Case(constant(24), "mkv", audio=None, side="wav", offset_s=10.0),
}


def frames_and_flashes(case: Case) -> tuple[Frames, list[float]]:
    """The frames, and the times at which flashes start."""
    begins = [next((t for t in case.times if t >= nominal), 9.0) for nominal in FLASH_TIMES_S]
    flashes = [t for t, nominal in zip(begins, FLASH_TIMES_S, strict=True) if t < nominal + FLASH_S]
    white = {t: any(begin <= t < begin + FLASH_S for begin in flashes) for t in case.times}
    return white, flashes


def click() -> NDArray[np.float64]:
    """A chirp of 5 ms, whose centre correlation finds to the sample."""
    t = np.arange(-120, 121) / SOURCE_RATE
    return np.asarray(
        0.6 * np.exp(-((t / 0.001) ** 2)) * np.sin(2 * np.pi * (3000 + 4e5 * t) * t + 1)
    )


def clicks_at(case: Case, flashes: list[float]) -> NDArray[np.float32]:
    """Four channels with a click at each flash, from ``audio_start_s`` on."""
    wave = np.zeros(4 * SOURCE_RATE)
    for moment in flashes:
        middle = round(moment * SOURCE_RATE)
        wave[middle - 120 : middle + 121] += click()
    begin = round(case.audio_start_s * SOURCE_RATE)
    return np.tile(wave[begin:], (4, 1)).astype(np.float32)


def write(raw: Path, name: str, case: Case) -> None:
    white, flashes = frames_and_flashes(case)
    sound = clicks_at(case, flashes)
    path = raw / f"{name}.{case.suffix}"
    whole = raw / f"whole.{case.suffix}" if case.cut_s else path
    late = case.offset_s + case.audio_start_s
    write_tracks(whole, case, white, sound if case.audio else None)
    side = raw / f"{name}.{case.side}"
    if case.side == "wav":
        write_wav(side, sound)
    elif case.side == "flac":
        write_audio(side, "flac", sound, "quad")
    elif case.side == "opus":
        write_audio(side, "libopus", sound, "quad")
    elif case.side is not None:
        with av.open(str(side), "w") as container:
            container.mux(audio_packets(container, "aac", sound, late, 0.0))
    if case.cut_s:
        cut = ["-ss", f"{case.cut_s}", "-i", str(whole), "-c", "copy", str(path)]
        subprocess.run([ffmpeg_path(), "-v", "error", *cut], check=True)
        whole.unlink()


def write_tracks(path: Path, case: Case, white: Frames, sound: NDArray[np.float32] | None) -> None:
    tick = Fraction(1, 90_000)
    with av.open(str(path), "w", options=case.muxer) as container:
        stream = container.add_stream(case.codec, rate=24, options=case.options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, case.pix_fmt
        stream.codec_context.time_base = tick
        stream.codec_context.thread_count = 1
        late = case.offset_s + case.audio_start_s
        audio = []
        if sound is not None and case.audio is not None:
            audio = audio_packets(container, case.audio, sound, late, case.gap_s)
        packets = []
        for moment, is_white in white.items():
            plane = np.full((HEIGHT, WIDTH), WHITE if is_white else DARK, dtype=np.uint8)
            frame = av.VideoFrame.from_ndarray(grey_frame(plane), format="yuv420p")
            frame = frame.reformat(format=case.pix_fmt)
            frame.pts, frame.time_base = round((moment + case.offset_s) / tick), tick
            packets += stream.encode(frame)
        packets += stream.encode(None) + audio
        for packet in sorted(packets, key=lambda p: float((p.dts or 0) * (p.time_base or 1))):
            container.mux(packet)


def audio_packets(
    container: av.container.OutputContainer,
    codec: str,
    sound: NDArray[np.float32],
    offset_s: float,
    gap_s: float,
) -> list[av.Packet]:
    stream = container.add_stream(codec, rate=SOURCE_RATE, layout="quad")
    stream.bit_rate = 512_000
    packets = []
    for start in range(0, sound.shape[1] - 959, 960):
        if gap_s and 0.5 <= start / SOURCE_RATE < 0.5 + gap_s:
            continue
        part = np.ascontiguousarray(sound[:, start : start + 960])
        packed = not stream.format.is_planar
        if stream.format.name == "s16":
            part = np.rint(part * 32767).astype(np.int16)
        block = av.AudioFrame.from_ndarray(
            part.T.reshape(1, -1) if packed else part, format=stream.format.name, layout="quad"
        )
        block.sample_rate, block.time_base = SOURCE_RATE, Fraction(1, SOURCE_RATE)
        block.pts = start + round(offset_s * SOURCE_RATE)
        packets += stream.encode(block)
    return packets + stream.encode(None)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    raw = tmp_path_factory.mktemp("sync") / "raw"
    raw.mkdir()
    for name, case in CASES.items():
        write(raw, name, case)
    return raw


@pytest.fixture(scope="module")
def built(raw: Path) -> ShardSet:
    options = ["--clip-duration", CLIP_S, "--views", 1, "--size", 32, "--audio-layout", "source"]
    known = ["--projection", "equirect", "--stereo", "mono", "--foa-convention", "ambix"]
    out = raw.parent / "set"
    result = build(raw, "--out", out, "--fps", FPS, "--workers", 1, *options, *known)
    assert result.exit_code == 0, result.output
    return ShardSet(out)


@pytest.mark.parametrize("name", CASES)
def test_flashes_and_clicks_are_at_their_times(raw: Path, built: ShardSet, name: str) -> None:
    case = CASES[name]
    white, flashes = frames_and_flashes(case)
    zero_s = player_zero_s(case, raw / f"{name}.{case.suffix}")
    if case.cut_s and case.suffix == "mkv":
        white = {t: is_white for t, is_white in white.items() if t >= SECOND_KEY_S}
    samples = [n for n, source in enumerate(built.sources) if source == name]
    assert len(samples) >= 2
    clicks = 0
    for sample in samples:
        info = built.info(sample)
        start_s = info.start_s + zero_s
        luma = built.frames(sample, 0, 0, info.video.frames).mean(axis=(1, 2, 3))
        is_white = luma > (DARK + WHITE) / 2
        unambiguous = [
            n for n in range(len(luma)) if not rounding_decides(case.times, start_s + n / FPS)
        ]
        assert len(unambiguous) >= len(luma) / 3
        for n in unambiguous:
            assert is_white[n] == on_screen(white, start_s + n / FPS), f"{info.key}, frame {n}"
        sound, _ = built.foa(sample, 0, info.audio.samples)
        for moment in flashes:
            at_s = moment - start_s
            if 0.02 < at_s < info.duration_s - FLASH_S and moment > case.audio_start_s:
                heard_s = find_click(sound[0], at_s)
                assert heard_s == pytest.approx(at_s, abs=LOSSY_S)
                seen_s = (int(at_s * FPS) + int(is_white[int(at_s * FPS) :].argmax())) / FPS
                assert abs(seen_s - heard_s) < 1 / FPS + LOSSY_S
                clicks += 1
    assert clicks >= 2


def on_screen(white: Frames, moment_s: float) -> bool:
    """Whether a player shows white: the last frame at or before a time, or the first one."""
    past = [t for t in white if t <= moment_s]
    return white[max(past) if past else min(white)]


def rounding_decides(times: tuple[float, ...], moment_s: float) -> bool:
    """Whether a frame starts so close to a time that rounding decides which frame is shown."""
    return any(1e-6 < t - moment_s <= 2 * STAMP_S for t in times)


def player_zero_s(case: Case, path: Path) -> float:
    """The time that players show as 0: the start of the first track."""
    if case.cut_s and case.suffix == "mkv":
        # Without edit lists, a copy starts with a key frame before the cut, here the second one,
        # and with audio from the same time or a little earlier.
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            return SECOND_KEY_S - float((stream.start_time or 0) * (stream.time_base or 0))
    if case.offset_s and "aac" in (case.audio, {"m4a": "aac"}.get(case.side or "")):
        return -1024 / SOURCE_RATE  # the encoder's priming samples, which nothing hides
    return case.cut_s


def find_click(wave: NDArray[np.float32], moment_s: float) -> float:
    """Time of a click's centre in seconds, searched within a quarter of a second."""
    template = click()[::2]
    low = max(0, round((moment_s - 0.25) * RATE))
    part = wave[low : round((moment_s + 0.25) * RATE)]
    correlation = np.abs(np.correlate(part, template, "same"))
    assert correlation.max() > 0.3 * float(template @ template)
    return (low + int(correlation.argmax())) / RATE
