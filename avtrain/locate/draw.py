"""Pictures of heat maps over frames, drawn into arrays: a video has too many for matplotlib."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import matplotlib
import numpy as np
from matplotlib.font_manager import FontProperties, findfont
from matplotlib.ft2font import FT2Font
from numpy.typing import NDArray

from avtrain.locate.background import HEIGHT, WIDTH, Frame
from avtrain.locate.heat_map import Map, Peak

HEAD = 24
"""Height of the line of text above a map."""
COLOURS = "inferno"
MATCH_COLOUR, ENERGY_COLOUR = (90, 255, 255), (140, 255, 90)
SEEN_COLOUR, HIDDEN_COLOUR = (255, 255, 255), (160, 160, 160)
ENERGY_RANGE_DB = 9.0
_MOST_OPAQUE = 0.75
_TEXT_POINTS = 9.0
_RADIUS = 11


@dataclass(frozen=True)
class Scale:
    """What the colours mean, from ``low`` (nothing is drawn) to ``high``."""

    low: float
    high: float

    def shares(self, values: Map) -> Map:
        """Values as shares of the scale, in [0, 1]; 0 where they are NaN."""
        span = max(self.high - self.low, 1e-9)
        return np.asarray(np.nan_to_num(np.clip((values - self.low) / span, 0.0, 1.0), nan=0.0))


@dataclass(frozen=True)
class Mark:
    """A mark at a direction: ``+`` the best match, ``x`` the loudest direction, ``o`` a source."""

    shape: str
    azimuth_deg: float
    elevation_deg: float
    colour: tuple[int, int, int]


def peak_mark(peak: Peak, shape: str) -> Mark:
    colour = MATCH_COLOUR if shape == "+" else ENERGY_COLOUR
    return Mark(shape, peak.azimuth_deg, peak.elevation_deg, colour)


def opacity(shares: Map) -> Map:
    """How much a map covers the picture: little where it is low."""
    return np.asarray(_MOST_OPAQUE * shares**1.5)


def panel(frame: Frame, shares: Map, marks: list[Mark], title: str) -> Frame:
    """A line of text, and below it a frame (HEIGHT, WIDTH, 3) with a map over it."""
    fine = _enlarged(shares)
    colours = _palette()[np.rint(fine * 255).astype(np.uint8)]
    alpha = opacity(fine)[..., None]
    picture = np.rint(frame * (1 - alpha) + colours * alpha).astype(np.uint8)
    for mark in marks:
        _draw_mark(picture, mark)
    return np.concatenate([text_line(title), picture])


def text_line(text: str) -> Frame:
    """White text on black (HEAD, WIDTH, 3), cut where it is too long."""
    font = _font()
    font.set_text(text, 0.0)
    font.draw_glyphs_to_bitmap()
    letters = np.asarray(font.get_image())[:HEAD, : WIDTH - 8]
    line = np.zeros((HEAD, WIDTH, 3), np.uint8)
    top = (HEAD - letters.shape[0]) // 2
    line[top : top + letters.shape[0], 4 : 4 + letters.shape[1]] = letters[..., None]
    return line


@cache
def _palette() -> NDArray[np.float32]:
    colours = matplotlib.colormaps[COLOURS](np.linspace(0.0, 1.0, 256))
    return (255 * np.asarray(colours)[:, :3]).astype(np.float32)


@cache
def _font() -> FT2Font:
    font = FT2Font(findfont(FontProperties(family="DejaVu Sans")))
    font.set_size(_TEXT_POINTS, 100.0)
    return font


def _enlarged(values: Map) -> Map:
    """A map at the size of a frame, linear between its pixels; around the sphere, and constant
    above the uppermost row and below the lowest."""
    for axis, size in ((0, HEIGHT), (1, WIDTH)):
        count = values.shape[axis]
        place = (np.arange(size) + 0.5) * count / size - 0.5
        first = np.floor(place).astype(int)
        share = (place - first).astype(np.float32)
        both = [first, first + 1]
        both = [one % count if axis else np.clip(one, 0, count - 1) for one in both]
        low, high = (values.take(one, axis=axis) for one in both)
        share = share if axis else share[:, None]
        values = low * (1 - share) + high * share
    return values


def _draw_mark(picture: Frame, mark: Mark) -> None:
    """Draw a mark with a black edge; parts beyond a side of the frame appear at the other."""
    column = WIDTH * (1 - mark.azimuth_deg / 180.0) / 2 - 0.5
    row = HEIGHT * (1 - mark.elevation_deg / 90.0) / 2 - 0.5
    reach = np.arange(-_RADIUS - 2, _RADIUS + 3)
    rows, columns = round(row) + reach, round(column) + reach
    down, right = np.meshgrid(rows - row, columns - column, indexing="ij")
    if mark.shape == "o":
        away = np.abs(np.hypot(down, right) - _RADIUS + 1)
    else:
        if mark.shape == "x":
            down, right = (down + right) / np.sqrt(2), (down - right) / np.sqrt(2)
        longer, shorter = np.maximum(abs(down), abs(right)), np.minimum(abs(down), abs(right))
        away = np.maximum(shorter, longer - _RADIUS)
    inside = (rows >= 0) & (rows < HEIGHT)
    for thickness, colour in ((2.5, (0, 0, 0)), (1.1, mark.colour)):
        at = np.argwhere((away < thickness) & inside[:, None])
        picture[rows[at[:, 0]], columns[at[:, 1]] % WIDTH] = colour
