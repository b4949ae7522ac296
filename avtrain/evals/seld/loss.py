"""Multi-ACCDOA and its loss (Shimada et al., "Multi-ACCDOA: Localizing and Detecting Overlapping
Sounds from the Same Class with Auxiliary Duplicating Permutation Invariant Training", ICASSP 2022).

Each of three tracks has a vector per class: the direction of a source, of length 1 while it sounds
and 0 else. Tracks have no order, so that the loss takes the best assignment of tracks to sources;
and where fewer sources than tracks sound, every track has to name one of them (two tracks the same
one), instead of some track being silent: the assignments are all maps of the tracks onto the
sources.
"""

from __future__ import annotations

from itertools import product

import torch
from torch import Tensor

from avtrain.evals.seld.protocol import TRACKS

_MAPS = torch.tensor(list(product(range(TRACKS), repeat=TRACKS)))
"""(maps, tracks): the source that each track names."""
_ONTO = torch.tensor(
    [[set(one) == set(range(max(1, count))) for one in _MAPS.tolist()] for count in range(4)]
)
"""(sources + 1, maps): which maps are onto this number of sources; without any source, every track
names the first one, whose vector is 0."""


def adpit_loss(
    output: Tensor, vectors: Tensor, log_distance: Tensor, count: Tensor, distance_weight: float
) -> Tensor:
    """Loss of each frame and class, (...).

    ``output`` (..., tracks, 4): vector and logarithm of the distance in metres. ``vectors`` (...,
    tracks, 3) and ``log_distance`` (..., tracks) are those of ``count`` (...) sources, 0 beyond;
    NaN where a distance is unknown. A track costs the mean squared error of its vector, and
    ``distance_weight`` times that of the logarithm of its source's distance, if it is known: so
    that errors count relative to the distance, as in DCASE's metric.
    """
    error = (output[..., :, None, :3] - vectors[..., None, :, :]).square().mean(dim=-1)
    sounds = torch.arange(TRACKS, device=count.device) < count[..., None]
    known = (sounds & log_distance.isfinite())[..., None, :]
    off = output[..., :, None, 3] - log_distance.nan_to_num()[..., None, :]
    error = error + distance_weight * torch.where(known, off.square(), 0.0)
    maps, onto = _MAPS.to(count.device), _ONTO.to(count.device)
    tracks = torch.arange(TRACKS, device=count.device)
    of_map = error[..., tracks, maps].mean(dim=-1)
    best: Tensor = of_map.masked_fill(~onto[count], torch.inf).amin(dim=-1)
    return best
