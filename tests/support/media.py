"""Small recordings for tests: a dot on the sphere, and a plane wave from its direction."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import soundfile
from click.testing import CliRunner, Result
from numpy.typing import NDArray

from avprep.cli.main import main
from avprep.sphere.crop import equirectangular_directions
from shards.geometry import encode_foa, unit_vector
from shards.schema import View

DARK, BRIGHT = 40, 220
DIRECTIONS = {"a": (40.0, 15.0), "b": (-150.0, -25.0), "c": (179.0, 5.0), "d": (-60.0, 30.0)}
FAST = ["--clip-duration", "2", "--views", "4"]


def build(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["build-shards", *map(str, arguments)])


def contents(root: Path) -> dict[str, str]:
    """The hash of every file of a set."""
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def dot_plane(
    height: int, width: int, azimuth_deg: float, elevation_deg: float, sigma_deg: float
) -> NDArray[np.uint8]:
    """An equirectangular plane with a round, soft dot on the sphere (von Mises-Fisher)."""
    along = equirectangular_directions(height, width) @ unit_vector(azimuth_deg, elevation_deg)
    dot = np.exp((along - 1) / np.radians(sigma_deg) ** 2)
    return np.rint(DARK + (BRIGHT - DARK) * dot).astype(np.uint8)


def grey_frame(luma: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A planar YUV 4:2:0 frame (3/2·height, width) without colour."""
    height, width = luma.shape
    return np.concatenate([luma, np.full((height // 2, width), 128, dtype=np.uint8)])


def planes_of(frame: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], ...]:
    """Y, U and V of a planar YUV 4:2:0 frame (3/2·height, width)."""
    height, width = frame.shape[0] * 2 // 3, frame.shape[1]
    u, v = frame[height:].reshape(2, height // 2, width // 2)
    return frame[:height], u, v


def centroid(plane: NDArray[np.uint8]) -> tuple[float, float]:
    """Centre (x, y) of the bright part, in edge coordinates: 0 to width, 0 to height."""
    weight = np.clip(plane.astype(np.float64) - DARK - 0.25 * (BRIGHT - DARK), 0, None)
    rows, columns = np.indices(plane.shape) + 0.5
    return (
        float((columns * weight).sum() / weight.sum()),
        float((rows * weight).sum() / weight.sum()),
    )


def gnomonic(view: View, azimuth_deg: float, elevation_deg: float) -> tuple[float, float]:
    """Position of a direction in the view's crop, 0 to 1 from the upper left corner.

    Formulas 22-3 to 22-5 of Snyder, Map Projections (1987), independent of the code under test.
    """
    longitude = -np.radians(azimuth_deg - view.azimuth_deg)  # longitude grows to the east, right
    p, p0 = np.radians(elevation_deg), np.radians(view.elevation_deg)
    cos_c = np.sin(p0) * np.sin(p) + np.cos(p0) * np.cos(p) * np.cos(longitude)
    x = np.cos(p) * np.sin(longitude) / cos_c
    y = (np.cos(p0) * np.sin(p) - np.sin(p0) * np.cos(p) * np.cos(longitude)) / cos_c
    half_width = np.tan(np.radians(view.hfov_deg) / 2)
    half_height = np.tan(np.radians(view.vfov_deg) / 2)
    return float((1 + x / half_width) / 2), float((1 - y / half_height) / 2)


def write_video(
    path: Path,
    frames: Iterable[NDArray[np.uint8]],
    fps: int = 24,
    audio: NDArray[np.float32] | None = None,
    layout: str = "quad",
    sample_rate: int = 48000,
    metadata: dict[str, str] | None = None,
    rotation_deg: int = 0,
) -> None:
    """Write planar YUV frames as H.264, with the channels of ``audio`` (channels, samples)."""
    codec = "aac" if path.suffix == ".mp4" else "pcm_f32le"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(
            "libx264", rate=fps, options={"preset": "ultrafast", "crf": "10"}
        )
        stream.metadata.update(metadata or {})
        if rotation_deg:
            stream.set_display_rotation(rotation_deg)
        track = None
        if audio is not None:
            track = container.add_stream(codec, rate=sample_rate, layout=layout)
        for number, frame in enumerate(frames):
            if number == 0:
                stream.height, stream.width = frame.shape[0] * 2 // 3, frame.shape[1]
                stream.pix_fmt = "yuv420p"
                stream.codec_context.time_base = Fraction(1, fps)
            image = av.VideoFrame.from_ndarray(frame, format="yuv420p")
            image.pts = number
            container.mux(stream.encode(image))
        container.mux(stream.encode(None))
        if track is not None and audio is not None:
            for start in range(0, audio.shape[1], 1024):
                part = np.ascontiguousarray(audio[:, start : start + 1024], dtype=np.float32)
                packed = codec != "aac"
                block = av.AudioFrame.from_ndarray(
                    part.T.reshape(1, -1) if packed else part,
                    format="flt" if packed else "fltp",
                    layout=layout,
                )
                block.sample_rate, block.pts = sample_rate, start
                block.time_base = Fraction(1, sample_rate)
                container.mux(track.encode(block))
            container.mux(track.encode(None))


def write_audio(
    path: Path,
    codec: str,
    audio: NDArray[np.float32],
    layout: str,
    options: dict[str, str] | None = None,
    sample_rate: int = 48000,
) -> None:
    """Write ``audio`` (channels, samples) without reordering its channels, at a high bit rate."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=sample_rate, layout=layout, options=options or {})
        stream.bit_rate = 128_000 * len(audio)
        kind = stream.format.name
        for start in range(0, audio.shape[1] - 959, 960):
            part = np.ascontiguousarray(audio[:, start : start + 960], dtype=np.float32)
            if kind == "s16":
                part = np.rint(part * 32767).astype(np.int16)
            block = av.AudioFrame.from_ndarray(
                part if kind == "fltp" else part.T.reshape(1, -1), format=kind, layout=layout
            )
            block.sample_rate, block.pts = sample_rate, start
            container.mux(stream.encode(block))
        container.mux(stream.encode(None))


def write_wav(path: Path, audio: NDArray[np.float32], sample_rate: int = 48000) -> None:
    soundfile.write(path, audio.T, sample_rate, subtype="FLOAT", format="WAV")


def noise(seconds: float, seed: int = 0, sample_rate: int = 48000) -> NDArray[np.float64]:
    return 0.1 * np.random.default_rng(seed).standard_normal(round(seconds * sample_rate))


def write_dot_recording(
    folder: Path,
    name: str,
    azimuth_deg: float = 40.0,
    elevation_deg: float = 15.0,
    seconds: float = 2.0,
    size: tuple[int, int] = (160, 320),
    sigma_deg: float = 6.0,
) -> Path:
    """Write a video of a dot and, beside it, a plane wave from the same direction."""
    folder.mkdir(parents=True, exist_ok=True)
    frame = grey_frame(dot_plane(*size, azimuth_deg, elevation_deg, sigma_deg))
    video = folder / f"{name}.mp4"
    write_video(video, [frame] * round(seconds * 24))
    wave = encode_foa(noise(seconds), unit_vector(azimuth_deg, elevation_deg))
    write_wav(folder / f"{name}.wav", wave)
    return video


def equirectangular_texture(height: int, width: int) -> NDArray[np.uint8]:
    """Noise on the sphere, smooth everywhere: a sum of plane waves through it."""
    rng = np.random.default_rng(0)
    directions = equirectangular_directions(height, width)
    field = np.zeros((height, width))
    for wave in rng.normal(size=(40, 3)) * 14:
        field += np.cos(directions @ wave + rng.uniform(0, 2 * np.pi))
    low, high = field.min(), field.max()
    return np.rint(20 + 200 * (field - low) / (high - low)).astype(np.uint8)


def insert_box(path: Path, entry: bytes, name: bytes, content: bytes) -> None:
    """Add a box to a sample entry of an mp4 or mov file whose index stands at the end."""
    data = bytearray(path.read_bytes())
    assert data.rfind(b"moov") > data.find(b"mdat")
    box = struct.pack(">I4s", 8 + len(content), name) + content
    start = data.index(entry, data.rfind(b"moov")) - 4
    (length,) = struct.unpack_from(">I", data, start)
    parents = [start]
    for parent in (b"stsd", b"stbl", b"minf", b"mdia", b"trak", b"moov"):
        parents.append(data.rindex(parent, 0, start) - 4)
    data[start + length : start + length] = box
    for place in parents:
        (old,) = struct.unpack_from(">I", data, place)
        struct.pack_into(">I", data, place, old + len(box))
    path.write_bytes(data)
