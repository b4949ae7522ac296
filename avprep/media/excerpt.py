"""Decode a few seconds of a file's audio."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from avprep.media.ffmpeg import FORMATS, PROTOCOLS, ffmpeg_path, safe_url
from avprep.media.tracks import AudioTrack

_TIMEOUT_S = 60.0


def read_excerpt(
    path: Path, track: AudioTrack, start_s: float, duration_s: float
) -> NDArray[np.float32]:
    """A track's audio (channels, samples) from ``start_s``, at its own sample rate, in the
    decoder's channel order.

    Shorter at the end of the file, and empty if nothing can be decoded.
    """
    limits = ["-protocol_whitelist", PROTOCOLS, "-format_whitelist", FORMATS]
    window = ["-ss", f"{max(0.0, start_s):.6f}", "-t", f"{duration_s:.6f}"]
    command = [ffmpeg_path(), "-nostdin", "-v", "error", *limits, *window, "-i", safe_url(path)]
    command += ["-map", f"0:{track.index}", "-f", "f32le", "-c:a", "pcm_f32le", "-"]
    channels = track.channels
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            check=False,
            timeout=_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        return np.empty((channels, 0), dtype=np.float32)
    whole = len(done.stdout) // (4 * channels) * channels
    return np.frombuffer(done.stdout, dtype="<f4", count=whole).reshape(-1, channels).T
