"""Recordings with a known truth, and what a build makes of them.

The truth is a dot on a textured sphere and a plane wave of noise, both from azimuth 40°, elevation
15° unless a test says otherwise.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from click.testing import Result
from numpy.typing import NDArray

from avprep.foa.energy_map import loudest_direction
from avprep.media.ffmpeg import ffmpeg_path
from avprep.sphere.crop import equirectangular_directions
from shards.geometry import direction_deg, encode_foa, rotate_foa, unit_vector
from shards.reader import ShardSet
from tests.support.media import build, grey_frame, noise, write_video, write_wav

AZIMUTH_DEG, ELEVATION_DEG = 40.0, 15.0
FPS = 24
_VIEWS = """[
{"azimuth_deg": 0, "elevation_deg": 0, "hfov_deg": 90},
{"azimuth_deg": 90, "elevation_deg": 0, "hfov_deg": 90},
{"azimuth_deg": 180, "elevation_deg": 0, "hfov_deg": 90},
{"azimuth_deg": -90, "elevation_deg": 0, "hfov_deg": 90},
{"azimuth_deg": 0, "elevation_deg": 90, "hfov_deg": 90},
{"azimuth_deg": 0, "elevation_deg": -90, "hfov_deg": 90}]"""

Image = NDArray[np.uint8]


def dot_frame(
    azimuth_deg: float = AZIMUTH_DEG,
    elevation_deg: float = ELEVATION_DEG,
    height: int = 320,
    width: int = 640,
    sigma_deg: float = 4.0,
) -> Image:
    """An equirectangular frame (3/2·height, width): smooth noise on the sphere, and the dot."""
    rng, directions = np.random.default_rng(0), equirectangular_directions(height, width)
    field = np.zeros((height, width))
    for wave in rng.normal(size=(40, 3)) * 14:
        field += np.cos(directions @ wave + rng.uniform(0, 2 * np.pi))
    ground = 30 + 100 * (field - field.min()) / np.ptp(field)
    return grey_frame(_with_dot(ground, directions, azimuth_deg, elevation_deg, sigma_deg, 235))


def scene_frame(seed: int = 0, height: int = 480, width: int = 960) -> Image:
    """An equirectangular frame like a place: sky, ground, things with edges, grain; and the
    dot."""
    rng, directions = np.random.default_rng(seed), equirectangular_directions(height, width)
    up_deg = np.degrees(np.arcsin(directions[..., 2]))
    around = np.arctan2(directions[..., 1], directions[..., 0])
    luma = np.where(up_deg > 0, 120 + up_deg / 90 * 40, 60 + 20 * np.cos(around * 3))
    for _ in range(60):
        centre = unit_vector(rng.uniform(-180, 180), rng.uniform(-50, 40))
        radius = np.radians(rng.uniform(4, 18))
        luma[np.arccos(np.clip(directions @ centre, -1, 1)) < radius] = rng.uniform(20, 170)
    luma = luma + rng.normal(0, 3, luma.shape)
    return grey_frame(_with_dot(luma, directions, AZIMUTH_DEG, ELEVATION_DEG, 4.0, 250))


def _with_dot(
    luma: NDArray[np.float64],
    directions: NDArray[np.float64],
    azimuth_deg: float,
    elevation_deg: float,
    sigma_deg: float,
    bright: float,
) -> Image:
    along = directions @ unit_vector(azimuth_deg, elevation_deg)
    dot = np.exp((along - 1) / np.radians(sigma_deg) ** 2)
    return np.rint(np.clip(luma + (bright - luma) * dot, 0, 255)).astype(np.uint8)


def converted(frame: Image, output: str, height: int, width: int) -> Image:
    """An equirectangular frame in another projection, (3/2·height, width), by ffmpeg's v360;
    ``output`` is its text for the output, such as ``dfisheye:h_fov=195:v_fov=195``."""
    raw = ["-f", "rawvideo", "-pix_fmt", "yuv420p"]
    size = f"{frame.shape[1]}x{frame.shape[0] * 2 // 3}"
    graph = f"v360=e:{output}:w={width}:h={height}"
    command = [ffmpeg_path(), "-v", "error", *raw, "-s", size, "-i", "-", "-vf", graph, *raw, "-"]
    done = subprocess.run(command, input=frame.tobytes(), stdout=subprocess.PIPE, check=True)
    return np.frombuffer(done.stdout, np.uint8).reshape(height * 3 // 2, width)


def plane_wave(
    azimuth_deg: float = AZIMUTH_DEG,
    elevation_deg: float = ELEVATION_DEG,
    seconds: float = 5.0,
    seed: int = 0,
) -> NDArray[np.float32]:
    """Noise from one direction, ambiX (4, samples) at 48 kHz."""
    return encode_foa(noise(seconds, seed), unit_vector(azimuth_deg, elevation_deg))


def write_recording(
    folder: Path, name: str = "clip", frame: Image | None = None, seconds: float = 5.0
) -> Path:
    """Write ``name.mp4`` and ``name.wav`` of a frame (by default the dot's) and the plane wave."""
    folder.mkdir(parents=True, exist_ok=True)
    write_video(
        folder / f"{name}.mp4", [dot_frame() if frame is None else frame] * round(FPS * seconds)
    )
    write_wav(folder / f"{name}.wav", plane_wave(seconds=seconds))
    return folder / f"{name}.mp4"


def run_ffmpeg(*arguments: object) -> None:
    """Run ffmpeg on files of a test's own."""
    command = [ffmpeg_path(), "-v", "error", "-nostdin", "-y", *map(str, arguments)]
    subprocess.run(command, check=True)


@dataclass(frozen=True)
class BuiltClip:
    """A clip of a built set: where the dot is seen in the middle of it, and where the sound comes
    from, as (azimuth, elevation) in degrees."""

    file: str
    start_s: float
    file_start_s: float
    duration_s: float
    seen_deg: tuple[float, float]
    heard_deg: tuple[float, float] | None


@dataclass(frozen=True)
class Built:
    """A build's exit status, what it printed, and its clips in the order of file and start."""

    result: Result
    clips: tuple[BuiltClip, ...]

    @property
    def output(self) -> str:
        return self.result.output


def build_and_look(raw: Path, out: Path, *options: object) -> Built:
    """Build a set of clips of 5 s with six views of 90° that cover the sphere, and find the dot
    and the sound in every clip."""
    views = out.with_name(f"{out.name}-views.json")
    views.write_text(_VIEWS)
    fixed = ["--viewpoints", views, "--clip-duration", 5, "--workers", 1]
    result = build(raw, "--out", out, *fixed, *options)
    clips: list[BuiltClip] = []
    if (out / "manifest.json").exists():
        shards = ShardSet(out, "train")
        clips = [_look(shards, sample) for sample in range(len(shards.keys))]
    return Built(result, tuple(sorted(clips, key=lambda clip: (clip.file, clip.start_s))))


def _look(shards: ShardSet, sample: int) -> BuiltClip:
    info = shards.info(sample)
    middle = info.video.frames // 2
    crops = [shards.frames(sample, view, middle, 1)[0] for view in range(len(info.views))]
    field, matrix = shards.foa(sample, 0, info.audio.samples)
    heard = loudest_direction(rotate_foa(field, matrix.T), info.audio.sample_rate)
    return BuiltClip(
        info.file or "",
        info.start_s,
        info.file_start_s,
        info.duration_s,
        brightest_direction(info.views, crops),
        heard,
    )


def brightest_direction(views: Any, crops: list[Image]) -> tuple[float, float]:
    """The direction of the brightest spot in square crops, weighted over its pixels."""
    from avprep.sphere.crop import view_directions

    rows, weights = [], []
    for view, crop in zip(views, crops, strict=True):
        centres = (np.arange(crop.shape[0]) + 0.5) / crop.shape[0]
        directions = view_directions(view, centres[None, :], centres[:, None])
        luma = crop.astype(float).mean(axis=-1)
        rows.append(directions.reshape(-1, 3))
        weights.append(np.clip(luma.ravel() - 205, 0, None))
    direction = np.concatenate(weights) @ np.concatenate(rows)
    azimuth_deg, elevation_deg = direction_deg(direction)
    return float(azimuth_deg), float(elevation_deg)


def apart_deg(a: tuple[float, float] | None, b: tuple[float, float]) -> float:
    """The angle between two directions in degrees; 180 for none."""
    if a is None:
        return 180.0
    return float(np.degrees(np.arccos(np.clip(unit_vector(*a) @ unit_vector(*b), -1, 1))))


def is_right(
    clip: BuiltClip, azimuth_deg: float = AZIMUTH_DEG, elevation_deg: float = ELEVATION_DEG
) -> bool:
    """Whether the dot is seen within 2° and the sound heard within 6° of where they are."""
    truth = (azimuth_deg, elevation_deg)
    return apart_deg(clip.seen_deg, truth) < 2 and apart_deg(clip.heard_deg, truth) < 6
