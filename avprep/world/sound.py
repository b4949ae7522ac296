"""Render the world's audio: notes of ten kinds in a noisy, slightly reverberant room."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import fft, signal

from avprep.world.scene import DURATION_S, FPS, FRAMES, Place, SceneObject, WorldClip
from shards.geometry import encode_foa

Floats = NDArray[np.float64]

SAMPLE_RATE = 48000
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


def render_audio(clip: WorldClip) -> tuple[NDArray[np.float32], dict[int, Floats], float]:
    """A clip's FOA (4, SAMPLES), the level of each source, and the level of the diffuse noise.

    Levels are RMS values of W (full scale 1). The sources' levels are those of the direct sound per
    video frame (FRAMES,), by object id.
    """
    foa = np.zeros((4, SAMPLES), dtype=np.float32)
    levels: dict[int, Floats] = {}
    knots = np.arange(int(DURATION_S * PATH_RATE) + 1) / PATH_RATE
    times = np.arange(SAMPLES) / SAMPLE_RATE
    for source in clip.objects:
        if source.silent:
            continue
        dry = object_signal(source)
        path = source.direction(knots)
        direction = np.stack([np.interp(times, knots, path[:, axis]) for axis in range(3)], axis=1)
        foa += encode_foa(dry, direction)
        levels[source.id] = frame_rms(dry)
    foa = _add_reverberation(foa, clip.place)
    noise_rms = SOURCE_RMS * 10 ** (clip.place.noise_db / 20)
    if noise_rms > 0:
        colour = np.random.default_rng([clip.place.seed, 1])
        foa += noise_rms * diffuse_noise(np.random.default_rng([clip.seed, 1]), colour)
    # No rotation of the field exceeds this peak.
    peak = max(float(np.abs(foa[0]).max()), float(np.sqrt((foa[1:] ** 2).sum(axis=0).max())))
    scale = 10 ** (clip.peak_dbfs / 20) / max(peak, 1e-9)
    return (
        foa * np.float32(scale),
        {k: level * scale for k, level in levels.items()},
        noise_rms * scale,
    )


def frame_rms(sound: Floats) -> Floats:
    """RMS (FRAMES,) of a signal (SAMPLES,) during each video frame."""
    return np.asarray(np.sqrt((sound.reshape(FRAMES, SAMPLE_RATE // FPS) ** 2).mean(axis=1)))


def object_signal(source: SceneObject) -> Floats:
    """Dry mono signal (SAMPLES,) of an object: one of its three notes on each beat."""
    rng = np.random.default_rng(source.seed)
    notes = [_note(source, variant, rng) for variant in range(3)]
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
    time_s = np.arange(int(place.rt60_s * SAMPLE_RATE), dtype=np.float32) / SAMPLE_RATE
    shape = np.exp(-6.9 * time_s / place.rt60_s) * np.clip(time_s / 0.02, 0, 1)
    shape *= 10 ** (place.reverb_db / 20) / np.sqrt((shape**2).sum())
    response = rng.standard_normal((4, len(time_s)), dtype=np.float32) * shape * DIFFUSE_WEIGHTS
    size = fft.next_fast_len(SAMPLES + len(time_s), real=True)
    spectrum = fft.rfft(direct[0], size) * fft.rfft(response.astype(np.float32), size)
    out += fft.irfft(spectrum, size)[:, :SAMPLES]
    return out


def _loudness(note: Floats) -> float:
    """RMS of the loudest 50 ms of a note."""
    window = SAMPLE_RATE // 20
    energy = np.concatenate([[0.0], np.cumsum(np.pad(note, (0, window)) ** 2)])
    return float(np.sqrt((energy[window:] - energy[:-window]).max() / window))


def _note(source: SceneObject, variant: int, rng: Generator) -> Floats:
    """A note of the object's kind, with its pitch and timbre; length and loudness are free."""
    pitch, timbre = 2 ** (source.semitones / 12), source.timbre
    hold = source.kind.hold_s
    match source.kind.name:
        case "bell":
            time_s = _time(1.3)
            ratios = np.array([0.5, 1.0, 1.19, 1.5, 2.0, 2.66, 3.76, 5.1]) ** (1 + 0.06 * timbre)
            out = np.zeros_like(time_s)
            for number, ratio in enumerate(ratios):
                amplitude = np.exp(-0.35 * (1.3 - timbre) * number)
                out += amplitude * _sine(560 * pitch * ratio, time_s) * np.exp(-3 * ratio * time_s)
            return out * _envelope(time_s, 0.003, 0.9, 0.1)
        case "bird":
            time_s = _time(hold + 0.08)
            bend = [1.0, -1.0, 0.0][variant] * (time_s / hold - 0.5)
            trill = 0.12 * np.sin(2 * np.pi * (18 + 14 * timbre) * time_s)
            phase = _phase(2700 * pitch * 2 ** (0.7 * bend + trill))
            tone = np.sin(phase) + 0.3 * timbre * np.sin(2 * phase)
            return tone * _envelope(time_s, 0.015, hold, 0.03)
        case "drum":
            time_s = _time(0.5)
            fall = 1 + 0.8 * np.exp(-time_s / 0.025)
            body = np.sin(_phase(105 * pitch * [1.0, 1.0, 1.35][variant] * fall))
            skin = _band_noise(rng, len(time_s), 200, 2500) * np.exp(-time_s / 0.02)
            return body * np.exp(-time_s / 0.12) + (0.25 + 0.5 * timbre) * skin
        case "drone":
            time_s = _time(hold + 0.4)
            vibrato = 1 + 0.02 * np.sin(2 * np.pi * 5.5 * time_s)
            phase = _phase(165 * pitch * [1.0, 1.125, 0.84][variant] * vibrato)
            weights = np.arange(1, 15) ** -(1.5 - 0.7 * timbre)
            tremolo = 1 + 0.4 * np.sin(2 * np.pi * 5.5 * time_s + 1)
            return _harmonics(phase, weights) * tremolo * _envelope(time_s, 0.05, hold, 0.12)
        case "hiss":
            time_s = _time(hold + 0.35)
            low = (900 + 1300 * timbre) * pitch
            noise = _band_noise(rng, len(time_s), low, 2.8 * low)
            return noise * _envelope(time_s, 0.03, hold, 0.10)
        case "clock":
            time_s = _time(0.12)
            tock = [1.0, 1.0, 0.72][variant] * pitch
            wood = _sine(1500 * tock, time_s) * np.exp(-time_s / 0.012)
            metal = _sine(3700 * tock, time_s) * np.exp(-time_s / 0.006)
            return wood + (0.4 + timbre) * metal + 0.3 * _click(rng, len(time_s))
        case "siren":
            time_s = _time(hold + 0.25)
            sweep = [0.5, 1.0, 0.75][variant] * np.sin(np.pi * np.clip(time_s / hold, 0, 1))
            phase = _phase(520 * pitch * 2**sweep)
            weights = np.array([1.0, 0.15 + 0.4 * timbre, 0.35, 0.1, 0.3 * timbre])
            return _harmonics(phase, weights) * _envelope(time_s, 0.03, hold, 0.07)
        case "string":
            time_s = _time(0.9)
            f0 = 235 * pitch * [1.0, 1.26, 1.5][variant]
            out = np.zeros_like(time_s)
            for number in range(1, 16):
                pluck = np.sin(np.pi * number * (0.15 + 0.2 * timbre)) / number**0.8
                decay = np.exp(-time_s * (3 + 1.2 * number))
                out += pluck * decay * _sine(f0 * number * (1 + 2e-4 * number**2), time_s)
            return out * _envelope(time_s, 0.002, 0.6, 0.1)
        case "crackle":
            time_s = _time(hold + 0.25)
            sparks = rng.standard_normal(len(time_s)) ** 3
            sparks *= rng.random(len(time_s)) < (0.002 + 0.003 * timbre)
            low = 1200 * pitch
            sound = np.convolve(sparks, _band_noise(rng, 240, low, 5 * low), mode="same")
            return sound * _envelope(time_s, 0.02, hold, 0.08)
        case "voice":
            time_s = _time(hold + 0.22)
            glide = 1 + 0.12 * np.sin(np.pi * time_s / time_s[-1])
            f0 = 150 * pitch
            harmonics = f0 * np.arange(1, 24)
            formants = [(700, 1150), (350, 2100), (450, 850)][variant]
            formants_hz = np.array([*formants, 2700]) * (0.9 + 0.3 * timbre)
            peaks = np.exp(-(((harmonics[:, None] - formants_hz) / 160) ** 2))
            weights = (peaks @ [1.0, 0.6, 0.25] + 0.02) * np.arange(1, 24) ** -0.3
            return _harmonics(_phase(f0 * glide), weights) * _envelope(time_s, 0.025, hold, 0.05)
    raise ValueError(f"no note for the kind {source.kind.name}")


