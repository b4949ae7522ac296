"""What containers say about the projection of a video, and about its two eyes.

Sources: Google's Spherical Video RFC and Spherical Video V2 RFC (the uuid box's text; sv3d, st3d;
github.com/google/spatial-media), RFC 9559 (Matroska's Projection, StereoMode), Apple's "QuickTime
and ISO Base Media File Formats and Spatial and Immersive Media" (vexu). What is stated and cannot
be honoured is named in `Refused`.
"""

from __future__ import annotations

import math
import re
import struct
from dataclasses import dataclass

from avprep.formats.matroska import MatroskaProjection
from avprep.formats.mp4_boxes import Box, split_boxes
from avprep.sphere.eyes import EYE_LAYOUTS
from avprep.sphere.projections import Sphere

Bounds = tuple[float, float, float, float]

_POSE_TOLERANCE_DEG = 0.01
_SMALLEST_SHARE = 0.01
"""Smallest share of the sphere's width and height that a frame may show."""
HALF_SPHERE: Bounds = (0.25, 0.0, 0.25, 0.0)
_PADDING_BOXES = (b"free", b"skip", b"wide")

_BOTH_EYES, _EYES_REVERSED = 3, 8
"""Bits of Apple's stri box."""
_ST3D = {0: "mono", 1: "top-bottom", 2: "left-right", 4: "right-left"}
_MATROSKA_STEREO = {
    0: "mono",
    1: "left-right",
    2: "bottom-top",  # the right eye's image is the first, the upper one
    3: "top-bottom",
    11: "right-left",
}
_MATROSKA_REFUSED = {
    **dict.fromkeys((4, 5), "a checkerboard of the eyes' pixels"),
    **dict.fromkeys((6, 7), "the eyes' images in alternating rows"),
    **dict.fromkeys((8, 9), "the eyes' images in alternating columns"),
    **dict.fromkeys((10, 12), "an anaglyph, in which colours tell the eyes apart"),
    **dict.fromkeys((13, 14), "the eyes' images in alternating frames"),
}

SPHERICAL_V1_UUID = bytes.fromhex("ffcc8263f8554a938814587a02521fdd")
_V1_LONGEST = 1 << 16
_V1_STEREO = ("mono", "top-bottom", "left-right")
_V1_CROP = (
    *("CroppedAreaImageWidthPixels", "CroppedAreaImageHeightPixels"),
    *("FullPanoWidthPixels", "FullPanoHeightPixels"),
    *("CroppedAreaLeftPixels", "CroppedAreaTopPixels"),
)
_ASPECT_TOLERANCE = 0.03


class Refused(str):
    """Something that a container says and that cannot be honoured: what it says, as a noun."""


@dataclass(frozen=True)
class Mesh:
    """A mesh projection: any mapping between frame and sphere, given by triangles.

    YouTube uses it for equi-angular cubemaps, for two eyes' ones, and for half spheres (VR180).
    ``content`` is the content of an mshp box from its version on, empty if it is not known.
    """

    content: bytes = b""


Projection = Sphere | Mesh | Refused
"""What a container says about the projection."""


def equirectangular(bounds: Bounds) -> Sphere | Refused:
    """The part of an equirectangular frame's sphere, if its bounds are possible."""
    left, top, right, bottom = bounds
    shares = (1 - left - right, 1 - top - bottom)
    if min(bounds) < 0 or min(shares) < _SMALLEST_SHARE:
        return Refused("bounds of an equirectangular frame that leave nothing of the sphere")
    return Sphere(bounds=bounds)


def pose_refused(yaw: float, pitch: float, roll: float) -> Refused | None:
    """A pose that is not 0: the frames show a turned sphere."""
    angles = (yaw, pitch, roll)
    if all(math.isfinite(a) and abs(a) <= _POSE_TOLERANCE_DEG for a in angles):
        return None
    return Refused(f"a turned sphere (yaw {yaw:g}°, pitch {pitch:g}°, roll {roll:g}°)")


def sv3d_projection(sv3d: bytes) -> Projection:
    """The projection in the content of an sv3d box."""
    proj = next((b.content for b in split_boxes(sv3d) if b.name == b"proj"), None)
    boxes = split_boxes(proj) if proj is not None else ()
    pose, found = None, list[Box]()
    for box in boxes:
        if box.name == b"prhd":
            if len(box.content) < 16:
                return Refused("a pose (prhd) that is cut off")
            pose = pose_refused(*(n / (1 << 16) for n in struct.unpack_from(">3i", box.content, 4)))
        elif box.name not in _PADDING_BOXES:
            found.append(box)
    if len(found) != 1:
        return Refused("several projections at once" if found else "a sphere without a projection")
    return pose or _sv3d_kind(found[0])


