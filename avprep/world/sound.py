"""Render the world's audio: the notes of objects in a noisy, reverberant room."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import fft

from avprep.world.notes import play_note
from avprep.world.scene import (
    DURATION_S,
    FPS,
    FRAMES,
    SAMPLE_RATE,
    Place,
    SceneObject,
    WorldClip,
)

Floats = NDArray[np.float64]

SAMPLES = int(DURATION_S * SAMPLE_RATE)
# RMS of a sounding source of 0 dB, before the field is scaled to the clip's peak.
SOURCE_RMS = 0.1
# Directions per second; linear interpolation between them keeps moving sources free of clicks.
PATH_RATE = 480
# W, Y, Z, X of an isotropic diffuse field in SN3D: independent, each axis with 1/3 of the energy.
DIFFUSE_WEIGHTS = np.sqrt([1, 1 / 3, 1 / 3, 1 / 3]).astype(np.float32)[:, None]
# Mirror images in the room, as signs of W, Y, Z, X: floor, side wall, front wall, corner, side wall
# and floor.
MIRRORS = np.array(
    [[1, 1, -1, 1], [1, -1, 1, 1], [1, 1, 1, -1], [1, -1, 1, -1], [1, -1, -1, 1]], dtype=np.float32
)


DETOUR_M = 4.0
"""How much farther than the direct sound early reflections have travelled."""


@dataclass(frozen=True)
class RenderedAudio:
    """A clip's FOA (4, SAMPLES), and what it consists of.

    ``levels``: RMS of W of the direct sound per video frame (FRAMES,), by object id. ``noise_rms``:
    RMS of W of the diffuse noise. ``ratios_db``: energy of the direct sound against that of its
    reflections and tail, by object id, where distances are modelled.
    """

    foa: NDArray[np.float32]
    levels: dict[int, Floats]
    noise_rms: float
    ratios_db: dict[int, float]


def render_audio(clip: WorldClip) -> RenderedAudio:
    """Render the sounding objects, their reverberation and the noise, scaled to the clip's peak."""
    foa = np.zeros((4, SAMPLES), dtype=np.float32)
    levels: dict[int, Floats] = {}
    room = None if clip.place.critical_distance_m is None else _Room(clip.place)
    knots = np.arange(int(DURATION_S * PATH_RATE) + 1) / PATH_RATE
    times = np.arange(SAMPLES) / SAMPLE_RATE
    for source in clip.objects:
        if source.silent:
            continue
        dry = object_signal(source)
        path = source.direction(knots)
        direction = [np.interp(times, knots, path[:, axis]) for axis in range(3)]
        if room is None:
            direct = dry
        else:
            distance = source.distance(times)
            direct = dry / distance
            room.add(source.id, dry, direction, distance)
        _add_plane_wave(foa, direct, direction)
        levels[source.id] = frame_rms(direct)
    if room is None:
        foa = _add_reverberation(foa, clip.place)
    elif levels:
        foa += room.reverberation()
    noise_rms = SOURCE_RMS * 10 ** (clip.place.noise_db / 20)
    if noise_rms > 0:
        colour = np.random.default_rng([clip.place.seed, 1])
        foa += noise_rms * diffuse_noise(np.random.default_rng([clip.seed, 1]), colour)
    # No rotation of the field exceeds this peak.
    peak = max(float(np.abs(foa[0]).max()), float(np.sqrt((foa[1:] ** 2).sum(axis=0).max())))
    scale = 10 ** (clip.peak_dbfs / 20) / max(peak, 1e-9)
    return RenderedAudio(
        foa * np.float32(scale),
        {k: level * scale for k, level in levels.items()},
        noise_rms * scale,
        {} if room is None else room.ratios_db,
    )


def _add_plane_wave(foa: NDArray[np.float32], sound: Floats, direction: Sequence[Floats]) -> None:
    """Add a plane wave to FOA (4, SAMPLES), in place; ``direction`` is x, y, z per sample.

    The same numbers as `shards.geometry.encode_foa`, in a third of its time.
    """
    x, y, z = direction
    foa[0] += sound.astype(np.float32)
    for channel, component in enumerate((y, z, x), start=1):
        foa[channel] += (component * sound).astype(np.float32)


