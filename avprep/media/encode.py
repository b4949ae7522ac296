"""Encode a sample's members: crops as H.264 in mp4, audio as FLAC."""

from __future__ import annotations

import io
from fractions import Fraction

import av
import cv2
import numpy as np
import soundfile
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import PictureType
from av.video.stream import VideoStream
from numpy.typing import NDArray

GOP_FRAMES = 8
_FULL_SCALE = 32767 / 32768
# Each GOP starts at a known frame and decodes quickly by itself: no scene-cut key frames, no
# B-frames, no deblocking and no CABAC (tune=fastdecode). No look-ahead: its macroblock tree reads
# uninitialised memory (seen in x264 core 165 with AVX at 112 pixels), so that the same frames may
# give different bytes. For crops this small, ultrafast with a constant quantiser reaches the
# quality and size of superfast with crf 24 in half the time (and the quality of crf 20 with
# look-ahead). Blocks with few small coefficients are kept (no-dct-decimate): 1 % more bytes,
# 0.06 dB better and 10 % faster.
_X264 = {
    "preset": "ultrafast",
    "tune": "fastdecode",
    "qp": "21",
    "g": str(GOP_FRAMES),
    "keyint_min": str(GOP_FRAMES),
    "forced-idr": "1",
    "x264-params": "no-dct-decimate=1",
    "sc_threshold": "0",
    "bf": "0",
    "threads": "1",
}


class CropEncoder:
    """Encodes planar YUV 4:2:0 crops (views, 3/2·height, width) into one mp4 in memory per view.

    A single encoder takes one GOP of each view in turn. This is possible since GOPs are closed, and
    saves opening an encoder per view, which costs a sixth of the encoding time. ``colorspace`` is
    the source's YCbCr matrix (ITU-T H.273), written to the file since the planes are not
    converted; ``transfer`` and ``primaries`` likewise (2: unknown). ``size`` is (height, width), or
    one number for both.
    """

    def __init__(
        self,
        views: int,
        size: int | tuple[int, int],
        fps: Fraction,
        colorspace: int,
        transfer: int = 2,
        primaries: int = 2,
    ) -> None:
        self._time_base = 1 / fps
        self._buffers = [io.BytesIO() for _ in range(views)]
        self._containers = [
            av.open(buffer, "w", format="mp4", options={"fflags": "+bitexact"})
            for buffer in self._buffers
        ]
        stream = self._containers[0].add_stream("libx264", rate=fps, options=_X264)
        if not isinstance(stream, VideoStream):
            raise TypeError("libx264 made no video stream")
        context: VideoCodecContext = stream.codec_context
        context.height, context.width = (size, size) if isinstance(size, int) else size
        context.pix_fmt = "yuv420p"
        context.time_base = self._time_base
        context.colorspace = colorspace
        context.color_trc = transfer
        context.color_primaries = primaries
        context.color_range = 1  # limited
        self._context = context
        self._containers[0].start_encoding()  # opens the encoder, whose headers the others copy
        self._streams = [
            stream,
            *(container.add_stream_from_template(stream) for container in self._containers[1:]),
        ]
        self._pending: list[NDArray[np.uint8]] = []
        self._frames = 0
        self._sent: list[tuple[int, int]] = []

    def add(self, crops: NDArray[np.uint8]) -> None:
        """Add the next frame of all views.

        ``crops`` is not copied and must not change until its GOP is complete and encoded.
        """
        self._pending.append(crops)
        if len(self._pending) == GOP_FRAMES:
            self._encode()

    def finish(self) -> list[bytes]:
        """Complete the files and return them, one per view; call it once."""
        self._encode()
        self._mux(self._context.encode(None))
        files = []
        for container, buffer in zip(self._containers, self._buffers, strict=True):
            container.close()
            files.append(buffer.getvalue())
            buffer.close()  # the container, which has reference cycles, may outlive this object
        return files

    def _encode(self) -> None:
        for view in range(len(self._streams)):
            for number, crops in enumerate(self._pending):
                frame = av.VideoFrame.from_numpy_buffer(crops[view], format="yuv420p")
                frame.pts = len(self._sent)
                if number == 0:
                    frame.pict_type = PictureType.I
                self._sent.append((view, self._frames + number))
                self._mux(self._context.encode(frame))
        self._frames += len(self._pending)
        self._pending = []

    def _mux(self, packets: list[Packet[VideoStream]]) -> None:
        for packet in packets:
            view, number = self._sent[packet.pts or 0]
            packet.stream = self._streams[view]
            packet.time_base = self._time_base
            packet.pts = packet.dts = number
            self._containers[view].mux_one(packet)


def rotation_safe_gain(foa: NDArray[np.float32]) -> float:
    """The largest gain ≤ 1 with which no rotation of the field (4, samples) exceeds full scale.

    Under any rotation a directional channel is at most sqrt(X² + Y² + Z²), so that rotated and
    unrotated audio get the same gain.
    """
    directional = np.einsum("cn,cn->n", foa[1:], foa[1:]).max(initial=0.0) ** 0.5
    peak = max(float(np.abs(foa[0]).max(initial=0.0)), float(directional))
    if peak <= _FULL_SCALE:
        return 1.0
    # Rounded down to six digits, so that the number in the JSON is exactly the applied one.
    gain = _FULL_SCALE / peak
    scale = 10.0 ** (6 - np.ceil(np.log10(gain)))
    return float(np.floor(gain * scale) / scale)


def encode_flac(audio: NDArray[np.float32], matrix: NDArray[np.float64], sample_rate: int) -> bytes:
    """16-bit FLAC of ``matrix`` (outputs, channels) applied to interleaved audio (samples,
    channels).

    The matrix includes the gain that keeps the result within full scale (`rotation_safe_gain`).
    """
    weights = np.asarray(matrix * 32768, dtype=np.float32)
    # OpenCV transforms interleaved channels in a third of NumPy's time.
    transformed = np.asarray(cv2.transform(audio[:, None], weights), dtype=np.float32)
    samples = np.rint(transformed, out=transformed).astype(np.int16).reshape(len(audio), -1)
    buffer = io.BytesIO()
    # Level 0 is 2 % larger, but fastest, and has short frames, so that reading a window reads less
    # around it.
    soundfile.write(
        buffer, samples, sample_rate, format="FLAC", subtype="PCM_16", compression_level=0.0
    )
    return buffer.getvalue()