def _sv3d_kind(box: Box) -> Projection:
    if box.name in (b"mshp", b"ytmp"):
        return Mesh(box.content)
    if box.name == b"equi":
        return _equi(box.content)
    if box.name == b"cbmp":
        return _cbmp(box.content)
    return Refused(f"the projection {_printable(box.name)}")


def _equi(content: bytes) -> Sphere | Refused:
    """The content of an equi box, which Matroska has as private content of its projection."""
    if len(content) < 20 or content[0] != 0:
        return Refused("an equirectangular projection in an unknown form")
    top, bottom, left, right = (n / 2**32 for n in struct.unpack_from(">4I", content, 4))
    return equirectangular((left, top, right, bottom))


def _cbmp(content: bytes) -> Sphere | Refused:
    """The content of a cbmp box, which Matroska has as private content of its projection."""
    if len(content) < 12 or content[0] != 0:
        return Refused("a cubemap in an unknown form")
    layout, padding = struct.unpack_from(">2I", content, 4)
    if layout != 0:
        return Refused(f"a cubemap of layout {layout}")
    if padding != 0:
        return Refused(f"a cubemap with {padding} pixels of padding around each face")
    return Sphere("cube3x2")


def st3d_stereo(content: bytes) -> str | Refused:
    """The layout of eyes in the content of an st3d box."""
    if len(content) < 5:
        return Refused("a layout of two eyes (st3d) that is cut off")
    mode = content[4]
    if mode == 3:
        return Refused("a layout of two eyes that only its mesh knows")
    return _ST3D.get(mode) or Refused(f"the unknown layout {mode} of two eyes")


def matroska_projection(projection: MatroskaProjection) -> Projection | None:
    """What a Projection element says; None for type 0, ordinary frames, and its own rotation."""
    if projection.kind == 0:
        return None
    pose = pose_refused(*projection.pose_deg)
    if projection.kind == 1:
        return pose or (_equi(projection.private) if projection.private else Sphere())
    if projection.kind == 2:
        return pose or _cbmp(projection.private)
    if projection.kind == 3:
        return pose or Mesh(projection.private)
    return Refused(f"the unknown projection {projection.kind}")


def matroska_rotation(projection: MatroskaProjection) -> tuple[float, bool] | Refused:
    """The rotation in degrees of ordinary frames (projection 0), and whether they are mirrored:
    its pose, as far as it is a display matrix."""
    yaw, pitch, roll = projection.pose_deg
    if pitch != 0 or yaw not in (0, 180, -180) or not math.isfinite(roll):
        return pose_refused(yaw, pitch, roll) or (0.0, False)
    return roll, yaw != 0


def matroska_stereo(mode: int) -> str | Refused:
    """The layout of eyes by a StereoMode element."""
    if mode in _MATROSKA_STEREO:
        return _MATROSKA_STEREO[mode]
    return Refused(_MATROSKA_REFUSED.get(mode, f"the unknown layout {mode} of two eyes"))


def vexu_projection(vexu: tuple[Box, ...]) -> Projection | None:
    """What Apple's boxes for spatial video say about the projection; None: nothing."""
    prji = _inside(vexu, b"proj", b"prji")
    if prji is None:
        return None
    kind = prji[4:8]
    known = {b"equi": Sphere(), b"hequ": Sphere(bounds=HALF_SPHERE)}
    if kind in known:
        return known[kind]
    names = {b"rect": "flat frames (rectilinear)", b"fish": "a fisheye whose lens is not described"}
    return Refused(names.get(kind, f"the projection {_printable(kind)}"))


