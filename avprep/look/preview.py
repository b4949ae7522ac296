"""Draw a sample: its sound energy on the sphere, its views and their spectrograms."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

import av
import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from msgspec import Meta
from numpy.typing import NDArray
from scipy import signal

from avprep.errors import ClipError, UserError
from avprep.foa.energy_map import energy_map, loudest_direction
from avprep.formats.decide import VideoFormat
from avprep.media.probe import check_tracks, open_media, probe
from avprep.sphere.crop import equirectangular_directions, view_directions
from avprep.sphere.eyes import left_eye
from avprep.sphere.mosaic import Mosaic
from avprep.sphere.projections import Projection, Sphere
from shards.errors import ShardError, drawable
from shards.files import dump_json, parse_json, write_atomic
from shards.folders import open_folder
from shards.geometry import ACN_CHANNELS, direction_deg, rotate_foa, view_foa_matrix
from shards.manifest import find_sample, read_manifest
from shards.reader import ShardSet
from shards.schema import SampleInfo, View

_MAP_HEIGHT = 480
_COLUMNS = 4
_EDGE = (1.0, 1.0, 0.0, 1.0)
_DYNAMIC_RANGE_DB = 70.0
_MAX_VIEWS = 100
_MAX_SIDE = 512
_MAX_SAMPLES = 1 << 24
"""Samples of all views' audio together; a spectrogram of it has as many values."""
_Fraction = Annotated[float, Meta(ge=0, lt=1)]
_EXTENT = (180.0, -180.0, -90.0, 90.0)  # azimuth grows to the left

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class _StoredFormat:
    """What is used of a sample's ``source_format``."""

    projection: Projection = "equirect"
    bounds: tuple[_Fraction, _Fraction, _Fraction, _Fraction] = (0.0, 0.0, 0.0, 0.0)
    fov_deg: Annotated[float, Meta(gt=0, lt=360)] = 180.0
    stereo: Literal["mono", "top-bottom", "left-right", "bottom-top", "right-left"] = "mono"
    rotation_deg: Literal[0, 90, 180, 270] = 0
    video_track: Annotated[int, Meta(ge=0, lt=1000)] | None = None

    def __post_init__(self) -> None:
        left, top, right, bottom = self.bounds
        if max(left + right, top + bottom) >= 1:
            raise ValueError(f"bounds {self.bounds} leave nothing of the sphere")


