"""Read the tags for 360° video that containers and yt-dlp store."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from avprep.formats.matroska import MatroskaTrack, read_matroska_tracks
from avprep.formats.mp4_boxes import (
    Matrix,
    Mp4Index,
    Mp4Track,
    SampleEntry,
    read_mp4_index,
    split_boxes,
)
from avprep.formats.spherical import (
    SPHERICAL_V1_UUID,
    Mesh,
    Projection,
    Refused,
    matroska_projection,
    matroska_rotation,
    matroska_stereo,
    read_spherical_v1,
    st3d_stereo,
    sv3d_projection,
    vexu_projection,
    vexu_stereo,
)
from avprep.media.tracks import VideoTrack
from avprep.sphere.eyes import EYE_LAYOUTS
from avprep.sphere.mesh import recognise_mesh
from avprep.sphere.projections import Sphere
from shards.files import parse_json, read_regular

_VIDEO = b"vide"
_MATROSKA_VIDEO = 1
_INFO_LIMIT_BYTES = 200_000_000
"""With the comments of a popular video, an .info.json has tens of megabytes."""


@dataclass(frozen=True)
class VideoTags:
    """Side data of a video track; None where the file has none.

    ``stereo`` is a layout of `EYE_LAYOUTS`; ``rotation_deg`` the angle by which players rotate
    frames. ``mesh`` is set for a mesh projection, which is no equirectangular one; then neither
    ``sphere`` nor ``refused`` is.
    """

    sphere: Sphere | None = None
    stereo: str | None = None
    rotation_deg: float = 0.0
    mirrored: bool = False
    mesh: Mesh | None = None
    refused: str | None = None
    """A projection, or pose, that the container states and this program does not support."""
    refused_stereo: str | None = None
    """The same of a layout of two eyes."""


def read_video_tags(path: Path, video: VideoTrack) -> VideoTags:
    """Read a video track's tags: sv3d, st3d, vexu, Spherical Video V1 and the display matrix in mp4
    and mov files; projection, stereo mode and V1 in Matroska. Other containers have none."""
    try:
        index = read_mp4_index(path)
        if index is not None:
            track = index.track(video.track_id, _VIDEO)
            return VideoTags() if track is None else _mp4_video_tags(index, track, video)
        tracks = read_matroska_tracks(path)
    except OSError:
        return VideoTags()  # decoding the clips will report the fault
    if tracks is None or video.index >= len(tracks):
        return VideoTags()
    return _matroska_video_tags(tracks[video.index], video)


def _mp4_video_tags(index: Mp4Index, track: Mp4Track, video: VideoTrack) -> VideoTags:
    projection, stereo = _said_by_entries(track)
    rotation_deg, mirrored = _display(_product(track.matrix, index.matrix))
    size = (video.width, video.height)
    if round(rotation_deg / 90) % 2:
        size = (video.height, video.width)
    for uuid in (*track.uuids, *index.uuids):
        if uuid.startswith(SPHERICAL_V1_UUID):
            projection, stereo = _with_v1(projection, stereo, uuid[16:], size)
    projection, stereo = _recognised(projection, stereo, size)
    return _tags(projection, stereo, rotation_deg, mirrored)


def _with_v1(
    projection: Projection | None,
    stereo: str | Refused | None,
    text: bytes,
    size: tuple[int, int],
) -> tuple[Projection | None, str | Refused | None]:
    """What a container says, with what the text of Spherical Video V1 says of the rest."""
    v1 = read_spherical_v1(text, *size)
    if v1 is None:
        return projection, stereo
    return (
        v1.projection if projection is None else projection,
        v1.stereo if stereo is None else stereo,
    )


def _said_by_entries(track: Mp4Track) -> tuple[Projection | None, str | Refused | None]:
    """What a track's sample entries say, if they agree."""
    said = [_said_by_entry(entry) for entry in track.entries]
    if any(one != said[0] for one in said):
        contradiction = Refused("different things for different parts of the video")
        return contradiction, contradiction
    return said[0] if said else (None, None)


def _said_by_entry(entry: SampleEntry) -> tuple[Projection | None, str | Refused | None]:
    boxes = {box.name: box.content for box in reversed(entry.boxes)}
    projection: Projection | None = None
    stereo: str | Refused | None = None
    if b"sv3d" in boxes:
        projection = sv3d_projection(boxes[b"sv3d"])
    if b"st3d" in boxes:
        stereo = st3d_stereo(boxes[b"st3d"])
    if b"vexu" in boxes:
        vexu = split_boxes(boxes[b"vexu"])
        projection = vexu_projection(vexu) if projection is None else projection
        stereo = vexu_stereo(vexu, b"lhvC" in boxes) if stereo is None else stereo
    return projection, stereo