def vexu_stereo(vexu: tuple[Box, ...], layered: bool) -> str | Refused | None:
    """What Apple's boxes for spatial video say about two eyes; None: nothing.

    ``layered``: frames of the eyes are coded one on the other (MV-HEVC), of which only the first
    is decoded.
    """
    stri, pkin = _inside(vexu, b"eyes", b"stri"), _inside(vexu, b"pack", b"pkin")
    eyes = stri[4] if stri is not None and len(stri) > 4 else 0
    packing = b"" if pkin is None else pkin[4:8].rstrip(b"\0")
    if packing:
        layouts = {b"side": ("left-right", "right-left"), b"over": ("top-bottom", "bottom-top")}
        if packing not in layouts:
            return Refused(f"the layout {_printable(packing)} of two eyes")
        return layouts[packing][bool(eyes & _EYES_REVERSED)]
    if layered:
        return "mono"
    if eyes & _BOTH_EYES == _BOTH_EYES:
        return Refused("two eyes in each frame, in a layout that it does not state")
    return "mono" if eyes & _BOTH_EYES else None


def _inside(boxes: tuple[Box, ...], outer: bytes, inner: bytes) -> bytes | None:
    """The content of a box in a box."""
    for box in boxes:
        if box.name == outer:
            return next((b.content for b in split_boxes(box.content) if b.name == inner), None)
    return None


def _printable(name: bytes) -> str:
    return repr(name.decode("latin-1"))


@dataclass(frozen=True)
class SphericalV1:
    """What the text says; None: nothing about that."""

    projection: Projection | None
    stereo: str | Refused | None


def read_spherical_v1(content: bytes, width: int, height: int) -> SphericalV1 | None:
    """What the text of Spherical Video V1 says about a video of ``width`` × ``height`` pixels.

    mp4 and mov files have it in a track's uuid box, Matroska in a tag. Its fields are looked for as
    text, since a parser of XML would also do what the text says. None if it says that the video is
    not spherical.
    """
    text = content[:_V1_LONGEST].decode("utf-8", "replace")
    text = re.sub(r"<!--.*?(?:-->|\Z)", "", text, flags=re.DOTALL)
    if _field(text, "Spherical").lower() != "true":
        return None
    stereo = _v1_stereo(_field(text, "StereoMode").lower())
    kind = _field(text, "ProjectionType").lower()
    if kind not in ("", "equirectangular"):
        return SphericalV1(Refused(f"the projection {kind[:40]!r}"), stereo)
    if _field(text, "Stitched").lower() == "false":
        return SphericalV1(Refused("the images of several lenses, which are not stitched"), stereo)
    layout = EYE_LAYOUTS.get(stereo or "mono", EYE_LAYOUTS["mono"])
    bounds = _v1_bounds(text, (width / layout.columns) / (height / layout.rows))
    projection = bounds if isinstance(bounds, Refused) else equirectangular(bounds)
    return SphericalV1(projection, stereo)


def _field(text: str, name: str) -> str:
    """The content of an element, or of an attribute, with a name in any namespace; else empty."""
    found = re.search(
        rf"[<\s:]{name}\s*(?:>([^<]{{0,200}})<|=\s*[\"']([^\"'<]{{0,200}})[\"'])",
        text,
        re.IGNORECASE,
    )
    return (found[1] or found[2] or "").strip() if found else ""


def _v1_stereo(mode: str) -> str | Refused | None:
    if not mode:
        return None
    return mode if mode in _V1_STEREO else Refused(f"the layout {mode[:40]!r} of two eyes")


def _v1_bounds(text: str, aspect: float) -> Bounds | Refused:
    """The bounds of one eye's image, whose width is ``aspect`` times its height."""
    fields = {name: _field(text, name) for name in _V1_CROP}
    if not any(fields.values()):
        return Sphere().bounds
    numbers = []
    for name, value in fields.items():
        if re.fullmatch(r"\d{1,7}(\.0*)?", value or "0") is None:
            return Refused(f"{name} {value[:20]!r}")
        numbers.append(int((value or "0").partition(".")[0]))
    width, height, full_width, full_height, left, top = numbers
    right, bottom = full_width - left - width, full_height - top - height
    if min(width, height, full_width, full_height) == 0 or min(right, bottom) < 0:
        return Refused(
            f"an area of {width}×{height} pixels at ({left}, {top}) in a panorama of "
            f"{full_width}×{full_height}, which contradict each other"
        )
    if left == top == right == bottom == 0:
        return Sphere().bounds
    shapes = ((width / height, aspect), (full_width / full_height, 2.0))
    if any(abs(one / other - 1) > _ASPECT_TOLERANCE for one, other in shapes):
        return Refused(
            f"an area of {width}×{height} pixels in a panorama of {full_width}×{full_height}, "
            "which does not fit the shape of its frames"
        )
    return left / full_width, top / full_height, right / full_width, bottom / full_height
