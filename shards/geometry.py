"""Directions and first-order ambisonics (FOA), in the conventions that all shards use.

Frame: right-handed, +X front, +Y left, +Z up. ``azimuth_deg`` is positive to the left,
``elevation_deg`` positive up. FOA channels are in ambiX order (ACN: W, Y, Z, X) with SN3D
weights, so a plane wave of amplitude s from the unit vector d is (s, s*d_y, s*d_z, s*d_x).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

ACN_CHANNELS = ("W", "Y", "Z", "X")
# Indices of the vector components (x, y, z) in the order of the ACN channels Y, Z, X.
_ACN_TO_XYZ = np.array([1, 2, 0])

MIRROR = np.diag([1.0, -1.0, 1.0, 1.0])
"""FOA matrix (4, 4) that mirrors the field left to right: Y changes its sign."""

# Weights of W, Y, Z, X (SN3D) for a field rotated to the view. "mono" and "stereo" are cardioids:
# full level on their axis, silence from behind. "omni" hears every direction alike.
BEAMS = {
    "foa": np.eye(4),
    "omni": np.array([[1.0, 0.0, 0.0, 0.0]]),
    "mono": np.array([[0.5, 0.0, 0.0, 0.5]]),
    "stereo": np.array([[0.5, 0.5, 0.0, 0.0], [0.5, -0.5, 0.0, 0.0]]),
}
"""FOA matrices (channels, 4) that give a view's audio: the field itself, its omnidirectional
channel, a beam towards the view, or a pair of beams to its left and right."""
AUDIO_CHANNELS = {"foa": ACN_CHANNELS, "omni": ("W",), "mono": ("M",), "stereo": ("L", "R")}


def unit_vector(azimuth_deg: ArrayLike, elevation_deg: ArrayLike) -> NDArray[np.float64]:
    """Unit vectors (..., 3) in (x, y, z) for directions in degrees; the inputs broadcast."""
    azimuth, elevation = np.radians(azimuth_deg), np.radians(elevation_deg)
    level = np.cos(elevation)  # before the inputs broadcast: a grid has few rows and columns
    x, y = level * np.cos(azimuth), level * np.sin(azimuth)
    return np.stack([x, y, np.broadcast_to(np.sin(elevation), np.shape(x))], axis=-1)


def direction_deg(vector: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Azimuth in (-180, 180] and elevation in [-90, 90] of vectors (..., 3), of any length."""
    x, y, z = np.moveaxis(np.asarray(vector, dtype=np.float64), -1, 0)
    azimuth = np.degrees(np.arctan2(y, x))
    azimuth = np.where(azimuth <= -180.0, 180.0, azimuth)
    return azimuth, np.degrees(np.arctan2(z, np.hypot(x, y)))


def angle_between_deg(a: ArrayLike, b: ArrayLike) -> NDArray[np.float64]:
    """Arc in degrees between vectors (..., 3); exact for small angles too."""
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    cross = np.linalg.norm(np.cross(a, b), axis=-1)
    return np.asarray(np.degrees(np.arctan2(cross, np.sum(a * b, axis=-1))))


def view_rotation(azimuth_deg: float, elevation_deg: float) -> NDArray[np.float64]:
    """Rotation matrix (3, 3) that brings the view's direction to the front, without roll.

    R = Ry(elevation) Rz(-azimuth): yaw first, then pitch. With d the unit vector of the view,
    R d = (1, 0, 0), and the vertical plane through d stays vertical ("up" stays up).
    """
    a, e = np.radians(azimuth_deg), np.radians(elevation_deg)
    yaw = np.array([[np.cos(a), np.sin(a), 0], [-np.sin(a), np.cos(a), 0], [0, 0, 1]])
    pitch = np.array([[np.cos(e), 0, np.sin(e)], [0, 1, 0], [-np.sin(e), 0, np.cos(e)]])
    return np.asarray(pitch @ yaw)


def foa_matrix(rotation: ArrayLike) -> NDArray[np.float64]:
    """FOA matrices (..., 4, 4) in ACN order for rotations (..., 3, 3) in (x, y, z)."""
    rotation = np.asarray(rotation, dtype=np.float64)
    matrix = np.zeros((*rotation.shape[:-2], 4, 4))
    matrix[..., 0, 0] = 1.0
    matrix[..., 1:, 1:] = rotation[..., _ACN_TO_XYZ[:, None], _ACN_TO_XYZ]
    return matrix


def view_foa_matrix(azimuth_deg: float, elevation_deg: float) -> NDArray[np.float64]:
    """FOA matrix (4, 4) that rotates the sound field so that the view's direction is in front."""
    return foa_matrix(view_rotation(azimuth_deg, elevation_deg))


def rotate_foa(foa: NDArray[np.float32], matrix: ArrayLike) -> NDArray[np.float32]:
    """Apply matrices (..., channels, 4) to FOA (4, samples): float32 (..., channels, samples)."""
    if foa.ndim != 2 or foa.shape[0] != 4:
        raise ValueError(f"FOA must have shape (4, samples), not {foa.shape}")
    # einsum rather than `@`: BLAS is several times slower for a product this flat.
    rotated = np.einsum("...ij,jn->...in", np.asarray(matrix, np.float32), np.float32(foa))
    return np.asarray(rotated)


def encode_foa(signal: ArrayLike, direction: ArrayLike) -> NDArray[np.float32]:
    """FOA (4, samples) of a plane wave.

    ``signal`` (samples,) arrives from ``direction``, a unit vector (3,) or one per sample
    (samples, 3). SN3D: W = s, (Y, Z, X) = s * (d_y, d_z, d_x).
    """
    signal = np.asarray(signal, dtype=np.float64)
    direction = np.broadcast_to(np.asarray(direction, dtype=np.float64), (*signal.shape, 3))
    gains = np.concatenate([np.ones((*signal.shape, 1)), direction[:, _ACN_TO_XYZ]], axis=1)
    return np.asarray((gains * signal[:, None]).T, dtype=np.float32)
