"""From decoded frames to one H.264 file per view, and one of the whole sphere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from avprep.media.decode_video import VideoDecoder, VideoRequest
from avprep.media.encode import GOP_FRAMES, CropEncoder
from avprep.media.tone_map import ToneMap
from avprep.media.tracks import VideoTrack
from avprep.sample.options import ClipOptions
from avprep.sample.thresholds import MotionMeter
from avprep.sphere.crop import FRAMES_AT_ONCE, Cropper, Plane
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
    """The views' mp4 files, that of the panorama if there is one, and the number of frames in each
    (0: none could be decoded)."""

    files: list[bytes]
    panorama: bytes | None
    frames: int

    def info(self, options: ClipOptions) -> VideoInfo:
        """The record of the views' files, with the places of their frames."""
        return self._info(self.files, (options.size, options.size), options.fps)

    def panorama_info(self, options: ClipOptions) -> VideoInfo | None:
        """The record of the panorama, if there is one."""
        if self.panorama is None or options.panorama is None:
            return None
        width, height = options.panorama
        return self._info([self.panorama], (height, width), options.fps)

    def _info(self, files: list[bytes], size: tuple[int, int], fps: float) -> VideoInfo:
        indices = [index_mp4(file) for file in files]
        if any(index[0] != indices[0][0] or index[2] != self.frames for index in indices):
            raise RuntimeError("the crops of one clip were encoded differently")
        return VideoInfo(
            fps=fps,
            frames=self.frames,
            height=size[0],
            width=size[1],
            gop_frames=GOP_FRAMES,
            avcc=indices[0][0],
            gops=tuple(index[1] for index in indices),
        )


class _Film:
    """Views of one size, cropped from frames of one size and encoded together."""

    def __init__(
        self,
        views: Sequence[View | None],
        size: tuple[int, int],
        sphere: Sphere,
        encoder: CropEncoder,
    ) -> None:
        self._views = views
        self._size = size
        self._sphere = sphere
        self._cropper: Cropper | None = None
        self.encoder = encoder

    def crop(self, frames: Sequence[Sequence[Plane]]) -> NDArray[np.uint8 | np.uint16]:
        if self._cropper is None:
            height, width = frames[0][0].shape
            self._cropper = Cropper(height, width, self._views, self._size, self._sphere)
        return self._cropper.crop_frames(frames)


def crop_views(
    decoder: VideoDecoder,
    request: VideoRequest,
    track: VideoTrack,
    sphere: Sphere,
    views: tuple[View, ...],
    options: ClipOptions,
    motion: MotionMeter | None,
) -> CroppedVideo:
    """Crop all views of each decoded frame, and the whole sphere if ``options`` ask for it, and
    encode them. ``motion`` measures the frames."""
    tone_map = ToneMap(track.hdr) if track.hdr is not None else None
    colours = (_BT601 if track.colorspace == _RGB else track.colorspace, _UNKNOWN, _UNKNOWN)
    if tone_map is not None:
        colours = _BT709
    fps = Fraction(options.fps).limit_denominator(1001)
    wanted: list[tuple[Sequence[View | None], tuple[int, int]]] = [(views, (options.size,) * 2)]
    if options.panorama is not None:
        wanted.append(((None,), options.panorama[::-1]))
    films = [
        _Film(shown, size, sphere, CropEncoder(len(shown), size, fps, *colours))
        for shown, size in wanted
    ]
    frames = 0
    decoded = decoder.frames(max(1, round(request.duration_s * options.fps)))
    # Large frames, of which few pixels are sampled, are not faster together, but fill the memory.
    at_once = FRAMES_AT_ONCE if track.width * track.height <= _LARGE_FRAME else 1
    while batch := list(islice(decoded, at_once)):
        for film in films:
            crops = film.crop([planes for planes, _ in batch])
            for (_, repeats), crop in zip(batch, crops, strict=True):
                finished = tone_map(crop) if tone_map else crop.astype(np.uint8, copy=False)
                for _ in range(repeats):
                    film.encoder.add(finished)
        for planes, repeats in batch:
            if motion is not None:
                for _ in range(repeats):
                    motion.add(planes[0])
            frames += repeats
    if not frames:
        return CroppedVideo([], None, 0)
    files, *panoramas = [film.encoder.finish() for film in films]
    return CroppedVideo(files, panoramas[0][0] if panoramas else None, frames)
