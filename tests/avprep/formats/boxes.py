"""Boxes for 360° video and ambisonics, put into files of tests."""

from __future__ import annotations

import struct
from pathlib import Path

from tests.support.media import insert_box


def box(name: bytes, content: bytes = b"") -> bytes:
    return struct.pack(">I4s", 8 + len(content), name) + content


def equi(left: float = 0, top: float = 0, right: float = 0, bottom: float = 0) -> bytes:
    bounds = (round(share * 2**32) for share in (top, bottom, left, right))
    return box(b"equi", struct.pack(">5I", 0, *bounds))


def cbmp(layout: int = 0, padding: int = 0) -> bytes:
    return box(b"cbmp", struct.pack(">3I", 0, layout, padding))


def prhd(yaw: float = 0, pitch: float = 0, roll: float = 0) -> bytes:
    return box(b"prhd", struct.pack(">I3i", 0, *(round(a * 65536) for a in (yaw, pitch, roll))))


def add_sv3d(path: Path, *inside: bytes) -> None:
    """Add an sv3d box (Spherical Video V2) with these boxes in its proj box."""
    header = box(b"svhd", struct.pack(">I", 0) + b"\0")
    insert_box(path, b"avc1", b"sv3d", header + box(b"proj", b"".join(inside)))


def add_st3d(path: Path, mode: int) -> None:
    insert_box(path, b"avc1", b"st3d", struct.pack(">IB", 0, mode))


def spherical_v1(**fields: object) -> bytes:
    """The content of a uuid box with Spherical Video V1's text; more of its fields as given."""
    known: dict[str, object] = {
        "Spherical": "true",
        "Stitched": "true",
        "StitchingSoftware": "x",
        "ProjectionType": "equirectangular",
    }
    fields = known | fields
    inside = "".join(f"<GSpherical:{n}>{v}</GSpherical:{n}>" for n, v in fields.items())
    spaces = (
        'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" '
        'xmlns:GSpherical="http://ns.google.com/videos/1.0/spherical/"'
    )
    text = f'<?xml version="1.0"?><rdf:SphericalVideo {spaces}>{inside}</rdf:SphericalVideo>'
    return bytes.fromhex("ffcc8263f8554a938814587a02521fdd") + text.encode()


def add_to_track(path: Path, new: bytes) -> None:
    """Add a box to the video track of an mp4 or mov file whose index stands at the end."""
    data = bytearray(path.read_bytes())
    track = data.rindex(b"trak", 0, data.index(b"vmhd", data.rindex(b"moov"))) - 4
    (length,) = struct.unpack_from(">I", data, track)
    data[track + length : track + length] = new
    for place in (track, data.rindex(b"moov", 0, track) - 4):
        (old,) = struct.unpack_from(">I", data, place)
        struct.pack_into(">I", data, place, old + len(new))
    path.write_bytes(data)


def add_v1(path: Path, **fields: object) -> None:
    """Add Spherical Video V1's box to the video track."""
    add_to_track(path, box(b"uuid", spherical_v1(**fields)))


def crop_fields(
    width: int, height: int, full_width: int, full_height: int, left: int, top: int
) -> dict[str, object]:
    """Spherical Video V1's fields of an area in a panorama."""
    return {
        "CroppedAreaImageWidthPixels": width,
        "CroppedAreaImageHeightPixels": height,
        "FullPanoWidthPixels": full_width,
        "FullPanoHeightPixels": full_height,
        "CroppedAreaLeftPixels": left,
        "CroppedAreaTopPixels": top,
    }
