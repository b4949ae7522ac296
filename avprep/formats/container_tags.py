"""Read the tags for 360° video and ambisonics that containers and yt-dlp store."""

from __future__ import annotations

import json
import re
import struct
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from avprep.media.ffmpeg import describe
from avprep.media.probe import read_moov
from avprep.media.tracks import AudioTrack, VideoTrack
from avprep.sphere.projections import Sphere

_SIDE_DATA_BOXES = (b"sv3d", b"st3d", b"vexu", b"uuid")
_UPRIGHT = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
# AAC stores 5.1 as C, L, R, Ls, Rs, LFE, which decoders reorder to FL, FR, FC, LFE, BL, BR.
_AAC_51 = (2, 0, 1, 4, 5, 3)
_STEREO = {
    "2d": "mono",
    "side by side": "left-right",
    "top and bottom": "top-bottom",
}


@dataclass(frozen=True)
class VideoTags:
    """Side data of a video track; None where the file has none.

    ``stereo`` is mono, left-right or top-bottom; ``rotation_deg`` the angle by which players
    rotate frames.
    """

    sphere: Sphere | None = None
    stereo: str | None = None
    rotation_deg: float = 0.0
    mirrored: bool = False
    unknown: str | None = None
    """ffmpeg's name of a projection that this program does not support."""


def read_video_tags(path: Path, video: VideoTrack) -> VideoTags:
    """Read the sv3d and st3d boxes and the display matrix of a file's video track, from ffmpeg's
    output."""
    moov = read_moov(path)
    if (
        moov is not None
        and not any(name in moov for name in _SIDE_DATA_BOXES)
        and moov.count(_UPRIGHT) == moov.count(b"tkhd") + moov.count(b"mvhd")
    ):
        return VideoTags()  # running ffmpeg takes as long as decoding a second of video
    text = describe(path)
    tracks = re.split(r"^\s*Stream #", text, flags=re.MULTILINE)[1:]
    track = next((track for track in tracks if ": Video:" in track.partition("\n")[0]), "").lower()
    sphere, unknown = _parse_projection(track, video.height, video.width)
    if sphere is not None and moov is not None:
        sphere = replace(sphere, bounds=_exact_bounds(moov) or sphere.bounds)
    stereo = re.search(r"stereo ?3d: ([a-z0-9 ]+)", track)
    rotation = re.search(r"rotation of (-?[\d.]+) degrees", track)
    return VideoTags(
        sphere,
        _STEREO.get(stereo[1].strip()) if stereo else None,
        float(rotation[1]) if rotation else 0.0,
        _mirrored(moov or b""),
        unknown,
    )


def _mirrored(moov: bytes) -> bool:
    """Whether a track's display matrix (ISO/IEC 14496-12, tkhd) mirrors its frames."""
    at = moov.find(b"tkhd")
    while 0 <= at <= len(moov) - 100:
        matrix = at + (56 if moov[at + 4] == 1 else 44)
        a, b, _, c, d = struct.unpack_from(">5i", moov, matrix)
        if a * d - b * c < 0:
            return True
        at = moov.find(b"tkhd", at + 4)
    return False


def _parse_projection(track: str, height: int, width: int) -> tuple[Sphere | None, str | None]:
    """The projection in ffmpeg's description of a track, or else its unsupported name."""
    found = re.search(r"spherical(?: mapping)?: ([a-z ]+?)\s*[(\[\n]", track + "\n")
    if found is None:
        return None, None
    name = found[1].strip()
    if name == "equirectangular":
        return Sphere(), None
    if name == "half equirectangular":
        return Sphere(bounds=(0.25, 0.0, 0.25, 0.0)), None
    if name == "tiled equirectangular":
        # Pixels that the full sphere has beyond the frame at its left, top, right and bottom.
        edges = re.search(r"\[(\d+), (\d+), (\d+), (\d+)\]", track[found.start() :])
        if edges is not None:
            # ffmpeg rounds them, and sometimes prints -1 as an unsigned 64-bit number.
            numbers = (int(edges[i]) for i in (1, 2, 3, 4))
            left, top, right, bottom = (n if n < 1 << 32 else 0 for n in numbers)
            across, down = width + left + right, height + top + bottom
            return Sphere(bounds=(left / across, top / down, right / across, bottom / down)), None
    if name == "cubemap":
        return Sphere("cube3x2"), None
    return None, name


