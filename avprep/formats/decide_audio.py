"""Decide how a recording's audio is read, and why."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from avprep.foa.ambix import HIGHER_ORDERS
from avprep.formats.audio_tags import read_audio_tags
from avprep.formats.decide import FormatOverrides
from avprep.media.excerpt import read_excerpt
from avprep.media.tracks import AudioTrack

if TYPE_CHECKING:
    from avprep.formats.guess_convention import ChannelAnalysis

_EXCERPT_S = 5.0


# The digests of existing sets depend on the names, order and reasons of this record: never change
# them.
@dataclass(frozen=True)
class AudioFormat:
    """How audio is read, and why.

    ``channels`` are the indices of W, Y, Z, X among the decoded channels (None: as in
    ``convention``). ``sure`` tells whether this is certain enough not to ask the user.
    """

    convention: str = "auto"
    channels: tuple[int, int, int, int] | None = None
    reason: str = "as its layout has it"
    sure: bool = True


def decide_audio_format(path: Path, audio: AudioTrack, overrides: FormatOverrides) -> AudioFormat:
    """From the user's options, else the container, else the usual for this number of channels."""
    if overrides.foa_convention != "auto":
        return AudioFormat(overrides.foa_convention, None, "by --foa-convention")
    tags = read_audio_tags(path, audio)
    if tags is not None:
        return AudioFormat(tags.convention, tags.channels, tags.reason, tags.sure)
    if path.suffix.lower() == ".amb":
        return AudioFormat("fuma", None, ".amb files are FuMa")
    if audio.channels == 6:
        reason = "six channels, of which each clip is checked to be as YouTube's"
        return AudioFormat("youtube", None, reason)
    if audio.channels == 4 or audio.channels in HIGHER_ORDERS:
        reason = f"{audio.channels} channels and nothing that says which; ambiX is usual"
        return AudioFormat("ambix", None, reason, sure=False)
    return AudioFormat("auto", None, f"{audio.channels} channels", sure=False)


def audio_doubts(
    path: Path, audio: AudioTrack, duration_s: float, audio_format: AudioFormat
) -> tuple[str, ...]:
    """Sentences on what the user should check about the audio; empty if nothing is in doubt.

    If a container does not describe its channels, a few seconds of them are analysed. The result
    never changes how the audio is read: real microphones deviate by up to 3 dB.
    """
    doubts = []
    if not audio_format.sure and audio_format.convention == "ambix":
        analysis = _analyse_excerpt(path, audio, duration_s)
        seems = ""
        if analysis is not None and analysis.looks_like_capsules:
            seems = ", but all its channels are alike, as those of a raw microphone are"
        elif (
            analysis is not None
            and analysis.is_sure
            and (analysis.w, analysis.normalization) != (0, "SN3D")
        ):
            seems = f", but it sounds like {analysis.normalization} with W in channel {analysis.w}"
        doubts.append(
            f"its sound is taken as ambiX ({audio_format.reason}){seems}; --foa-convention names "
            "another, and `avprep inspect --picture` shows where it comes from"
        )
    return tuple(doubts)


def _analyse_excerpt(path: Path, audio: AudioTrack, duration_s: float) -> ChannelAnalysis | None:
    from avprep.formats.guess_convention import (
        analyse_channels,  # OpenCV's, which planning does without
    )

    if audio.channels < 4:
        return None
    start_s = max(0.0, duration_s / 2 - _EXCERPT_S / 2)
    excerpt = read_excerpt(path, audio, start_s, _EXCERPT_S)
    return analyse_channels(excerpt[:4])
