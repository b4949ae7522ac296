"""Which projection a frame has, by its pixels alone.

A picture of the sphere goes on across the borders of its parts: an equirectangular frame from its
right edge to its left and over the poles, a cubemap from face to face. In the right projection
neighbouring directions look alike across such borders as well as anywhere else; in a wrong one
they do not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from avprep.media.probe import MAX_PIXELS, open_media
from avprep.sphere.projections import Projection, Sphere

_HEIGHT = 270
_MOST_ASPECT = 16
_PAIRS = 30_000
_MOMENTS = (0.2, 0.5, 0.8)
_CANDIDATES: tuple[Projection, ...] = ("equirect", "eac", "cube3x2", "cube6x1")
_TEXTURE = 0.5
"""Frames whose neighbouring pixels differ by less (of 255) have nothing to tell by."""
_SAME_EYE = 0.7
"""Halves of a frame that correlate like this are two eyes' pictures."""

_SURE = 0.5
_FEWEST_PAIRS = 20
_FRAME_S = 0.1

Grey = NDArray[np.float64]
Indices = NDArray[np.intp]


@dataclass(frozen=True)
class Guess:
    """The likeliest projection and stereo mode, how sure they are (0 to 1), and why."""

    projection: Projection
    stereo: str
    confidence: float
    reason: str


def guess(path: Path, duration_s: float) -> Guess | None:
    """Look at one frame, and at more while it is not sure.

    Raises av.FFmpegError for a file that does not decode; None where nothing can be told.
    """
    frames: list[Grey] = []
    best: Guess | None = None
    for frame, size in small_frames(path, duration_s, keys_only=True):
        frames.append(frame)
        best = _guess(frames, size)
        if best is not None and best.confidence >= _SURE:
            break
    return best


def _guess(frames: list[Grey], size: tuple[int, int]) -> Guess | None:
    stereo = _stereo(frames)
    eyes = [_eye(frame, stereo) for frame in frames]
    breaks = {name: _breaks(eyes, name, size) for name in _CANDIDATES}
    if not all(np.isfinite(value) for value in breaks.values()):
        return None
    best, second = sorted(breaks, key=lambda name: breaks[name])[:2]
    confidence = float(np.clip(1 - breaks[best] / breaks[second], 0, 1))
    reason = (
        f"its pixels go on across its borders as {best} ({breaks[best]:.1f} times the change "
        f"inside; as {second} {breaks[second]:.1f})"
    )
    return Guess(best, stereo, confidence, reason)


def small_frames(
    path: Path, duration_s: float, keys_only: bool = False
) -> Iterator[tuple[Grey, tuple[int, int]]]:
    """Some frames, in grey and small, and their own height and width.

    ``keys_only`` takes the nearest key frames, which is faster, but may be the same one again.
    """
    with open_media(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
        if keys_only:
            # Decoders hand out a frame after they have seen some more, which costs as much again.
            stream.codec_context.skip_frame = "NONKEY"
        start = (container.start_time or 0) / 1e6
        for moment in _MOMENTS:
            container.seek(int((start + moment * duration_s) * 1e6), backward=True)
            begin = 0.0 if keys_only else moment * duration_s - _FRAME_S
            frames = (f for f in container.decode(stream) if (f.time or 0.0) - start >= begin)
            frame = next(frames, None)
            if frame is not None:
                width = round(_HEIGHT * min(max(frame.width / frame.height, 0.05), _MOST_ASPECT))
                small = frame.reformat(width, _HEIGHT, "gray", interpolation="AREA")
                yield small.to_ndarray().astype(np.float64), (frame.height, frame.width)


def _stereo(frames: list[Grey]) -> str:
    """Two eyes see nearly the same; above and below, or left and right, hardly ever look alike."""
    height, width = frames[0].shape
    halves = {
        "top-bottom": [(f[: height // 2], f[height // 2 : height // 2 * 2]) for f in frames],
        "left-right": [(f[:, : width // 2], f[:, width // 2 : width // 2 * 2]) for f in frames],
    }
    likeness = {
        name: float(np.median([_correlation(a, b) for a, b in pairs]))
        for name, pairs in halves.items()
    }
    best = max(likeness, key=lambda name: likeness[name])
    return best if likeness[best] > _SAME_EYE else "mono"


def _correlation(a: Grey, b: Grey) -> float:
    # Without what all rows have in common: sky and ground are alike in any two pictures.
    a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    scale = np.sqrt((a * a).sum() * (b * b).sum())
    return float((a * b).sum() / scale) if scale > 0 else 0.0


def _eye(frame: Grey, stereo: str) -> Grey:
    height, width = frame.shape
    if stereo == "top-bottom":
        return frame[: height // 2]
    return frame[:, : width // 2] if stereo == "left-right" else frame


def _breaks(frames: list[Grey], projection: Projection, size: tuple[int, int]) -> float:
    """How much neighbours differ across borders, relative to neighbours inside; NaN if unknown."""
    height, width = frames[0].shape
    a, b, apart = _neighbours(projection, height, width, size)
    if apart.sum() < _FEWEST_PAIRS:
        return float("nan")
    change = np.mean([np.abs(f.ravel()[a] - f.ravel()[b]) for f in frames], axis=0)
    inside, across = float(change[~apart].mean()), float(change[apart].mean())
    return across / inside if inside > _TEXTURE else float("nan")


@lru_cache(maxsize=16)
def _neighbours(
    projection: Projection, height: int, width: int, size: tuple[int, int]
) -> tuple[Indices, Indices, NDArray[np.bool_]]:
    """Pixels of neighbouring directions, and whether they lie apart in the frame."""
    sphere = Sphere(projection)
    rng = np.random.default_rng(0)
    step = 1.5 / sphere.density(height, width)
    here = _unit(rng.standard_normal((_PAIRS, 3)))
    there = _unit(here + step * _unit(np.cross(here, rng.standard_normal((_PAIRS, 3)))))
    a, b = (_pixels(sphere, directions, height, width, size) for directions in (here, there))
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
