"""Decide how a recording's audio is read, and why."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from avprep.errors import ClipError
from avprep.foa.ambix import HIGHER_ORDERS
from avprep.formats.audio_tags import read_audio_tags
from avprep.formats.decide import FormatOverrides
from avprep.formats.listen import ANOTHER_CONVENTION, Heard, listen
from avprep.media.probe import Media
from avprep.media.tracks import AudioTrack

_LOW_CONFIDENCE = 0.5
_NAMES = {"fuma": "FuMa", "n3d": "N3D", "youtube": "YouTube's six channels"}


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


def audio_doubts(path: Path, media: Media, audio_format: AudioFormat) -> tuple[str, ...]:
    """Sentences on what the user should check about the audio; empty if nothing is in doubt.

    A few seconds are listened to, whatever said how to read them.
    """
    try:
        heard = listen(path, media, audio_format)
    except ClipError:
        heard = None  # decoding the clips will report the fault
    return describe_doubts(audio_format, heard)


def describe_doubts(audio_format: AudioFormat, heard: Heard | None) -> tuple[str, ...]:
    """Sentences on what the user should check, after listening (None: it does not decode)."""
    if heard is not None and heard.refused is not None:
        return ()  # so will the clips be
    contradiction = heard.contradiction if heard is not None else None
    is_assumed = not audio_format.sure and audio_format.convention != "auto"
    if not is_assumed and contradiction is None:
        return ()
    verb, name = "taken" if is_assumed else "read", _NAMES.get(audio_format.convention, "ambiX")
    if contradiction is None and (heard is None or heard.confidence < _LOW_CONFIDENCE):
        contradiction = "neither its container nor its sound is clear about it"
    but = f", but {contradiction}" if contradiction is not None else ""
    remedy = heard.remedy if heard is not None else ANOTHER_CONVENTION
    return (f"its sound is {verb} as {name} ({audio_format.reason}){but}; {remedy}",)
