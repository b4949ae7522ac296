"""Guess the ambisonics convention of four channels from their samples.

Sound from a single direction has the same energy in W as in the three directional channels
together (SN3D), half of it (FuMa, whose W is 3 dB lower) or a third (N3D). Signs and order of the
directional channels cannot be determined from audio alone: compare the energy map with the video.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

_LEVELS_DB = {"SN3D": 0.0, "FuMa": 3.01, "N3D": 4.77}
_WINDOW = 1024
_RANK_ONE = 0.95
_MIN_BINS = 200
_MAX_BINS = 10_000
_MAX_PEAK = 1e6
"""Float files may hold any numbers; larger ones, or NaN, are no audio samples."""
_CLEAR_DB = 1.0
_A_FORMAT_CORRELATION = 0.4


@dataclass(frozen=True)
class ChannelAnalysis:
    """Measurements of four channels.

    The analysis uses *direct* bins of the spectrum, those with sound from a single direction.

    Attributes
    ----------
    w
        Index of the omnidirectional channel.
    ratio_db
        Median energy of the other channels relative to ``w`` in direct bins.
    spread_db
        Interquartile range of that ratio.
    bins
        Number of direct bins.
    correlation
        Smallest absolute correlation between two channels.
    like_sn3d
        Share of direct bins closer to SN3D, with W in channel 0, than to the other normalizations.
    """

    w: int
    ratio_db: float
    spread_db: float
    bins: int
    correlation: float
    like_sn3d: float = 0.0

    @property
    def normalization(self) -> str:
        """The closest of SN3D, FuMa and N3D."""
        return min(_LEVELS_DB, key=lambda name: abs(_LEVELS_DB[name] - self.ratio_db))

    @property
    def is_sure(self) -> bool:
        """Whether there are enough bins and they agree on one normalization."""
        deviation = abs(_LEVELS_DB[self.normalization] - self.ratio_db)
        return self.bins >= _MIN_BINS and self.spread_db < 2.0 and deviation < 0.75

    @property
    def looks_like_capsules(self) -> bool:
        """Whether all channels are correlated, like the raw capsules of a tetrahedral microphone.

        An ambisonic field with few sources is correlated as well, but its W is clear.
        """
        is_field = self.is_sure and self.normalization != "N3D"
        return self.correlation > _A_FORMAT_CORRELATION and not is_field


def analyse_channels(channels: NDArray[np.float32]) -> ChannelAnalysis | None:
    """Analyse four channels (4, samples); None if they are silent, too short or not audio."""
    peak = float(np.abs(channels).max(initial=0.0))
    if channels.shape[1] < 8 * _WINDOW or not 0 < peak < _MAX_PEAK:
        return None
    windows = np.lib.stride_tricks.sliding_window_view(channels, _WINDOW, axis=1)
    spectra = np.fft.rfft(windows[:, :: _WINDOW // 2] * np.hanning(_WINDOW), axis=2)
    # Covariance over each bin's neighbourhood: 5 times × 3 frequencies.
    products = np.einsum("atf,btf->abtf", spectra, spectra.conj())
    covariance = np.empty_like(products)
    for pair in np.ndindex(4, 4):
        real, imag = (cv2.blur(part, (3, 5)) for part in (products[pair].real, products[pair].imag))
        covariance[pair] = real + 1j * imag
    power = np.einsum("aatf->tf", covariance).real
    loud = np.flatnonzero(power > 1e-4 * power.max())
    loud = loud[:: -(-len(loud) // _MAX_BINS)]
    chosen = np.moveaxis(covariance.reshape(4, 4, -1)[:, :, loud], -1, 0)
    largest = np.linalg.eigvalsh(chosen)[:, -1]
    direct = chosen[largest > _RANK_ONE * power.ravel()[loud]]
    with np.errstate(invalid="ignore", divide="ignore"):  # a silent channel correlates with none
        correlations = np.nan_to_num(np.abs(np.corrcoef(channels)))
    correlation = float(correlations[~np.eye(4, dtype=bool)].min())
    if len(direct) == 0:
        return ChannelAnalysis(0, 0.0, np.inf, 0, correlation)
    energies = np.einsum("naa->na", direct).real.astype(np.float64)
    total = energies.sum(axis=1, keepdims=True)
    # Moving sums may give a silent channel a slightly negative energy.
    energies, others = (np.maximum(e, 1e-9 * total) for e in (energies, total - energies))
    ratios = 10 * np.log10(others / energies)
    low, middle, high = np.percentile(ratios, [25, 50, 75], axis=0)
    spread = high - low
    # With a single source all channels are alike; then the first one is W, as in all conventions.
    w = 0 if spread[0] < spread.min() + _CLEAR_DB else int(np.argmin(spread))
    like_sn3d = 0.0
    if w == 0:
        levels = np.array(list(_LEVELS_DB.values()))
        nearest = np.abs(ratios[:, 0, None] - levels).argmin(axis=1)
        like_sn3d = float(np.mean(nearest == list(_LEVELS_DB).index("SN3D")))
    return ChannelAnalysis(
        w, float(middle[w]), float(spread[w]), len(direct), correlation, like_sn3d
    )
