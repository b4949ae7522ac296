"""CPU time of a clip far into a long recording, against one near its start.

    python benchmarks/long.py [--minutes 60] [--rounds 5]

Makes a recording of that length, which repeats one minute of generated video and noise, in several
containers, with the audio inside or beside the video. Then makes single clips of 10 s, in turn at
minute 1 and ten minutes before the end. All work counts: start-up of ffmpeg, seeking, decoding,
crops, encoding. The table also shows the cost of probing the files for length and tracks, once per
recording.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from avprep.formats.decide_audio import AudioFormat
from avprep.media.ffmpeg import ffmpeg_path
from avprep.media.probe import Media, probe_both
from avprep.recordings.clips import Clip
from avprep.sample.make_sample import make_sample
from avprep.sample.options import ClipOptions
from avprep.sphere.viewpoints import RandomViews

VIEWS = RandomViews(8, (25.5, 90.0))
OPTIONS = ClipOptions(VIEWS, 112, 16.0, 24000, "rotated", 0, 600.0)
KINDS = {
    "mp4, AAC inside": ("mp4", "aac", None, []),
    "mkv, Opus inside": ("mkv", "libopus", None, []),
    "mkv without cues, Opus inside": ("mkv", "libopus", None, ["-live", "1"]),
    "mp4, m4a beside": ("mp4", "aac", "m4a", []),
    "mp4, Opus beside": ("mp4", "libopus", "opus", []),
    "mp4, FLAC beside": ("mp4", "pcm_s16le", "flac", []),
    "mp4, WAV beside": ("mp4", "pcm_s16le", "wav", []),
}


def ffmpeg(*arguments: str | Path) -> None:
    command = [ffmpeg_path(), "-v", "error", "-y", *map(str, arguments)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


def make_minute(folder: Path, codec: str) -> tuple[Path, Path]:
    """A minute of video with a key frame every 5 s, and a minute of audio."""
    video, audio = folder / "minute.mp4", folder / f"minute-{codec}.mkv"
    lavfi = ["-f", "lavfi", "-i"]
    if not video.exists():
        source = "testsrc2=size=640x320:rate=30:duration=60"
        encode = ["-c:v", "libx264", "-preset", "veryfast", "-g", "150", "-pix_fmt", "yuv420p"]
        ffmpeg(*lavfi, source, *encode, video)
    if not audio.exists():
        noise = "anoisesrc=r=48000:a=0.001:d=60,pan=quad|c0=c0|c1=0.5*c0|c2=0.3*c0|c3=c0"
        ffmpeg(*lavfi, noise, "-c:a", codec, "-b:a", "512k", audio)
    return video, audio


def make_long(
    folder: Path, minutes: int, kind: tuple[str, str, str | None, list[str]]
) -> tuple[Path, Path]:
    suffix, codec, audio_suffix, muxer = kind
    lists = []
    for part in make_minute(folder, codec):
        lists.append(folder / f"{part.stem}.txt")
        lists[-1].write_text(f"file '{part}'\n" * minutes)
    videos, audios = (["-f", "concat", "-safe", "0", "-i", path] for path in lists)
    video = folder / f"long.{suffix}"
    if audio_suffix is None:
        ffmpeg(*videos, *audios, "-map", "0:v", "-map", "1:a", "-c", "copy", *muxer, video)
        return video, video
    audio = folder / f"long.{audio_suffix}"
    ffmpeg(*videos, "-c", "copy", video)
    # FLAC numbers its frames, so it must be encoded to be repeated.
    ffmpeg(*audios, "-c", "flac" if audio_suffix == "flac" else "copy", audio)
    return video, audio


def cpu_seconds(work: Callable[[], object]) -> float:
    """User and system time of ``work`` in this process and its children."""

    def spent() -> float:
        usages = [resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(usage.ru_utime + usage.ru_stime for usage in usages)

    before = spent()
    work()
    return spent() - before


def clip_at(minute: int, video: Path, audio: Path, media: tuple[Media, Media]) -> Clip:
    start_s = 60.0 * minute + 3
    clip = Clip("k", "s", "train", video, audio, "f", start_s, start_s, 10.0)
    return replace(clip, audio_format=AudioFormat("ambix"), media=media)


def clip_seconds(clip: Clip) -> float:
    return cpu_seconds(lambda: make_sample(clip, OPTIONS))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    late = arguments.minutes - 10
    print(f"| recording | probing, CPU s | clip at minute 1, CPU s | at minute {late} | ratio |")
    print("| --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as temporary:
        for name, kind in KINDS.items():
            video, audio = make_long(Path(temporary), arguments.minutes, kind)
            probing = cpu_seconds(lambda v=video, a=audio: probe_both(v, a))
            media = probe_both(video, audio)

            early_clip, far_clip = (clip_at(minute, video, audio, media) for minute in (1, late))
            clip_seconds(early_clip)  # loads modules and fills caches
            pairs = [
                (clip_seconds(early_clip), clip_seconds(far_clip)) for _ in range(arguments.rounds)
            ]
            early, far = (statistics.median(side) for side in zip(*pairs, strict=True))
            ratio = statistics.median(b / a for a, b in pairs)
            print(f"| {name} | {probing:.3f} | {early:.3f} | {far:.3f} | {ratio:.2f} |", flush=True)
            for path in {video, audio}:
                path.unlink()


if __name__ == "__main__":
    main()
