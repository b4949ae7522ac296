"""How well picture and sound match in every view of a clip, at times that follow each other."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from avtrain.config import ClipConfig, Config
from avtrain.data.batch import Batch, collate
from avtrain.data.clips import Clips
from avtrain.data.draws import NO_AUGMENTATION, Draw
from avtrain.data.loader import read_ahead
from avtrain.errors import TrainingError
from avtrain.evals.evaluation import progress_bar
from avtrain.evals.feature_store import check_finite
from avtrain.evals.frozen import Networks
from avtrain.evals.locate import matches
from avtrain.evals.truth import SoundingSource, sources_in
from avtrain.networks.features import FeatureConfig
from shards.geometry import ACN_CHANNELS
from shards.reader import ShardSet
from shards.schema import SampleInfo, View

VIEWS_AT_ONCE = 32
"""Views of a window in one batch: a grid of any size takes the same memory."""


@dataclass(frozen=True)
class Span:
    """The part of a clip to look at, and the seconds from one window to the next. With ``at_s`` it
    is the one window around that time. ``offset_s`` is the time at which the clip begins, on the
    clock of the others; ``name`` is what the user calls it (empty: its key)."""

    start_s: float = 0.0
    duration_s: float = 60.0
    hop_s: float = 0.5
    at_s: float | None = None
    offset_s: float = 0.0
    name: str = ""


@dataclass(frozen=True)
class Scores:
    """A clip's scores in T windows and V views.

    ``begin_s`` and ``end_s`` bound what was looked at, ``middles_s`` (T,) are the middles of the
    windows. ``match`` (T, V) is the similarity of picture and sound; ``covariance`` (T, 4, 4) the
    A-weighted one of the ambisonic channels of the recording; ``sources`` are those that sound in
    each window, None where the set does not say.
    """

    info: SampleInfo
    begin_s: float
    end_s: float
    middles_s: NDArray[np.float64]
    match: NDArray[np.float64]
    covariance: NDArray[np.float64]
    sources: tuple[list[SoundingSource], ...] | None

    @property
    def views(self) -> tuple[View, ...]:
        return self.info.views

    def window_at(self, time_s: float) -> int:
        """The window whose middle is nearest to a time."""
        return int(np.abs(self.middles_s - time_s).argmin())


def score_clip(
    shards: ShardSet, sample: int, networks: Networks, span: Span, workers: int
) -> Scores:
    """Compare the video of every view with the audio turned to it, as in pretraining, in windows of
    the pretraining's length.

    Raises TrainingError for a clip that does not suit the networks, or that the span lies outside
    of; ShardError for a damaged one.
    """
    info, config = shards.info(sample), networks.config
    _check(info, config)
    begin_s, end_s, middles_s = _windows(info, config.sound.duration_s, span)
    clips = _WindowsOfViews(shards, config.clip, config.sound, middles_s, len(info.views))
    matched, covariances, sources = [], [], []
    with (
        progress_bar(info.key, len(middles_s) * len(info.views), unit="view") as bar,
        closing(clips.batches(sample, workers, networks.device)) as batches,
    ):
        features: list[tuple[Tensor, Tensor, Tensor]] = []
        for batch in batches:
            batch = batch.to(networks.device)
            features.append((networks.video(batch), networks.audio(batch), batch.directions))
            bar.update(batch.directions.shape[1])
            if len(features) == len(clips.parts):
                parts = (torch.cat(part, dim=1) for part in zip(*features, strict=True))
                matched.append(matches(networks.embeddings(*parts))[0].cpu())
                features = []
    for middle_s in middles_s:
        start_s = clips.starts_s(sample, clips.at(middle_s))[0]
        covariances.append(_covariance(shards, sample, start_s, config.sound))
        sources.append(sources_in(info, start_s, config.sound.duration_s))
    match = torch.stack(matched)
    check_finite(match)
    return Scores(
        info,
        begin_s,
        end_s,
        middles_s,
        match.numpy(),
        np.stack(covariances),
        None if info.events is None else tuple(sources),
    )


def _check(info: SampleInfo, config: Config) -> None:
    if info.audio.channels != ACN_CHANNELS:
        has = " and ".join(info.audio.channels) or "no"
        raise TrainingError(
            f"{info.key} has {has} audio, and a heat map needs ambisonics, which say where sound "
            "comes from; build the set with --audio foa"
        )
    if len(info.views) < 2:
        raise TrainingError(
            f"{info.key} has a single view, and a heat map compares several; build the set with "
            "more --views"
        )


def _windows(
    info: SampleInfo, window_s: float, span: Span
) -> tuple[float, float, NDArray[np.float64]]:
    """Begin, end and the windows' middles. Raises TrainingError."""
    length_s = min(info.audio.samples / info.audio.sample_rate, info.video.frames / info.video.fps)
    asked_s = span.start_s if span.at_s is None else span.at_s
    name = span.name or info.key
    # A file may begin with a moment that has no picture or no sound.
    first_s = max(0.0, asked_s - span.offset_s)
    if first_s >= length_s:
        raise TrainingError(
            f"{'--start' if span.at_s is None else '--at'} {asked_s:g} is past the end of "
            f"{name}, which ends at {span.offset_s + length_s:g} s"
        )
    if length_s < window_s - 1e-6:
        raise TrainingError(
            f"{name} lasts {length_s:g} s, but the networks were trained on windows of "
            f"{window_s:g} s; take a longer recording"
        )
    if span.at_s is not None:
        middle_s = min(max(first_s, window_s / 2), length_s - window_s / 2)
        return first_s, first_s, np.array([middle_s])
    end_s = min(length_s, span.start_s + span.duration_s - span.offset_s)
    if end_s - first_s < window_s - 1e-6:
        raise TrainingError(
            f"{max(0.0, end_s - first_s):g} s of {name} are between --start and its end or "
            f"that of --duration, but the networks were trained on windows of {window_s:g} s; name "
            "a longer part"
        )
    count = int((end_s - first_s - window_s) / span.hop_s + 1e-6) + 1
    middles_s = first_s + window_s / 2 + span.hop_s * np.arange(count, dtype=np.float64)
    return first_s, end_s, middles_s