def draw_preview(
    location: Path | str, key: str | None, out: Path, raw: Path | None, at_s: float
) -> str:
    """Draw a sample (without ``key``, the set's first one) to the PNG file ``out``.

    The upper part shows the time ``at_s`` seconds into the clip: the crops mapped back to the
    sphere and, with ``raw``, the folder the set was built from, the full frame, overlaid with the
    energy of direct sound if the set has ambisonics. The lower part shows each view's crop, with
    the outlines of its label map if there is one, and the spectrogram of its audio. Returns a
    sentence that describes the drawing. Raises UserError or ShardError.
    """
    root = open_folder(location)
    split, sample = find_sample(root, read_manifest(root), key)
    shards = ShardSet(root, split)
    info = shards.info(sample)
    if not at_s < info.duration_s:
        raise UserError(
            f"--at {at_s:g} is past the end of the clip, which lasts {info.duration_s:g} s"
        )
    views = info.views[:_MAX_VIEWS]
    frame = min(int(at_s * info.video.fps), info.video.frames - 1)
    crops = [_smaller(shards.frames(sample, view, frame, 1)[0]) for view in range(len(views))]
    mosaic = Mosaic(views, crops[0].shape[:2] if crops else (1, 1), _MAP_HEIGHT)
    spheres = {f"{info.key}, views": mosaic.paint(crops)}
    if raw is not None:
        spheres = {f"{info.key}": _from_file(raw, info, at_s), **spheres}
    samples = min(info.audio.samples, _MAX_SAMPLES // max(1, len(views)))
    field = None
    if info.audio.channels == ACN_CHANNELS and samples:
        stored, matrix = shards.foa(sample, 0, samples)
        field = rotate_foa(stored, matrix.T)

    rows = -(-len(views) // _COLUMNS)
    figure = Figure(figsize=(12, 6.2 * 2 / (1 + len(spheres)) + 4.0 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    heights = [3.4 * 2 / (1 + len(spheres))] + [1.6, 0.9] * rows
    grid = figure.add_gridspec(1 + 2 * rows, _COLUMNS, height_ratios=heights)
    rate = info.audio.sample_rate
    loudest = loudest_direction(field, rate) if field is not None else None
    across = _COLUMNS // len(spheres)
    for number, (title, sphere) in enumerate(spheres.items()):
        axes = figure.add_subplot(grid[0, number * across : (number + 1) * across])
        over = field if number == 0 else None
        _draw_sphere(axes, sphere, over, rate, views, loudest, title)
    for number, (view, crop) in enumerate(zip(views, crops, strict=True)):
        row, column = divmod(number, _COLUMNS)
        labels = _latest_label_map(shards, sample, number, at_s)
        _draw_crop(figure.add_subplot(grid[1 + 2 * row, column]), number, view, crop, labels)
        audio = _view_audio(shards, sample, number, samples, field)
        if audio is not None:
            _draw_spectrogram(figure.add_subplot(grid[2 + 2 * row, column]), audio, rate)
    _save(figure, out)
    if field is None:
        return f"{out}: {info.key}, {' and '.join(info.audio.channels) or 'no'} sound"
    return f"{out}: {info.key}, {_describe_loudest(loudest)}"


def _view_audio(
    shards: ShardSet, sample: int, number: int, samples: int, field: NDArray[np.float32] | None
) -> NDArray[np.float32] | None:
    """The begin of a view's audio (samples,): from a field with a cardioid in the view's direction,
    else the mean of its channels; None if the sample has no audio."""
    info = shards.info(sample)
    if not (info.audio.channels and samples):
        return None
    if field is None:
        return np.asarray(shards.audio(sample, 0, samples, number).mean(axis=0))
    view = info.views[number]
    rotated = rotate_foa(field, view_foa_matrix(view.azimuth_deg, view.elevation_deg))
    return np.asarray((rotated[0] + rotated[3]) / 2)


def _latest_label_map(
    shards: ShardSet, sample: int, view: int, at_s: float
) -> NDArray[np.uint8] | None:
    """A view's last label map at or before a time; None if there is none."""
    times_s = shards.info(sample).map_times_s or ()
    number = sum(time_s <= at_s for time_s in times_s) - 1
    if number < 0:
        return None
    return _smaller(shards.label_map(sample, view, number))


def _smaller(image: Image) -> Image:
    """Every n-th pixel of an image that is larger than it will be drawn."""
    step = -(-max(image.shape[:2]) // _MAX_SIDE)
    return image[::step, ::step]


def _from_file(raw: Path, info: SampleInfo, at_s: float) -> Image:
    """The full frame of a sample's source video ``at_s`` seconds into the clip."""
    name = PurePosixPath(info.file or "")
    if name.is_absolute() or ".." in name.parts:
        raise ShardError(f"{info.key}: its file {info.file!r} would lie outside of {raw}")
    path = raw / name
    if not info.file or not path.is_file():
        raise UserError(f"{path} does not exist; give --raw the folder that the set was built from")
    try:
        stored = parse_json(dump_json(info.source_format or {}), _StoredFormat)
        check_tracks(path.name, probe(path))
    except ClipError as error:  # begins with the name of the file
        raise UserError(f"{path.parent}/{error}") from None
    except ValueError as error:
        raise ShardError(f"{info.key}: its source_format is damaged: {error}") from None
    sphere = Sphere(stored.projection, stored.bounds, stored.fov_deg)
    video_format = VideoFormat(sphere, stored.stereo, stored.rotation_deg)
    return read_full_frame(path, info.file_start_s + at_s, video_format, stored.video_track)


def read_full_frame(
    path: Path, time_s: float, video_format: VideoFormat, track: int | None = None
) -> Image:
    """The frame on screen at a time, as an equirectangular RGB image of 480×960 pixels; from the
    file's track of that number, or its first video.

    Raises UserError if there is none.
    """
    image: Image | None = None
    try:
        with open_media(path) as container:
            container.seek(int(time_s * 1_000_000), backward=True)
            file_start_s = (container.start_time or 0) / 1_000_000
            tracks = container.streams
            stream = tracks.video[0] if track is None else tracks[track]
            for frame in container.decode(stream):
                if not isinstance(frame, av.VideoFrame):
                    break
                image = np.asarray(frame.to_ndarray(format="rgb24"), dtype=np.uint8)
                if frame.time is None or frame.time - file_start_s >= time_s - 1e-3:
                    break
    except av.FFmpegError as error:
        raise UserError(f"{path} cannot be decoded ({error.strerror})") from None
    except IndexError:
        raise UserError(f"{path} has no such video track") from None
    if image is None:
        raise UserError(f"{path} has no frame at second {time_s:g}")
    image = np.rot90(image, video_format.rotation_deg // 90)
    image = left_eye(image, video_format.stereo)
    height, width = image.shape[:2]
    directions = equirectangular_directions(_MAP_HEIGHT, 2 * _MAP_HEIGHT)
    positions = video_format.sphere.positions(directions, height, width)
    column, row = np.moveaxis((positions.xy * (width, height) - 0.5).astype(np.float32), -1, 0)
    full = cv2.remap(
        np.ascontiguousarray(image), column, row, cv2.INTER_AREA, borderMode=cv2.BORDER_WRAP
    )
    return np.where(positions.visible[..., None], np.asarray(full), 0).astype(np.uint8)


def draw_recording(
    out: Path, title: str, frame: Image, field: NDArray[np.float32], sample_rate: int
) -> str:
    """Draw an equirectangular frame, overlaid with the energy of direct sound, to a PNG file.

    Returns a sentence with the direction of the loudest direct sound.
    """
    figure = Figure(figsize=(12, 6.2), layout="constrained")
    FigureCanvasAgg(figure)
    loudest = loudest_direction(field, sample_rate)
    _draw_sphere(figure.subplots(), frame, field, sample_rate, (), loudest, title)
    _save(figure, out)
    return f"{out}: {_describe_loudest(loudest)}"


def _save(figure: Figure, out: Path) -> None:
    png = io.BytesIO()
    figure.savefig(png, dpi=90, format="png")
    write_atomic(out, png.getvalue())


def _describe_loudest(loudest: tuple[float, float] | None) -> str:
    if loudest is None:
        return "it is silent"
    return f"loudest direct sound at azimuth {loudest[0]:.1f}°, elevation {loudest[1]:.1f}°"


def _draw_sphere(
    axes: Axes,
    sphere: Image,
    field: NDArray[np.float32] | None,
    sample_rate: int,
    views: tuple[View, ...],
    loudest: tuple[float, float] | None,
    title: str,
) -> None:
    axes.imshow(sphere, extent=_EXTENT, interpolation="nearest")
    if field is not None:
        energy = energy_map(field, sample_rate)
        fine = cv2.resize(energy, (2 * _MAP_HEIGHT, _MAP_HEIGHT))
        alpha = 0.75 * np.sqrt(np.clip(fine, 0, 1))
        axes.imshow(fine, extent=_EXTENT, cmap="inferno", alpha=alpha)
        title += ": direct sound over the picture (+ loudest)"
    for number, view in enumerate(views):
        _draw_outline(axes, view)
        axes.text(view.azimuth_deg, view.elevation_deg, str(number), color="white", ha="center")
    if loudest is not None:
        axes.plot(*loudest, marker="+", markersize=14, color="cyan")
    axes.set(
        title=drawable(title),
        xlabel="azimuth in degrees (left is positive)",
        ylabel="elevation in degrees",
        xlim=_EXTENT[:2],
        ylim=_EXTENT[2:],
    )


def _draw_outline(axes: Axes, view: View) -> None:
    side = np.linspace(0, 1, 60)
    zero, one = np.zeros_like(side), np.ones_like(side)
    x = np.concatenate([side, one, side[::-1], zero])
    y = np.concatenate([zero, side, one, side[::-1]])
    azimuth, elevation = direction_deg(view_directions(view, x, y))
    breaks = np.flatnonzero(np.abs(np.diff(azimuth)) > 180) + 1  # the outline crosses the seam
    axes.plot(
        np.insert(azimuth, breaks, np.nan),
        np.insert(elevation, breaks, np.nan),
        color="white",
        linewidth=0.9,
    )


def _draw_crop(
    axes: Axes, number: int, view: View, crop: Image, labels: NDArray[np.uint8] | None
) -> None:
    aspect = np.tan(np.radians(view.vfov_deg) / 2) / np.tan(np.radians(view.hfov_deg) / 2)
    height, width = crop.shape[:2]
    axes.imshow(crop, aspect=aspect * width / height)
    if labels is not None:
        edges = np.zeros((height, width, 4))
        edges[:-1][labels[1:] != labels[:-1]] = _EDGE
        edges[:, :-1][labels[:, 1:] != labels[:, :-1]] = _EDGE
        axes.imshow(edges, aspect=aspect * width / height, interpolation="nearest")
    axes.set_axis_off()
    axes.set_title(
        f"{number}: ({view.azimuth_deg:.0f}°, {view.elevation_deg:.0f}°), "
        f"{view.hfov_deg:.0f}°×{view.vfov_deg:.0f}°",
        fontsize=9,
    )


def _draw_spectrogram(axes: Axes, audio: NDArray[np.float32], sample_rate: int) -> None:
    length = min(512, len(audio))
    frequency, time, spectrum = signal.stft(
        audio, sample_rate, nperseg=length, noverlap=length // 2
    )
    level = 20 * np.log10(np.maximum(np.abs(spectrum), 1e-9))
    top = float(level.max())
    axes.imshow(
        level.astype(np.float32),
        vmin=top - _DYNAMIC_RANGE_DB,
        vmax=top,
        cmap="magma",
        origin="lower",
        aspect="auto",
        extent=(0.0, float(time[-1]), 0.0, float(frequency[-1]) / 1000),
    )
    axes.set_xlabel("s", fontsize=8)
    axes.set_ylabel("kHz", fontsize=8)
    axes.tick_params(labelsize=7)
