"""Guess a frame's projection from its pixels.

An image of the sphere is continuous across the borders of its parts: an equirectangular frame from
its right edge to its left edge and over the poles, a cubemap from face to face. In the right
projection neighbouring directions are as similar across such borders as anywhere else; in a wrong
one they are not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from avprep.media.probe import MAX_PIXELS, open_media
from avprep.media.tracks import VideoTrack
from avprep.sphere.projections import Projection, Sphere

_HEIGHT = 270
_MAX_ASPECT = 16
_PAIRS = 30_000
_SAMPLE_TIMES = (0.2, 0.5, 0.8)
"""Times of the sampled frames, as fractions of the video's duration."""
_CANDIDATES: tuple[Projection, ...] = ("equirect", "eac", "cube3x2", "cube6x1")
_TEXTURE = 0.5
"""Frames whose neighbouring pixels differ by less (out of 255) show too little to decide."""
_STEREO_CORRELATION = 0.7
"""Halves of a frame that correlate more than this are the images of two eyes."""

_SURE = 0.5
_MIN_PAIRS = 20
_FRAME_S = 0.1

Grey = NDArray[np.float64]
Indices = NDArray[np.intp]


@dataclass(frozen=True)
class ProjectionGuess:
    """The most likely projection and stereo mode, the confidence (0 to 1), and the reason."""

    projection: Projection
    stereo: str
    confidence: float
    reason: str


def guess_projection(path: Path, video: VideoTrack, duration_s: float) -> ProjectionGuess | None:
    """Guess from one frame, and from further ones while the confidence is low.

    None if the frames show too little. Raises av.FFmpegError for a file that does not decode.
    """
    frames: list[Grey] = []
    best: ProjectionGuess | None = None
    for frame, size in sample_frames(path, video, duration_s, keys_only=True):
        frames.append(frame)
        best = _guess_from_frames(frames, size)
        if best is not None and best.confidence >= _SURE:
            break
    return best


def _guess_from_frames(frames: list[Grey], size: tuple[int, int]) -> ProjectionGuess | None:
    stereo = _stereo(frames)
    eyes = [_eye(frame, stereo) for frame in frames]
    breaks = {name: _border_change(eyes, name, size) for name in _CANDIDATES}
    if not all(np.isfinite(value) for value in breaks.values()):
        return None
    best, second = sorted(breaks, key=lambda name: breaks[name])[:2]
    confidence = float(np.clip(1 - breaks[best] / breaks[second], 0, 1))
    reason = (
        f"its pixels go on across its borders as {best} ({breaks[best]:.1f} times the change "
        f"inside; as {second} {breaks[second]:.1f})"
    )
    return ProjectionGuess(best, stereo, confidence, reason)


def sample_frames(
    path: Path, video: VideoTrack, duration_s: float, keys_only: bool = False
) -> Iterator[tuple[Grey, tuple[int, int]]]:
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
                width = round(_HEIGHT * min(max(frame.width / frame.height, 0.05), _MAX_ASPECT))
                small = frame.reformat(width, _HEIGHT, "gray", interpolation="AREA")
                yield small.to_ndarray().astype(np.float64), (frame.height, frame.width)


def _stereo(frames: list[Grey]) -> str:
    """The stereo mode: two eyes' images correlate, unlike the halves of a mono frame."""
    height, width = frames[0].shape
    halves = {
        "top-bottom": [(f[: height // 2], f[height // 2 : height // 2 * 2]) for f in frames],
        "left-right": [(f[:, : width // 2], f[:, width // 2 : width // 2 * 2]) for f in frames],
    }
    correlations = {
        name: float(np.median([_correlation(a, b) for a, b in pairs]))
        for name, pairs in halves.items()
    }
    best = max(correlations, key=lambda name: correlations[name])
    return best if correlations[best] > _STEREO_CORRELATION else "mono"


def _correlation(a: Grey, b: Grey) -> float:
    # Row means are removed: sky above ground makes any two images correlate.
    a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    scale = np.sqrt((a * a).sum() * (b * b).sum())
    return float((a * b).sum() / scale) if scale > 0 else 0.0


def _eye(frame: Grey, stereo: str) -> Grey:
    height, width = frame.shape
    if stereo == "top-bottom":
        return frame[: height // 2]
    return frame[:, : width // 2] if stereo == "left-right" else frame


def _border_change(frames: list[Grey], projection: Projection, size: tuple[int, int]) -> float:
    """Mean difference of neighbours across borders, relative to neighbours inside; NaN if there are
    too few or the frames lack texture."""
    height, width = frames[0].shape
    a, b, apart = _neighbours(projection, height, width, size)
    if apart.sum() < _MIN_PAIRS:
        return float("nan")
    change = np.mean([np.abs(f.ravel()[a] - f.ravel()[b]) for f in frames], axis=0)
    inside, across = float(change[~apart].mean()), float(change[apart].mean())
    return across / inside if inside > _TEXTURE else float("nan")


@lru_cache(maxsize=16)
def _neighbours(
    projection: Projection, height: int, width: int, size: tuple[int, int]
) -> tuple[Indices, Indices, NDArray[np.bool_]]:
    """Flat indices of pixels in neighbouring directions, and whether they lie apart in the
    frame."""
    sphere = Sphere(projection)
    rng = np.random.default_rng(0)
    step = 1.5 / sphere.density(height, width)
    first = _unit(rng.standard_normal((_PAIRS, 3)))
    second = _unit(first + step * _unit(np.cross(first, rng.standard_normal((_PAIRS, 3)))))
    a, b = (_pixels(sphere, directions, height, width, size) for directions in (first, second))
    apart = np.hypot(*(a - b).T) > 0.1 * min(height, width)
    return a @ (width, 1), b @ (width, 1), apart


def _pixels(
    sphere: Sphere, directions: Grey, height: int, width: int, size: tuple[int, int]
) -> NDArray[np.intp]:
    x, y = np.moveaxis(sphere.positions(directions, *size).xy, -1, 0)
    row = np.clip((y * height).astype(int), 0, height - 1)
    return np.stack([row, np.clip((x * width).astype(int), 0, width - 1)], axis=-1)


def _unit(vectors: Grey) -> Grey:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True))
