"""Convert first-order ambisonics from the conventions that files use to ambiX.

Rotations are in `shards.geometry`, since readers need them too.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from avprep.errors import ClipError

Foa = NDArray[np.float32]

HIGHER_ORDERS = (9, 16, 25, 36, 49)
"""Channel counts of second and higher orders, whose first four channels are first order."""
# YouTube's six AAC channels decode as FL, FR, FC, LFE, BL, BR and contain X, Y, W, 0, Z, 0.
_YOUTUBE_ORDER = (2, 1, 4, 0)
_FUMA_ORDER = (0, 2, 3, 1)
_YOUTUBE_SILENT = [3, 5]
_YOUTUBE_DIRECTIONAL = [0, 1, 4]
_FLOOR_DBFS = -120.0
_SILENCE = 1e-3
"""Channels this far below the loudest one (-60 dB) count as silent."""
_MAX_PEAK = 1e5
"""Float files may hold unscaled 16-bit numbers, up to 32768; beyond are no audio samples."""


def to_ambix(raw: Foa, convention: str, indices: tuple[int, int, int, int] | None = None) -> Foa:
    """Convert decoded channels (channels, samples) to ambiX FOA (4, samples): W, Y, Z, X, SN3D.

    The convention ``auto`` reads four channels (or the first four of a higher order) as ambiX, and
    six channels, with silent LFE and right surround, as YouTube's. A named convention uses the
    first four of more channels. ``indices`` are those of W, Y, Z, X if the container states
    them. Raises ClipError, with a remedy, for audio that does not follow the convention or holds
    NaN or infinite samples.
    """
    channels = len(raw)
    raw, peaks = check_audio(raw)
    if indices is not None:
        return raw[list(indices)]
    if convention == "auto":
        convention = "youtube" if channels == 6 else "ambix"
        if channels > 4 and channels != 6 and channels not in HIGHER_ORDERS:
            raise ClipError(
                f"its sound has {channels} channels, which is no full order of ambisonics (4, 9, "
                "16, …); if the first four are W, Y, Z, X, add --foa-convention ambix"
            )
    if convention == "youtube":
        _check_youtube(raw, peaks)
        return raw[list(_YOUTUBE_ORDER)]
    if channels < 4:
        raise ClipError(
            f"its sound has {channels} channel{'s' * (channels != 1)}, which is not ambisonics "
            "(first order has 4); put the ambisonic sound beside it as a file of the same name"
        )
    if convention == "fuma":
        w, y, z, x = raw[list(_FUMA_ORDER)]
        return np.stack([np.float32(np.sqrt(2)) * w, y, z, x])
    if convention == "n3d":
        return np.asarray(raw[:4] * np.array([[1], *[[1 / 3**0.5]] * 3], dtype=np.float32))
    return raw[:4]


def channel_order(convention: str) -> tuple[int, int, int, int]:
    """The indices of W, Y, Z, X among the channels of a convention."""
    if convention == "youtube":
        return _YOUTUBE_ORDER
    return _FUMA_ORDER if convention == "fuma" else (0, 1, 2, 3)


def check_audio(raw: Foa) -> tuple[Foa, NDArray[np.float32]]:
    """Channels (channels, samples), contiguous in memory, and the peak of each (channels,).

    Raises ClipError for NaN, infinite or impossibly large samples.
    """
    raw = np.ascontiguousarray(raw)  # checking interleaved channels takes several times as long
    peaks = np.maximum(raw.max(axis=1, initial=0.0), -raw.min(axis=1, initial=0.0))
    peak = float(peaks.max(initial=0.0))
    if not np.isfinite(peak):
        bad = int(np.count_nonzero(~np.isfinite(raw)))
        raise ClipError(f"its sound holds {bad} samples that are NaN or infinite; export it again")
    if peak > _MAX_PEAK:
        raise ClipError(
            f"its sound peaks at {peak:.1g} times full scale, which no recording does; export it "
            "again as audio samples"
        )
    return raw, peaks


def _check_youtube(raw: Foa, peaks: NDArray[np.float32]) -> None:
    if len(raw) != 6:
        raise ClipError(f"its sound has {len(raw)} channels, but YouTube's ambisonics has 6")
    if peaks[_YOUTUBE_SILENT].max() > _SILENCE * peaks.max():
        raise ClipError(
            "its six channels are not YouTube ambisonics (LFE and right surround should be silent) "
            "but probably 5.1 surround; use the ambisonic download of this recording"
        )
    if peaks[2] > 0 and peaks[_YOUTUBE_DIRECTIONAL].max() <= _SILENCE * peaks[2]:
        raise ClipError(
            "its six channels are not YouTube ambisonics (all directional ones are silent) but "
            "probably speech in a 5.1 track; use the ambisonic download of this recording"
        )
    energy = np.einsum("cn,cn->c", raw, raw)
    if energy[2] < 0.02 * energy.sum():
        raise ClipError(
            "its six channels are not YouTube ambisonics (the omnidirectional one is silent) but "
            "probably stereo in a 5.1 track; use the ambisonic download of this recording"
        )


def level_dbfs(foa: Foa) -> float:
    """RMS level of W in dB relative to full scale, at least -120 dB."""
    rms = float(np.sqrt(np.mean(np.square(foa[0], dtype=np.float64)))) if foa.shape[1] else 0.0
    return max(20 * float(np.log10(max(rms, 1e-6))), _FLOOR_DBFS)


def spatiality(foa: Foa) -> float:
    """1 - the share of the largest eigenvalue in the covariance of W, Y, Z, X.

    0 for a single source in any direction, at most 3/4.
    """
    covariance = np.cov(foa.astype(np.float64))
    total = float(np.trace(covariance))
    return 1 - float(np.linalg.eigvalsh(covariance)[-1]) / total if total > 0 else 0.0
