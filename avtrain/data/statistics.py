"""Mean and standard deviation of the log-mels of a split."""

from __future__ import annotations

import numpy as np
import torch

from avtrain.config import ClipConfig
from avtrain.data.clips import Clips
from avtrain.data.draws import NO_AUGMENTATION
from avtrain.data.shard_sets import Shards
from avtrain.errors import TrainingError
from avtrain.networks.features import Features
from shards.errors import ShardError

STATISTICS_CLIPS = 256


def fit_statistics(features: Features, shards: Shards, clip: ClipConfig, seed: int) -> None:
    """Set ``features`` to mean and std of the log-mels of ``STATISTICS_CLIPS`` clips evenly spread
    over the split: the middle second of each, heard from the views of its draw.

    Clips that are unreadable or too short are skipped; raises the last one's error where none is
    left.
    """
    clips = Clips(shards, clip, features.config, NO_AUGMENTATION, seed, windows=1)
    device = features.mean.device
    count = min(STATISTICS_CLIPS, len(shards))
    log_mels = []
    fault: ShardError | TrainingError | None = None
    for index in np.linspace(0, len(shards) - 1, count).round().astype(int).tolist():
        try:
            _, audio, matrices, _ = clips.read_audio(index, clips.draw(0, index))
        except (ShardError, TrainingError) as error:
            fault = error
            continue
        spectra = features.spectra(torch.from_numpy(audio).to(device))
        log_mels.append(features.log_mel(spectra, torch.from_numpy(matrices).to(device)))
    if not log_mels and fault is not None:
        raise fault
    features.fit(torch.cat(log_mels))