def _time(seconds: float) -> Floats:
    return np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE


def _phase(frequency_hz: Floats) -> Floats:
    return 2 * np.pi * np.cumsum(frequency_hz) / SAMPLE_RATE


def _sine(frequency_hz: float, time_s: Floats) -> Floats:
    return np.sin(2 * np.pi * frequency_hz * time_s)


def _harmonics(phase: Floats, weights: NDArray[np.floating[Any]]) -> Floats:
    """Sum of weights[k] sin((k + 1) phase), from powers of one complex tone."""
    tone = np.exp(1j * phase)
    power, out = tone.copy(), np.zeros_like(phase)
    for weight in weights:
        out += weight * power.imag
        power *= tone
    return out


def _envelope(time_s: Floats, attack_s: float, hold_s: float, decay_s: float) -> Floats:
    """Attack, hold and exponential decay, faded to zero in the last 5 ms."""
    decay = np.exp(-np.clip(time_s - hold_s, 0, None) / decay_s)
    end = np.clip((time_s[-1] - time_s) / 0.005, 0, 1)
    return np.asarray(np.clip(time_s / attack_s, 0, 1) * decay * end)


def _band_noise(rng: Generator, samples: int, low_hz: float, high_hz: float) -> Floats:
    bands = signal.butter(2, [low_hz, high_hz], "bandpass", fs=SAMPLE_RATE, output="sos")
    # The filter starts from zero: its first 480 samples are discarded.
    noise = signal.sosfilt(bands, rng.standard_normal(samples + 480))[480:]
    return np.asarray(noise / noise.std())


def _click(rng: Generator, samples: int) -> Floats:
    return rng.standard_normal(samples) * np.exp(-np.arange(samples) / (0.002 * SAMPLE_RATE))
