"""Which convention four channels look like, by their sound alone.

A sound from one direction has the same energy in W as in the three directional channels
together (SN3D), half of it (FuMa, whose W is 3 dB lower) or a third (N3D). Signs and the order of
the directional channels cannot be heard: look at the energy over the picture.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

_LEVELS_DB = {"SN3D": 0.0, "FuMa": 3.01, "N3D": 4.77}
_WINDOW = 1024
_RANK_ONE = 0.95
_FEWEST_BINS = 200
_MOST_BINS = 10_000
_LOUDEST = 1e6
"""Numbers in float files may be anything; beyond, or NaN, they are no samples."""
_CLEAR_DB = 1.0
_A_FORMAT_CORRELATION = 0.4


@dataclass(frozen=True)
class Heard:
    """What four channels sound like.

    ``w``: the channel that is omnidirectional; ``ratio_db``: energy of the others over it in
    sounds from one direction; ``spread_db``: how much that varies; ``bins``: how many such sounds
    there are in time and frequency; ``correlation``: the least one between two channels;
    ``like_sn3d``: the share of these sounds that are nearer to SN3D with W in channel 0 than to
    the other normalizations.
    """

    w: int
    ratio_db: float
    spread_db: float
    bins: int
    correlation: float
    like_sn3d: float = 0.0

    @property
    def normalization(self) -> str:
        """The nearest of SN3D, FuMa and N3D."""
        return min(_LEVELS_DB, key=lambda name: abs(_LEVELS_DB[name] - self.ratio_db))

    @property
    def is_sure(self) -> bool:
        nearest = abs(_LEVELS_DB[self.normalization] - self.ratio_db)
        return self.bins >= _FEWEST_BINS and self.spread_db < 2.0 and nearest < 0.75

    @property
    def looks_like_capsules(self) -> bool:
        """Whether all channels hear the same, as those of a raw tetrahedral microphone do.

        Those of a field with few sounds may as well, but then W is clear.
        """
        is_field = self.is_sure and self.normalization != "N3D"
        return self.correlation > _A_FORMAT_CORRELATION and not is_field


def listen(sound: NDArray[np.float32], sample_rate: int) -> Heard | None:
    """Analyse four channels (4, samples); None where they are silent, too short or no sound."""
    peak = float(np.abs(sound).max(initial=0.0))
    if sound.shape[1] < 8 * _WINDOW or not 0 < peak < _LOUDEST:
        return None
    windows = np.lib.stride_tricks.sliding_window_view(sound, _WINDOW, axis=1)[:, :: _WINDOW // 2]
    spectra = np.fft.rfft(windows * np.hanning(_WINDOW), axis=2)
    # Covariance of each bin's neighbourhood: 5 times × 3 frequencies.
    products = np.einsum("atf,btf->abtf", spectra, spectra.conj())
    covariance = np.empty_like(products)
    for place in np.ndindex(4, 4):
        around = [cv2.blur(part, (3, 5)) for part in (products[place].real, products[place].imag)]
        covariance[place] = around[0] + 1j * around[1]
    power = np.einsum("aatf->tf", covariance).real
    loud = np.flatnonzero(power > 1e-4 * power.max())
    loud = loud[:: -(-len(loud) // _MOST_BINS)]
    chosen = np.moveaxis(covariance.reshape(4, 4, -1)[:, :, loud], -1, 0)
    largest = np.linalg.eigvalsh(chosen)[:, -1]
    direct = chosen[largest > _RANK_ONE * power.ravel()[loud]]
    with np.errstate(invalid="ignore", divide="ignore"):  # a silent channel is like no other
        total = np.nan_to_num(np.abs(np.corrcoef(sound)))
    correlation = float(total[~np.eye(4, dtype=bool)].min())
    if len(direct) == 0:
        return Heard(0, 0.0, np.inf, 0, correlation)
    energies = np.einsum("naa->na", direct).real.astype(np.float64)
    everything = energies.sum(axis=1, keepdims=True)
    # Moving sums leave a silent channel's energy a little beside zero.
    energies, others = (np.maximum(e, 1e-9 * everything) for e in (energies, everything - energies))
    ratios = 10 * np.log10(others / energies)
    low, middle, high = np.percentile(ratios, [25, 50, 75], axis=0)
    spread = high - low
    # Of a single sound all channels are alike; then the first one is W, as it always is.
    w = 0 if spread[0] < spread.min() + _CLEAR_DB else int(np.argmin(spread))
    like_sn3d = 0.0
    if w == 0:
        levels = np.array(list(_LEVELS_DB.values()))
        nearest = np.abs(ratios[:, 0, None] - levels).argmin(axis=1)
        like_sn3d = float(np.mean(nearest == list(_LEVELS_DB).index("SN3D")))
    return Heard(w, float(middle[w]), float(spread[w]), len(direct), correlation, like_sn3d)
