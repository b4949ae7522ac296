"""Input of the networks as the paper's published code made it, for weights trained with it.

That code (Morgado, Li and Vasconcelos, as of NeurIPS 2020) has conventions of its own.
``FeatureConfig.conventions = "published"`` reproduces, when reading any shard set with ambisonics:

- the channels: YouTube's six (X, Y, W, nothing, Z, nothing, as AAC decodes them) were mixed to the
  layout "4.0", which gives X, Y, W, Z / sqrt 2, all divided by sqrt 2 against clipping; the code
  then read these four as W, Y, Z, X;
- the rotation to a view: first pitch, then yaw, of the channels read as Y, Z, X;
- mirrored video with unmirrored audio;
- ``top_db`` below the maximum of each channel instead of each view;
- its mean and std of the log-mels, if they are given when its checkpoint is imported.

Otherwise the log-mels are the same, and so are the normalisation of pixels and the order of axes.

Not reproduced: the crops (angles used as tangents, so that a nominal 90° is 76.3°; a ninth lower
than their aspect ratio; not anti-aliased), since a set holds rendered crops; audio rounded to 16
bits once more, and clipped where augmentation made it louder than full scale; mirroring and colours
drawn per view instead of per clip; negatives of AVSA-Bin rotated about another axis than the
vertical; and dropout that stayed on in tests.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from shards.geometry import foa_matrix, view_rotation

_HALF = 0.5**0.5
# The channels that the code read as W, Y, Z, X, as rows over the true W, Y, Z, X.
_READ_AS_ACN = _HALF * np.array(
    [
        [0.0, 0.0, 0.0, 1.0],
        [0.0, 1.0, 0.0, 0.0],
        [1.0, 0.0, 0.0, 0.0],
        [0.0, 0.0, _HALF, 0.0],
    ]
)


def published_view_matrix(azimuth_deg: float, elevation_deg: float) -> NDArray[np.float64]:
    """Matrix (4, 4) from FOA (ACN, SN3D) to the four input channels of a view in the published
    code. It is no rotation of the sound field."""
    yaw, pitch = view_rotation(azimuth_deg, 0.0), view_rotation(0.0, elevation_deg)
    return np.asarray(foa_matrix(yaw @ pitch) @ _READ_AS_ACN)
