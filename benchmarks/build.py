"""CPU time of building shards, against decoding the same files alone and against other tools.

    python benchmarks/build.py [--clip REAL.mp4 REAL.m4a] [--rounds 3] [--published CHECKOUT]

Makes one 10 s recording at 640×360, 1920×960 and 3840×1920, from a real clip if one is given, else
from a generated one. Grain makes it as hard to decode as camera footage. Each round measures
`ffmpeg -i FILE -f null -` on copies of the file, one after the other, and `avprep build-shards` of
all copies with its defaults, with one worker and with two. All work counts: start-up, child
processes, audio, encoding, writing. The ratio of CPU times within one run does not depend on the
machine's speed; the table shows the median over the rounds. The gain of a second worker is in
wall-clock time and needs a machine that does nothing else.

The other tools are OpenCV and, if installed (`pip install py360convert`), py360convert, used as in
`peers.py`; their start-up does not count. Then `loader.py` measures readers on the set that was
built at 640×360. With `--published` it includes the on-the-fly code that the paper's authors
published as AVSpatialAlignment, from the user's own checkout of it.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import cv2

from avprep.cli.choices import cores
from avprep.media.ffmpeg import ffmpeg_path
from avprep.media.find_ffmpeg import find_ffmpeg
from avprep.world.write import make_world

COPIES = {(640, 360): 96, (1920, 960): 24, (3840, 1920): 16}
"""Sizes of the recording, and the number of copies that one build holds."""
PEER_SHARE = 16
"""The other tools, whose start-up does not count, process one of this many copies."""
CROPPED = {"opencv": 160, "py360convert": 40}
"""Frames of a clip that each tool crops; the time for the rest is extrapolated."""
DECODING, OURS, OURS_TWO = "decoding alone", "avprep build-shards", "avprep build-shards, 2 workers"


def cpu_seconds(command: list[str]) -> float:
    """User and system time of a command and its child processes."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def make_sources(folder: Path, clip: list[Path] | None) -> dict[tuple[int, int], tuple[Path, Path]]:
    """A video and its ambisonics at each size."""
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


@dataclass(frozen=True)
class Cost:
    """CPU seconds, wall-clock seconds and bytes per clip."""

    cpu_s: float
    wall_s: float = 0.0
    size: float = 0.0


def decoding(raw: Path, copies: int) -> Cost:
    files = [str(raw / f"{number}.mp4") for number in range(copies)]
    seconds = [cpu_seconds([ffmpeg_path(), "-i", file, "-f", "null", "-"]) for file in files]
    return Cost(sum(seconds) / copies)


def ours(raw: Path, copies: int, out: Path, workers: int) -> Cost:
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "-m", "avprep", "build-shards", str(raw), "--out", str(out)]
    start = time.perf_counter()
    cpu_s = cpu_seconds([*command, "--workers", str(workers)])
    wall_s = time.perf_counter() - start
    size = sum(path.stat().st_size for path in out.rglob("*.tar"))
    return Cost(cpu_s / copies, wall_s / copies, size / copies)


def peer(tool: str, raw: Path, copies: int) -> Cost:
    command = [sys.executable, str(Path(__file__).with_name("peers.py")), tool, str(raw)]
    command += ["--clips", str(max(1, copies // PEER_SHARE)), "--cropped", str(CROPPED[tool])]
    one_thread = os.environ | dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=one_thread).stdout
    cost = json.loads(printed)
    return Cost(cost["seconds"], size=cost["bytes"])


def measure(raw: Path, copies: int, out: Path, rounds: int) -> dict[str, list[Cost]]:
    """The cost of each tool in each round."""
    tools: dict[str, Callable[[], Cost]] = {
        DECODING: lambda: decoding(raw, copies),
        OURS: lambda: ours(raw, copies, out, 1),
    }
    if cores() > 1:
        tools[OURS_TWO] = lambda: ours(raw, copies, out, 2)
    tools["OpenCV, JPEG, no anti-aliasing"] = lambda: peer("opencv", raw, copies)
    if importlib.util.find_spec("py360convert") is not None:
        note = f"{CROPPED['py360convert']} frames extrapolated"
        name = f"py360convert, JPEG, no anti-aliasing ({note})"
        tools[name] = lambda: peer("py360convert", raw, copies)
    costs: dict[str, list[Cost]] = {name: [] for name in tools}
    for _ in range(rounds):
        for name, tool in tools.items():
            costs[name].append(tool())
    return costs


def rows(source: str, costs: dict[str, list[Cost]]) -> Iterator[str]:
    """Lines of Markdown for one size of the recording."""
    for name, runs in costs.items():
        cpu_s = statistics.median(run.cpu_s for run in runs)
        pairs = zip(runs, costs[DECODING], strict=True)
        ratio = statistics.median(run.cpu_s / decoded.cpu_s for run, decoded in pairs)
        size = f"{runs[0].size / 1e6:.1f}" if runs[0].size else ""
        gain = ""
        if name == OURS:
            both = zip(runs, costs.get(OURS_TWO, []), strict=False)
            gains = [one.wall_s / two.wall_s for one, two in both]
            gain = f"{statistics.median(gains):.2f}" if gains else "n/a"
        yield f"| {source} | {name} | {cpu_s:.3f} | {ratio:.2f} | {size} | {gain} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clip", nargs=2, type=Path, metavar=("VIDEO", "AUDIO"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--published", type=Path, metavar="CHECKOUT")
    parser.add_argument("--quick", action="store_true", help="few copies, to try the script")
    arguments = parser.parse_args()
    print(f"{date.today()}, {cores()} cores, Python {platform.python_version()}, ", end="")
    print(f"ffmpeg {find_ffmpeg().version}, OpenCV {cv2.__version__}")
    print(
        "\n| source | tool | CPU s per clip | × decoding | MB per clip | gain of a second worker |"
    )
    print("| --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for (width, height), (video, audio) in make_sources(folder, arguments.clip).items():
            raw = folder / f"raw{width}"
            raw.mkdir()
            copies = COPIES[width, height] // (8 if arguments.quick else 1)
            for copy in range(copies):
                shutil.copy(video, raw / f"{copy}.mp4")
                shutil.copy(audio, raw / f"{copy}{audio.suffix}")
            costs = measure(raw, copies, folder / f"set{width}", arguments.rounds)
            for row in rows(f"{width}×{height}", costs):
                print(row, flush=True)
        command = [sys.executable, str(Path(__file__).with_name("loader.py"))]
        command += [str(folder / "set640"), "--raw", str(folder / "raw640")]
        command += ["--rounds", str(arguments.rounds)]
        if arguments.published is not None:
            command += ["--published", str(arguments.published)]
        if importlib.util.find_spec("py360convert") is None:
            print("\npy360convert was not measured: `pip install py360convert`.")
        print(flush=True)
        sys.exit(subprocess.run(command, check=False).returncode)


if __name__ == "__main__":
    main()
