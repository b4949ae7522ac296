"""CPU time of each stage of making one clip.

    python benchmarks/stages.py VIDEO AUDIO [--rounds 5]

The stages run one after another through the public functions of avprep, with the defaults of
`avprep build-shards`; the decoder's child process counts. The table shows medians over the rounds,
beside the time that `ffmpeg -i VIDEO -f null -` takes. The last line is the start of a worker
process with its imports, once per worker.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import soxr

from avprep.foa.ambix import to_ambix
from avprep.formats.decide import FormatOverrides, decide_video_format
from avprep.formats.decide_audio import decide_audio_format
from avprep.media.decode_audio import decode_audio
from avprep.media.decode_video import VideoDecoder, VideoRequest
from avprep.media.encode import CropEncoder, encode_flac, rotation_safe_gain
from avprep.media.ffmpeg import AudioRequest, ffmpeg_path
from avprep.media.probe import probe_both
from avprep.sphere.crop import FRAMES_AT_ONCE, Cropper
from avprep.sphere.viewpoints import RandomViews
from shards.geometry import view_foa_matrix

SIZE, FPS, RATE = 112, 16, 24000


def cpu_seconds() -> float:
    """User and system time of this process and its children so far."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


class Stages:
    """CPU seconds of each stage in each round."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, list[float]] = defaultdict(list)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        start = cpu_seconds()
        yield
        self.seconds[name].append(cpu_seconds() - start)


def run(command: list[str]) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def one_round(stage: Stages, video: Path, audio: Path) -> None:
    with stage("decoding alone"):
        run([ffmpeg_path(), "-i", str(video), "-f", "null", "-"])
    with stage("probing the files"):
        media, audio_media = probe_both(video, audio)
        if media.video is None or audio_media.audio is None:
            sys.exit("the files lack a video or an audio track")
        decide_video_format(video, media.video, media.duration_s, FormatOverrides())
        convention = decide_audio_format(audio, audio_media.audio, FormatOverrides()).convention
    track = media.video
    video_request = VideoRequest(
        video=video,
        track=track.index,
        start_s=media.start_s,
        duration_s=min(10.0, media.duration_s or 10.0),
        fps=FPS,
        frame_size=(track.height, track.width),
        crop=None,
        rotation_deg=0,
        full_range=track.full_range,
        ten_bit=False,
        max_pixels=track.max_pixels,
        timeout_s=600.0,
    )
    audio_request = AudioRequest(
        audio=audio,
        track=audio_media.audio.index,
        file_start_s=audio_media.start_s,
        start_s=audio_media.start_s,
        duration_s=video_request.duration_s,
        max_slip_s=0.02,
        channels=audio_media.audio.channels,
        sample_rate=audio_media.audio.sample_rate,
        plain_layout=audio_media.audio.plain_layout,
        timeout_s=600.0,
    )
    count = round(video_request.duration_s * FPS)
    with stage("decoding the video"):
        for planes, _ in VideoDecoder(video_request).frames(count):  # noqa: B007
            pass
    with stage("decoding the audio"):
        raw = decode_audio(audio_request).channels
    # Several shifted frames: a single one would stay in the processor's cache.
    frames = [[np.roll(plane, 16 * shift, axis=1) for plane in planes] for shift in range(8)]
    views = RandomViews(8, (25.5, 90.0)).draw(video.stem, 0)
    with stage("maps of the views"):
        cropper = Cropper(track.height, track.width, views, SIZE)
    with stage("cropping"):
        for number in range(0, count, FRAMES_AT_ONCE):
            cropper.crop_frames([frames[(number + k) % 8] for k in range(FRAMES_AT_ONCE)])
    crops = []
    for planes, times in VideoDecoder(video_request).frames(count):
        crops += [cropper.crop(planes)] * times
    with stage("H.264"):
        encoder = CropEncoder(len(views), SIZE, Fraction(FPS), track.colorspace)
        for crop in crops:
            encoder.add(crop)
        encoder.finish()
    with stage("audio: ambiX and sample rate"):
        foa = to_ambix(raw, convention)
        if audio_request.sample_rate != RATE:
            foa = soxr.resample(foa.T, audio_request.sample_rate, RATE, quality="HQ").T
        foa = np.ascontiguousarray(foa)
        gain = rotation_safe_gain(foa)
    with stage("audio: rotation and FLAC"):
        interleaved = np.ascontiguousarray(foa.T)
        for view in views:
            matrix = gain * view_foa_matrix(view.azimuth_deg, view.elevation_deg)
            encode_flac(interleaved, matrix, RATE)
    with stage("once per worker: start and imports"):
        modules = "avprep.cli.main, avprep.build.build_shards, avprep.sample.make_sample"
        run([sys.executable, "-c", f"import {modules}"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("video", type=Path)
    parser.add_argument("audio", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    stage = Stages()
    for _ in range(arguments.rounds):
        one_round(stage, arguments.video, arguments.audio)
    decoding = stage.seconds["decoding alone"]
    print("| stage | CPU ms | × decoding alone |\n| --- | --- | --- |")
    for name, seconds in stage.seconds.items():
        ratio = statistics.median(a / b for a, b in zip(seconds, decoding, strict=True))
        print(f"| {name} | {1000 * statistics.median(seconds):.1f} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
