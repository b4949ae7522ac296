"""The members of a sample: crops as H.264 in mp4, sound as FLAC."""

from __future__ import annotations

import io
from fractions import Fraction

import av
import cv2
import numpy as np
import soundfile
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream
from numpy.typing import NDArray

GOP_FRAMES = 8
_FULL_SCALE = 32767 / 32768
# Every GOP starts at a known frame and is decoded by itself, quickly: no scene-cut key frames, no
# B-frames, no deblocking and no CABAC (tune=fastdecode). No look-ahead: its macroblock tree reads
# memory that it did not write (seen in x264 core 165 with AVX at 112 pixels), so that the same
# frames may give other bytes. For crops this small, ultrafast with a constant quantiser has the
# quality and size of superfast with crf 24, in half the time (and as good as crf 20 with a
# look-ahead).
_X264 = {
    "preset": "ultrafast",
    "tune": "fastdecode",
    "qp": "21",
    "g": str(GOP_FRAMES),
    "keyint_min": str(GOP_FRAMES),
    "sc_threshold": "0",
    "bf": "0",
    "threads": "1",
}


class CropEncoder:
    """Encodes planar YUV 4:2:0 crops (3/2·size, size) of one view into an mp4 in memory.

    ``colorspace`` is the source's YCbCr matrix (ITU-T H.273), passed on since planes are copied;
    ``transfer`` and ``primaries`` likewise (2: unknown).
    """

    def __init__(
        self, size: int, fps: Fraction, colorspace: int, transfer: int = 2, primaries: int = 2
    ) -> None:
        self._buffer = io.BytesIO()
        self._container = av.open(self._buffer, "w", format="mp4", options={"fflags": "+bitexact"})
        stream = self._container.add_stream("libx264", rate=fps, options=_X264)
        if not isinstance(stream, VideoStream):
            raise TypeError("libx264 made no video stream")
        self._stream = stream
        context: VideoCodecContext = stream.codec_context
        context.width = context.height = size
        context.pix_fmt = "yuv420p"
        context.time_base = 1 / fps
        context.colorspace = colorspace
        context.color_trc = transfer
        context.color_primaries = primaries
        context.color_range = 1  # limited
        self._frames = 0

    def add(self, crop: NDArray[np.uint8]) -> None:
        """Encode the next frame; ``crop`` is not copied and must not change until it is encoded."""
        frame = av.VideoFrame.from_numpy_buffer(crop, format="yuv420p")
        frame.pts = self._frames
        self._frames += 1
        self._container.mux(self._stream.encode(frame))

    def finish(self) -> bytes:
        """The whole file, once."""
        self._container.mux(self._stream.encode(None))
        self._container.close()
        content = self._buffer.getvalue()
        self._buffer.close()  # the container, which has cycles, may outlive this object
        return content


def rotation_safe_gain(foa: NDArray[np.float32]) -> float:
    """The gain ≤ 1 with which no rotation of the field (4, samples) exceeds full scale.

    A rotated directional channel is at most sqrt(X² + Y² + Z²), whatever the rotation, so that
    rotated and unrotated sound get the same gain.
    """
    directional = np.einsum("cn,cn->n", foa[1:], foa[1:]).max(initial=0.0) ** 0.5
    peak = max(float(np.abs(foa[0]).max(initial=0.0)), float(directional))
    if peak <= _FULL_SCALE:
        return 1.0
    # Rounded down to six digits, so that the number in the JSON is exactly the one applied.
    gain = _FULL_SCALE / peak
    scale = 10.0 ** (6 - np.ceil(np.log10(gain)))
    return float(np.floor(gain * scale) / scale)


def flac(sound: NDArray[np.float32], gain: float, sample_rate: int) -> bytes:
    """Sound (channels, samples) times ``gain`` as FLAC of 16 bits."""
    # libsndfile wants interleaved channels; NumPy takes several times as long to make them.
    scaled = np.asarray(cv2.transpose(sound), dtype=np.float32)
    scaled *= np.float32(gain * 32768)
    # The gain keeps all within 16 bits (`rotation_safe_gain`).
    samples = np.rint(scaled, out=scaled).astype(np.int16)
    buffer = io.BytesIO()
    # The lowest level costs 2 % of size, is the fastest and has short blocks, so that a window
    # reads less around it.
    soundfile.write(
        buffer, samples, sample_rate, format="FLAC", subtype="PCM_16", compression_level=0.0
    )
    return buffer.getvalue()
