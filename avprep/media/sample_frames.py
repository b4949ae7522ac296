"""Look at a few frames of a video, small and grey."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from avprep.media.probe import MAX_PIXELS, open_media
from avprep.media.tracks import VideoTrack

_HEIGHT = 270
_MAX_ASPECT = 16
_UPRIGHT = 1.4
"""Frames of a lower aspect ratio, such as of eyes one above the other, are read in double size."""
_SAMPLE_TIMES = (0.2, 0.5, 0.8)
"""Times of the sampled frames, as fractions of the video's duration."""
_FRAME_S = 0.1


def sample_frames(
    path: Path, video: VideoTrack, duration_s: float, keys_only: bool = False
) -> Iterator[tuple[NDArray[np.float64], tuple[int, int]]]:
    """Up to three frames of a video track, grey and small, with their original (height, width).

    ``keys_only`` takes the nearest key frames, which is faster, but may repeat a frame.
    """
    with open_media(path) as container:
        stream = next(s for s in container.streams.video if s.index == video.index)
        stream.thread_type = "NONE"
        stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
        if keys_only:
            # Otherwise the decoder would decode some more frames before it returns the first one,
            # which doubles the cost.
            stream.codec_context.skip_frame = "NONKEY"
        start = (container.start_time or 0) / 1e6
        for fraction in _SAMPLE_TIMES:
            container.seek(int((start + fraction * duration_s) * 1e6), backward=True)
            begin = 0.0 if keys_only else fraction * duration_s - _FRAME_S
            frames = (f for f in container.decode(stream) if (f.time or 0.0) - start >= begin)
            frame = next(frames, None)
            if frame is not None:
                aspect = min(max(frame.width / frame.height, 0.05), _MAX_ASPECT)
                height = _HEIGHT if aspect >= _UPRIGHT else 2 * _HEIGHT
                small = frame.reformat(round(height * aspect), height, "gray", interpolation="AREA")
                yield small.to_ndarray().astype(np.float64), (frame.height, frame.width)
