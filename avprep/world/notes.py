"""The notes that objects of the generated world play, one function for all kinds."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import signal

from avprep.world.scene import SAMPLE_RATE, SceneObject

Floats = NDArray[np.float64]


def play_note(source: SceneObject, variant: int, rng: Generator) -> Floats:
    """A note of the object's kind, with its pitch and timbre; length and loudness are free."""
    pitch, timbre = 2 ** (source.semitones / 12), source.timbre
    hold = source.kind.hold_s
    match source.kind.sound:
        case "bell":
            time_s = _time(1.3)
            ratios = np.array([0.5, 1.0, 1.19, 1.5, 2.0, 2.66, 3.76, 5.1]) ** (1 + 0.06 * timbre)
            out = np.zeros_like(time_s)
            for number, ratio in enumerate(ratios):
                amplitude = np.exp(-0.35 * (1.3 - timbre) * number)
                out += amplitude * _sine(560 * pitch * ratio, time_s) * np.exp(-3 * ratio * time_s)
            return out * _envelope(time_s, 0.003, 0.9, 0.1)
        case "gong":
            time_s = _time(1.3)
            ratios = np.array([1.0, 1.48, 2.11, 2.56, 3.41, 4.2]) ** (1 + 0.05 * timbre)
            out = np.zeros_like(time_s)
            for number, ratio in enumerate(ratios):
                amplitude = np.exp(-0.5 * (1.3 - timbre) * number)
                out += amplitude * _sine(130 * pitch * ratio, time_s) * np.exp(-2 * ratio * time_s)
            return out * _envelope(time_s, 0.02, 0.7, 0.15)
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
        case "buzzer":
            time_s = _time(hold + 0.25)
            phase = _phase(90 * pitch * [1.0, 1.0, 1.19][variant] * np.ones_like(time_s))
            weights = np.where(np.arange(1, 40) % 2, 1.0, 0.3) * np.arange(1, 40) ** -0.5
            rattle = 0.55 + 0.45 * np.sign(np.sin(2 * np.pi * (22 + 16 * timbre) * time_s))
            return _harmonics(phase, weights) * rattle * _envelope(time_s, 0.01, hold, 0.05)
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
    raise ValueError(f"no note for the kind {source.kind.sound}")


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
