"""How a recording will be read: the format of its picture and its sound, and why."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import av

from avprep.errors import ClipError
from avprep.foa.ambix import HIGHER_ORDERS
from avprep.formats.container_tags import (
    PictureTags,
    info_json,
    picture_tags,
    projection_of_info,
    sound_tags,
)
from avprep.formats.guess_projection import guess
from avprep.media.excerpt import read_excerpt
from avprep.media.probe import AudioTrack, VideoTrack, probe
from avprep.sphere.projections import PROJECTIONS, Projection, Sphere

if TYPE_CHECKING:
    from avprep.formats.guess_convention import Heard

FLAT_FOV_DEG = 60.0
"""Taken for the field of view of ordinary videos across their shorter side."""
_SURE = 0.3
_LISTEN_S = 5.0


@dataclass(frozen=True)
class PictureFormat:
    """The projection of a picture, which eye's part of a stereo frame is taken (the left one's),
    how far frames are turned before, why, whether that is sure, and how sure (0 to 1)."""

    sphere: Sphere = Sphere()  # noqa: RUF009
    stereo: str = "mono"
    rotation_deg: int = 0
    reason: str = "as its layout has it"
    sure: bool = True
    confidence: float = 1.0


@dataclass(frozen=True)
class SoundFormat:
    """Which decoded channels hold W, Y, Z, X (None: as ``convention`` has it), their convention,
    why, and whether that is sure."""

    convention: str = "auto"
    channels: tuple[int, int, int, int] | None = None
    reason: str = "as its layout has it"
    sure: bool = True


@dataclass(frozen=True)
class FormatOverrides:
    """What the user says of all recordings; ``auto`` where each is asked."""

    projection: str = "auto"
    stereo: str = "auto"
    fisheye_fov_deg: float = 180.0
    foa_convention: str = "auto"

    @property
    def video_is_auto(self) -> bool:
        """Whether layouts may say what pictures are like: the user did not."""
        return self.projection == "auto" and self.stereo == "auto"


def picture_format(
    path: Path, picture: VideoTrack, duration_s: float, overrides: FormatOverrides
) -> PictureFormat:
    """By the user's word, else the container's, else yt-dlp's, else the pixels'.

    Raises ClipError for a projection that cannot be read.
    """
    tags = picture_tags(path, picture.height, picture.width)
    rotation = _rotation_of(path, tags)
    stereo = tags.stereo if overrides.stereo == "auto" else overrides.stereo
    if overrides.projection != "auto":
        sphere = sphere_of(overrides.projection, overrides.fisheye_fov_deg)
        return PictureFormat(sphere, stereo or "mono", rotation, "by --projection")
    if tags.sphere is not None:
        where = f"its container says {tags.sphere.projection}"
        return PictureFormat(tags.sphere, stereo or "mono", rotation, where)
    if tags.unknown is not None:
        raise ClipError(
            f"{path.name} has the projection {tags.unknown!r}, which is not read here; convert it "
            "with ffmpeg's v360, or name another one with --projection"
        )
    info = info_json(path)
    noted = projection_of_info(info) if info is not None else None
    if noted is not None:
        where = "its .info.json says so"
        return PictureFormat(sphere_of(noted), stereo or "mono", rotation, where)
    try:
        seen = guess(path, duration_s)
    except (av.FFmpegError, OSError):
        seen = None  # decoding the clips will say what is wrong
    if seen is None:
        reason = "nothing says otherwise, and its pixels tell nothing"
        return PictureFormat(Sphere(), stereo or "mono", rotation, reason, False, 0.0)
    sure = seen.confidence >= _SURE
    projection: Projection = seen.projection if sure else "equirect"
    reason = f"{seen.reason}, confidence {seen.confidence:.0%}"
    stereo = stereo or (seen.stereo if sure else "mono")
    return PictureFormat(
        sphere_of(projection), stereo, rotation, reason, sure, round(seen.confidence, 2)
    )


def flat_format(path: Path, picture: VideoTrack) -> PictureFormat:
    """Of an ordinary video, whose middle is all there is to see."""
    tags = picture_tags(path, picture.height, picture.width)
    return PictureFormat(Sphere("flat", fov_deg=FLAT_FOV_DEG), "mono", _rotation_of(path, tags))


def _rotation_of(path: Path, tags: PictureTags) -> int:
    """How far frames are turned to be upright: quarters. Raises ClipError for anything else."""
    rotation = round(tags.rotation_deg) % 360
    if tags.mirrored or rotation % 90:
        what = "mirrored" if tags.mirrored else f"turned by {rotation}°"
        raise ClipError(
            f"{path.name} says that its frames are to be shown {what}, which is not read here; "
            "convert it with ffmpeg, which does so"
        )
    return rotation


def sphere_of(projection: str, fisheye_fov_deg: float = 180.0) -> Sphere:
    """A projection by its name. Raises ValueError for one that does not exist."""
    for name in PROJECTIONS:
        if name == projection:
            return Sphere(name, fov_deg=fisheye_fov_deg)
    raise ValueError(f"no projection is called {projection!r}")


def sound_format(path: Path, sound: AudioTrack, overrides: FormatOverrides) -> SoundFormat:
    """By the user's word, else the container's, else what is usual for so many channels."""
    if overrides.foa_convention != "auto":
        return SoundFormat(overrides.foa_convention, None, "by --foa-convention")
    tags = sound_tags(path, sound.codec, sound.channels, sound.extradata)
    if tags is not None:
        return SoundFormat("ambix", tags.channels, tags.reason)
    if path.suffix.lower() == ".amb":
        return SoundFormat("fuma", None, ".amb files are FuMa")
    if sound.channels == 6:
        reason = "six channels, of which each clip is checked to be as YouTube's"
        return SoundFormat("youtube", None, reason)
    if sound.channels == 4 or sound.channels in HIGHER_ORDERS:
        reason = f"{sound.channels} channels and nothing that says which; ambiX is usual"
        return SoundFormat("ambix", None, reason, sure=False)
    return SoundFormat("auto", None, f"{sound.channels} channels", sure=False)


def doubts_of(
    audio: Path, duration_s: float, picture: PictureFormat, sound: SoundFormat
) -> tuple[str, ...]:
    """What a person should check, in sentences; empty where containers leave no doubt.

    Where a container does not say what its channels are, some seconds are listened to. What is
    heard never changes what is done: real microphones are off by up to 3 dB.
    """
    doubts = []
    if not picture.sure:
        projection = picture.sphere.projection
        doubts.append(
            f"its picture is taken as {projection}, but neither container nor pixels are clear "
            "about it; --projection names another"
        )
    if not sound.sure and sound.convention == "ambix":
        heard = _listen(audio, duration_s)
        seems = ""
        if heard is not None and heard.looks_like_capsules:
            seems = ", but all its channels hear the same, as those of a raw microphone do"
        elif heard is not None and heard.is_sure and (heard.w, heard.normalization) != (0, "SN3D"):
            seems = f", but it sounds like {heard.normalization} with W in channel {heard.w}"
        doubts.append(
            f"its sound is taken as ambiX ({sound.reason}){seems}; --foa-convention names another, "
            "and `avprep inspect --picture` shows where it comes from"
        )
    return tuple(doubts)


def _listen(audio: Path, duration_s: float) -> Heard | None:
    from avprep.formats.guess_convention import listen  # OpenCV's, which planning does without

    tracks = probe(audio).audio
    if tracks is None or tracks.channels < 4:
        return None
    start = max(0.0, duration_s / 2 - _LISTEN_S / 2)
    sound = read_excerpt(audio, tracks.channels, start, _LISTEN_S)
    return listen(sound[:4], tracks.sample_rate)
