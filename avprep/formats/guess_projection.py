"""Guess a frame's projection from its pixels, or say that they show none that is known."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from avprep.formats.borders import Continuity, Grey, continuity, pole_stretch
from avprep.formats.frame_parts import likeness_of_eyes, shows_circles, split_eyes
from avprep.media.sample_frames import sample_frames
from avprep.media.tracks import VideoTrack
from avprep.sphere.eyes import EYE_LAYOUTS
from avprep.sphere.projections import Projection, Sphere

_CANDIDATES: tuple[Projection, ...] = ("equirect", "eac", "cube3x2", "cube6x1")
_MODES = ("top-bottom", "left-right")
_FISHEYE_FOVS_DEG = (180.0, 185.0, 190.0, 195.0, 200.0, 205.0, 210.0)
_CIRCLES = {
    **{(1, 1): "one lens", (1, 2): "two lenses", (2, 1): "two lenses"},
    **{(2, 2): "four lenses", (1, 4): "four lenses"},
}
"""Rows and columns of fisheye circles."""

# `benchmarks/projections.py` measures how far apart right and wrong projections are.
GOES_ON = 0.4
"""Borders that are more alike than this go on; wrong projections stay below."""
_BREAKS = 0.25
"""Borders that are less alike than this do not go on."""
_AGREEING = 0.5
_TEXTURED, _TEXTURED_CUBE = 0.45, 0.2
"""The least share of borders that must show something before they tell anything; a cubemap has
more of them."""
_MARGIN = 0.15
_POLE, _NO_POLE = 0.45, 0.6
_HALF_SPHERE_POLE = 0.3
_UNIFORM = 4.0
"""Frames whose grey levels differ by less show nothing."""
_EYES = 0.5
"""Halves of which this share looks the same may be the images of two eyes."""
_SURELY_EYES = 0.6
_RIMS_GO_ON = _SETTLED = 0.6
_ASPECTS = {"equirect": (1.5, 2.4), "eac": (1.2, 2.4), "cube3x2": (1.2, 2.4), "cube6x1": (3.0, 9.0)}
"""Aspect ratios of frames, which some datasets store at 16:9."""
_BAR = 0.015


HALF_EQUIRECT = "half-equirect"
"""The name of the half of the sphere in front, as VR180 shows it."""
_NAME_IT = "--projection names how its frames show the sphere; a flat picture shows none"
_LENSES = (
    "convert it with the camera's program or ffmpeg's v360, or name it with --projection "
    "dual-fisheye (the lens on the right looks to the front) or fisheye, and --fisheye-fov"
)
_TURNED_EAC = (
    "convert it with ffmpeg: -vf v360=eac:e:in_stereo=sbs:in_trans=1:ih_flip=1:out_stereo=tb"
)


@dataclass(frozen=True)
class ProjectionGuess:
    """What the pixels of a video show.

    ``projection`` is a name that ``--projection`` knows, or None if the pixels contradict all of
    them; then ``remedy`` says what to do. ``sure`` tells whether the user need not be asked,
    ``confidence`` (0 to 1) how well the frames fit (0: they show too little), ``reason`` is a
    clause that says why, and ``measured`` holds the numbers behind it.
    """

    projection: str | None
    stereo: str
    sure: bool
    confidence: float
    reason: str
    measured: str
    remedy: str = ""

    @property
    def is_clear(self) -> bool:
        return self.projection is None or self.confidence > 0

    @property
    def is_settled(self) -> bool:
        """Whether it is clear what the frames show, although the user is asked: two eyes."""
        return self.stereo != "mono" and self.confidence >= _SETTLED

    @property
    def is_special(self) -> bool:
        """Whether the frames show something known that is not supported."""
        return self.remedy not in ("", _NAME_IT)


@dataclass(frozen=True)
class _Fit:
    """How well frames fit a projection and a stereo mode.

    ``poles`` are the stretches (see `pole_stretch`) of the eyes' first and last rows, if the
    projection is equirectangular.
    """

    projection: Projection
    stereo: str
    borders: Continuity
    aspect: float
    poles: tuple[float | None, ...] = ()

    @property
    def is_plausible(self) -> bool:
        low, high = _ASPECTS[self.projection]
        return low <= self.aspect <= high

    @property
    def is_told(self) -> bool:
        """Whether enough is to be seen at its borders."""
        least = _TEXTURED if self.projection == "equirect" else _TEXTURED_CUBE
        return self.borders.textured >= least

    @property
    def goes_on(self) -> bool:
        borders = self.borders
        return self.is_told and borders.alike >= GOES_ON and borders.agreeing >= _AGREEING

    @property
    def breaks(self) -> bool:
        return self.is_told and self.borders.alike < _BREAKS

    @property
    def has_poles(self) -> bool:
        """Whether it shows a pole, and none of its ends is anything else."""
        known = [stretch for stretch in self.poles if stretch is not None]
        return bool(known) and min(known) <= _POLE and max(known) <= _NO_POLE

    @property
    def has_all_poles(self) -> bool:
        return bool(self.poles) and all(
            stretch is not None and stretch <= _HALF_SPHERE_POLE for stretch in self.poles
        )


def guesses(
    path: Path, video: VideoTrack, duration_s: float, rotation_deg: int, stereo: str | None
) -> Iterator[ProjectionGuess | None]:
    """Guess from one frame, and again from two and three.

    Frames are rotated by ``rotation_deg`` first; ``stereo`` is the layout of eyes if it is known.
    A guess is None if the frames show nothing. Raises av.FFmpegError for a file that does not
    decode.
    """
    frames: list[Grey] = []
    for frame, size in sample_frames(path, video, duration_s, keys_only=True):
        frames.append(np.rot90(frame, rotation_deg // 90))
        yield guess_from_frames(frames, size if rotation_deg % 180 == 0 else size[::-1], stereo)


def last_guess(seen: Iterator[ProjectionGuess | None]) -> ProjectionGuess | None:
    """The first guess that further frames would not change, or else the one from all frames."""
    guess: ProjectionGuess | None = None
    for guess in seen:
        if guess is not None and (guess.sure or guess.is_settled):
            break
    return guess


def guess_from_frames(
    frames: list[Grey], size: tuple[int, int], stereo: str | None = None
) -> ProjectionGuess | None:
    """Guess from grey frames that were stored with ``size`` (height, width)."""
    if max(float(np.ptp(frame)) for frame in frames) < _UNIFORM:
        return None
    eyes = _modes_of_eyes(frames) if stereo is None else {}
    likely = stereo or _likeliest(eyes)
    modes = [likely, *(mode for mode in ("mono", *eyes) if mode != likely)]
    fits = [_fit(frames, size, name, mode) for mode in modes for name in _CANDIDATES]
    # Where the images of two eyes go on, the whole frame may do so as well.
    best = max(
        (fit for fit in fits if fit.goes_on),
        key=lambda fit: (fit.stereo == likely, fit.borders.alike),
        default=None,
    )
    guess = None if best is None else _judge(best, fits, tuple(eyes))
    if guess is not None and guess.sure:
        return guess
    repeats = bool(eyes if stereo is None else _modes_of_eyes(frames))
    of_lenses = _circles_of_lenses(frames, size, repeats)
    if of_lenses is not None and (best is None or best.borders.alike < of_lenses[1]):
        measured = _numbers(fits[: len(_CANDIDATES)])
        return ProjectionGuess(None, likely, False, 0.0, of_lenses[0], measured, _LENSES)
    return guess or _judge_misfits(frames, size, fits[: len(_CANDIDATES)])


def _numbers(fits: list[_Fit]) -> str:
    """How much alike the sides of each projection's borders are."""
    return ", ".join(f"{fit.projection} {fit.borders.alike:.2f}" for fit in fits)


