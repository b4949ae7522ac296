"""Boxes and elements for 360° video and ambisonics, as bytes or put into files of tests."""

from __future__ import annotations

import struct
from collections.abc import Sequence
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


def vexu(projection: bytes = b"", eyes: int | None = None, packing: bytes = b"") -> bytes:
    """The content of Apple's box for spatial video."""
    parts = b""
    if projection:
        parts += box(b"proj", box(b"prji", bytes(4) + projection))
    if eyes is not None:
        parts += box(b"eyes", box(b"stri", bytes(4) + bytes([eyes])))
    if packing:
        parts += box(b"pack", box(b"pkin", bytes(4) + packing))
    return parts


def sa3d(
    components: Sequence[int], count: int | None = None, head_locked: bool = False, order: int = 1
) -> bytes:
    """The content of an SA3D box: which ambisonic component each channel holds."""
    number = len(components) if count is None else count
    head = struct.pack(">BBIBBI", 0, 0x80 if head_locked else 0, order, 0, 0, number)
    return head + struct.pack(f">{len(components)}I", *components)


def element(name: int, content: bytes, size: int | None = None) -> bytes:
    """A Matroska element; ``size`` in place of its true one (-1: unknown)."""
    width = (name.bit_length() + 7) // 8
    length = len(content) if size is None else size
    encoded = b"\1" + b"\xff" * 7 if length < 0 else struct.pack(">Q", length | 1 << 56)
    return name.to_bytes(width, "big") + encoded + content


def video_entry(*video: bytes, codec: bytes = b"V_TEST", kind: int = 1) -> bytes:
    """A TrackEntry with these elements in its Video."""
    inside = element(0x83, bytes([kind])) + element(0x86, codec)
    return element(0xAE, inside + element(0xE0, b"".join(video)))


def matroska(*entries: bytes, size: int | None = None) -> bytes:
    """A Matroska file of tracks alone."""
    tracks = element(0x1654AE6B, b"".join(entries), size)
    return element(0x1A45DFA3, b"") + element(0x18538067, tracks, size)


def projection(
    kind: int, private: bytes = b"", yaw: float = 0, pitch: float = 0, roll: float = 0
) -> bytes:
    """A Matroska Projection element; ``private`` is the content of an equi or cbmp box."""
    pose = zip((0x7673, 0x7674, 0x7675), (yaw, pitch, roll), strict=True)
    parts = [element(0x7671, bytes([kind]))]
    parts += [element(0x7672, private)] if private else []
    parts += [element(name, struct.pack(">d", angle)) for name, angle in pose if angle]
    return element(0x7670, b"".join(parts))


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
