"""Raw recordings as sets: `avprep build-shards` cuts a grid of views into a temporary set."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import shards
from avtrain.config import Config
from avtrain.errors import TrainingError
from avtrain.locate.background import HEIGHT, WIDTH
from avtrain.locate.grid import grid_directions
from shards.errors import show
from shards.files import dump_json
from shards.folders import open_folder
from shards.manifest import read_manifest
from shards.reader import ShardSet

VIDEO_SUFFIXES = (
    *(".mp4", ".mkv", ".webm", ".mov", ".avi"),
    *(".m4v", ".ts", ".mts", ".m2ts", ".3gp", ".ogv"),
)
"""Those that avprep reads."""
_PART_OF_DOWNLOAD = re.compile(r"\.f\d[\w+-]*$")
_PART_USED = re.compile(r"only [\d.]+ s to [\d.]+ s are used$")
"""What avprep says of a part: of a single moment, no news."""
_SMALLEST_CROP = 64
_END_S = 20.0


@dataclass(frozen=True)
class Reading:
    """How recordings are read: the angle between views of the grid and their field of view; the
    seconds of the file, and whether they are for one moment alone; options that `avprep
    build-shards` gets as they are, by name; and a folder in which the set is kept."""

    grid_deg: float
    hfov_deg: float
    part_s: tuple[float, float]
    formats: dict[str, str]
    keep: Path | None = None
    is_moment: bool = False


class NoRecording(TrainingError):
    """A file is no recording by itself, such as the audio of another one."""


def find_videos(folder: Path) -> list[Path]:
    """The videos in a folder and below, without hidden ones. Raises TrainingError if there are
    none."""
    found = [
        path
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file()
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    if not found:
        raise TrainingError(
            f"{folder} is neither a finished shard set nor a folder with videos "
            f"({', '.join(VIDEO_SUFFIXES)})"
        )
    return found


@contextmanager
def recording_as_set(
    video: Path, config: Config, reading: Reading
) -> Iterator[tuple[ShardSet, int]]:
    """The set of a grid of views of one recording, for networks of ``config``, and the number of
    its clip. The set is deleted at the end of the block.

    Raises TrainingError, with the reason that avprep gives.
    """
    if reading.keep is not None and reading.keep.exists() and any(reading.keep.iterdir()):
        raise TrainingError(
            f"--keep-set {reading.keep} is not empty, and may hold the set of another recording; "
            "name a new folder"
        )
    with tempfile.TemporaryDirectory(prefix="avtrain-locate-") as temporary:
        raw, out = Path(temporary, "raw"), Path(temporary, "set")
        _link(video.absolute(), raw)
        views = Path(temporary, "views.json")
        directions = grid_directions(reading.grid_deg)
        names = ("azimuth_deg", "elevation_deg", "hfov_deg")
        entries = [
            dict(zip(names, (*map(float, one), reading.hfov_deg), strict=True))
            for one in directions
        ]
        views.write_bytes(dump_json(entries))
        out = out if reading.keep is None else reading.keep
        show(f"{video}: avprep cuts {len(entries)} views of it", err=True)
        said = _build(video, raw, out, _options(config, reading, views), reading.is_moment)
        yield _find_clip(video, out, said)


def _options(config: Config, reading: Reading, views: Path) -> list[str]:
    begin_s, end_s = reading.part_s
    # Crops of the networks' size, and not of fewer pixels than H.264 codes well.
    size = max(_SMALLEST_CROP, config.clip.size + config.clip.size % 2)
    given = {
        "viewpoints": str(views),
        "audio-layout": "source",
        "size": str(size),
        "panorama": f"{WIDTH}x{HEIGHT}",
        "fps": f"{config.clip.fps:g}",
        "sample-rate": str(config.sound.sample_rate),
        "part": f"{begin_s:.6f}:{end_s:.6f}",
        "clip-duration": f"{max(1.0, end_s - begin_s):.6f}",
        "workers": "1",
    }
    return [f"--{name}={value}" for name, value in (given | reading.formats).items()]


def _link(video: Path, raw: Path) -> None:
    """Link a video and what belongs to it into the folder ``raw``, arranged as it lies."""
    name = _PART_OF_DOWNLOAD.sub("", video.stem) + "."
    top, folders = video.parent, [Path()]
    if top.name == "video" and (top.parent / "audio").is_dir():  # YT-360, generated worlds
        top, folders = top.parent, [Path("video"), Path("audio"), Path("truth")]
    for above in video.parents:
        inside = video.parent.relative_to(above).parts
        if inside and inside[0].startswith("video_"):  # STARSS
            part = inside[0].removeprefix("video_")
            kinds = ("video", "foa", "metadata")
            top, folders = above, [Path(f"{kind}_{part}", *inside[1:]) for kind in kinds]
    for folder in folders:
        (raw / folder).mkdir(parents=True, exist_ok=True)
        if (top / folder).is_dir():
            for path in (top / folder).iterdir():
                if path.name.startswith(name) and path.is_file():
                    (raw / folder / path.name).symlink_to(path)


def _build(video: Path, raw: Path, out: Path, options: Sequence[str], is_moment: bool) -> list[str]:
    """Build the set, and show what avprep asks to check. Returns the reasons for which something
    was left out. Raises TrainingError where there is no set."""
    if find_spec("avprep") is None:
        raise TrainingError(
            f"{video} is a raw recording, which the package avprep reads, and it is not installed; "
            "`pip install 'avsa360[prep]'` brings it"
        )
    command = [sys.executable, "-m", "avprep", "build-shards", str(raw), "--out", str(out)]
    # Ours, whatever lies in the working folder.
    paths = [str(Path(shards.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    # In a task of a Slurm array, avprep would build a part of the set.
    environment = {k: v for k, v in environment.items() if not k.startswith("SLURM_ARRAY_")}
    reasons, errors = [], []
    process = subprocess.Popen(
        [*command, *options],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        text=True,
        errors="replace",
    )
    try:
        for line in process.stdout or ():
            text = line.rstrip("\n").rpartition("\r")[2].strip().replace(f"{raw}/", "")
            kind, _, rest = text.partition(": ")
            if kind == "check":
                if not (is_moment and _PART_USED.search(text)):
                    show(text, err=True)
            elif kind == "left out":
                reasons.append(rest)
            elif kind == "Error":
                errors.append(rest.replace(str(raw), str(video.parent)))
        status = process.wait()
    finally:
        _end(process)
    if status not in (0, 1):
        said = "; ".join(reasons or errors) or f"avprep ended with status {status}"
        raise TrainingError(f"{video} cannot be used: {said}")
    return reasons


def _end(process: subprocess.Popen[str]) -> None:
    """End avprep and its workers, if they still run."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _find_clip(video: Path, out: Path, reasons: Sequence[str]) -> tuple[ShardSet, int]:
    folder = open_folder(out)
    for split in read_manifest(folder).splits:
        found = ShardSet(folder, split)
        for sample in range(len(found)):
            if Path(found.info(sample).file or "").name == video.name:
                return found, sample
    if reasons:
        raise TrainingError(f"{video} cannot be used: {'; '.join(reasons)}")
    raise NoRecording(f"{video} is no recording by itself; name the video that it belongs to")
