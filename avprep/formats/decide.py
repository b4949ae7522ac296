"""Decide how a recording's video is read, and why."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import av

from avprep.errors import ClipError
from avprep.formats.container_tags import (
    VideoTags,
    read_info_json,
    read_video_tags,
)
from avprep.formats.guess_projection import (
    GOES_ON,
    HALF_EQUIRECT,
    ProjectionGuess,
    guesses,
    last_guess,
)
from avprep.formats.spherical import HALF_SPHERE
from avprep.media.tracks import VideoTrack
from avprep.sphere.projections import PROJECTIONS, Sphere

FLAT_FOV_DEG = 60.0
"""Assumed field of view of ordinary videos across their shorter side."""
_NOTED = "its .info.json says so"
_UNCLEAR = (
    "its picture is taken as equirect, but neither container nor pixels are clear about it; "
    "--projection names another"
)


# The digests of existing sets depend on the names, order and reasons of this record and of
# `AudioFormat`: never change them.
@dataclass(frozen=True)
class VideoFormat:
    """How a video is read, and why.

    ``sphere`` is its projection, ``stereo`` its layout of two eyes (the left one is used), and
    ``rotation_deg`` the angle by which frames are rotated first. ``sure`` tells whether this is
    certain enough not to ask the user, and ``confidence`` (0 to 1) how certain.
    """

    sphere: Sphere = Sphere()  # noqa: RUF009
    stereo: str = "mono"
    rotation_deg: int = 0
    reason: str = "as its layout has it"
    sure: bool = True
    confidence: float = 1.0

    def record(self) -> dict[str, Any]:
        """What digests depend on: the numbers behind a guess, which may differ from machine to
        machine, are left out."""
        record = asdict(self)
        if 0 < self.confidence < 1:
            record |= {"reason": self.reason.partition(" (")[0], "confidence": None}
        return record


@dataclass(frozen=True)
class FormatOverrides:
    """Formats that the user states for all recordings; ``auto``: decide for each recording."""

    projection: str = "auto"
    stereo: str = "auto"
    fisheye_fov_deg: float = 180.0
    foa_convention: str = "auto"
    video_track: int | None = None
    audio_track: int | None = None

    @property
    def leave_video_to_layout(self) -> bool:
        """Whether the user states nothing about video and tracks, so that a dataset's layout
        may."""
        nothing = self.video_track is None and self.audio_track is None
        return self.projection == "auto" and self.stereo == "auto" and nothing

    def record(self) -> dict[str, Any]:
        """The formats as manifests and digests record them: tracks only where they are named."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def decide_video_format(
    path: Path, video: VideoTrack, duration_s: float, overrides: FormatOverrides
) -> tuple[VideoFormat, tuple[str, ...]]:
    """From the user's options, else the container, else yt-dlp's .info.json, else the pixels; with
    sentences on what the user should check.

    Raises ClipError for an unsupported projection.
    """
    tags = read_video_tags(path, video)
    rotation = _upright_rotation(path, tags)
    by_pixels = tags.mesh is not None and overrides.projection == "auto"
    stereo = overrides.stereo if overrides.stereo != "auto" else _stereo(path, tags, by_pixels)
    if overrides.projection != "auto":
        sphere = sphere_by_name(overrides.projection, overrides.fisheye_fov_deg)
        return VideoFormat(sphere, stereo or "mono", rotation, "by --projection"), ()
    if tags.refused is not None:
        raise ClipError(
            f"{path.name} says that it shows {tags.refused}, which is not supported; convert it "
            "with ffmpeg's v360, or let --projection say how to read its frames as they are"
        )
    seen = guesses(path, video, duration_s, rotation, stereo)
    info, ignored = read_info_json(path)
    found, doubts = _decide_by_tags(path.name, tags, stereo, rotation, info.projection, seen)
    return found, (*doubts, ignored) if ignored else doubts


