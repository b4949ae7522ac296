"""A clip's audio: from decoded channels to the members of its sample."""

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

Audio = NDArray[np.float32]

_NO_NORMALIZATION = "none"
_SURROUND_CHANNELS = 6
_LFE = 3
"""The low-frequency channel of a 5.1 track."""


@dataclass(frozen=True)
class EncodedAudio:
    """The FLAC members of a sample by suffix, and their record."""

    members: dict[str, bytes]
    info: AudioInfo


def to_field(raw: Audio, clip: Clip, sample_rate: int, samples: int, target_rate: int) -> Audio:
    """Convert decoded channels (channels, n) to first-order ambisonics (4, samples) at
    ``target_rate``, or those of an ordinary video to one channel (1, samples). Raises ClipError."""
    if clip.flat:
        audio = _mix_down(check_audio(raw)[0])
    else:
        audio = to_ambix(raw, clip.audio_format.convention, clip.audio_format.channels)
    if sample_rate != target_rate:
        audio = soxr.resample(audio.T, sample_rate, target_rate, quality="HQ").T
    missing = max(0, samples - audio.shape[1])
    return np.ascontiguousarray(np.pad(audio[:, :samples], ((0, 0), (0, missing))))


def _mix_down(raw: Audio) -> Audio:
    """The mean (1, n) of all channels but the low-frequency one."""
    channels = np.delete(raw, _LFE, axis=0) if len(raw) == _SURROUND_CHANNELS else raw
    return np.asarray(channels.mean(axis=0, keepdims=True), dtype=np.float32)


def encode_audio(field: Audio, views: tuple[View, ...], options: ClipOptions) -> EncodedAudio:
    """Encode the audio of each view, or with layout ``source`` the unrotated field once.

    ``field`` is (4, samples); or one channel (1, samples), which is the same for all views.
    """
    kind = options.audio
    gain = rotation_safe_gain(field)
    rate = options.sample_rate
    is_rotated = len(field) == 4 and options.audio_layout == "rotated"
    interleaved = np.ascontiguousarray(cv2.transpose(field), dtype=np.float32)
    members: dict[str, bytes] = {}
    if is_rotated or len(field) == 1:
        for number, view in enumerate(views):
            matrix = np.eye(1)
            if is_rotated:
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
        "SN3D" if kind == "foa" else _NO_NORMALIZATION,
    )
    return EncodedAudio(members, info)


def no_audio(options: ClipOptions) -> EncodedAudio:
    """The record of a video without audio, which has no members."""
    info = AudioInfo(options.sample_rate, 0, 1.0, options.audio_layout, (), _NO_NORMALIZATION)
    return EncodedAudio({}, info)
