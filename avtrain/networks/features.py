"""Audio to network input: one short-time Fourier transform per clip, then all its views.

Rotating a sound field is linear, so rotating the complex spectra is exact and replaces a
transform per view. Log-mels follow librosa's definitions (McFee et al., 2015). They do
not see the signs of Y, Z and X; the mel-band intensity vectors (Perotin et al., 2018; Wang,
Politis and Virtanen, 2022), which rotate like directions, restore them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from msgspec import Meta
from numpy.typing import NDArray
from torch import Tensor, nn

from shards.geometry import BEAMS

AMIN = 1e-10
"""Smallest mel magnitude, as in librosa's ``power_to_db``."""
SILENCE = 1e-9
"""Energy of 16-bit rounding noise, added to that of a mel band; at least 60 dB below any sound."""
CLIPS_AT_ONCE = 4
"""Clips per call on a CPU: the spectra of more do not fit its cache, and take twice as long."""


@dataclass(frozen=True)
class FeatureConfig:
    """How audio (24 kHz) becomes features. ``top_db`` is relative to each view's own maximum.
    ``intensity_gain`` scales the intensity. ``audio`` is the format of a view: the sound field, its
    omnidirectional channel, or one or two beams (`shards.geometry.BEAMS`). ``conventions``:
    ``published`` gives the networks what the paper's published code gave them, for its weights
    (`avtrain.data.published_conventions`)."""

    sample_rate: Annotated[int, Meta(ge=1000, le=192_000)] = 24_000
    duration_s: Annotated[float, Meta(ge=0.01, le=60)] = 1.0
    n_fft: Annotated[int, Meta(ge=16, le=16_384)] = 512
    hop_length: Annotated[int, Meta(ge=1, le=16_384)] = 240
    mels: Annotated[int, Meta(ge=1, le=1024)] = 128
    top_db: Annotated[float, Meta(gt=0, le=1000)] = 100.0
    intensity: bool = False
    intensity_gain: Annotated[float, Meta(gt=0, le=1e6)] = 1.0
    audio: Literal["foa", "omni", "mono", "stereo"] = "foa"
    conventions: Literal["avsa360", "published"] = "avsa360"

    def __post_init__(self) -> None:
        if self.conventions == "published" and (self.intensity or self.audio != "foa"):
            raise ValueError(
                "the published conventions are defined for log-mels of ambisonics alone"
            )
        if self.intensity and self.audio != "foa":
            raise ValueError(
                f"intensity needs ambisonics, but the audio is {self.audio}: use features logmel, "
                "or audio foa"
            )

    @property
    def samples(self) -> int:
        return round(self.duration_s * self.sample_rate)

    @property
    def frames(self) -> int:
        return self.samples // self.hop_length

    @property
    def view_channels(self) -> int:
        """Audio channels of a view."""
        return len(BEAMS[self.audio])

    @property
    def channels(self) -> int:
        """Feature channels of a view."""
        return self.view_channels + 3 * self.intensity


