"""Tone mapping: HDR crops become standard-range ones, which pretrained networks expect.

The image that HDR video gives on a display of 1000 nits is mapped to one of 203 nits (the reference
white of ITU-R BT.2408) with BT.709 primaries: dark and middle tones keep their brightness,
highlights are compressed with the curve of ITU-R BT.2390 (5.4.1). Crops have few pixels, so that
this costs less than mapping whole frames.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from avprep.media.tracks import Transfer

_PEAK_NITS, _WHITE_NITS = 1000.0, 203.0
_STEPS = 1 << 12
_GAMMA = 2.4
"""Gamma of standard-range displays (ITU-R BT.1886)."""
_KR, _KB = 0.2627, 0.0593
_LUMA_2020 = np.array([_KR, 1 - _KR - _KB, _KB], dtype=np.float32)
_LUMA_709 = np.array([0.2126, 0.7152, 0.0722], dtype=np.float32)
# From BT.2020 to BT.709 primaries (ITU-R BT.2087).
_TO_709 = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]],
    dtype=np.float32,
)
_HLG_A, _HLG_B, _HLG_C = 0.17883277, 0.28466892, 0.55991073

FloatPlanes = NDArray[np.floating[Any]]


def pq_of_nits(nits: NDArray[np.float64]) -> NDArray[np.float64]:
    """PQ signal 0 to 1 (SMPTE ST 2084) for luminances in nits."""
    power = (nits / 10_000.0) ** 0.1593017578125
    return np.asarray(((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375)


def nits_of_pq(signal: NDArray[np.float64]) -> NDArray[np.float64]:
    """Luminance 0 to 10000 nits (SMPTE ST 2084) for PQ signals."""
    power = signal ** (1 / 78.84375)
    light = np.maximum(power - 0.8359375, 0) / (18.8515625 - 18.6875 * power)
    return np.asarray(10_000.0 * light ** (1 / 0.1593017578125))


def _compressed(nits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Luminance in nits on the standard display: the curve of BT.2390, a knee in PQ's scale."""
    peak, white = pq_of_nits(np.array([_PEAK_NITS, _WHITE_NITS]))
    signal = np.minimum(pq_of_nits(nits) / peak, 1.0)
    most = white / peak
    knee = 1.5 * most - 0.5
    t = (signal - knee) / (1 - knee)
    bent = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee)
    bent += (3 * t**2 - 2 * t**3) * most
    return nits_of_pq(np.where(signal < knee, signal, bent) * peak)


class ToneMap:
    """Maps crops with one HDR transfer function to BT.709."""

    def __init__(self, transfer: Transfer) -> None:
        self._hlg = transfer == "hlg"
        signal = np.linspace(0, 1, _STEPS)
        if self._hlg:
            low, high = signal**2 / 3, (np.exp((signal - _HLG_C) / _HLG_A) + _HLG_B) / 12
            linear = np.where(signal <= 0.5, low, high)  # scene light, 0 to 1
        else:
            linear = nits_of_pq(signal)
        self._linear = linear.astype(np.float32)
        # A pixel's gain depends on its brightest channel; tabulated over that channel's PQ signal.
        self._nits = nits_of_pq(signal)
        gain = _compressed(self._nits) / np.maximum(self._nits, 1e-9) / _WHITE_NITS
        gain[0] = 1 / _WHITE_NITS
        self._gain = gain.astype(np.float32)

    def __call__(self, crops: NDArray[np.uint8 | np.uint16]) -> NDArray[np.uint8]:
        """10-bit crops (views, 3/2·height, width), planar YUV 4:2:0 in BT.2020, as 8-bit BT.709."""
        views, rows, width = crops.shape
        height = rows * 2 // 3
        halves = views, 2, height // 2, width // 2
        luma = crops[:, :height].astype(np.float32)
        colour = crops[:, height:].reshape(halves).astype(np.float32)
        y = (luma - 64) / 876
        cb, cr = (_doubled((colour[:, plane] - 512) / 896) for plane in (0, 1))
        red = y + 2 * (1 - _KR) * cr
        blue = y + 2 * (1 - _KB) * cb
        green = (y - _KR * red - _KB * blue) / (1 - _KR - _KB)
        signal = np.stack([red, green, blue])
        step = np.clip(signal * (_STEPS - 1) + 0.5, 0, _STEPS - 1).astype(np.int16)
        light = self._linear[step]
        if self._hlg:
            scene = np.tensordot(_LUMA_2020, light, 1)
            light *= _PEAK_NITS * np.maximum(scene, 1e-6) ** np.float32(0.2)
            gain = np.interp(light.max(axis=0), self._nits, self._gain).astype(np.float32)
        else:
            gain = self._gain[step.max(axis=0)]
        shown = np.tensordot(_TO_709, light * gain, 1)
        display = np.clip(shown, 0, 1) ** np.float32(1 / _GAMMA)
        y = np.tensordot(_LUMA_709, display, 1)
        mapped = np.empty(crops.shape, dtype=np.uint8)
        mapped[:, :height] = np.rint(16 + 219 * y)
        planes = mapped[:, height:].reshape(halves)
        for plane, channel, weight in ((0, 2, _LUMA_709[2]), (1, 0, _LUMA_709[0])):
            difference = (display[channel] - y) / (2 * (1 - weight))
            planes[:, plane] = np.rint(128 + 224 * _halved(difference))
        return mapped


def _doubled(planes: FloatPlanes) -> FloatPlanes:
    return np.asarray(planes.repeat(2, axis=1).repeat(2, axis=2))


def _halved(planes: FloatPlanes) -> FloatPlanes:
    views, rows, columns = planes.shape
    return np.asarray(planes.reshape(views, rows // 2, 2, columns // 2, 2).mean(axis=(2, 4)))
