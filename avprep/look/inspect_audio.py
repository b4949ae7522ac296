"""The audio of a file that is inspected: how a build reads it, and what it sounds like."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avprep.errors import ClipError
from avprep.foa.ambix import to_ambix
from avprep.formats.decide import FormatOverrides
from avprep.formats.decide_audio import AudioFormat, decide_audio_format, describe_doubts
from avprep.formats.listen import excerpt_at, listen
from avprep.media.probe import Media

_PICTURE_S = 10.0


def describe_audio(
    path: Path, media: Media, overrides: FormatOverrides
) -> tuple[dict[str, Any], list[str]]:
    """The entries of ``Inspection.audio`` on how the chosen audio track is read, and sentences on
    what to check: those of a build. Raises ClipError if it does not decode."""
    if media.audio is None:
        return {}, []
    audio_format = decide_audio_format(path, media.audio, overrides)
    entries: dict[str, Any] = {
        "channels": media.audio.channels,
        "sample_rate": media.audio.sample_rate,
        "convention": audio_format.convention,
        "why": audio_format.reason,
        "sure": audio_format.sure,
        "confidence": 1.0 if audio_format.sure else 0.0,
    }
    heard = listen(path, media, audio_format)
    if heard.summary is not None:
        entries["heard"] = heard.summary
    if heard.refused is not None:
        return entries | {"sure": False, "confidence": 0.0}, [heard.refused]
    entries["level_dbfs"] = round(heard.level_dbfs, 1)
    if heard.spatiality is not None:
        entries["spatiality"] = round(heard.spatiality, 3)
    if heard.contradiction is not None or not audio_format.sure:
        entries |= {"sure": False, "confidence": round(heard.confidence, 2)}
    return entries, list(describe_doubts(audio_format, heard))


def read_field(path: Path, media: Media, audio_format: AudioFormat) -> NDArray[np.float32]:
    """Ten seconds of the field (4, samples) from the middle of a file. Raises ClipError."""
    raw = excerpt_at(path, media, 0.5, _PICTURE_S)
    try:
        return to_ambix(raw, audio_format.convention, audio_format.channels)
    except ClipError as error:
        raise ClipError(f"{path.name}: {error}") from None