def frame_rms(sound: Floats) -> Floats:
    """RMS (FRAMES,) of a signal (SAMPLES,) during each video frame."""
    return np.asarray(np.sqrt((sound.reshape(FRAMES, SAMPLE_RATE // FPS) ** 2).mean(axis=1)))


def object_signal(source: SceneObject) -> Floats:
    """Dry mono signal (SAMPLES,) of an object: one of its three notes on each beat."""
    rng = np.random.default_rng(source.seed)
    notes = [play_note(source, variant, rng) for variant in range(3)]
    notes = [note / _loudness(note) for note in notes]
    out = np.zeros(SAMPLES)
    for beat in source.beats:
        begin = round(beat.time_s * SAMPLE_RATE)
        note = notes[beat.variant][: SAMPLES - begin]
        out[begin : begin + len(note)] += beat.strength * note
    return out * SOURCE_RMS * 10 ** (source.level_db / 20)


def diffuse_noise(rng: Generator, colour: Generator) -> NDArray[np.float32]:
    """Isotropic diffuse noise, FOA (4, SAMPLES), RMS of W 1; ``colour`` draws its spectrum."""
    slope, centre_hz, width = colour.uniform([0.2, 300, 0.5], [0.7, 3000, 1.2])
    frequency = fft.rfftfreq(SAMPLES, 1 / SAMPLE_RATE)[1:]
    bump = 1 + 1.5 * np.exp(-((np.log(frequency / centre_hz) / width) ** 2))
    gain = np.zeros(SAMPLES // 2 + 1, dtype=np.float32)
    gain[1:] = bump * np.maximum(frequency, 60) ** -slope
    spectrum = rng.standard_normal((4, len(gain), 2), dtype=np.float32).view(np.complex64)[..., 0]
    noise = fft.irfft(spectrum * gain, n=SAMPLES)
    # E|spectrum|^2 = 2 gain^2 in each bin and its mirror: scaled by expectation, not by the sample.
    expected = 2 * np.sqrt(np.square(gain, dtype=np.float64).sum()) / SAMPLES
    return np.asarray(DIFFUSE_WEIGHTS * noise / np.float32(expected), dtype=np.float32)


def _add_reverberation(direct: NDArray[np.float32], place: Place) -> NDArray[np.float32]:
    """Add early reflections from mirrored directions and a diffuse tail to a field (4, SAMPLES)."""
    if place.reverb_db == -np.inf:
        return direct
    rng = np.random.default_rng([place.seed, 2])
    out = direct.copy()
    for mirror in MIRRORS:
        delay = round(rng.uniform(0.004, 0.030) * SAMPLE_RATE)
        gain = np.float32(10 ** ((place.reverb_db - rng.uniform(3, 9)) / 20))
        out[:, delay:] += (gain * mirror)[:, None] * direct[:, :-delay]
    response = _tail(place, rng)
    size = fft.next_fast_len(SAMPLES + response.shape[1], real=True)
    spectrum = fft.rfft(direct[0], size) * fft.rfft(response, size)
    out += fft.irfft(spectrum, size)[:, :SAMPLES]
    return out


def _tail(place: Place, rng: Generator) -> NDArray[np.float32]:
    """Impulse response (4, samples) of a diffuse, exponentially decaying tail."""
    time_s = np.arange(int(place.rt60_s * SAMPLE_RATE), dtype=np.float32) / SAMPLE_RATE
    shape = np.exp(-6.9 * time_s / place.rt60_s) * np.clip(time_s / 0.02, 0, 1)
    shape *= 10 ** (place.reverb_db / 20) / np.sqrt((shape**2).sum())
    response = rng.standard_normal((4, len(time_s)), dtype=np.float32) * shape * DIFFUSE_WEIGHTS
    return np.asarray(response, dtype=np.float32)


class _Room:
    """Reverberation of sources at known distances.

    A source's tail does not depend on its distance: its energy is that of the direct sound at the
    critical distance. Early reflections arrive from mirrored directions, after `DETOUR_M` more than
    the direct sound.
    """

    def __init__(self, place: Place) -> None:
        rng = np.random.default_rng([place.seed, 2])
        self._reflected = np.zeros((4, SAMPLES), dtype=np.float32)
        self._delays = [round(rng.uniform(0.004, 0.030) * SAMPLE_RATE) for _ in MIRRORS]
        gains = 10 ** (-rng.uniform(3, 9, len(MIRRORS)) / 20)
        self._gains: NDArray[np.float32] = (
            gains if place.reverb_db > -np.inf else 0 * gains
        ).astype(np.float32)
        response = _tail(place, rng)
        self._size = fft.next_fast_len(SAMPLES + response.shape[1], real=True)
        self._response = fft.rfft(response, self._size)
        self._spectrum = np.zeros(self._response.shape[1], dtype=np.complex64)
        self.ratios_db: dict[int, float] = {}

    def add(
        self, number: int, dry: Floats, direction: Sequence[Floats], distance_m: Floats
    ) -> None:
        """Add the source of id ``number``; ``dry`` (SAMPLES,) is its direct sound at 1 m."""
        reflected = dry / (distance_m + DETOUR_M)
        _add_plane_wave(self._reflected, reflected, direction)
        spectrum = fft.rfft(dry.astype(np.float32), self._size)
        self._spectrum += spectrum
        # Parseval: both halves of the spectrum of a real signal have the same energy.
        tail = 2 * float((np.abs(spectrum * self._response[0]) ** 2).sum()) / self._size
        early = float((self._gains**2).sum()) * float((reflected**2).sum())
        direct = float(((dry / distance_m) ** 2).sum())
        self.ratios_db[number] = float(10 * np.log10(direct / max(early + tail, 1e-9)))

    def reverberation(self) -> NDArray[np.float32]:
        """The reflections and tails (4, SAMPLES) of all sources."""
        out = fft.irfft(self._spectrum * self._response, self._size)[:, :SAMPLES]
        for mirror, gain, delay in zip(MIRRORS, self._gains, self._delays, strict=True):
            out[:, delay:] += (gain * mirror)[:, None] * self._reflected[:, :-delay]
        return np.asarray(out, dtype=np.float32)


def _loudness(note: Floats) -> float:
    """RMS of the loudest 50 ms of a note."""
    window = SAMPLE_RATE // 20
    energy = np.concatenate([[0.0], np.cumsum(np.pad(note, (0, window)) ** 2)])
    return float(np.sqrt((energy[window:] - energy[:-window]).max() / window))
