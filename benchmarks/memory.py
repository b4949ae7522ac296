"""Peak memory of builds, of few and many clips and of short and long ones.

    python benchmarks/memory.py [--clips 8 64] [--seconds 10 40] [--workers 2]

Builds copies of one generated recording (8 views of 112², 640×320, four channels at 48 kHz) and
watches every process of the build. Prints the largest resident memory of the planning process, of a
worker and of an ffmpeg, in MB. Linux only.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from avprep.media.ffmpeg import ffmpeg_path

POLL_S = 0.02


def make_recordings(raw: Path, clips: int, seconds: float) -> None:
    raw.mkdir()
    lavfi = ["-f", "lavfi", "-i"]
    video = [*lavfi, f"testsrc2=size=640x320:rate=24:duration={seconds}"]
    noise = f"anoisesrc=r=48000:a=0.1:d={seconds},pan=quad|c0=c0|c1=0.5*c0|c2=0.3*c0|c3=c0"
    x264 = ["-c:v", "libx264", "-preset", "veryfast", "-pix_fmt", "yuv420p", "-c:a", "aac"]
    command = [ffmpeg_path(), "-v", "error", *video, *lavfi, noise, *x264, str(raw / "0.mp4")]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    for number in range(1, clips):
        os.link(raw / "0.mp4", raw / f"{number}.mp4")


def status_of(pid: int) -> dict[str, str]:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


def family_of(pid: int) -> dict[int, dict[str, str]]:
    """The `/proc` status of a process and of all its running descendants, by process id."""
    statuses = {int(path.name): status_of(int(path.name)) for path in Path("/proc").glob("[0-9]*")}
    family = {pid}
    for other in sorted(statuses):  # children mostly have larger numbers
        if int(statuses[other].get("PPid", 0)) in family:
            family.add(other)
    return {member: statuses[member] for member in family if member in statuses}


def peaks(command: list[str]) -> dict[str, int]:
    """The largest resident memory, in kB, of each kind of process that a command runs."""
    largest: defaultdict[str, int] = defaultdict(int)
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as build:
        while build.poll() is None:
            for pid, status in family_of(build.pid).items():
                name = status.get("Name", "")
                kind = "plan" if pid == build.pid else "ffmpeg" if "ffmpeg" in name else "worker"
                peak = status.get("VmHWM", "0 kB").split()[0]
                largest[kind] = max(largest[kind], int(peak))
            time.sleep(POLL_S)
        if build.returncode != 0:
            sys.exit(f"the build failed: {' '.join(command)}")
    return largest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, nargs="+", default=[8, 64])
    parser.add_argument("--seconds", type=float, nargs="+", default=[10, 40])
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    print("| clips | seconds each | planning, MB | worker, MB | ffmpeg, MB |")
    print("| --- | --- | --- | --- | --- |")
    for seconds in arguments.seconds:
        for clips in arguments.clips:
            with tempfile.TemporaryDirectory() as temporary:
                raw, out = Path(temporary) / "raw", Path(temporary) / "set"
                make_recordings(raw, clips, seconds)
                command = [sys.executable, "-m", "avprep", "build-shards", str(raw), "--out"]
                command += [str(out), "--clip-duration", f"{seconds:g}"]
                memory = peaks([*command, "--workers", str(arguments.workers)])
            row = " | ".join(f"{memory[kind] / 1024:.0f}" for kind in ("plan", "worker", "ffmpeg"))
            print(f"| {clips} | {seconds:g} | {row} |", flush=True)


if __name__ == "__main__":
    main()
