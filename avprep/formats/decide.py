"""Decide how a recording's video is read, and why."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import av

from avprep.errors import ClipError
from avprep.formats.container_tags import (
    VideoTags,
    projection_from_info,
    read_info_json,
    read_video_tags,
)
from avprep.formats.guess_projection import guess_projection
from avprep.media.tracks import VideoTrack
from avprep.sphere.projections import PROJECTIONS, Projection, Sphere

FLAT_FOV_DEG = 60.0
"""Assumed field of view of ordinary videos across their shorter side."""
_SURE = 0.3


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
) -> VideoFormat:
    """From the user's options, else the container, else yt-dlp's .info.json, else the pixels.

    Raises ClipError for an unsupported projection.
    """
    tags = read_video_tags(path, video)
    rotation = _upright_rotation(path, tags)
    stereo = _stereo(path, tags) if overrides.stereo == "auto" else overrides.stereo
    if overrides.projection != "auto":
        sphere = sphere_by_name(overrides.projection, overrides.fisheye_fov_deg)
        return VideoFormat(sphere, stereo or "mono", rotation, "by --projection")
    if tags.sphere is not None:
        reason = f"its container says {tags.sphere.projection}"
        return VideoFormat(tags.sphere, stereo or "mono", rotation, reason)
    if tags.mesh is not None:
        raise ClipError(
            f"{path.name} says that it shows a mesh projection, which is not supported; "
            "--projection names it (YouTube's meshes are `eac`)"
        )
    if tags.refused is not None:
        raise ClipError(
            f"{path.name} says that it shows {tags.refused}, which is not supported; convert it "
            "with ffmpeg's v360, or let --projection say how to read its frames as they are"
        )
    info = read_info_json(path)
    noted = projection_from_info(info) if info is not None else None
    if noted is not None:
        reason = "its .info.json says so"
        return VideoFormat(sphere_by_name(noted), stereo or "mono", rotation, reason)
    try:
        guess = guess_projection(path, video, duration_s)
    except (av.FFmpegError, OSError):
        guess = None  # decoding the clips will report the fault
    if guess is None:
        reason = "nothing says otherwise, and its pixels tell nothing"
        return VideoFormat(Sphere(), stereo or "mono", rotation, reason, False, 0.0)
    sure = guess.confidence >= _SURE
    projection: Projection = guess.projection if sure else "equirect"
    reason = f"{guess.reason}, confidence {guess.confidence:.0%}"
    stereo = stereo or (guess.stereo if sure else "mono")
    return VideoFormat(
        sphere_by_name(projection), stereo, rotation, reason, sure, round(guess.confidence, 2)
    )


def video_doubts(video_format: VideoFormat) -> tuple[str, ...]:
    """Sentences on what the user should check about the video; empty if nothing is in doubt."""
    if video_format.sure:
        return ()
    projection = video_format.sphere.projection
    return (
        f"its picture is taken as {projection}, but neither container nor pixels are clear about "
        "it; --projection names another",
    )


def flat_video_format(path: Path, video: VideoTrack) -> VideoFormat:
    """The format of an ordinary (not 360°) video, which shows the front only."""
    tags = read_video_tags(path, video)
    return VideoFormat(Sphere("flat", fov_deg=FLAT_FOV_DEG), "mono", _upright_rotation(path, tags))


def _stereo(path: Path, tags: VideoTags) -> str | None:
    """The layout of eyes that the container states. Raises ClipError for an unsupported one."""
    if tags.refused_stereo is not None and tags.mesh is None:
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


def sphere_by_name(projection: str, fisheye_fov_deg: float = 180.0) -> Sphere:
    """The projection with a name in `PROJECTIONS`; raises ValueError for another name."""
    for name in PROJECTIONS:
        if name == projection:
            return Sphere(name, fov_deg=fisheye_fov_deg)
    raise ValueError(f"no projection is called {projection!r}")
