"""CPU time of a clip's crops and audio with common tools instead of avprep.

    python benchmarks/peers.py opencv|py360convert RAW [--clips 2] [--cropped 160]

This is the code that one would write in an afternoon. OpenCV decodes RAW/0.mp4, … and every frame
that is needed at 16 frames/s is cropped in BGR to the views that avprep draws: by `cv2.remap` with
fixed-point maps made once per view, or by `py360convert.e2p` (`pip install py360convert`; it keeps
its maps for eight views). Crops are written as JPEG (quality 90, cheaper than H.264). ffmpeg
decodes the audio, which is turned by a matrix for each view and written as FLAC. All runs on one
thread. There is no anti-aliasing, time stamps are ignored, and a broken file ends it.

Prints JSON: CPU seconds and bytes per clip, without start-up. With `--cropped N` (2 or more) only
the first N frames are cropped, and their time is extrapolated to all frames.
"""

from __future__ import annotations

import argparse
import io
import json
import resource
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import soundfile

from avprep.media.ffmpeg import ffmpeg_path
from avprep.sphere.crop import view_directions
from avprep.sphere.viewpoints import RandomViews
from shards.geometry import view_foa_matrix
from shards.schema import View

SIZE, FPS, RATE = 112, 16, 24000
Crop = Callable[[np.ndarray], list[np.ndarray]]


def cpu_seconds() -> float:
    """User and system time of this process and its children so far."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def frames(video: Path) -> Iterator[np.ndarray]:
    """BGR frames at 16 frames/s; the frames between them are decoded, but not converted."""
    capture = cv2.VideoCapture(str(video), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    step = capture.get(cv2.CAP_PROP_FPS) / FPS
    decoded = shown = 0
    while capture.grab():
        if decoded >= int(shown * step):
            frame = capture.retrieve()[1]
            while decoded >= int(shown * step):
                yield frame
                shown += 1
        decoded += 1


def opencv(views: tuple[View, ...], height: int, width: int) -> Crop:
    centres = (np.arange(SIZE) + 0.5) / SIZE
    maps = []
    for view in views:
        x, y, z = np.moveaxis(view_directions(view, centres[None, :], centres[:, None]), -1, 0)
        column = (0.5 - np.arctan2(y, x) / (2 * np.pi)) * width - 0.5
        row = (0.5 - np.arcsin(z) / np.pi) * height - 0.5
        maps.append(cv2.convertMaps(np.float32(column), np.float32(row), cv2.CV_16SC2))
    wrap = cv2.BORDER_WRAP
    return lambda frame: [cv2.remap(frame, *m, cv2.INTER_LINEAR, borderMode=wrap) for m in maps]


def py360convert(views: tuple[View, ...], height: int, width: int) -> Crop:
    from py360convert import e2p

    angles = [((v.hfov_deg, v.vfov_deg), -v.azimuth_deg, v.elevation_deg) for v in views]
    return lambda frame: [e2p(frame, *angle, (SIZE, SIZE)) for angle in angles]


def audio_files(audio: Path, views: tuple[View, ...]) -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        wav = f"{folder}/audio.wav"
        convert = ["-i", str(audio), "-ar", str(RATE), "-c:a", "pcm_f32le", wav]
        subprocess.run([ffmpeg_path(), "-v", "error", *convert], check=True)
        samples = soundfile.read(wav, dtype="float32")[0].T
    foa = samples[[2, 1, 4, 0]] if len(samples) == 6 else samples[:4]
    files = []
    for view in views:
        matrix = np.float32(view_foa_matrix(view.azimuth_deg, view.elevation_deg))
        buffer = io.BytesIO()
        soundfile.write(buffer, (matrix @ foa).T, RATE, format="FLAC", subtype="PCM_16")
        files.append(buffer.getvalue())
    return files


def make_clip(
    tool: Callable[[tuple[View, ...], int, int], Crop], video: Path, audio: Path, cropped: int
) -> tuple[float, int]:
    """CPU seconds and bytes."""
    start, cropping_s, count, size = cpu_seconds(), 0.0, 0, 0
    views = RandomViews(8, (25.5, 90.0)).draw(video.stem, 0)
    crop, crops = None, []
    for frame in frames(video):
        if count < cropped:
            crop_start = time.process_time()
            crop = crop or tool(views, *frame.shape[:2])
            crops = crop(frame)
            if count:  # the first frame also makes the maps, once
                cropping_s += time.process_time() - crop_start
        count += 1
        for image in crops:
            size += len(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 90])[1])
    size += sum(len(file) for file in audio_files(audio, views))
    seconds = cpu_seconds() - start
    return seconds + cropping_s / (cropped - 1) * max(0, count - cropped), size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tool", choices=("opencv", "py360convert"))
    parser.add_argument("raw", type=Path)
    parser.add_argument("--clips", type=int, default=2)
    parser.add_argument("--cropped", type=int, default=160)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    tool = {"opencv": opencv, "py360convert": py360convert}[arguments.tool]
    clips = []
    for number in range(arguments.clips):
        video = arguments.raw / f"{number}.mp4"
        audio = next(p for p in arguments.raw.glob(f"{number}.*") if p.suffix != ".mp4")
        clips.append(make_clip(tool, video, audio, arguments.cropped))
    seconds, size = np.mean(clips, axis=0)
    print(json.dumps({"seconds": seconds, "bytes": size}))


if __name__ == "__main__":
    main()
