"""CPU time of each stage of making one clip.

    python benchmarks/stages.py VIDEO SOUND [--rounds 5]

The stages run one after another through the public functions of avprep, with the defaults of
`avprep build-shards`; the decoder's child process counts. Medians over the rounds are shown, beside
the time that `ffmpeg -i VIDEO -f null -` takes. What a worker process takes once, to start and to
import, is the last line.
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
from avprep.formats.decide import FormatOverrides, picture_format, sound_format
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
    """Of this process and its children so far."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


class Stages:
    """CPU seconds by stage, each of several rounds."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, list[float]] = defaultdict(list)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        begin = cpu_seconds()
        yield
        self.seconds[name].append(cpu_seconds() - begin)


def run(command: list[str]) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def one_round(stage: Stages, video: Path, sound: Path) -> None:
    with stage("decoding alone"):
        run([ffmpeg_path(), "-i", str(video), "-f", "null", "-"])
    with stage("asking the files"):
        media, heard = probe_both(video, sound)
        if media.video is None or heard.audio is None:
            sys.exit("there is no picture or no sound")
        picture_format(video, media.video, media.duration_s, FormatOverrides())
        convention = sound_format(sound, heard.audio, FormatOverrides()).convention
    picture = media.video
    decoding = VideoRequest(
        video=video,
        start_s=media.start_s,
        duration_s=min(10.0, media.duration_s or 10.0),
        fps=FPS,
        frame_size=(picture.height, picture.width),
        crop=None,
        rotation_deg=0,
        full_range=picture.full_range,
        ten_bit=False,
        max_pixels=picture.max_pixels,
        timeout_s=600.0,
    )
    listening = AudioRequest(
        audio=sound,
        file_start_s=heard.start_s,
        start_s=heard.start_s,
        duration_s=decoding.duration_s,
        max_slip_s=0.02,
        channels=heard.audio.channels,
        sample_rate=heard.audio.sample_rate,
        plain_layout=heard.audio.plain_layout,
        timeout_s=600.0,
    )
    count = round(decoding.duration_s * FPS)
    with stage("decoding the picture"):
        for planes, _ in VideoDecoder(decoding).frames(count):  # noqa: B007
            pass
    with stage("decoding the sound"):
        raw = decode_audio(listening).channels
    # One frame again and again would stay in the cache.
    frames = [[np.roll(plane, 16 * shift, axis=1) for plane in planes] for shift in range(8)]
    views = RandomViews(8, (25.5, 90.0)).draw(video.stem, 0)
    with stage("the views' maps"):
        cropper = Cropper(picture.height, picture.width, views, SIZE)
    with stage("cropping"):
        for number in range(0, count, FRAMES_AT_ONCE):
            cropper.crop_frames([frames[(number + k) % 8] for k in range(FRAMES_AT_ONCE)])
    crops = []
    for planes, times in VideoDecoder(decoding).frames(count):
        crops += [cropper.crop(planes)] * times
    with stage("H.264"):
        encoder = CropEncoder(len(views), SIZE, Fraction(FPS), picture.colorspace)
        for crop in crops:
            encoder.add(crop)
        encoder.finish()
    with stage("sound: ambiX and sample rate"):
        foa = to_ambix(raw, convention)
        if listening.sample_rate != RATE:
            foa = soxr.resample(foa.T, listening.sample_rate, RATE, quality="HQ").T
        foa = np.ascontiguousarray(foa)
        gain = rotation_safe_gain(foa)
    with stage("sound: rotation and FLAC"):
        interleaved = np.ascontiguousarray(foa.T)
        for view in views:
            matrix = gain * view_foa_matrix(view.azimuth_deg, view.elevation_deg)
            encode_flac(interleaved, matrix, RATE)
    with stage("once a worker: start and imports"):
        modules = "avprep.cli.main, avprep.build.build_shards, avprep.sample.make_sample"
        run([sys.executable, "-c", f"import {modules}"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("video", type=Path)
    parser.add_argument("sound", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    stage = Stages()
    for _ in range(arguments.rounds):
        one_round(stage, arguments.video, arguments.sound)
    alone = stage.seconds["decoding alone"]
    print("| stage | CPU ms | / decoding alone |\n| --- | --- | --- |")
    for name, seconds in stage.seconds.items():
        ratio = statistics.median(a / b for a, b in zip(seconds, alone, strict=True))
        print(f"| {name} | {1000 * statistics.median(seconds):.1f} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
