"""Heat maps as files: a video with sound, a picture of one moment, or a table."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from avtrain.errors import TrainingError
from avtrain.evals.evaluation import progress_bar
from avtrain.locate.background import HEIGHT, WIDTH, frames
from avtrain.locate.draw import COLOURS, HEAD, Scale, opacity, panel, text_line
from avtrain.locate.heat_map import Map
from avtrain.locate.maps import Maps
from shards.errors import drawable
from shards.files import atomic_file, write_atomic
from shards.reader import ShardSet

COLUMNS = ("frame", "class", "source", "azimuth", "elevation", "score")
_FRAME_S = 0.1
_EXTENT = (180.0, -180.0, -90.0, 90.0)  # azimuth grows to the left
_X264 = {"crf": "20", "preset": "veryfast"}
_AAC_HZ = 48_000
_BLOCK = 1024


def write(maps: Maps, shards: ShardSet, sample: int, out: Path) -> None:
    """Write ``out`` as its name says: ``.mp4``, ``.png`` or ``.csv``. It appears when it is
    complete. Raises ShardError for a damaged clip, and TrainingError where it cannot be written."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        WRITERS[out.suffix.lower()](maps, shards, sample, out)
    except (OSError, av.FFmpegError) as error:
        # PyAV hides the error of the file that it writes to.
        reason = next(
            (
                one
                for one in (error, error.__cause__, error.__context__)
                if isinstance(one, OSError) and one.strerror
            ),
            None,
        )
        if reason is None:
            raise
        raise TrainingError(f"{out} cannot be written: {reason.strerror}") from None


def write_csv(maps: Maps, shards: ShardSet, sample: int, out: Path) -> None:
    """Write the best match of every 100 ms that is not silent, in the columns of DCASE's labels,
    with the score as one more. Frames are counted from the begin of the file that the user has
    named."""
    begin_s, end_s = (maps.offset_s + one for one in (maps.scores.begin_s, maps.scores.end_s))
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    for frame in range(math.ceil(begin_s / _FRAME_S - 1e-6), int(end_s / _FRAME_S + 1e-6)):
        middle_s = (frame + 0.5) * _FRAME_S - maps.offset_s
        peak = maps.match_peaks[maps.scores.window_at(middle_s)]
        if peak is None:
            continue
        angles = round(peak.azimuth_deg), round(peak.elevation_deg)
        table.writerow([frame, 0, 0, *angles, f"{peak.value:.4f}"])
    write_atomic(out, text.getvalue().encode())


def write_png(maps: Maps, shards: ShardSet, sample: int, out: Path) -> None:
    """Draw the first window: both maps over the frame at the time that was asked for."""
    video = shards.info(sample).video
    number = min(int(maps.scores.begin_s * video.fps + 1e-6), video.frames - 1)
    frame = next(frames(shards, sample, number, 1))
    figure = Figure(figsize=(10, 10.4), layout="constrained")
    FigureCanvasAgg(figure)
    drawn: list[tuple[Map, Scale, str]] = [
        (maps.match(0), maps.match_scale, "match of picture and sound"),
        (maps.energy_db(0), maps.energy_scale, "energy towards each direction, dB(A)"),
    ]
    titles = maps.titles(0)
    for axes, title, (values, scale, name) in zip(figure.subplots(2), titles, drawn, strict=True):
        axes.imshow(frame, extent=_EXTENT)
        heat = axes.imshow(
            values,
            extent=_EXTENT,
            cmap=COLOURS,
            vmin=scale.low,
            vmax=scale.high,
            alpha=opacity(scale.shares(values)).astype(np.float64),
            interpolation="bilinear",
        )
        for mark in maps.marks(0):
            axes.plot(
                *(mark.azimuth_deg, mark.elevation_deg, mark.shape),
                color=[channel / 255 for channel in mark.colour],
                fillstyle="none",
                markersize=16,
                markeredgewidth=2.5,
            )
        axes.set(xlim=_EXTENT[:2], ylim=_EXTENT[2:], xlabel="azimuth in degrees (left is positive)")
        axes.set(ylabel="elevation in degrees", xticks=range(-180, 181, 30))
        axes.set(yticks=range(-90, 91, 30), title=title)
        figure.colorbar(heat, ax=axes, label=name, shrink=0.8)
    at_s = maps.offset_s + maps.scores.begin_s
    figure.suptitle(drawable(f"{shards.keys[sample]}, second {at_s:g}"))
    png = io.BytesIO()
    figure.savefig(png, dpi=80, format="png")
    write_atomic(out, png.getvalue())


