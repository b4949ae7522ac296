"""What is recognised of videos in all projections: a confusion table.

    python -m benchmarks.projections [PICTURES…] [--height 480] [--crf 26] [--show FILE.png]

``PICTURES`` are equirectangular pictures or videos (the middle of each), or folders of them; by
default ten places of the generated world, and the real recordings in ../shared/data if they are
there. Each is converted to all projections, for one eye and for two, and written as a second of
H.264 without any tags. The table counts how `avprep build-shards` would read these files. Those
that are read wrongly without a word are listed; if there are any, the exit status is 1.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from avprep.errors import ClipError
from avprep.formats.decide import FormatOverrides, decide_video_format, projection_name
from avprep.media.probe import probe
from avprep.world.generate import make_clip
from avprep.world.picture import HEIGHT, render_frames
from benchmarks.projection_frames import EXPECTED, Luma, frames_of

PLACES = 10
CLIPS_PER_PLACE = 4
SIZE = (1920, 960)
FPS = FRAMES = 8
PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
COLUMNS = ("right, sure", "right, check", "wrong, sure", "wrong, check", "refused")


def read_pictures(paths: list[Path]) -> Iterator[tuple[str, Luma]]:
    """Equirectangular pictures with their names."""
    files = [
        file for path in paths for file in (sorted(path.iterdir()) if path.is_dir() else [path])
    ]
    for file in files:
        yield file.stem, _resized(_read_picture(file))
    if files:
        return
    for place in range(PLACES):
        frame, _ = next(render_frames(make_clip(0, place * CLIPS_PER_PLACE)))
        yield f"generated place {place}", _resized(frame[:HEIGHT])
    data = Path(os.environ.get("AVPREP_REAL_DATA", "../shared/data"))
    for file in sorted(data.glob("yt360/video/*.mp4")):
        yield file.stem, _resized(_read_picture(file))


def _read_picture(file: Path) -> Luma:
    if file.suffix.lower() in PICTURE_SUFFIXES:
        return np.asarray(cv2.imread(str(file), cv2.IMREAD_GRAYSCALE), dtype=np.uint8)
    with av.open(str(file)) as container:
        container.seek((container.duration or 0) // 2)
        return next(container.decode(video=0)).to_ndarray(format="gray")


def _resized(picture: Luma) -> Luma:
    return np.asarray(cv2.resize(picture, SIZE, interpolation=cv2.INTER_AREA))


def write_video(path: Path, luma: Luma, crf: int) -> None:
    """Write a second of H.264 of a still picture."""
    luma = luma[: luma.shape[0] // 2 * 2, : luma.shape[1] // 2 * 2]
    neutral = np.full((luma.shape[0] // 2, luma.shape[1]), 128, np.uint8)
    with av.open(str(path), "w") as container:
        options = {"preset": "veryfast", "crf": str(crf)}
        stream = container.add_stream("libx264", rate=FPS, options=options)
        stream.height, stream.width = luma.shape
        stream.pix_fmt, stream.codec_context.time_base = "yuv420p", Fraction(1, FPS)
        for number in range(FRAMES):
            frame = av.VideoFrame.from_ndarray(np.concatenate([luma, neutral]), format="yuv420p")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def read_as(path: Path) -> tuple[str, str, str]:
    """How a build reads a video: projection and stereo layout, and "sure", "check" or "refused"."""
    media = probe(path)
    assert media.video is not None
    try:
        found, doubts = decide_video_format(path, media.video, media.duration_s, FormatOverrides())
    except ClipError:
        return "", "", "refused"
    return projection_name(found.sphere), found.stereo, "check" if doubts else "sure"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pictures", nargs="*", type=Path)
    parser.add_argument("--height", type=int, default=480, help="of one eye's image")
    parser.add_argument("--crf", type=int, default=26)
    parser.add_argument("--show", type=Path, help="draw the first picture's frames")
    arguments = parser.parse_args()
    table: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    wrong, shown, pictures, files, seconds = [], [], 0, 0, 0.0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.mp4"
        for picture, luma in read_pictures(arguments.pictures):
            pictures += 1
            for projection, stereo, frame in frames_of(luma, arguments.height):
                write_video(path, frame, arguments.crf)
                files += 1
                start = time.process_time()
                name, layout, how = read_as(path)
                seconds += time.process_time() - start
                right = (name, layout) == (EXPECTED.get(projection), stereo)
                column = how if how == "refused" else f"{'right' if right else 'wrong'}, {how}"
                table[projection, stereo][column] += 1
                if column == "wrong, sure":
                    wrong.append(f"{picture}: {projection}, {stereo} is read as {name}, {layout}")
                if pictures == 1:
                    shown.append((f"{projection} {stereo}: {name} {layout} {how}", frame))
    print(f"| {pictures} pictures in | eyes | {' | '.join(COLUMNS)} |")
    print("| --- " * (len(COLUMNS) + 2) + "|")
    for (projection, stereo), counts in table.items():
        cells = " | ".join(str(counts[column] or "") for column in COLUMNS)
        print(f"| {projection} | {stereo} | {cells} |")
    print(f"\n{files} files, {1000 * seconds / max(files, 1):.0f} ms of CPU time each")
    print("\n".join(wrong) or "wrong and sure: 0")
    if arguments.show is not None:
        draw(arguments.show, shown)
    return int(bool(wrong))


def draw(path: Path, frames: list[tuple[str, Luma]], columns: int = 6) -> None:
    """Draw small frames side by side with their captions."""
    width, height = 320, 220
    tiles = []
    for caption, frame in frames:
        scale = min((width - 8) / frame.shape[1], (height - 24) / frame.shape[0])
        size = (max(1, int(frame.shape[1] * scale)), max(1, int(frame.shape[0] * scale)))
        tile = np.full((height, width), 90, np.uint8)
        tile[20 : 20 + size[1], 4 : 4 + size[0]] = cv2.resize(
            frame, size, interpolation=cv2.INTER_AREA
        )
        cv2.putText(tile, caption, (4, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.35, 255)
        tiles.append(tile)
    tiles += [np.zeros((height, width), np.uint8)] * (-len(tiles) % columns)
    rows = [np.hstack(tiles[n : n + columns]) for n in range(0, len(tiles), columns)]
    cv2.imwrite(str(path), np.vstack(rows))


if __name__ == "__main__":
    sys.exit(main())