def _exact_bounds(moov: bytes) -> tuple[float, float, float, float] | None:
    """The bounds in an equirectangular sv3d box (Spherical Video V2 RFC), which ffmpeg rounds."""
    start = moov.find(b"equi", moov.find(b"sv3d"))
    if moov.find(b"sv3d") < 0 or start < 0 or len(moov) < start + 24:
        return None
    top, bottom, left, right = (n / 2**32 for n in struct.unpack_from(">4I", moov, start + 8))
    return (left, top, right, bottom) if left + right < 1 and top + bottom < 1 else None


@dataclass(frozen=True)
class AudioTags:
    """Ambisonics tags: the indices of W, Y, Z, X among the decoded channels, and their source."""

    channels: tuple[int, int, int, int]
    reason: str


def read_audio_tags(path: Path, audio: AudioTrack) -> AudioTags | None:
    """Read the SA3D box of mp4 and mov files, or the channel mapping family of Opus.

    None if the container has no such tag. Sources: Google's Spatial Audio RFC (SA3D), RFC 8486
    (Opus families 2 and 3).
    """
    channels = audio.channels
    if audio.codec.endswith("opus"):
        head = audio.extradata or b""
        if head.startswith(b"OpusHead") and len(head) > 18 and head[18] in (2, 3):
            return AudioTags((0, 1, 2, 3), f"Opus mapping family {head[18]}")
        return None
    box = _sa3d(read_moov(path) or b"")
    if box is None or len(box) < 12:
        return None
    _version, kind, order, ordering, normalization, count = struct.unpack_from(">BBIBBI", box)
    if len(box) < 12 + 4 * count or count > channels or order < 1 or kind & 0x7F:
        return None
    if ordering != 0 or normalization != 0:
        return None
    components = struct.unpack_from(f">{count}I", box, 12)
    decoded = _AAC_51 if audio.codec == "aac" and channels == 6 else tuple(range(channels))
    try:
        w, y, z, x = (decoded[components.index(component)] for component in range(4))
    except (ValueError, IndexError):
        return None
    stereo = ", head-locked stereo dropped" if kind & 0x80 else ""
    return AudioTags((w, y, z, x), f"SA3D box, ACN and SN3D{stereo}")


def _sa3d(moov: bytes) -> bytes | None:
    """Content of the first SA3D box; None if there is none."""
    start = moov.find(b"SA3D")
    if start < 4:
        return None
    (length,) = struct.unpack_from(">I", moov, start - 4)
    return moov[start + 4 : start - 4 + length]


def read_info_json(video: Path) -> dict[str, Any] | None:
    """The .info.json that yt-dlp wrote beside a video; None if there is none or it is invalid."""
    for stem in (video.stem, video.stem.rpartition(".")[0]):
        path = video.with_name(f"{stem}.info.json")
        if stem and path.is_file():
            try:
                content = json.loads(path.read_bytes())
            except (OSError, ValueError, RecursionError):
                return None
            return content if isinstance(content, dict) else None
    return None


def projection_from_info(info: dict[str, Any]) -> str | None:
    """``eac`` or ``equirect`` from yt-dlp's ``format_note``: YouTube's "mesh" is an EAC cubemap."""
    formats = info.get("requested_formats")
    notes = [info.get("format_note"), info.get("projectionType")]
    if isinstance(formats, list):
        notes += [part.get("format_note") for part in formats if isinstance(part, dict)]
    words = " ".join(note.lower() for note in notes if isinstance(note, str))
    if "mesh" in words:
        return "eac"
    return "equirect" if "equi" in words else None
