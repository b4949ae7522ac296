"""Decide how a recording is read: the formats of its video and audio, and why."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import av

from avprep.errors import ClipError
from avprep.foa.ambix import HIGHER_ORDERS
from avprep.formats.container_tags import (
    VideoTags,
    projection_from_info,
    read_audio_tags,
    read_info_json,
    read_video_tags,
)
from avprep.formats.guess_projection import guess_projection
from avprep.media.excerpt import read_excerpt
from avprep.media.probe import AudioTrack, VideoTrack, probe
from avprep.sphere.projections import PROJECTIONS, Projection, Sphere

if TYPE_CHECKING:
    from avprep.formats.guess_convention import ChannelAnalysis

FLAT_FOV_DEG = 60.0
"""Assumed field of view of ordinary videos across their shorter side."""
_SURE = 0.3
_EXCERPT_S = 5.0


# The digests of existing sets depend on the names, order and reasons of the following two records:
# never change them.
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
class AudioFormat:
    """How audio is read, and why.

    ``channels`` are the indices of W, Y, Z, X among the decoded channels (None: as in
    ``convention``). ``sure`` tells whether this is certain enough not to ask the user.
    """

    convention: str = "auto"
    channels: tuple[int, int, int, int] | None = None
    reason: str = "as its layout has it"
    sure: bool = True


@dataclass(frozen=True)
class FormatOverrides:
    """Formats that the user states for all recordings; ``auto``: decide for each recording."""

    projection: str = "auto"
    stereo: str = "auto"
    fisheye_fov_deg: float = 180.0
    foa_convention: str = "auto"

    @property
    def video_is_auto(self) -> bool:
        """Whether the user states nothing about video, so that a dataset's layout may."""
        return self.projection == "auto" and self.stereo == "auto"


def decide_video_format(
    path: Path, video: VideoTrack, duration_s: float, overrides: FormatOverrides
) -> VideoFormat:
    """From the user's options, else the container, else yt-dlp's .info.json, else the pixels.

    Raises ClipError for an unsupported projection.
    """
    tags = read_video_tags(path, video)
    rotation = _upright_rotation(path, tags)
    stereo = tags.stereo if overrides.stereo == "auto" else overrides.stereo
    if overrides.projection != "auto":
        sphere = sphere_by_name(overrides.projection, overrides.fisheye_fov_deg)
        return VideoFormat(sphere, stereo or "mono", rotation, "by --projection")
    if tags.sphere is not None:
        reason = f"its container says {tags.sphere.projection}"
        return VideoFormat(tags.sphere, stereo or "mono", rotation, reason)
    if tags.unknown is not None:
        raise ClipError(
            f"{path.name} has the projection {tags.unknown!r}, which is not supported; convert it "
            "with ffmpeg's v360, or name another one with --projection"
        )
    info = read_info_json(path)
    noted = projection_from_info(info) if info is not None else None
    if noted is not None:
        reason = "its .info.json says so"
        return VideoFormat(sphere_by_name(noted), stereo or "mono", rotation, reason)
    try:
        guess = guess_projection(path, duration_s)
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


def flat_video_format(path: Path, video: VideoTrack) -> VideoFormat:
    """The format of an ordinary (not 360°) video, which shows the front only."""
    tags = read_video_tags(path, video)
    return VideoFormat(Sphere("flat", fov_deg=FLAT_FOV_DEG), "mono", _upright_rotation(path, tags))


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


def decide_audio_format(path: Path, audio: AudioTrack, overrides: FormatOverrides) -> AudioFormat:
    """From the user's options, else the container, else the usual for this number of channels."""
    if overrides.foa_convention != "auto":
        return AudioFormat(overrides.foa_convention, None, "by --foa-convention")
    tags = read_audio_tags(path, audio)
    if tags is not None:
        return AudioFormat("ambix", tags.channels, tags.reason)
    if path.suffix.lower() == ".amb":
        return AudioFormat("fuma", None, ".amb files are FuMa")
    if audio.channels == 6:
        reason = "six channels, of which each clip is checked to be as YouTube's"
        return AudioFormat("youtube", None, reason)
    if audio.channels == 4 or audio.channels in HIGHER_ORDERS:
        reason = f"{audio.channels} channels and nothing that says which; ambiX is usual"
        return AudioFormat("ambix", None, reason, sure=False)
    return AudioFormat("auto", None, f"{audio.channels} channels", sure=False)


def find_doubts(
    audio: Path, duration_s: float, video_format: VideoFormat, audio_format: AudioFormat
) -> tuple[str, ...]:
    """Sentences on what the user should check; empty if the containers leave no doubt.

    If a container does not describe its channels, a few seconds of them are analysed. The result
    never changes how the audio is read: real microphones deviate by up to 3 dB.
    """
    doubts = []
    if not video_format.sure:
        projection = video_format.sphere.projection
        doubts.append(
            f"its picture is taken as {projection}, but neither container nor pixels are clear "
            "about it; --projection names another"
        )
    if not audio_format.sure and audio_format.convention == "ambix":
        analysis = _analyse_excerpt(audio, duration_s)
        seems = ""
        if analysis is not None and analysis.looks_like_capsules:
            seems = ", but all its channels are alike, as those of a raw microphone are"
        elif (
            analysis is not None
            and analysis.is_sure
            and (analysis.w, analysis.normalization) != (0, "SN3D")
        ):
            seems = f", but it sounds like {analysis.normalization} with W in channel {analysis.w}"
        doubts.append(
            f"its sound is taken as ambiX ({audio_format.reason}){seems}; --foa-convention names "
            "another, and `avprep inspect --picture` shows where it comes from"
        )
    return tuple(doubts)


def _analyse_excerpt(audio: Path, duration_s: float) -> ChannelAnalysis | None:
    from avprep.formats.guess_convention import (
        analyse_channels,  # OpenCV's, which planning does without
    )

    track = probe(audio).audio
    if track is None or track.channels < 4:
        return None
    start_s = max(0.0, duration_s / 2 - _EXCERPT_S / 2)
    excerpt = read_excerpt(audio, track.channels, start_s, _EXCERPT_S)
    return analyse_channels(excerpt[:4])
