"""Guess the ambisonics convention of four channels from their samples.

Sound from a single direction has the same energy in W as in the three directional channels
together (SN3D), half of it (FuMa, whose W is 3 dB lower) or a third (N3D). Signs and order of the
directional channels cannot be determined from audio alone: compare the energy map with the video.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

LEVELS_DB = {"SN3D": 0.0, "FuMa": 3.01, "N3D": 4.77}
"""Energy of Y, Z and X together relative to W, for each normalization."""
_WINDOW = 1024
_BAND_HZ = (100.0, 8000.0)
"""Lower, microphones pick up wind; higher, they cannot tell directions."""
_TIMES, _BINS = 5, 3
_RANK_ONE = 0.905
"""Least sum of a covariance's squared entries, relative to its squared trace, in direct bins: more
than 95 % of the energy then belongs to one signal."""
_MIN_BINS, _MAX_BINS = 200, 4_000
"""Fewer direct bins tell nothing; more add nothing."""
_MAX_PEAK = 1e6
"""Float files may hold any numbers; larger ones, or NaN, are no audio samples."""
_CLEAR_DB = 1.0
_A_FORMAT_CORRELATION = 0.4
_ALONE = 0.9
"""In sound from one direction no channel has more than 3/4 of the energy (N3D; SN3D: a half)."""
_MOSTLY_ALONE, _OFTEN_ALONE = 0.5, 0.05
_UNRELATED = 0.1
_FAR_DB = 4.0
"""Real microphones deviate by up to 3 dB."""

Spectra = NDArray[np.complex64]


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
    correlations
        Smallest and largest absolute correlation between two channels.
    overall_db
        Energy of the other channels relative to the first one in all bins.
    fits
        Share of direct bins that are closest to SN3D, FuMa and N3D with W in the first channel.
    alone
        Share of direct bins in which hardly any channel but this one sounds, for each channel.
    """

    w: int
    ratio_db: float
    spread_db: float
    bins: int
    correlations: tuple[float, float]
    overall_db: float
    fits: tuple[float, float, float] = (0.0, 0.0, 0.0)
    alone: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0)

    @property
    def normalization(self) -> str:
        """The closest of SN3D, FuMa and N3D."""
        return min(LEVELS_DB, key=lambda name: abs(LEVELS_DB[name] - self.ratio_db))

    @property
    def is_sure(self) -> bool:
        """Whether there are enough bins and they agree on one normalization."""
        deviation = abs(LEVELS_DB[self.normalization] - self.ratio_db)
        return self.bins >= _MIN_BINS and self.spread_db < 2.0 and deviation < 0.75

    @property
    def is_exact(self) -> bool:
        """Whether the bins agree as only panned sounds do, and hardly those of microphones."""
        deviation = abs(LEVELS_DB[self.normalization] - self.ratio_db)
        return self.is_sure and self.spread_db < 1.0 and deviation < 0.4

    def contradicts(self, normalization: str, stated: bool) -> bool:
        """Whether the channels clearly have another normalization or W, so that what is ``stated``
        (else: assumed) must be wrong. FuMa and N3D differ by less than a microphone's faults."""
        if (self.w, self.normalization) == (0, normalization):
            return False
        apart_db = abs(LEVELS_DB[normalization] - LEVELS_DB[self.normalization])
        if stated and self.w == 0 and apart_db < 2:
            return self.is_exact and self.spread_db < 0.5
        return self.is_exact if stated else self.is_sure

    @property
    def looks_like_capsules(self) -> bool:
        """Whether all channels are correlated, like the raw capsules of a tetrahedral microphone.

        An ambisonic field with few sources is correlated as well, but its W is clear.
        """
        is_field = self.is_sure and self.normalization != "N3D"
        return self.correlations[0] > _A_FORMAT_CORRELATION and not is_field

    def looks_unrelated(self, normalization: str) -> bool:
        """Whether the channels are unrelated, like microphones at different places: sounds are in
        one channel alone; or, where many overlap, W is not level with the other channels."""
        if self.bins >= _MIN_BINS:
            often = sum(share > _OFTEN_ALONE for share in self.alone)
            return sum(self.alone) > _MOSTLY_ALONE and often > 1
        deviation = abs(LEVELS_DB[normalization] - self.overall_db)
        return self.correlations[1] < _UNRELATED and deviation > _FAR_DB

    def fit(self, normalization: str) -> float:
        """Share of the sounds that fit a normalization, with W in the first channel."""
        return self.fits[list(LEVELS_DB).index(normalization)]


