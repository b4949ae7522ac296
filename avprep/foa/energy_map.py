"""Directions from which the sound of a first-order ambisonic field arrives."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, signal

from shards.geometry import direction_deg

Foa = NDArray[np.float32]


def intensity_direction(foa: Foa) -> tuple[float, float]:
    """Azimuth and elevation in degrees of the mean active intensity W·(X, Y, Z).

    Exact for one plane wave; the energy-weighted mean for several.
    """
    w, y, z, x = foa.astype(np.float64)
    azimuth, elevation = direction_deg([np.mean(w * x), np.mean(w * y), np.mean(w * z)])
    return float(azimuth), float(elevation)


def energy_map(foa: Foa, sample_rate: int, height: int = 90) -> NDArray[np.float64]:
    """Density of direct sound energy per direction: (height, 2·height), equirectangular, peak 1.

    Directional audio coding (Pulkki 2007): in each bin of a short-time spectrum, averaged over a
    neighbourhood, the intensity Re(W*·(X, Y, Z)) gives the direction of arrival, and the ratio of
    its length to the energy (|W|² + |X|² + |Y|² + |Z|²)/2 the directness (1: a plane wave, 0:
    diffuse). The map is the histogram of the direct energy, A-weighted like hearing (IEC 61672;
    otherwise a bass drum would outweigh all voices) and smoothed by 5°. All zero for silence.
    """
    frequency, _, spectra = signal.stft(foa, sample_rate, nperseg=1024, noverlap=512, axis=-1)
    spectra = spectra * _a_weighting(frequency)[:, None]
    w, y, z, x = spectra
    window = (3, 5)  # frequency bins, time frames
    intensity = np.stack([ndimage.uniform_filter((w.conj() * v).real, window) for v in (x, y, z)])
    energy = ndimage.uniform_filter(np.sum(np.abs(spectra) ** 2, axis=0) / 2, window)
    strength = np.linalg.norm(intensity, axis=0)
    directness = strength / np.maximum(energy, np.finfo(np.float32).tiny)
    azimuth, elevation = direction_deg(np.moveaxis(intensity, 0, -1))
    # Directness to the fourth power: diffuse bins are many and point in random directions.
    weight = strength * np.clip(directness, 0, 1) ** 4
    histogram, _, _ = np.histogram2d(
        elevation.ravel(),
        azimuth.ravel(),
        bins=(height, 2 * height),
        range=((-90, 90), (-180, 180)),
        weights=weight.ravel(),
    )
    smooth = _smooth_on_sphere(histogram[::-1, ::-1])
    peak = smooth.max()
    return smooth / peak if peak > 0 else smooth


def loudest_direction(foa: Foa, sample_rate: int) -> tuple[float, float] | None:
    """Azimuth and elevation in degrees from which most direct sound arrives; None for silence."""
    energy = energy_map(foa, sample_rate, height=180)
    if not energy.any():
        return None
    row, column = np.unravel_index(int(np.argmax(energy)), energy.shape)
    height, width = energy.shape
    return 180.0 * (1 - 2 * (column + 0.5) / width), 90.0 * (1 - 2 * (row + 0.5) / height)


def _a_weighting(frequency: NDArray[np.float64]) -> NDArray[np.float64]:
    """Amplitude factors of A-weighting (IEC 61672-1, annex E), 1 at 1 kHz."""
    f2 = np.square(frequency)
    curve = np.square(f2) * 12194.0**2
    curve /= (f2 + 20.6**2) * np.sqrt((f2 + 107.7**2) * (f2 + 737.9**2)) * (f2 + 12194.0**2)
    return np.asarray(curve * 10**0.1)


def _smooth_on_sphere(
    histogram: NDArray[np.float64], sigma_deg: float = 5.0
) -> NDArray[np.float64]:
    """Gaussian smoothing by arc, row by row, since a degree of azimuth shrinks towards the poles.

    Returns density per solid angle, not per cell.
    """
    height, width = histogram.shape
    elevation = 90.0 * (1 - 2 * (np.arange(height) + 0.5) / height)
    cosine = np.cos(np.radians(elevation))
    rows = np.empty_like(histogram)
    for row in range(height):
        sigma = sigma_deg / cosine[row] / (360.0 / width)
        rows[row] = ndimage.gaussian_filter1d(histogram[row], min(sigma, width), mode="wrap")
    density = rows / cosine[:, None]
    return np.asarray(ndimage.gaussian_filter1d(density, sigma_deg / (180.0 / height), axis=0))
