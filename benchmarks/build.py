"""CPU time of building shards against that of decoding the same files alone.

    python benchmarks/build.py [--clip REAL.mp4 REAL.m4a] [--rounds 3]

Makes one 10 s recording at 640×360, 1920×960 and 3840×1920 (from a real clip if one is given, else
from a generated one, with grain, so that it is as hard to decode as camera footage), then measures,
round by round, `ffmpeg -i FILE -f null -` on copies of the file, one after the other, and one
`avprep build-shards` with its defaults of all copies. All work counts: start-up, child processes,
sound, encoding, writing. The ratio of CPU times in one run does not depend on the machine's speed;
the median over the rounds is shown.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from avprep.demo import make_world
from avprep.ffmpeg import ffmpeg_path

COPIES = {(640, 360): 96, (1920, 960): 24, (3840, 1920): 16}
"""Sizes of the source, and how many copies of it are built in one go."""


def cpu_seconds(command: list[str]) -> float:
    """User and system time of a command and its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def make_sources(folder: Path, clip: list[Path] | None) -> dict[tuple[int, int], tuple[Path, Path]]:
    """A video and its ambisonic sound at each size."""
    if clip is None:
        make_world(folder / "world", clips=1, seed=0, workers=1, progress=False)
        clip = [
            *(folder / "world" / "video").glob("*.mp4"),
            *(folder / "world" / "audio").glob("*"),
        ]
    video, audio = clip
    sources = {}
    for width, height in COPIES:
        out = folder / f"{width}x{height}.mp4"
        if clip is not None and (width, height) == (640, 360) and "world" not in str(video):
            shutil.copy(video, out)
        else:
            grain = f"scale={width}:{height}:flags=lanczos,setsar=1,noise=alls=8:allf=t"
            encode = ["-an", "-c:v", "libx264", "-preset", "veryfast", "-crf", "23", str(out)]
            command = [ffmpeg_path(), "-v", "error", "-i", str(video), "-vf", grain, *encode]
            subprocess.run(command, check=True)
        sources[width, height] = (out, audio)
    return sources


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clip", nargs=2, type=Path, metavar=("VIDEO", "SOUND"))
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    avprep = shutil.which(
        "avprep", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    )
    if avprep is None:
        sys.exit("avprep is not installed in this environment")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        sources = make_sources(folder, arguments.clip)
        print("| source | decoding alone, CPU s | build, CPU s a clip | ratio |")
        print("| --- | --- | --- | --- |")
        for (width, height), (video, audio) in sources.items():
            raw = folder / f"raw{width}"
            raw.mkdir()
            copies = COPIES[width, height]
            for copy in range(copies):
                shutil.copy(video, raw / f"{copy}.mp4")
                shutil.copy(audio, raw / f"{copy}{audio.suffix}")
            decode, build = [], []
            for number in range(arguments.rounds):
                out = folder / f"set{width}-{number}"
                alone = [
                    cpu_seconds([ffmpeg_path(), "-i", str(raw / f"{c}.mp4"), "-f", "null", "-"])
                    for c in range(copies)
                ]
                decode.append(sum(alone) / copies)
                command = [avprep, "build-shards", str(raw), "--out", str(out), "--workers", "1"]
                build.append(cpu_seconds(command) / copies)
                shutil.rmtree(out)
            ratio = statistics.median(b / d for b, d in zip(build, decode, strict=True))
            print(
                f"| {width}×{height} | {statistics.median(decode):.3f} "
                f"| {statistics.median(build):.3f} | {ratio:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