def _decide_by_tags(
    name: str,
    tags: VideoTags,
    stereo: str | None,
    rotation: int,
    noted: str | None,
    seen: Iterator[ProjectionGuess | None],
) -> tuple[VideoFormat, tuple[str, ...]]:
    """The format by the container's tags and the projection that .info.json notes, else by pixels;
    with doubts."""
    if tags.sphere is not None:
        saying = f"its container says {tags.sphere.projection}"
        # A mesh that both name is an equi-angular cubemap.
        reason = _NOTED if noted == "mesh" and tags.sphere.projection == "eac" else saying
        stated = VideoFormat(tags.sphere, stereo or "mono", rotation, reason)
        part = " for a part of the sphere" if any(tags.sphere.bounds) else ""
        return stated, _contradictions(stated, f"{saying}{part}", noted, seen)
    if noted == "equirect" and tags.mesh is None:
        stated = VideoFormat(Sphere(), stereo or "mono", rotation, _NOTED)
        return stated, _contradictions(stated, f"{_NOTED} (equirect)", None, seen)
    try:
        guess = last_guess(seen)
    except (av.FFmpegError, OSError):
        guess = None  # decoding the clips will report the fault
    if tags.mesh is not None or noted == "mesh":
        reason = _NOTED if tags.mesh is None else "its container says mesh"
        eac = VideoFormat(sphere_by_name("eac"), stereo or "mono", rotation, reason)
        return _decide_mesh(name, eac, guess)
    return _decide_by_pixels(name, stereo, rotation, guess)


def _contradictions(
    stated: VideoFormat,
    saying: str,
    noted: str | None,
    seen: Iterator[ProjectionGuess | None],
) -> tuple[str, ...]:
    """What .info.json and the pixels say against a format that is stated. Only if the first frame
    contradicts it, further ones are looked at."""
    if noted == "mesh" and stated.sphere.projection == "equirect" and stated.sphere.wraps:
        return (f"{saying}, but its .info.json says mesh; --projection decides",)
    contradiction = ""
    with suppress(av.FFmpegError, OSError):  # decoding the clips will report the fault
        for guess in seen:
            contradiction = _contradiction(stated, guess)
            if not contradiction:
                return ()
    if not contradiction:
        return ()
    return (f"{saying}, but {contradiction}; --projection and --stereo decide",)


def _contradiction(stated: VideoFormat, guess: ProjectionGuess | None) -> str:
    """Why pixels contradict a format; empty if they do not. Parts of the sphere do not go on
    across borders, so that only what does so contradicts them."""
    is_part = any(stated.sphere.bounds)
    if guess is None or not guess.is_clear:
        return ""
    if guess.sure:
        same = guess.projection == stated.sphere.projection and not is_part
        return "" if same else guess.reason
    if is_part:
        return ""
    if guess.projection == stated.sphere.projection:
        return guess.reason if guess.stereo != stated.stereo else ""
    return guess.reason if guess.projection is None or guess.confidence >= GOES_ON else ""


def _decide_by_pixels(
    name: str, stereo: str | None, rotation_deg: int, guess: ProjectionGuess | None
) -> tuple[VideoFormat, tuple[str, ...]]:
    """The format of a file that nothing is said about."""
    if guess is None:
        reason = "nothing says otherwise, and its pixels tell nothing"
        unclear = VideoFormat(Sphere(), stereo or "mono", rotation_deg, reason, False, 0.0)
        return unclear, (_UNCLEAR,)
    if guess.projection is None:
        raise ClipError(f"{name}: {guess.reason}; {guess.remedy}")
    found = _found(guess.projection, stereo, rotation_deg, guess)
    if guess.sure:
        return found, ()
    return found, (_assumed(found, guess.reason) if guess.is_clear else _UNCLEAR,)