def write_mp4(maps: Maps, shards: ShardSet, sample: int, out: Path) -> None:
    """Write both maps over the frames, one below the other, with the omnidirectional channel."""
    scores, video = maps.scores, shards.info(sample).video
    first = min(math.ceil(scores.begin_s * video.fps - 1e-6), video.frames - 1)
    count = max(1, int(scores.end_s * video.fps + 1e-6) - first)
    legend, shown = text_line(maps.legend), -1
    drawn: list[tuple[Map, str]] = []
    with (
        atomic_file(out) as file,
        av.open(file, "w", format="mp4") as container,
        progress_bar(out.name, count, unit="frame") as bar,
    ):
        rate = Fraction(video.fps).limit_denominator(1001)
        picture = container.add_stream("libx264", rate=rate, options=_X264)
        picture.width, picture.height = WIDTH, 2 * (HEAD + HEIGHT) + HEAD
        picture.pix_fmt = "yuv420p"
        sound = _SoundTrack(container, shards, sample, first / video.fps)
        for number, frame in enumerate(frames(shards, sample, first, count)):
            time_s = (first + number) / video.fps
            if (window := scores.window_at(time_s)) != shown:
                shown, marks = window, maps.marks(window)
                shares = (
                    maps.match_scale.shares(maps.match(window)),
                    maps.energy_scale.shares(maps.energy_db(window)),
                )
                drawn = list(zip(shares, maps.titles(window), strict=True))
            second = f"{maps.offset_s + time_s:6.1f} s   "
            panels = [panel(frame, map_, marks, second + title) for map_, title in drawn]
            image = av.VideoFrame.from_ndarray(np.concatenate([*panels, legend]), format="rgb24")
            image.pts = number
            container.mux(picture.encode(image))
            sound.write_until((number + 1) / video.fps)
            bar.update()
        container.mux(picture.encode(None))
        sound.finish()


WRITERS: dict[str, Callable[[Maps, ShardSet, int, Path], None]] = {
    ".mp4": write_mp4,
    ".png": write_png,
    ".csv": write_csv,
}


def check_name(out: Path) -> None:
    """Raise TrainingError for a file of a kind that is not written."""
    if out.suffix.lower() not in WRITERS:
        raise TrainingError(
            f"--out {out} must end in .mp4 (a video with sound), .png (one moment, --at) or .csv "
            "(a table)"
        )


class _SoundTrack:
    """The omnidirectional channel (W) of a clip as AAC, written as far as the video is."""

    def __init__(
        self, container: av.container.OutputContainer, shards: ShardSet, sample: int, begin_s: float
    ) -> None:
        self._container, self._shards, self._sample = container, shards, sample
        self._rate = shards.info(sample).audio.sample_rate
        self._stream = container.add_stream("aac", rate=_AAC_HZ, layout="mono")
        self._resampler = av.AudioResampler("fltp", "mono", _AAC_HZ, frame_size=_BLOCK)
        self._begin = self._at = round(begin_s * self._rate)

    def write_until(self, time_s: float) -> None:
        end = self._begin + round(time_s * self._rate)
        end = min(end, self._shards.info(self._sample).audio.samples)
        if end - self._at < _BLOCK:
            return
        omni = self._shards.foa(self._sample, self._at, end - self._at)[0][:1]
        block = av.AudioFrame.from_ndarray(_limited(omni), format="fltp", layout="mono")
        block.sample_rate, block.pts = self._rate, self._at - self._begin
        block.time_base = Fraction(1, self._rate)
        self._at = end
        self._encode(block)

    def finish(self) -> None:
        self._encode(None)
        self._container.mux(self._stream.encode(None))

    def _encode(self, block: av.AudioFrame | None) -> None:
        for part in self._resampler.resample(block):
            self._container.mux(self._stream.encode(part))


def _limited(audio: NDArray[np.float32]) -> NDArray[np.float32]:
    """Audio within full scale, as a sound card would play it."""
    return np.ascontiguousarray(np.clip(audio, -1.0, 1.0))