def _circles_of_lenses(
    frames: list[Grey], size: tuple[int, int], repeats: bool
) -> tuple[str, float] | None:
    """Why frames seem to show fisheye circles, and how much; None if they do not. In frames that
    repeat themselves rims are alike anyway."""
    for (rows, columns), lenses in _CIRCLES.items():
        if all(shows_circles(frame, rows, columns) for frame in frames):
            return f"its picture shows the circles of {lenses}", 1.0
    bar = max(1, round(_BAR * len(frames[0])))
    if repeats or all(np.ptp([f[:bar], f[-bar:]]) < _UNIFORM for f in frames):
        return None
    spheres = [Sphere("dual-fisheye", fov_deg=fov) for fov in _FISHEYE_FOVS_DEG]
    rims = [(continuity(frames, sphere, size), sphere.fov_deg) for sphere in spheres]
    best, fov_deg = max(rims, key=lambda rim: rim[0].alike)
    if best.alike < _RIMS_GO_ON or best.textured < _TEXTURED or best.agreeing < _AGREEING:
        return None
    reason = f"its picture goes on from rim to rim of two fisheye circles of about {fov_deg:.0f}°"
    return reason, best.alike


def _modes_of_eyes(frames: list[Grey]) -> dict[str, float]:
    """The stereo modes in which a frame's halves are alike, and how much."""
    found = {
        mode: float(np.median([likeness_of_eyes(frame, mode) for frame in frames]))
        for mode in _MODES
    }
    return {mode: likeness for mode, likeness in found.items() if likeness >= _EYES}


