"""The picture under a map: the panorama of a clip, or its crops mapped back to the sphere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from avtrain.locate.heat_map import pixel_directions
from shards.geometry import view_rotation
from shards.reader import ShardSet
from shards.schema import SampleInfo, View

HEIGHT, WIDTH = 256, 512
_GREY = 60
_MOST_VIEWS = 100

Frame = NDArray[np.uint8]


def frames(shards: ShardSet, sample: int, first: int, count: int) -> Iterator[Frame]:
    """Equirectangular RGB frames (HEIGHT, 2 HEIGHT, 3) of a clip, from frame ``first`` on. Raises
    ShardError."""
    info = shards.info(sample)
    numbers = range(0, len(info.views), -(-len(info.views) // _MOST_VIEWS))
    mosaic = None if info.panorama is not None else _Mosaic([info.views[n] for n in numbers], info)
    for begin in range(first, first + count, info.video.gop_frames):  # decoded group by group
        now = min(info.video.gop_frames, first + count - begin)
        if mosaic is None:
            yield from map(_resized, shards.panorama(sample, begin, now))
            continue
        crops = np.stack([shards.frames(sample, view, begin, now) for view in numbers])
        for number in range(now):
            yield mosaic(crops[:, number])


def _resized(frame: Frame) -> Frame:
    """A panorama of any size; `locate` builds them in the size that is drawn."""
    height, width = frame.shape[:2]
    rows = ((np.arange(HEIGHT) + 0.5) * height / HEIGHT).astype(int)
    columns = ((np.arange(WIDTH) + 0.5) * width / WIDTH).astype(int)
    return np.asarray(frame[rows[:, None], columns])


class _Mosaic:
    """Crops of flat (gnomonic) views as one picture of the sphere: every direction is taken from
    the view with the nearest centre that shows it; grey where none does."""

    def __init__(self, views: Sequence[View], info: SampleInfo) -> None:
        height, width = info.video.height, info.video.width
        directions = pixel_directions(HEIGHT)
        nearest = np.zeros(directions.shape[:2])
        self._place = np.full(directions.shape[:2], -1)
        for number, view in enumerate(views):
            rotation = view_rotation(view.azimuth_deg, view.elevation_deg)
            front, left, up = np.moveaxis(directions @ rotation.T, -1, 0)
            with np.errstate(divide="ignore", invalid="ignore"):
                x = (1 - left / front / np.tan(np.radians(view.hfov_deg / 2))) / 2
                y = (1 - up / front / np.tan(np.radians(view.vfov_deg / 2))) / 2
            inside = (front > nearest) & (x >= 0) & (x < 1) & (y >= 0) & (y < 1)
            nearest[inside] = front[inside]
            column, row = (x[inside] * width).astype(int), (y[inside] * height).astype(int)
            self._place[inside] = (number * height + row) * width + column

    def __call__(self, crops: Frame) -> Frame:
        """The picture of crops (V, height, width, 3)."""
        picture = crops.reshape(-1, 3)[self._place]
        picture[self._place < 0] = _GREY
        return np.asarray(picture)
