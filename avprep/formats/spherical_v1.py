"""Read Spherical Video V1, the text that cameras and injectors put into a track's uuid box.

Source: Google's Spherical Video RFC (github.com/google/spatial-media). Its fields are looked for
as text, since a parser of XML would also do what the text says.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from avprep.formats.spherical import Bounds, Projection, Refused, equirectangular
from avprep.sphere.eyes import EYE_LAYOUTS
from avprep.sphere.projections import Sphere

_UUID = bytes.fromhex("ffcc8263f8554a938814587a02521fdd")
_LONGEST = 1 << 16
_STEREO = ("mono", "top-bottom", "left-right")
_CROP = (
    *("CroppedAreaImageWidthPixels", "CroppedAreaImageHeightPixels"),
    *("FullPanoWidthPixels", "FullPanoHeightPixels"),
    *("CroppedAreaLeftPixels", "CroppedAreaTopPixels"),
)
_ASPECT_TOLERANCE = 0.03


@dataclass(frozen=True)
class SphericalV1:
    """What the text says; None: nothing about that."""

    projection: Projection | None
    stereo: str | Refused | None


def read_spherical_v1(uuid: bytes, width: int, height: int) -> SphericalV1 | None:
    """What a uuid box (its name of 16 bytes and its content) says about a video of ``width`` ×
    ``height`` pixels; None if it is another box, or says that the video is not spherical."""
    if not uuid.startswith(_UUID):
        return None
    text = uuid[16 : 16 + _LONGEST].decode("utf-8", "replace")
    text = re.sub(r"<!--.*?(?:-->|\Z)", "", text, flags=re.DOTALL)
    if _field(text, "Spherical").lower() != "true":
        return None
    stereo = _stereo(_field(text, "StereoMode").lower())
    kind = _field(text, "ProjectionType").lower()
    if kind not in ("", "equirectangular"):
        return SphericalV1(Refused(f"the projection {kind[:40]!r}"), stereo)
    if _field(text, "Stitched").lower() == "false":
        return SphericalV1(Refused("the images of several lenses, which are not stitched"), stereo)
    layout = EYE_LAYOUTS.get(stereo or "mono", EYE_LAYOUTS["mono"])
    bounds = _bounds(text, (width / layout.columns) / (height / layout.rows))
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


def _stereo(mode: str) -> str | Refused | None:
    if not mode:
        return None
    return mode if mode in _STEREO else Refused(f"the layout {mode[:40]!r} of two eyes")


def _bounds(text: str, aspect: float) -> Bounds | Refused:
    """The bounds of one eye's image, whose width is ``aspect`` times its height."""
    fields = {name: _field(text, name) for name in _CROP}
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
