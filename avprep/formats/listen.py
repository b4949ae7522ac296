"""Listen to a few seconds of a recording, and say what contradicts how its audio is read.

Listening never changes the reading: real microphones deviate by up to 3 dB, and the signs and the
order of the directional channels cannot be heard.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from avprep.errors import ClipError
from avprep.foa.ambix import channel_order, level_dbfs, to_ambix
from avprep.foa.channel_analysis import (
    LEVELS_DB,
    ChannelAnalysis,
    analyse_channels,
    covariance,
)
from avprep.media.decode_audio import read_excerpt
from avprep.media.probe import Media

if TYPE_CHECKING:
    from avprep.formats.decide_audio import AudioFormat

_EXCERPT_S = (1.5, 2.5)
"""Least and most; less is taken from short recordings, whose clips take little time to build."""
_SHARE = 1 / 8
_OTHER_PLACES = (0.25, 0.75)
"""Where to listen if the middle of the track is silent, as shares of it."""
_SILENT_DBFS = -80.0
_SILENCE = 1e-3
"""Channels this far below the loudest one (-60 dB) are silent."""
_ONE_SIGNAL = 0.01
"""Spatiality of audio that holds one signal."""
_EQUAL_DB = 0.5
_CLOSE_DB = 0.75
_LOW_FIT = 0.1
_NORMALIZATIONS = {"fuma": "FuMa", "n3d": "N3D"}
_ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")
_NAMES = ("W", "Y", "Z", "X")
ANOTHER_CONVENTION = (
    "--foa-convention names another, and `avprep view` lets you see and hear which one is right"
)
_A_FORMAT = "convert a raw microphone's channels (A-format) to ambiX first, or leave it out"
_NO_AMBISONICS = "put its ambisonics beside it as a file of the same name, or leave it out"

Channels = NDArray[np.float32]


@dataclass(frozen=True)
class Heard:
    """What a few seconds of audio sound like, as they are read.

    ``level_dbfs`` is the RMS of W; ``spatiality`` the share of the energy that does not belong to a
    single signal (None: it is silent); ``summary`` what it sounds like, in words. ``contradiction``
    says what speaks against the reading, as "it sounds like …", and ``remedy`` what to do about it.
    ``confidence`` (0 to 1) is the share of sounds that fit the reading. ``may_pass``: a silence, or
    a single sound, which may end elsewhere in the recording. ``refused`` is why a build would
    refuse all of it.
    """

    level_dbfs: float
    spatiality: float | None = None
    summary: str | None = None
    contradiction: str | None = None
    remedy: str = ANOTHER_CONVENTION
    confidence: float = 0.0
    may_pass: bool = False
    refused: str | None = None


def listen(path: Path, media: Media, audio_format: AudioFormat) -> Heard:
    """Listen to a file's chosen audio track; to other places too if its middle is silent or holds
    a single sound.

    Raises ClipError if it does not decode.
    """
    rate = media.audio.sample_rate if media.audio is not None else 0
    length_s = min(max(_SHARE * media.duration_s, _EXCERPT_S[0]), _EXCERPT_S[1])
    heard = hear(excerpt_at(path, media, 0.5, length_s), audio_format, rate)
    if heard.may_pass and media.duration_s >= 2 * length_s:
        for share in _OTHER_PLACES:
            other = hear(excerpt_at(path, media, share, length_s), audio_format, rate)
            if not other.may_pass:
                return other
            heard = other if heard.spatiality is None else heard
    return heard


def excerpt_at(path: Path, media: Media, share: float, length_s: float) -> Channels:
    """The decoded channels (channels, samples) of seconds around a share of the audio track.

    Raises ClipError if they do not decode.
    """
    if media.audio is None:
        raise ClipError(f"{path.name} has no sound")
    begin_s, end_s = media.audio.begin_s, media.audio.end_s
    end_s = media.start_s + media.duration_s if end_s is None else end_s
    start_s = begin_s + share * (end_s - begin_s) - length_s / 2
    return read_excerpt(path, media.audio, max(begin_s, start_s), length_s)


def hear(raw: Channels, audio_format: AudioFormat, sample_rate: int = 48_000) -> Heard:
    """What decoded channels (channels, samples) sound like, read in a format."""
    convention = audio_format.convention
    try:
        field = to_ambix(raw, convention, audio_format.channels)
    except ClipError as error:
        analysis = analyse_channels(raw[:4], sample_rate) if len(raw) >= 4 else None
        summary = f"its first four: {_summary(analysis)}" if analysis is not None else None
        return Heard(level_dbfs(raw), summary=summary, refused=str(error))
    order = audio_format.channels or channel_order(convention)
    channels = raw[list(order)]
    level = level_dbfs(field)
    if _loudest_dbfs(channels) < _SILENT_DBFS:
        silent = "it is silent in the seconds that were listened to"
        remedy = "listen to it, or leave it out"
        return Heard(level, contradiction=silent, remedy=remedy, may_pass=True)
    expected = _NORMALIZATIONS.get(convention, "SN3D")
    analysis = analyse_channels(channels, sample_rate)
    single = _single_or_silent(channels, order)
    found = single or _contradiction(channels, analysis, order, expected, audio_format.sure)
    contradiction, remedy = found or (None, ANOTHER_CONVENTION)
    fit = analysis.fit(expected) if analysis is not None else 0.0
    return Heard(
        level,
        _spatiality(field),
        _summary(_as_read(analysis, expected)) if analysis is not None else None,
        contradiction,
        remedy,
        fit if contradiction is None else min(fit, _LOW_FIT),
        may_pass=single is not None,
    )


def _single_or_silent(
    channels: Channels, order: tuple[int, int, int, int]
) -> tuple[str, str] | None:
    """Why the channels W, Y, Z, X are mono or lack some, and what to do; None if they are not.
    ``order`` are their numbers in the file."""
    peaks = np.maximum(channels.max(axis=1), -channels.min(axis=1))
    silent = [number for number in range(4) if peaks[number] <= _SILENCE * peaks.max()]
    if 0 in silent:
        sounds = "which should be W, is silent"
        return f"its {_ordinal(order[0])} channel, {sounds}", ANOTHER_CONVENTION
    if _spatiality(channels) < _ONE_SIGNAL:
        mono = _why_mono(channels, silent, order)
        return None if mono is None else (mono, _NO_AMBISONICS)
    return _silent_channels(silent, order) if silent else None


def _contradiction(
    channels: Channels,
    analysis: ChannelAnalysis | None,
    order: tuple[int, int, int, int],
    expected: str,
    stated: bool,
) -> tuple[str, str] | None:
    """What in the channels W, Y, Z, X, before their normalization is changed, speaks against the
    ``expected`` one, and what to do; None if nothing does. ``stated``: it is no assumption."""
    if analysis is None:
        return None
    if analysis.looks_unrelated(expected):
        unrelated = "its channels have nothing in common, as microphones at different places have"
        return unrelated, _NO_AMBISONICS
    if analysis.looks_like_capsules and _spatiality(channels) > _ONE_SIGNAL:
        return "all its channels are alike, as those of a raw microphone are", _A_FORMAT
    if analysis.contradicts(expected, stated):
        place = f", its {_ordinal(order[analysis.w])} one" if analysis.w else ""
        return f"it sounds like {_summary(analysis, place)}", ANOTHER_CONVENTION
    return None


def _why_mono(
    channels: Channels, silent: list[int], order: tuple[int, int, int, int]
) -> str | None:
    """Why channels that hold one signal are mono; None if they may be one sound from one
    direction."""
    if silent == [1, 2, 3]:
        return "only its W sounds: it is mono"
    energies = np.square(channels, dtype=np.float64).sum(axis=1)
    levels = 10 * np.log10(np.maximum(energies, 1e-12 * energies.max()) / energies[0])
    if np.abs(levels).max() < _EQUAL_DB:
        return "all four channels hold the same signal: it is mono"
    ratio_db = 10 * np.log10(energies[1:].sum() / energies[0])
    if all(abs(level - ratio_db) > _CLOSE_DB for level in LEVELS_DB.values()):
        return "its channels hold one signal, at levels that no direction has: it is mono"
    if len(silent) > 1:
        return f"{_name_silent(silent, order)}: it is mono, or a single sound"
    return None


def _name_silent(silent: list[int], order: tuple[int, int, int, int]) -> str:
    words = " and ".join(f"{_ordinal(order[number])} ({_NAMES[number]})" for number in silent)
    return f"its {words} channel{' is' if len(silent) == 1 else 's are'} silent"


def _silent_channels(silent: list[int], order: tuple[int, int, int, int]) -> tuple[str, str]:
    """What silent directional channels mean, and what to do."""
    channels = _name_silent(silent, order)
    if len(silent) > 1:
        return f"{channels}: it may be mono or stereo in four channels", _NO_AMBISONICS
    if silent == [3] and order == (0, 1, 2, 3):
        horizontal = "as in horizontal B-format in FuMa's order (W, X, Y, 0)"
        return f"{channels}, {horizontal}", ANOTHER_CONVENTION
    if silent == [2]:
        horizontal = "it is horizontal B-format, without heights"
        return f"{channels}: {horizontal}", "leave it out if heights matter"
    return channels, ANOTHER_CONVENTION


def _loudest_dbfs(channels: Channels) -> float:
    """The RMS level of the loudest channel, dB relative to full scale."""
    return 10 * float(np.log10(max(1e-20, np.diag(covariance(channels)).max())))


def _spatiality(channels: Channels) -> float:
    """As `avprep.foa.ambix.spatiality`, to within rounding of 32 bits."""
    products = covariance(channels)
    total = float(np.trace(products))
    return 1 - float(np.linalg.eigvalsh(products)[-1]) / total if total > 0 else 0.0


def _ordinal(number: int) -> str:
    return _ORDINALS[number] if number < len(_ORDINALS) else f"{number + 1}th"


def _as_read(analysis: ChannelAnalysis, expected: str) -> ChannelAnalysis:
    """The analysis of the field that is read, whose normalization is SN3D if it is right."""
    return replace(analysis, ratio_db=analysis.ratio_db - LEVELS_DB[expected] * (analysis.w == 0))


def _summary(analysis: ChannelAnalysis, place: str = "") -> str:
    sure = "clear" if analysis.is_sure else "not clear"
    return (
        f"{analysis.normalization}, W in channel {analysis.w} of W, Y, Z, X{place} "
        f"({analysis.ratio_db:+.1f} dB ± {analysis.spread_db:.1f}, {sure})"
    )
