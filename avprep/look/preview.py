"""A picture of one sample: where its sound comes from on the sphere, its views and their sound."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path

import av
import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy import signal

from avprep.errors import UserError
from avprep.foa.energy_map import energy_map, loudest_direction
from avprep.formats.decide import VideoFormat
from avprep.media.probe import open_media
from avprep.sphere.crop import equirectangular_directions, view_directions, view_position
from avprep.sphere.projections import Sphere
from shards.errors import ShardError
from shards.files import write_atomic
from shards.folders import Folder, open_folder
from shards.geometry import ACN_CHANNELS, direction_deg, rotate_foa, view_foa_matrix
from shards.reader import ShardSet
from shards.schema import SampleInfo, View

_MAP_HEIGHT = 480
_COLUMNS = 4
_EDGE = (1.0, 1.0, 0.0, 1.0)
_DYNAMIC_RANGE_DB = 70.0
_EXTENT = (180.0, -180.0, -90.0, 90.0)  # azimuth grows to the left

Picture = NDArray[np.uint8]


def draw_preview(
    place: Path | str, key: str | None, out: Path, raw: Path | None, at_s: float
) -> str:
    """Draw a sample (the set's first one without ``key``) into the PNG file ``out``.

    Above, ``at_s`` seconds into the clip: the crops put back in their places on the sphere, and
    with ``raw``, the folder the set was built from, the whole frame; over it the direct sound's
    energy, where the set holds ambisonics. Below, each view's crop, with its label map where there
    is one, and the spectrogram of what the view hears. Returns what it shows, in one sentence.
    Raises UserError or ShardError.
    """
    shards, sample = _find(open_folder(place), key)
    info = shards.info(sample)
    if at_s >= info.duration_s:
        raise UserError(
            f"--at {at_s:g} is past the end of the clip, which lasts {info.duration_s:g} s"
        )
    frame = min(int(at_s * info.video.fps), info.video.frames - 1)
    crops = [shards.frames(sample, view, frame, 1)[0] for view in range(len(info.views))]
    spheres = {f"{info.key}, views": _from_crops(info.views, crops)}
    if raw is not None:
        spheres = {f"{info.key}": _from_file(raw, info, at_s), **spheres}
    field = None
    if info.audio.channels == ACN_CHANNELS:
        stored, matrix = shards.foa(sample, 0, info.audio.samples)
        field = rotate_foa(stored, matrix.T)

    rows = -(-len(info.views) // _COLUMNS)
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
        _draw_sphere(axes, sphere, over, rate, info.views, loudest, title)
    for number, (view, crop) in enumerate(zip(info.views, crops, strict=True)):
        row, column = divmod(number, _COLUMNS)
        labels = _labels(shards, sample, number, at_s)
        _draw_crop(figure.add_subplot(grid[1 + 2 * row, column]), number, view, crop, labels)
        sound = _heard(shards, sample, number, field)
        if sound is not None:
            _draw_spectrogram(figure.add_subplot(grid[2 + 2 * row, column]), sound, rate)
    _save(figure, out)
    if field is None:
        return f"{out}: {info.key}, {' and '.join(info.audio.channels) or 'no'} sound"
    return f"{out}: {info.key}, {_in_words(loudest)}"


def _heard(
    shards: ShardSet, sample: int, number: int, field: NDArray[np.float32] | None
) -> NDArray[np.float32] | None:
    """What a view hears (samples,): of a field with a cardioid that listens to where it looks."""
    info = shards.info(sample)
    if not info.audio.channels:
        return None
    if field is None:
        return np.asarray(shards.audio(sample, 0, info.audio.samples, number).mean(axis=0))
    view = info.views[number]
    turned = rotate_foa(field, view_foa_matrix(view.azimuth_deg, view.elevation_deg))
    return np.asarray((turned[0] + turned[3]) / 2)


def _labels(shards: ShardSet, sample: int, view: int, at_s: float) -> NDArray[np.uint8] | None:
    """A view's latest label map at a moment; None where there is none."""
    times_s = shards.info(sample).map_times_s or ()
    number = sum(time_s <= at_s for time_s in times_s) - 1
    return shards.label_map(sample, view, number) if number >= 0 else None


def _find(root: Folder, key: str | None) -> tuple[ShardSet, int]:
    first = ShardSet(root, next(iter(_splits(root))))
    if key is None:
        return first, 0
    for split in _splits(root):
        shards = ShardSet(root, split)
        if key in shards.keys:
            return shards, shards.keys.index(key)
    raise UserError(f"{root} has no sample {key!r}; its keys are like {first.keys[0]!r}")


def _splits(root: Folder) -> Iterable[str]:
    from shards.manifest import read_manifest

    splits = read_manifest(root).splits
    if not splits:
        raise ShardError(f"{root} has no samples")
    return splits


def _from_crops(views: tuple[View, ...], crops: list[Picture]) -> Picture:
    """The crops put back on an equirectangular picture; grey where no view looks."""
    directions = equirectangular_directions(_MAP_HEIGHT, 2 * _MAP_HEIGHT)
    sphere = np.full((*directions.shape[:2], 3), 60, dtype=np.uint8)
    for view, crop in zip(views, crops, strict=True):
        position = view_position(view, directions)
        inside = np.all((position > 0) & (position < 1), axis=-1)
        column, row = (position[inside] * (crop.shape[1], crop.shape[0])).astype(int).T
        sphere[inside] = crop[row, column]
    return sphere


def _from_file(raw: Path, info: SampleInfo, at_s: float) -> Picture:
    path = raw / (info.file or "")
    if not info.file or not path.is_file():
        raise UserError(f"{path} is not there; give --raw the folder that the set was built from")
    of = dict(info.source_format or {"projection": "equirect", "stereo": "mono"})
    sphere = Sphere(
        of["projection"], tuple(of.get("bounds", (0, 0, 0, 0))), of.get("fov_deg", 180.0)
    )
    rotation = of.get("rotation_deg", 0)
    return whole_frame(path, info.file_start_s + at_s, VideoFormat(sphere, of["stereo"], rotation))


def whole_frame(path: Path, moment_s: float, of: VideoFormat) -> Picture:
    """The frame on screen at a moment, as an equirectangular RGB picture of 480×960.

    Raises UserError where there is none.
    """
    picture: Picture | None = None
    try:
        with open_media(path) as container:
            container.seek(int(moment_s * 1_000_000), backward=True)
            begin = (container.start_time or 0) / 1_000_000
            for frame in container.decode(video=0):
                picture = np.asarray(frame.to_ndarray(format="rgb24"), dtype=np.uint8)
                if frame.time is None or frame.time - begin >= moment_s - 1e-3:
                    break
    except av.FFmpegError as error:
        raise UserError(f"{path} cannot be decoded ({error.strerror})") from None
    if picture is None:
        raise UserError(f"{path} has no frame at second {moment_s:g}")
    picture = np.rot90(picture, of.rotation_deg // 90)
    height, width = picture.shape[:2]
    if of.stereo == "top-bottom":
        picture = picture[: height // 2]
    elif of.stereo == "left-right":
        picture = picture[:, : width // 2]
    height, width = picture.shape[:2]
    directions = equirectangular_directions(_MAP_HEIGHT, 2 * _MAP_HEIGHT)
    places = of.sphere.positions(directions, height, width)
    column, row = np.moveaxis((places.xy * (width, height) - 0.5).astype(np.float32), -1, 0)
    whole = cv2.remap(
        np.ascontiguousarray(picture), column, row, cv2.INTER_AREA, borderMode=cv2.BORDER_WRAP
    )
    return np.where(places.visible[..., None], np.asarray(whole), 0).astype(np.uint8)


def draw_recording(
    out: Path, title: str, frame: Picture, field: NDArray[np.float32], sample_rate: int
) -> str:
    """Draw an equirectangular frame with the sound's energy over it into a PNG file, and say where
    its loudest direct sound comes from."""
    figure = Figure(figsize=(12, 6.2), layout="constrained")
    FigureCanvasAgg(figure)
    loudest = loudest_direction(field, sample_rate)
    _draw_sphere(figure.subplots(), frame, field, sample_rate, (), loudest, title)
    _save(figure, out)
    return f"{out}: {_in_words(loudest)}"


def _save(figure: Figure, out: Path) -> None:
    png = io.BytesIO()
    figure.savefig(png, dpi=90, format="png")
    write_atomic(out, png.getvalue())


def _in_words(loudest: tuple[float, float] | None) -> str:
    if loudest is None:
        return "it is silent"
    return f"loudest direct sound at azimuth {loudest[0]:.1f}°, elevation {loudest[1]:.1f}°"


def _draw_sphere(
    axes: Axes,
    sphere: Picture,
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
        title=title,
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
    breaks = np.flatnonzero(np.abs(np.diff(azimuth)) > 180) + 1  # where it crosses the seam
    axes.plot(
        np.insert(azimuth, breaks, np.nan),
        np.insert(elevation, breaks, np.nan),
        color="white",
        linewidth=0.9,
    )


def _draw_crop(
    axes: Axes, number: int, view: View, crop: Picture, labels: NDArray[np.uint8] | None
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


def _draw_spectrogram(axes: Axes, sound: NDArray[np.float32], sample_rate: int) -> None:
    frequency, time, spectrum = signal.stft(sound, sample_rate, nperseg=512, noverlap=256)
    level = 20 * np.log10(np.maximum(np.abs(spectrum), 1e-9))
    top = float(level.max())
    axes.pcolormesh(
        time, frequency / 1000, level, vmin=top - _DYNAMIC_RANGE_DB, vmax=top, cmap="magma"
    )
    axes.set_xlabel("s", fontsize=8)
    axes.set_ylabel("kHz", fontsize=8)
    axes.tick_params(labelsize=7)
