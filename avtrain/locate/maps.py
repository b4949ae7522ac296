"""The maps of a clip, their peaks, and what they say in one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from avtrain.locate.draw import (
    ENERGY_RANGE_DB,
    HIDDEN_COLOUR,
    SEEN_COLOUR,
    Mark,
    Scale,
    peak_mark,
)
from avtrain.locate.heat_map import Map, Peak, SphereMap, energy_map, find_peak, mean_angle_deg
from avtrain.locate.scores import Scores
from shards.geometry import angle_between_deg, direction_deg

_NEAR_DEG = 20.0
_LEAST_ENERGY = 1e-12
_SILENCE_DB = -100.0
"""Energy of the loudest direction, dB(A): 16 bits hold less than 100 dB."""
_FLAT_DB = 0.2
"""From the least to the greatest energy of sound without a direction."""


@dataclass(frozen=True)
class Maps:
    """Maps of the match and of the acoustic energy in each window, with a scale for all of them.

    The match has no peak (None) in silence, and the energy none in silence or where it is the same
    in every direction. ``offset_s`` is the time at which the clip begins, in the file that the user
    has named.
    """

    scores: Scores
    sphere: SphereMap
    match_peaks: tuple[Peak | None, ...]
    energy_peaks: tuple[Peak | None, ...]
    match_scale: Scale
    energy_scale: Scale
    offset_s: float

    @classmethod
    def from_scores(cls, scores: Scores, offset_s: float = 0.0) -> Maps:
        sphere = SphereMap(scores.views)
        # A second pass draws the maps: those of a long clip are too large to be kept.
        matches = [sphere(one) for one in scores.match]
        energies = [energy_db(one) for one in scores.covariance]
        heard = [float(one.max()) > _SILENCE_DB for one in energies]
        loudest = max(float(one.max()) for one in energies)
        shown = [one for one, sounds in zip(matches, heard, strict=True) if sounds] or matches
        return cls(
            scores,
            sphere,
            tuple(
                find_peak(one) if sounds else None
                for one, sounds in zip(matches, heard, strict=True)
            ),
            tuple(
                find_peak(one) if sounds and float(np.ptp(one)) > _FLAT_DB else None
                for one, sounds in zip(energies, heard, strict=True)
            ),
            Scale(
                min(float(np.nanmin(one)) for one in shown),
                max(float(np.nanmax(one)) for one in shown),
            ),
            Scale(loudest - ENERGY_RANGE_DB, loudest),
            offset_s,
        )

    def match(self, window: int) -> Map:
        """NaN without a peak."""
        found = self.sphere(self.scores.match[window])
        return found if self.match_peaks[window] else np.full_like(found, np.nan)

    def energy_db(self, window: int) -> Map:
        """NaN without a peak."""
        found = energy_db(self.scores.covariance[window])
        return found if self.energy_peaks[window] else np.full_like(found, np.nan)

    def marks(self, window: int) -> list[Mark]:
        """Both peaks, and the sources that sound."""
        sources = () if self.scores.sources is None else self.scores.sources[window]
        marks = []
        for source in sources:
            azimuth, elevation = direction_deg(source.direction)
            colour = SEEN_COLOUR if source.visible else HIDDEN_COLOUR
            marks.append(Mark("o", float(azimuth), float(elevation), colour))
        peaks = (self.energy_peaks[window], "x"), (self.match_peaks[window], "+")
        return [*marks, *(peak_mark(peak, shape) for peak, shape in peaks if peak is not None)]

    def titles(self, window: int) -> tuple[str, str]:
        """What the two maps show."""
        match, energy = self.match_peaks[window], self.energy_peaks[window]
        if match is None:
            return "silence", "silence"
        above = f"+ picture and sound match best at {_at(match)}: {match.value:.2f}"
        if energy is None:
            return above, "the sound is as loud from every direction"
        return above, f"x sound alone is loudest at {_at(energy)}: {energy.value:.0f} dB(A)"

    @property
    def legend(self) -> str:
        """What the colours mean."""
        match, energy = self.match_scale, self.energy_scale
        over = "this window" if len(self.match_peaks) == 1 else "the whole clip"
        truth = "" if self.scores.sources is None else "  o source"
        return (
            f"dark to bright, of {over}: {match.low:.2f} to {match.high:.2f}, "
            f"{energy.low:.0f} to {energy.high:.0f} dB(A){truth}"
        )

    def errors_deg(self) -> tuple[float, float, float] | None:
        """Mean angles to the nearest source that sounds and can be seen: of the best match, of the
        loudest direction, and of any direction. None without such sources."""
        found = []
        for window, sources in enumerate(self.scores.sources or ()):
            targets = [source.direction for source in sources if source.visible]
            match, energy = self.match_peaks[window], self.energy_peaks[window]
            if targets and match is not None and energy is not None:
                angles = [
                    angle_between_deg(one.direction, targets).min() for one in (match, energy)
                ]
                found.append([*angles, mean_angle_deg(np.array(targets))])
        if not found:
            return None
        match, energy, chance = np.mean(found, axis=0)
        return float(match), float(energy), float(chance)

    def sentence(self) -> str:
        """Where the peaks mostly are, and how far from the truth where that is known."""
        matches, energies = (
            [one for one in peaks if one is not None]
            for peaks in (self.match_peaks, self.energy_peaks)
        )
        silent = len(self.match_peaks) - len(matches)
        if not matches:
            return "silence: nothing is drawn over the picture"
        told = f"picture and sound match best {_mostly(matches)}; "
        if energies:
            told += f"sound alone is loudest {_mostly(energies)}"
        else:
            told += "sound alone is as loud from every direction"
        if silent:
            told += f"; {silent} of {len(self.match_peaks)} windows are silent and left out"
        if (errors := self.errors_deg()) is None:
            return told
        match, energy, chance = errors
        return (
            f"{told}; the nearest visible source is {match:.0f}° and {energy:.0f}° away on average "
            f"(from any direction: {chance:.0f}°)"
        )


def energy_db(covariance: NDArray[np.float64]) -> Map:
    """The energy of a window towards every direction in decibels; 0 dB is that of 1."""
    return np.asarray(10 * np.log10(np.maximum(energy_map(covariance), _LEAST_ENERGY)), np.float32)


def _at(peak: Peak) -> str:
    return f"azimuth {peak.azimuth_deg:.0f}°, elevation {peak.elevation_deg:.0f}°"


def _mostly(peaks: Sequence[Peak]) -> str:
    """The peak that most of the others are near to, and how many."""
    if len(peaks) == 1:
        return f"at {_at(peaks[0])}"
    directions = np.array([peak.direction for peak in peaks])
    near = (directions @ directions.T >= np.cos(np.radians(_NEAR_DEG))).sum(axis=1)
    best = int(near.argmax())
    share = 100 * near[best] / len(peaks)
    return f"within {_NEAR_DEG:.0f}° of {_at(peaks[best])} in {share:.0f} % of the windows"
