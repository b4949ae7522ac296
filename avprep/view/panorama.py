"""A panorama for samples that store none: their crops, mapped back to the sphere."""

from __future__ import annotations

from fractions import Fraction

import cv2
import numpy as np
from tqdm import tqdm

from avprep.media.encode import CropEncoder
from avprep.sphere.mosaic import Mosaic
from shards.errors import ShardError
from shards.reader import ShardSet

_HEIGHT = 512
_MOST_CROPS = 1_000_000
_FRAMES_FOR_PROGRESS_BAR = 500
_BT601 = 6
"""The YCbCr matrix (ITU-T H.273) with which OpenCV converts RGB."""


def panorama_from_crops(shards: ShardSet, sample: int) -> bytes:
    """An mp4 of 1024×512 pixels with the frames of a sample's crops, and grey elsewhere.

    Raises ShardError if a crop cannot be decoded, or if there are very many.
    """
    info = shards.info(sample)
    video, views = info.video, info.views
    if video.frames * len(views) > _MOST_CROPS:
        raise ShardError(
            f"{info.key} has no panorama, and too many frames to put one together; build the set "
            "again with --panorama"
        )
    mosaic = Mosaic(views, (video.height, video.width), _HEIGHT)
    fps = Fraction(video.fps).limit_denominator(1001)
    encoder = CropEncoder(1, (_HEIGHT, 2 * _HEIGHT), fps, _BT601)
    with tqdm(
        total=video.frames, unit="frame", disable=video.frames < _FRAMES_FOR_PROGRESS_BAR
    ) as bar:
        for start in range(0, video.frames, video.gop_frames):
            count = min(video.gop_frames, video.frames - start)
            crops = [shards.frames(sample, view, start, count) for view in range(len(views))]
            for frame in zip(*crops, strict=True):
                planes = cv2.cvtColor(mosaic.paint(frame), cv2.COLOR_RGB2YUV_I420)
                encoder.add(np.asarray(planes, dtype=np.uint8)[None])
            bar.update(count)
    return encoder.finish()[0]
