"""Label maps of a clip, cropped to its views."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from avprep.errors import ClipError
from avprep.sphere.crop import view_directions
from avprep.sphere.projections import Sphere
from shards.files import read_regular
from shards.schema import View, label_map_suffix

Labels = NDArray[np.uint8]

_MAPS_PER_SECOND = 4
_NAME = re.compile(r"(?P<kind>things-|stuff-|)(?P<number>\d+)\.png")
_PNG_HEAD = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
_MAX_PIXELS = 1 << 26
_PALETTE = 3
"""Type of colour in a PNG's head."""
_LIMIT_BYTES = 200_000_000
_THINGS, _STUFF, _VOID = 80, 54, 255
"""Numbers of COCO's panoptic classes: things are 0 to 79, stuff is 80 to 133."""


def crop_label_maps(
    folder: Path, offset_s: float, duration_s: float, views: tuple[View, ...], size: int
) -> tuple[tuple[float, ...], dict[str, bytes]]:
    """The times of a clip's label maps in seconds, and one PNG member (size, size) for each view
    and time. The clip begins at ``offset_s`` of the video that the maps belong to.

    The folder holds four equirectangular maps per second: ``things-0000.png`` and
    ``stuff-0000.png`` as YT-360 has them, or ``0000.png`` with both in one. Classes are COCO's
    panoptic ones, things 0 to 79 and stuff 80 to 133; 255 is void. Maps numbered from 0 show the
    start of each quarter of a second; those numbered from 1, as ffmpeg numbers the frames that it
    extracts, its middle. Raises ClipError for a file that is not a label map.
    """
    times_s: list[float] = []
    members: dict[str, bytes] = {}
    numbers = _numbers(folder)
    first = 0.0 if 0 in numbers else 0.5
    for number in sorted(numbers):
        time_s = (number - first) / _MAPS_PER_SECOND - offset_s
        if not -1e-6 <= time_s < duration_s - 1e-6:
            continue
        labels = _read(folder, number)
        if labels is None:
            continue
        for view_number, view in enumerate(views):
            crop = crop_nearest(labels, view, size)
            done, content = cv2.imencode(".png", crop, [cv2.IMWRITE_PNG_COMPRESSION, 9])
            if not done:
                raise RuntimeError("a label map could not be encoded")
            members[label_map_suffix(view_number, len(times_s))] = content.tobytes()
        times_s.append(round(max(0.0, time_s), 6))
    return tuple(times_s), members


def crop_nearest(labels: Labels, view: View, size: int) -> Labels:
    """A view (size, size) of an equirectangular map (height, width), without interpolation."""
    height, width = labels.shape
    centres = (np.arange(size) + 0.5) / size
    directions = view_directions(view, centres[None, :], centres[:, None])
    xy = Sphere().positions(directions, height, width).xy
    column = np.floor(xy[..., 0] * width).astype(int) % width
    row = np.clip(np.floor(xy[..., 1] * height).astype(int), 0, height - 1)
    return np.asarray(labels[row, column])


def _numbers(folder: Path) -> set[int]:
    if not folder.is_dir():
        return set()
    matches = (_NAME.fullmatch(path.name) for path in folder.iterdir())
    return {int(match["number"]) for match in matches if match is not None}


def _read(folder: Path, number: int) -> Labels | None:
    """The map with a number; None if things or stuff are missing."""
    single = folder / f"{number:04d}.png"
    if single.is_file():
        return _read_png(single)
    halves = [folder / f"{kind}-{number:04d}.png" for kind in ("things", "stuff")]
    if not all(half.is_file() for half in halves):
        return None
    things, stuff = map(_read_png, halves)
    if things.shape != stuff.shape:
        raise ClipError(f"{halves[0]} and {halves[1].name} differ in size; extract them again")
    both = np.where(things < _THINGS, things, _THINGS + np.minimum(stuff, _STUFF))
    return np.where(both < _THINGS + _STUFF, both, _VOID).astype(np.uint8)


def _read_png(path: Path) -> Labels:
    try:
        content = read_regular(path, _LIMIT_BYTES)
    except OSError as error:
        raise ClipError(
            f"{path.parent.name}/{path.name} cannot be read: {error.strerror}; extract it again"
        ) from None
    labels = None
    # OpenCV would read any kind of image, and as many pixels as one says that it has.
    if content.startswith(_PNG_HEAD) and _pixels(content) <= _MAX_PIXELS:
        labels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if labels is None or labels.dtype != np.uint8:
        raise ClipError(f"{path.parent.name}/{path.name} is not a label map; extract it again")
    # Maps that were saved in colour have the same number in all channels. OpenCV gives the colours
    # of a palette, and stretches fewer bits to eight.
    colours = labels[..., :3] if labels.ndim == 3 else labels[..., None]
    if content[24] != 8 or content[25] == _PALETTE or (colours != colours[..., :1]).any():
        raise ClipError(
            f"{path.parent.name}/{path.name} holds colours instead of label numbers; save its "
            "numbers as a grey image of 8 bits"
        )
    return np.asarray(colours[..., 0], dtype=np.uint8)


def _pixels(png: bytes) -> int:
    return int.from_bytes(png[16:20], "big") * int.from_bytes(png[20:24], "big")