def _matroska_video_tags(track: MatroskaTrack, video: VideoTrack) -> VideoTags:
    if track.kind != _MATROSKA_VIDEO:
        return VideoTags()
    projection: Projection | None = None
    stereo = None if track.stereo_mode is None else matroska_stereo(track.stereo_mode)
    turn: tuple[float, bool] | Refused = (0.0, False)
    if track.projection is not None:
        projection = matroska_projection(track.projection)
        if track.projection.kind == 0:
            turn = matroska_rotation(track.projection)
    if isinstance(turn, Refused):
        return _tags(turn, stereo)
    size = (video.width, video.height)
    if track.spherical_v1:
        projection, stereo = _with_v1(projection, stereo, track.spherical_v1, size)
    projection, stereo = _recognised(projection, stereo, size)
    return _tags(projection, stereo, *turn)


def _recognised(
    projection: Projection | None, stereo: str | Refused | None, size: tuple[int, int]
) -> tuple[Projection | None, str | Refused | None]:
    """What a container says, with a known projection in place of the mesh that describes it."""
    if not isinstance(projection, Mesh):
        return projection, stereo
    is_unknown = isinstance(stereo, Refused)
    stated = None if is_unknown else stereo
    eyes, (width, height) = EYE_LAYOUTS[stated or "mono"], size
    found = recognise_mesh(projection.content, height // eyes.rows, width // eyes.columns)
    if found is None:
        return projection, stereo
    sphere, layout = found
    # Two eyes' meshes say where each eye's image is; a single one is of an eye's image.
    if (layout == "mono" and is_unknown) or (layout != "mono" and stated is not None):
        return projection, stereo
    return sphere, stated if layout == "mono" else layout


def _tags(
    projection: Projection | None,
    stereo: str | Refused | None,
    rotation_deg: float = 0.0,
    mirrored: bool = False,
) -> VideoTags:
    return VideoTags(
        sphere=projection if isinstance(projection, Sphere) else None,
        stereo=None if isinstance(stereo, Refused) else stereo,
        rotation_deg=rotation_deg,
        mirrored=mirrored,
        mesh=projection if isinstance(projection, Mesh) else None,
        refused=projection if isinstance(projection, Refused) else None,
        refused_stereo=stereo if isinstance(stereo, Refused) else None,
    )


def _product(track: Matrix, movie: Matrix) -> tuple[float, float, float, float]:
    """The upper left part of the product of two display matrices."""
    a, b, _, c, d = (n / (1 << 16) for n in track[:5])
    e, f, _, g, h = (n / (1 << 16) for n in movie[:5])
    return a * e + b * g, a * f + b * h, c * e + d * g, c * f + d * h


def _display(matrix: tuple[float, float, float, float]) -> tuple[float, bool]:
    """The angle by which a display matrix (ISO/IEC 14496-12, tkhd) turns frames counterclockwise,
    and whether it mirrors them."""
    a, b, c, d = matrix
    across, down = math.hypot(a, c), math.hypot(b, d)
    if across == 0 or down == 0:
        return 0.0, False
    return -math.degrees(math.atan2(b / down, a / across)), a * d - b * c < 0


@dataclass(frozen=True)
class _Stream:
    format_note: str | None = None


@dataclass(frozen=True)
class DownloadInfo:
    """What is used of the .info.json that yt-dlp writes beside a video."""

    id: str | None = None
    format_note: str | None = None
    projectionType: str | None = None
    requested_formats: tuple[_Stream, ...] | None = None

    @property
    def projection(self) -> str | None:
        """``mesh`` or ``equirect``, if a ``format_note`` says so. YouTube's "mesh" is an
        equi-angular cubemap, one for two eyes, or half spheres (VR180)."""
        notes = [self.format_note, self.projectionType]
        notes += [stream.format_note for stream in self.requested_formats or ()]
        words = " ".join(note.lower() for note in notes if note is not None)
        if "mesh" in words:
            return "mesh"
        return "equirect" if "equi" in words else None


def read_info_json(video: Path) -> tuple[DownloadInfo, str]:
    """The .info.json that yt-dlp wrote beside a video, and a sentence that says why it is ignored;
    both are empty if there is none."""
    for stem in (video.stem, video.stem.rpartition(".")[0]):
        path = video.with_name(f"{stem}.info.json")
        try:
            if stem and path.exists():
                return parse_json(read_regular(path, _INFO_LIMIT_BYTES), DownloadInfo), ""
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            return DownloadInfo(), f"its .info.json is ignored: {why}"
    return DownloadInfo(), ""