def _likeliest(eyes: dict[str, float]) -> str:
    """Two eyes' images are alike everywhere; halves that are alike here and there, or in both
    directions, show something that repeats itself."""
    if len(eyes) == 1 and max(eyes.values()) >= _SURELY_EYES:
        return next(iter(eyes))
    return "mono"


def _fit(frames: list[Grey], size: tuple[int, int], name: Projection, stereo: str) -> _Fit:
    layout = EYE_LAYOUTS[stereo]
    split = [split_eyes(frame, stereo) for frame in frames]
    eyes = [eye for parts in split for eye in parts]
    poles: tuple[float | None, ...] = ()
    if name == "equirect":
        same_eye = [list(images) for images in zip(*split, strict=True)]
        poles = tuple(pole_stretch(images, top) for images in same_eye for top in (True, False))
    height, width = size[0] // layout.rows, size[1] // layout.columns
    borders = continuity(eyes, Sphere(name), (height, width))
    return _Fit(name, stereo, borders, width / max(height, 1), poles)


def _judge(best: _Fit, fits: list[_Fit], eyes: tuple[str, ...]) -> ProjectionGuess:
    """What it means that a projection's borders go on, and whether that is sure."""
    same_mode = [fit for fit in fits if fit.stereo == best.stereo]
    second = max(fit.borders.alike for fit in same_mode if fit.projection != best.projection)
    alike = best.borders.alike
    reason = f"its pixels go on across the borders of {best.projection}"
    doubt = ""
    if best.stereo in eyes:
        doubt = f", and its halves look like the images of two eyes ({best.stereo})"
    elif eyes:
        doubt = f", but its halves look much alike ({' and '.join(eyes)})"
    elif best.projection == "equirect" and not best.has_poles:
        doubt = ", but it shows no poles above and below"
    elif not best.is_plausible:
        doubt = f", but it is {best.aspect:.1f} times as wide as high"
    elif alike - second < _MARGIN:
        doubt = ", but nearly as much across those of others"
    measured = _numbers(same_mode)
    return ProjectionGuess(best.projection, best.stereo, not doubt, alike, reason + doubt, measured)


def _judge_misfits(frames: list[Grey], size: tuple[int, int], fits: list[_Fit]) -> ProjectionGuess:
    """What frames are whose pixels go on across the borders of no projection; ``fits`` are those
    of the likeliest stereo mode, equirectangular first."""
    equirect, stereo = fits[0], fits[0].stereo
    best, second = sorted(fits, key=lambda fit: -fit.borders.alike)[:2]
    measured, alike = _numbers(fits), best.borders.alike
    if stereo == "left-right" and _is_turned_eac(frames, size):
        reason = "its picture is YouTube's cubemap for two eyes, which is turned by 90°"
        return ProjectionGuess(None, stereo, False, 0.0, reason, measured, _TURNED_EAC)
    half = equirect.borders.alike < (_BREAKS if equirect.is_plausible else GOES_ON)
    if half and equirect.is_told and equirect.has_all_poles:
        reason = "its picture has poles above and below, but does not go on from side to side"
        return ProjectionGuess(HALF_EQUIRECT, stereo, False, 0.5, reason, measured)
    stands_out = alike >= max(_BREAKS, second.borders.alike + _MARGIN)
    if best.is_told and best.is_plausible and stands_out:
        reason = f"its pixels hardly go on across the borders of {best.projection}"
        return ProjectionGuess(best.projection, stereo, False, alike, reason, measured)
    if equirect.breaks:
        reason = "its pixels go on across the borders of no projection"
        return ProjectionGuess(None, stereo, False, 0.0, reason, measured, _NAME_IT)
    reason = "its pixels show too little at the borders of projections"
    return ProjectionGuess("equirect", stereo, False, 0.0, reason, measured)


def _is_turned_eac(frames: list[Grey], size: tuple[int, int]) -> bool:
    """Whether frames hold two equi-angular cubemaps side by side, each turned by 90° (to either
    side: their borders are the same)."""
    eyes = [np.rot90(eye) for frame in frames for eye in split_eyes(frame, "left-right")]
    borders = continuity(eyes, Sphere("eac"), (size[1] // 2, size[0]))
    return borders.alike >= GOES_ON and borders.textured >= _TEXTURED
