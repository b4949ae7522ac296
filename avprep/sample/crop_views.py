"""From decoded frames to one H.264 file per view."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from itertools import islice

import numpy as np

from avprep.media.decode_video import VideoDecoder, VideoRequest
from avprep.media.encode import GOP_FRAMES, CropEncoder
from avprep.media.tone_map import ToneMap
from avprep.media.tracks import VideoTrack
from avprep.sample.options import ClipOptions
from avprep.sample.thresholds import MotionMeter
from avprep.sphere.crop import FRAMES_AT_ONCE, Cropper
from avprep.sphere.projections import Sphere
from shards.schema import VideoInfo, View
from shards.video import index_mp4

_BT709 = (1, 1, 1)
_RGB, _BT601 = 0, 6
"""Codes of YCbCr matrices in ITU-T H.273. Frames stored as RGB are converted to BT.601."""
_UNKNOWN = 2
_LARGE_FRAME = 1 << 26
"""Pixels; more than 11,500 × 5,750."""


@dataclass(frozen=True)
class CroppedVideo:
    """The views' mp4 files, and the number of frames in each (0: none could be decoded)."""

    files: list[bytes]
    frames: int

    def info(self, options: ClipOptions) -> VideoInfo:
        """The record of the files, with the places of their frames."""
        indices = [index_mp4(file) for file in self.files]
        if any(index[0] != indices[0][0] or index[2] != self.frames for index in indices):
            raise RuntimeError("the crops of one clip were encoded differently")
        return VideoInfo(
            fps=options.fps,
            frames=self.frames,
            height=options.size,
            width=options.size,
            gop_frames=GOP_FRAMES,
            avcc=indices[0][0],
            gops=tuple(index[1] for index in indices),
        )


def crop_views(
    decoder: VideoDecoder,
    request: VideoRequest,
    track: VideoTrack,
    sphere: Sphere,
    views: tuple[View, ...],
    options: ClipOptions,
    motion: MotionMeter | None,
) -> CroppedVideo:
    """Crop all views of each decoded frame and encode them. ``motion`` measures the frames."""
    cropper: Cropper | None = None
    tone_map = ToneMap(track.hdr) if track.hdr is not None else None
    colours = (_BT601 if track.colorspace == _RGB else track.colorspace, _UNKNOWN, _UNKNOWN)
    if tone_map is not None:
        colours = _BT709
    fps = Fraction(options.fps).limit_denominator(1001)
    encoder = CropEncoder(len(views), options.size, fps, *colours)
    frames = 0
    decoded = decoder.frames(max(1, round(request.duration_s * options.fps)))
    # Large frames, of which few pixels are sampled, are not faster together, but fill the memory.
    at_once = FRAMES_AT_ONCE if track.width * track.height <= _LARGE_FRAME else 1
    while batch := list(islice(decoded, at_once)):
        if cropper is None:
            height, width = batch[0][0][0].shape
            cropper = Cropper(height, width, views, options.size, sphere)
        crops = cropper.crop_frames([planes for planes, _ in batch])
        for (planes, repeats), crop in zip(batch, crops, strict=True):
            finished = tone_map(crop) if tone_map else crop.astype(np.uint8, copy=False)
            for _ in range(repeats):
                if motion is not None:
                    motion.add(planes[0])
                encoder.add(finished)
            frames += repeats
    return CroppedVideo(encoder.finish() if frames else [], frames)
