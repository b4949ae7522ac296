"""Sound to network input: one short-time Fourier transform per clip, then all its viewpoints.

Rotating a sound field is linear, so rotating the complex spectra is exact and replaces a
transform per viewpoint. Log-mels follow librosa's definitions (McFee et al., 2015). They are
blind to the signs of Y, Z and X; the mel-band intensity vectors (Perotin et al., 2018; Wang,
Politis and Virtanen, 2022), which rotate like directions, restore them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from shards.geometry import BEAMS

AMIN = 1e-10
"""Smallest mel magnitude, as librosa's ``power_to_db``."""
SILENCE = 1e-9
"""Added to a mel band's energy: that of 16-bit rounding noise, 60 dB or more below any sound."""
CLIPS_AT_ONCE = 4
"""On a CPU: the spectra of more do not stay in its cache, and take twice as long."""


@dataclass(frozen=True)
class FeatureConfig:
    """How sound (24 kHz) becomes features. ``top_db`` is below each view's own maximum;
    ``audio`` is what a view hears: the field, or one or two beams (`shards.geometry.BEAMS`).
    ``conventions``: ``published`` feeds what the paper's published code fed, for its weights
    (`avtrain.data.published_conventions`)."""

    sample_rate: int = 24_000
    duration_s: float = 1.0
    n_fft: int = 512
    hop_length: int = 240
    mels: int = 128
    top_db: float = 100.0
    intensity: bool = False
    audio: Literal["foa", "mono", "stereo"] = "foa"
    conventions: Literal["avsa360", "published"] = "avsa360"

    def __post_init__(self) -> None:
        if self.conventions == "published" and (self.intensity or self.audio != "foa"):
            raise ValueError("networks of the published code heard log-mels of ambisonics alone")
        if self.intensity and self.audio != "foa":
            raise ValueError(f"intensity is of ambisonics, and the sound is {self.audio}")

    @property
    def samples(self) -> int:
        return round(self.duration_s * self.sample_rate)

    @property
    def frames(self) -> int:
        return self.samples // self.hop_length

    @property
    def heard(self) -> int:
        """Channels of sound that a view hears."""
        return len(BEAMS[self.audio])

    @property
    def channels(self) -> int:
        return self.heard + 3 * self.intensity


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
    """Sound of a clip and its viewpoints' matrices to the audio network's input.

    ``mean`` and ``std`` (mels,) in dB are those of the log-mels of the training split; they are
    buffers, so that a checkpoint holds them. Before ``fit`` they are 0 and 1.
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
    def forward(self, sound: Tensor, matrices: Tensor) -> Tensor:
        """Normalised log-mels, then intensities if configured: (B, V, C, frames, mels).

        ``matrices`` (B, V, heard, stored) take ``sound`` (B, stored, samples) to what every view
        hears. Where that is ambisonics they are rotations, mirrored or not, of FOA (ACN, SN3D),
        unless by the published conventions.
        """
        if sound.device.type == "cpu" and len(sound) > CLIPS_AT_ONCE:
            parts = (torch.split(whole, CLIPS_AT_ONCE) for whole in (sound, matrices))
            return torch.cat([self(*part) for part in zip(*parts, strict=True)])
        spectra = self.spectra(sound)
        features = self.log_mel(spectra, matrices).sub_(self.mean).div_(self.std)
        if self.config.intensity:
            features = torch.cat([features, self.intensity(spectra, matrices)], dim=2)
        return features

    def spectra(self, sound: Tensor) -> Tensor:
        """Real and imaginary parts (2, B, stored, frames, bins) without the half empty last frame.

        Frames before bins is how the transform leaves them in memory: no copy, and mels are one
        matrix product. Parts apart from each other make the rest plain real arithmetic.
        """
        config = self.config
        spectra = torch.stft(
            sound.flatten(0, 1),
            config.n_fft,
            config.hop_length,
            window=self.window,
            center=True,
            return_complex=True,
        )
        spectra = spectra.transpose(1, 2)[:, : config.frames]
        parts = torch.stack([spectra.real, spectra.imag])
        return parts.view(2, *sound.shape[:2], *spectra.shape[1:])

    def log_mel(self, spectra: Tensor, matrices: Tensor) -> Tensor:
        """Mel magnitudes of every view in dB: (B, V, heard, frames, mels)."""
        decibel = self._field(spectra, matrices)
        channels_together = self.config.conventions == "avsa360"
        loudest = decibel.amax(dim=(2, 3, 4) if channels_together else (3, 4), keepdim=True)
        return torch.maximum(decibel, loudest - self.config.top_db, out=decibel)

    def _field(self, spectra: Tensor, matrices: Tensor) -> Tensor:
        clips, views = matrices.shape[:2]
        frames, bins = spectra.shape[-2:]
        if self.config.audio != "foa" or self.config.conventions == "published":
            re, im = matrices.flatten(1, 2) @ spectra.flatten(3)
            heard = _squared(re, im).sqrt_().view(clips, views, -1, frames, bins)
            return self._decibel(heard)
        # Rotations leave W alone, so its mel is made once for all views.
        rotation = matrices[:, :, 1:, 1:].flatten(1, 2)  # (B, 3 V, 3)
        re, im = rotation @ spectra[:, :, 1:].flatten(3)
        directional = _squared(re, im).sqrt_().view(clips, 3 * views, frames, bins)
        directional = self._decibel(directional).view(clips, views, 3, frames, -1)
        omni = self._decibel(_squared(*spectra[:, :, :1]).sqrt_())
        return torch.cat([omni[:, None].expand(-1, views, -1, -1, -1), directional], dim=2)

    def intensity(self, spectra: Tensor, matrices: Tensor) -> Tensor:
        """Intensity over energy of mel bands, towards Y, Z, X: (B, V, 3, frames, mels).

        Re(conj(W) (Y, Z, X)) / ((|W|^2 + |Y|^2 + |Z|^2 + |X|^2) / 2), both summed over the band:
        the direction (y, z, x) of a single plane wave, shorter the more diffuse the sound.
        """
        re, im = spectra
        active = (re[:, :1] * re[:, 1:]).addcmul_(im[:, :1], im[:, 1:])
        energy = _squared(re, im).sum(dim=1, keepdim=True).mul_(0.5)
        direction = (active @ self.filters.T) / (energy @ self.filters.T + SILENCE)
        # A vector per band and frame: it turns with the view as any direction does.
        rotation = matrices[:, :, 1:, 1:].flatten(1, 2)
        turned: Tensor = rotation @ direction.flatten(2)
        return turned.view(*matrices.shape[:2], 3, *direction.shape[2:])

    def _decibel(self, magnitude: Tensor) -> Tensor:
        return (magnitude @ self.filters.T).clamp_(min=AMIN).log10_().mul_(10.0)

    @torch.no_grad()
    def fit(self, log_mels: Tensor) -> None:
        """Take ``mean`` and ``std`` per mel band from log-mels (..., mels) in dB."""
        std, mean = torch.std_mean(log_mels.double().flatten(0, -2), dim=0, correction=0)
        self.mean.copy_(mean)
        self.std.copy_(std + 1e-5)


def _squared(re: Tensor, im: Tensor) -> Tensor:
    return re.square().addcmul_(im, im)