def analyse_channels(
    channels: NDArray[np.float32], sample_rate: int = 48_000
) -> ChannelAnalysis | None:
    """Analyse four channels (4, samples); None if they are silent, too short or not audio."""
    peak = max(float(channels.max(initial=0.0)), -float(channels.min(initial=0.0)))
    if channels.shape[1] < 8 * _WINDOW or not 0 < peak < _MAX_PEAK:
        return None
    low, high = (round(hz * _WINDOW / sample_rate) for hz in _BAND_HZ)
    windows = np.lib.stride_tricks.sliding_window_view(channels, _WINDOW, axis=1)
    taper = (np.hanning(_WINDOW) / peak).astype(np.float32)
    spectra = np.fft.rfft(windows[:, :: _WINDOW // 2] * taper, axis=2)[:, :, max(1, low) : high]
    energies, products = _covariances(spectra.astype(np.complex64))
    total = energies.sum(axis=0)
    loud = total > 1e-4 * total.max()
    direct = energies[:, loud & (products > _RANK_ONE * total**2)].astype(np.float64)
    products_of_all = covariance(channels)
    levels = np.sqrt(np.maximum(np.diag(products_of_all), 1e-30))  # of silent channels too
    correlations = np.abs(products_of_all / levels / levels[:, None])[np.triu_indices(4, 1)]
    extremes = (float(correlations.min()), float(correlations.max()))
    sums = np.maximum(energies.sum(axis=(1, 2), dtype=np.float64), 1e-12)
    overall_db = float(10 * np.log10(sums[1:].sum() / sums[0]))
    if direct.shape[1] == 0:
        return ChannelAnalysis(0, 0.0, np.inf, 0, extremes, overall_db)
    bins = direct.shape[1]
    direct = direct[:, :: -(-bins // _MAX_BINS)]
    direct = np.maximum(direct, 1e-9 * direct.sum(axis=0))
    shares = direct / direct.sum(axis=0)
    ratios = 10 * np.log10(np.maximum(1 - shares, 1e-9) / shares)
    lower, middle, upper = np.percentile(ratios, [25, 50, 75], axis=1)
    spread = upper - lower
    # With a single source all channels are alike; then the first one is W, as in all conventions.
    w = 0 if spread[0] < spread.min() + _CLEAR_DB else int(np.argmin(spread))
    fits = np.zeros(3)
    if w == 0:
        nearest = np.abs(ratios[0, :, None] - np.array(list(LEVELS_DB.values()))).argmin(axis=1)
        fits = np.bincount(nearest, minlength=3) / len(nearest)
    return ChannelAnalysis(
        w,
        float(middle[w]),
        float(spread[w]),
        bins,
        extremes,
        overall_db,
        (float(fits[0]), float(fits[1]), float(fits[2])),
        tuple(float(share) for share in (shares > _ALONE).mean(axis=1)),
    )


def covariance(channels: NDArray[np.float32]) -> NDArray[np.float64]:
    """The covariance of channels (channels, samples), without their means."""
    means = channels.mean(axis=1, dtype=np.float64)
    products = (channels @ channels.T).astype(np.float64) / max(1, channels.shape[1])
    return np.asarray(products - np.outer(means, means))


def _covariances(spectra: Spectra) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The energies of four channels (4, times, bins), and the sum of the squared entries of their
    covariance (times, bins), each over a neighbourhood of `_TIMES` × `_BINS`."""
    energies = np.stack([_box_sum(np.abs(spectrum) ** 2) for spectrum in spectra])
    squares = (energies**2).sum(axis=0)
    for one, other in _pairs():
        squares += 2 * np.abs(_box_sum(spectra[one] * spectra[other].conj())) ** 2
    return energies, squares


def _pairs() -> Iterator[tuple[int, int]]:
    yield from ((one, other) for one in range(4) for other in range(one + 1, 4))


def _box_sum(values: NDArray[Any]) -> NDArray[Any]:
    """Sums over all neighbourhoods of `_TIMES` × `_BINS` inside an array."""
    rows, columns = values.shape[0] - _TIMES + 1, values.shape[1] - _BINS + 1
    summed = values[:rows].copy()
    for start in range(1, _TIMES):
        summed += values[start : start + rows]
    result = summed[:, :columns].copy()
    for start in range(1, _BINS):
        result += summed[:, start : start + columns]
    return result
