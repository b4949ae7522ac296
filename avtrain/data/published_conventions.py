"""How the published code of the paper fed its networks, for weights that learned from it.

Its networks saw views and sounds by conventions of their own (numbers: Morgado, Li and
Vasconcelos's code as of NeurIPS 2020). ``FeatureConfig.conventions = "published"`` repeats at
reading time, from any shard set with ambisonics:

- the channels: YouTube's six (X, Y, W, nothing, Z, nothing, as AAC decodes them) were re-laid as
  "4.0", which gives X, Y, W, Z / sqrt 2, all of them / sqrt 2 against clipping; and these four
  were taken for W, Y, Z, X;
- the rotation to a view: pitch first, then yaw, of what was taken for Y, Z, X;
- mirrored pictures, with the sound as it was;
- ``top_db`` below the loudest of each channel, not of the view;
- its mean and std of the log-mels, if they are given when its checkpoint is imported.

The log-mels are otherwise the same, and so are the pixels' normalisation and the order of axes.
Not repeated: how crops were cut (angles taken as tangents, so that a nominal 90° is 76.3°; lower
by a ninth than their aspect says; not anti-aliased), since a set holds rendered crops; sound
rounded to 16 bits once more, and clipped where augmentation made it louder than full scale; one
draw of mirroring and colours for each view rather than for each clip; negatives of AVSA-Bin that
were not turned about the vertical; and dropout that stayed on in tests.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from shards.geometry import foa_matrix, view_rotation

_HALF = 0.5**0.5
# What stood where the code expected W, Y, Z, X: rows of the true W, Y, Z, X.
_TAKEN_FOR_ACN = _HALF * np.array(
    [
        [0.0, 0.0, 0.0, 1.0],
        [0.0, 1.0, 0.0, 0.0],
        [1.0, 0.0, 0.0, 0.0],
        [0.0, 0.0, _HALF, 0.0],
    ]
)


def published_view_matrix(azimuth_deg: float, elevation_deg: float) -> NDArray[np.float64]:
    """Matrix (4, 4) from FOA (ACN, SN3D) to the four channels that the published code fed for a
    view: no rotation of the sound field."""
    yaw, pitch = view_rotation(azimuth_deg, 0.0), view_rotation(0.0, elevation_deg)
    return np.asarray(foa_matrix(yaw @ pitch) @ _TAKEN_FOR_ACN)