def mel_filters(sample_rate: int, n_fft: int, mels: int) -> NDArray[np.float32]:
    """Triangular mel filters (mels, n_fft / 2 + 1) from 0 Hz to half the sample rate.

    Slaney's Auditory Toolbox scale (linear to 1 kHz, then logarithmic) and his norm (unit area
    in Hz), the defaults of ``librosa.filters.mel``.
    """
    edges_hz = _mel_to_hz(np.linspace(0.0, _hz_to_mel(sample_rate / 2), mels + 2))
    bins_hz = np.linspace(0.0, sample_rate / 2, n_fft // 2 + 1)
    width = np.diff(edges_hz)
    distance = bins_hz - edges_hz[:, None]
    rising = distance[:-2] / width[:-1, None]
    falling = -distance[2:] / width[1:, None]
    triangles = np.maximum(0.0, np.minimum(rising, falling))
    return (triangles * (2.0 / (edges_hz[2:] - edges_hz[:-2]))[:, None]).astype(np.float32)


_LINEAR_HZ_PER_MEL = 200.0 / 3.0
_LOG_FROM_HZ = 1000.0
_LOG_STEP = np.log(6.4) / 27.0


def _hz_to_mel(hz: float) -> float:
    if hz < _LOG_FROM_HZ:
        return hz / _LINEAR_HZ_PER_MEL
    return float(_LOG_FROM_HZ / _LINEAR_HZ_PER_MEL + np.log(hz / _LOG_FROM_HZ) / _LOG_STEP)


def _mel_to_hz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    log_from = _LOG_FROM_HZ / _LINEAR_HZ_PER_MEL
    above = _LOG_FROM_HZ * np.exp(_LOG_STEP * np.maximum(mel - log_from, 0.0))
    return np.where(mel < log_from, mel * _LINEAR_HZ_PER_MEL, above)


class Features(nn.Module):
    """Audio of a clip, and a matrix for each view, to the input of the audio network.

    ``mean`` and ``std`` (mels,) in dB are statistics of the log-mels of the training split; they
    are buffers, so that a checkpoint holds them. Before ``fit`` they are 0 and 1.
    """

    window: Tensor
    filters: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, config: FeatureConfig) -> None:
        super().__init__()
        self.config = config
        filters = mel_filters(config.sample_rate, config.n_fft, config.mels)
        self.register_buffer("window", torch.hann_window(config.n_fft), persistent=False)
        self.register_buffer("filters", torch.from_numpy(filters), persistent=False)
        self.register_buffer("mean", torch.zeros(config.mels))
        self.register_buffer("std", torch.ones(config.mels))

    @torch.no_grad()
    def forward(self, audio: Tensor, matrices: Tensor) -> Tensor:
        """Normalised log-mels, then intensities if configured: (B, V, C, frames, mels).

        ``matrices`` (B, V, channels, stored) map ``audio`` (B, stored, samples) to that of every
        view. For ambisonics they are rotations, mirrored or not, of FOA (ACN, SN3D), except by the
        published conventions.
        """
        if audio.device.type == "cpu" and len(audio) > CLIPS_AT_ONCE:
            parts = (torch.split(whole, CLIPS_AT_ONCE) for whole in (audio, matrices))
            return torch.cat([self(*part) for part in zip(*parts, strict=True)])
        # Energies of quiet sound are below what half precision can hold.
        with torch.autocast(audio.device.type, enabled=False):
            spectra = self.spectra(audio)
            features = self.log_mel(spectra, matrices).sub_(self.mean).div_(self.std)
            if self.config.intensity:
                intensity = self.intensity(spectra, matrices).mul_(self.config.intensity_gain)
                features = torch.cat([features, intensity], dim=2)
            return features

    def spectra(self, audio: Tensor) -> Tensor:
        """Real and imaginary parts (2, B, stored, frames, bins) without the half empty last frame.

        The transform leaves frames before bins in memory: no copy is needed, and mels are one
        matrix product. With real and imaginary parts apart, the rest is plain real arithmetic.
        """
        config = self.config
        spectra = torch.stft(
            audio.flatten(0, 1),
            config.n_fft,
            config.hop_length,
            window=self.window,
            center=True,
            return_complex=True,
        )
        spectra = spectra.transpose(1, 2)[:, : config.frames]
        parts = torch.stack([spectra.real, spectra.imag])
        return parts.view(2, *audio.shape[:2], *spectra.shape[1:])

    def log_mel(self, spectra: Tensor, matrices: Tensor) -> Tensor:
        """Mel magnitudes of every view in dB: (B, V, channels, frames, mels)."""
        decibel = self._field_mels(spectra, matrices)
        channels_together = self.config.conventions == "avsa360"
        loudest = decibel.amax(dim=(2, 3, 4) if channels_together else (3, 4), keepdim=True)
        return torch.maximum(decibel, loudest - self.config.top_db, out=decibel)

    def _field_mels(self, spectra: Tensor, matrices: Tensor) -> Tensor:
        """Mel magnitudes in dB, without the limit of ``top_db``."""
        clips, views = matrices.shape[:2]
        frames, bins = spectra.shape[-2:]
        if self.config.audio != "foa" or self.config.conventions == "published":
            re, im = matrices.flatten(1, 2) @ spectra.flatten(3)
            magnitude = _squared(re, im).sqrt_().view(clips, views, -1, frames, bins)
            return self._decibel(magnitude)
        # Rotations do not change W, so its mel is computed once for all views.
        rotation = matrices[:, :, 1:, 1:].flatten(1, 2)  # (B, 3 V, 3)
        re, im = rotation @ spectra[:, :, 1:].flatten(3)
        directional = _squared(re, im).sqrt_().view(clips, 3 * views, frames, bins)
        directional = self._decibel(directional).view(clips, views, 3, frames, -1)
        omni = self._decibel(_squared(*spectra[:, :, :1]).sqrt_())
        return torch.cat([omni[:, None].expand(-1, views, -1, -1, -1), directional], dim=2)

    def intensity(self, spectra: Tensor, matrices: Tensor, silence: float = SILENCE) -> Tensor:
        """Intensity divided by energy per mel band, towards Y, Z, X: (B, V, 3, frames, mels).

        Re(conj(W) (Y, Z, X)) / ((|W|^2 + |Y|^2 + |Z|^2 + |X|^2) / 2), both summed over the band:
        the direction (y, z, x) of a single plane wave, shorter for more diffuse sound, and for
        energies near ``silence``.
        """
        re, im = spectra
        active = (re[:, :1] * re[:, 1:]).addcmul_(im[:, :1], im[:, 1:])
        energy = _squared(re, im).sum(dim=1, keepdim=True).mul_(0.5)
        direction = (active @ self.filters.T) / (energy @ self.filters.T + silence)
        # A vector per band and frame, which a rotation to a view rotates as any direction.
        rotation = matrices[:, :, 1:, 1:].flatten(1, 2)
        rotated: Tensor = rotation @ direction.flatten(2)
        return rotated.view(*matrices.shape[:2], 3, *direction.shape[2:])

    def _decibel(self, magnitude: Tensor) -> Tensor:
        return (magnitude @ self.filters.T).clamp_(min=AMIN).log10_().mul_(10.0)

    @torch.no_grad()
    def fit(self, log_mels: Tensor) -> None:
        """Set ``mean`` and ``std`` per mel band from log-mels (..., mels) in dB."""
        std, mean = torch.std_mean(log_mels.double().flatten(0, -2), dim=0, correction=0)
        self.mean.copy_(mean)
        self.std.copy_(std + 1e-5)


def _squared(re: Tensor, im: Tensor) -> Tensor:
    return re.square().addcmul_(im, im)