class _WindowsOfViews(Clips):
    """Clips in windows around given times, a few views at a time, in the recording's own frame."""

    def __init__(
        self,
        shards: ShardSet,
        clip: ClipConfig,
        sound: FeatureConfig,
        middles_s: NDArray[np.float64],
        views: int,
    ) -> None:
        self.middles_s = middles_s
        self.parts = np.array_split(np.arange(views), -(-views // VIEWS_AT_ONCE))
        clip = replace(clip, views=1, moments=1)
        super().__init__(shards, clip, sound, NO_AUGMENTATION, 0)

    def draw(self, pass_index: int, index: int) -> Draw:
        """Pass k is part k mod P of the P parts of the views, in window k // P."""
        self._check(self.shards.info(index))
        window, part = divmod(pass_index, len(self.parts))
        return self.at(self.middles_s[window], self.parts[part])

    def at(self, middle_s: float, views: NDArray[np.int64] | None = None) -> Draw:
        """What is read of these views in the window around a time."""
        draw = Draw.from_seed([0], 1, self.clip, self.augment)
        views = self.parts[0] if views is None else views
        return replace(draw, views=views, frame_yaw_deg=0.0, middle_s=float(middle_s))

    def batches(self, sample: int, workers: int, device: torch.device) -> Generator[Batch]:
        """The parts of each window, one after the other. To be closed."""
        places = [[(number, sample)] for number in range(len(self.middles_s) * len(self.parts))]
        with closing(read_ahead(self, places, collate, workers, device.type == "cuda")) as found:
            for batch in found:
                if batch is not None:
                    yield batch


def _covariance(
    shards: ShardSet, sample: int, start_s: float, sound: FeatureConfig
) -> NDArray[np.float64]:
    """Covariance (4, 4) of the recording's field in a window, A-weighted as hearing is: bass would
    outweigh voices, and it says little of directions. Of spectra, by Parseval's theorem."""
    stored, matrix = shards.foa(sample, round(start_s * sound.sample_rate), sound.samples)
    spectra = np.fft.rfft(matrix.T @ stored.astype(np.float64))
    frequency = np.fft.rfftfreq(sound.samples, 1 / sound.sample_rate)
    spectra *= a_weighting(frequency.astype(np.float64))
    return np.asarray(2 * (spectra @ spectra.conj().T).real / sound.samples**2)


def a_weighting(frequency: NDArray[np.float64]) -> NDArray[np.float64]:
    """Amplitude factors of A-weighting (IEC 61672-1, annex E) at frequencies in Hz, 1 at 1 kHz."""
    f2 = np.square(frequency)
    curve = np.square(12194.0 * f2) / ((f2 + 20.6**2) * (f2 + 12194.0**2))
    curve /= np.sqrt((f2 + 107.7**2) * (f2 + 737.9**2))
    return np.asarray(curve * 10**0.1)
