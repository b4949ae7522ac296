"""A clip's sound: from decoded channels to the members of its sample."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import soxr
from numpy.typing import NDArray

from avprep.foa.ambix import check_audio, to_ambix
from avprep.media.encode import encode_flac, rotation_safe_gain
from avprep.recordings.clips import Clip
from avprep.sample.options import ClipOptions
from shards.geometry import AUDIO_CHANNELS, BEAMS, view_foa_matrix
from shards.schema import AudioInfo, View

Sound = NDArray[np.float32]

_NO_WEIGHTS = "none"
_SURROUND = 6
"""Channels of a 5.1 track, of which the fourth is for low effects."""


@dataclass(frozen=True)
class ClipSound:
    """What of a clip's sound goes into its sample: FLAC members by suffix, and their record."""

    members: dict[str, bytes]
    info: AudioInfo


def field_of(raw: Sound, clip: Clip, sample_rate: int, samples: int, target_rate: int) -> Sound:
    """Decoded channels (channels, n) as the clip's sound at ``target_rate``: its field (4,
    samples), or for an ordinary video one channel (1, samples). Raises ClipError."""
    if clip.flat:
        sound = _mixed(check_audio(raw)[0])
    else:
        sound = to_ambix(raw, clip.audio_format.convention, clip.audio_format.channels)
    if sample_rate != target_rate:
        sound = soxr.resample(sound.T, sample_rate, target_rate, quality="HQ").T
    missing = max(0, samples - sound.shape[1])
    return np.ascontiguousarray(np.pad(sound[:, :samples], ((0, 0), (0, missing))))


def _mixed(raw: Sound) -> Sound:
    heard = np.delete(raw, 3, axis=0) if len(raw) == _SURROUND else raw
    return np.asarray(heard.mean(axis=0, keepdims=True), dtype=np.float32)


def encode_sound(field: Sound, views: tuple[View, ...], options: ClipOptions) -> ClipSound:
    """What the views hear of a field (4, samples), or of one channel (1, samples) all the same."""
    kind = options.audio
    gain = rotation_safe_gain(field)
    rate = options.sample_rate
    turned = len(field) == 4 and options.audio_layout == "rotated"
    interleaved = np.ascontiguousarray(cv2.transpose(field), dtype=np.float32)
    members: dict[str, bytes] = {}
    if turned or len(field) == 1:
        for number, view in enumerate(views):
            matrix = np.eye(1)
            if turned:
                matrix = BEAMS[kind] @ view_foa_matrix(view.azimuth_deg, view.elevation_deg)
            members[f"view{number:02d}.flac"] = encode_flac(interleaved, gain * matrix, rate)
    else:
        members["flac"] = encode_flac(interleaved, gain * np.eye(4), rate)
    info = AudioInfo(
        options.sample_rate,
        field.shape[1],
        gain,
        options.audio_layout,
        AUDIO_CHANNELS[kind],
        "SN3D" if kind == "foa" else _NO_WEIGHTS,
    )
    return ClipSound(members, info)


def no_sound(options: ClipOptions) -> ClipSound:
    """Of a video that has none."""
    return ClipSound(
        {}, AudioInfo(options.sample_rate, 0, 1.0, options.audio_layout, (), _NO_WEIGHTS)
    )
