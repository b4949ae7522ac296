"""What a field would be, had the channels of its file been read in another convention."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from avprep.foa.ambix import channel_order, to_ambix

CONVENTIONS = ("ambix", "fuma", "n3d", "youtube")
_CHANNELS = 6
"""As many as any convention reads."""

Matrix = NDArray[np.float64]


def reading_matrix(convention: str) -> Matrix:
    """The matrix (4, 6) with which `to_ambix` reads the first six channels of a file; those that
    the convention does not read, or that the file does not have, count as silent."""
    if convention == "youtube":
        return np.eye(_CHANNELS)[list(channel_order(convention))]
    return np.asarray(to_ambix(np.eye(_CHANNELS, dtype=np.float32), convention), dtype=np.float64)


def rereadings(decided: str, indices: tuple[int, int, int, int] | None = None) -> dict[str, Matrix]:
    """Matrices (4, 4) from the field that was read in the convention ``decided`` to the field that
    each convention gives: M_new · M_decided⁻¹.

    ``indices`` are those of W, Y, Z, X among the file's channels, if its container stated them.
    Exact where the channels that another convention reads are those that were read, or are silent:
    between ambiX, FuMa and N3D, and from YouTube's six channels to each of these. From these to
    YouTube's, the fifth channel, which holds Z, is not known, and height is lost. Empty if nothing
    is known: the convention is ``auto``, or the indices are beyond six channels.
    """
    if decided not in CONVENTIONS or (indices is not None and max(indices) >= _CHANNELS):
        return {}
    read = reading_matrix(decided) if indices is None else np.eye(_CHANNELS)[list(indices)]
    back = np.linalg.pinv(read)  # the channels from the field; those that were not read are zero
    return {name: reading_matrix(name) @ back for name in CONVENTIONS}