def _decide_mesh(
    name: str, eac: VideoFormat, guess: ProjectionGuess | None
) -> tuple[VideoFormat, tuple[str, ...]]:
    """Which of YouTube's meshes the pixels show: an equi-angular cubemap, or half spheres (VR180).

    A cubemap for two eyes is turned, and refused.
    """
    saying = "its .info.json says mesh" if eac.reason == _NOTED else eac.reason
    if guess is not None and guess.projection == "eac" and guess.stereo == eac.stereo:
        return eac, ()
    if guess is None or (guess.projection is not None and not guess.is_clear):
        doubt = (
            f"{saying}, and its picture is taken as YouTube's cubemap (eac), but its pixels are "
            f"not clear about it; --projection {HALF_EQUIRECT} is VR180"
        )
        return eac, (doubt,)
    projection = guess.projection
    if projection is None and guess.stereo != "mono" and not guess.is_special:
        projection = HALF_EQUIRECT  # what else two eyes' meshes show
    if projection is None:
        raise ClipError(f"{name}: {saying}, but {guess.reason}; {guess.remedy}")
    stereo = None if eac.stereo == "mono" else eac.stereo
    found = _found(projection, stereo, eac.rotation_deg, guess)
    return found, (_assumed(found, f"{saying}, and {guess.reason}"),)


def _found(
    projection: str, stereo: str | None, rotation_deg: int, guess: ProjectionGuess
) -> VideoFormat:
    reason = f"{guess.reason} (both sides' likeness: {guess.measured})"
    sphere = sphere_by_name(projection)
    confidence = round(guess.confidence, 2)
    return VideoFormat(sphere, stereo or guess.stereo, rotation_deg, reason, guess.sure, confidence)


def _assumed(found: VideoFormat, why: str) -> str:
    return (
        f"its picture is taken as {projection_name(found.sphere)}, {found.stereo}: {why}; "
        "--projection and --stereo name another"
    )


def flat_video_format(path: Path, video: VideoTrack) -> VideoFormat:
    """The format of an ordinary (not 360°) video, which shows the front only."""
    tags = read_video_tags(path, video)
    return VideoFormat(Sphere("flat", fov_deg=FLAT_FOV_DEG), "mono", _upright_rotation(path, tags))


def _stereo(path: Path, tags: VideoTags, by_pixels: bool) -> str | None:
    """The layout of eyes that the container states. Raises ClipError for an unsupported one, unless
    the pixels decide (``by_pixels``)."""
    if tags.refused_stereo is not None and not by_pixels:
        raise ClipError(
            f"{path.name} says that it shows {tags.refused_stereo}, which is not supported; "
            "convert it with ffmpeg's stereo3d, or let --stereo say how to read its frames"
        )
    return tags.stereo


def _upright_rotation(path: Path, tags: VideoTags) -> int:
    """The rotation (0, 90, 180 or 270°) that makes frames upright. Raises ClipError for other
    angles and for mirrored frames."""
    rotation = round(tags.rotation_deg) % 360
    if tags.mirrored or rotation % 90:
        display = "mirrored" if tags.mirrored else f"rotated by {rotation}°"
        raise ClipError(
            f"{path.name} says that its frames are to be shown {display}, which is not supported; "
            "convert it with ffmpeg, which applies that"
        )
    return rotation


def projection_name(sphere: Sphere) -> str:
    """The name that `sphere_by_name` knows, without the angles and bounds of other parts."""
    half = Sphere(bounds=HALF_SPHERE)
    return HALF_EQUIRECT if sphere == half else sphere.projection


def sphere_by_name(projection: str, fisheye_fov_deg: float = 180.0) -> Sphere:
    """The projection with a name in `PROJECTIONS`, or ``half-equirect``; raises ValueError for
    another name."""
    if projection == HALF_EQUIRECT:
        return Sphere(bounds=HALF_SPHERE)
    for name in PROJECTIONS:
        if name == projection:
            return Sphere(name, fov_deg=fisheye_fov_deg)
    raise ValueError(f"no projection is called {projection!r}")
