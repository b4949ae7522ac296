"""Damage to files and false metadata: each a function of a random generator."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable

from numpy.random import Generator

from tests.fuzz.parts import pick

Change = Callable[[Generator, bytearray], str]
"""Changes the content of a file in place and returns a description of the change."""

_EXTREME = (0, 1, 2, 255, 1 << 15, (1 << 16) - 1, 1 << 16, 1 << 24, (1 << 31) - 1, 1 << 31)
_EXTREME += ((1 << 32) - 1, (1 << 32) - 1000, (1 << 62), (1 << 63) - 1, 1 << 63, (1 << 64) - 1)


def flip_bits(rng: Generator, data: bytearray) -> str:
    count = int(rng.choice([1, 3, 10, 100, 1000]))
    part = rng.choice(["anywhere", "start", "end"])
    limit = min(len(data), int(rng.choice([64, 512, 4096])))
    low, high = {"anywhere": (0, len(data)), "start": (0, limit)}.get(
        part, (len(data) - limit, len(data))
    )
    for place in rng.integers(low, high, count):
        data[place] ^= 1 << int(rng.integers(8))
    return f"{count} bits flipped {part} ({low} to {high})"


def truncate(rng: Generator, data: bytearray) -> str:
    keep = int(rng.integers(0, len(data)))
    if rng.random() < 0.3:
        keep = max(0, len(data) - int(rng.integers(1, 200)))
    del data[keep:]
    return f"cut off after {keep} bytes"


def overwrite(rng: Generator, data: bytearray) -> str:
    start = int(rng.integers(0, len(data)))
    length = min(len(data) - start, int(rng.choice([4, 50, 1000, 20_000, 200_000])))
    zeros = bool(rng.random() < 0.5)
    data[start : start + length] = bytes(length) if zeros else rng.bytes(length)
    return f"{length} {'zeros' if zeros else 'random bytes'} at {start}"


def append(rng: Generator, data: bytearray) -> str:
    more = bytes(data) if rng.random() < 0.5 else rng.bytes(int(rng.integers(1, 50_000)))
    data += more
    return f"{len(more)} bytes appended"


def cut_out(rng: Generator, data: bytearray) -> str:
    start = int(rng.integers(0, len(data)))
    length = int(rng.choice([1, 7, 1000, 30_000]))
    del data[start : start + length]
    return f"{length} bytes taken out at {start}"


def lie_in_header(rng: Generator, data: bytearray) -> str:
    """An extreme number in the first bytes, where WAV, FLAC and Ogg have their headers."""
    place = int(rng.integers(0, min(len(data), 160)))
    return _lie(rng, data, place, int(rng.choice([1, 2, 3, 4, 8])), bool(rng.random() < 0.5))


def _lie(rng: Generator, data: bytearray, place: int, width: int, little: bool) -> str:
    value = int(rng.choice(len(_EXTREME) + 2))
    number = _EXTREME[value] if value < len(_EXTREME) else int(rng.integers(1 << 32))
    number %= 1 << (8 * width)
    width = min(width, len(data) - place)
    content = number.to_bytes(8, "little")[:width]
    data[place : place + width] = content if little else content[::-1]
    return f"{width} bytes at {place} set to {number}"


def lie_in_part(rng: Generator, data: bytearray) -> str:
    """An extreme number in a part that describes video, audio or time."""
    part = pick(rng, data, telling=True)
    if part is None or part.end <= part.content:
        return lie_in_header(rng, data)
    if data[:1] == b"\x1a":  # Matroska's numbers fill their elements
        width = min(8, part.end - part.content)
        return f"{part.name.hex()}: {_lie(rng, data, part.content, width, little=False)}"
    fields = max(1, (part.end - part.content) // 4)
    place = part.content + 4 * int(rng.integers(min(fields, 24)))
    width = int(rng.choice([1, 2, 4, 4, 8]))
    name = part.name.decode(errors="replace")
    return f"{name}: {_lie(rng, data, min(place, part.end - 1), width, little=False)}"


def resize_part(rng: Generator, data: bytearray) -> str:
    part = pick(rng, data)
    if part is None:
        return lie_in_header(rng, data)
    width = min(part.content - part.start - len(part.name), 8) if data[:1] == b"\x1a" else 4
    place = part.content - width if data[:1] == b"\x1a" else part.start
    return f"size of {part.name!r}: {_lie(rng, data, place, width, little=False)}"


def move_part(rng: Generator, data: bytearray) -> str:
    """Remove a box or element, double it, or swap it with another; size fields do not change."""
    one, other = pick(rng, data), pick(rng, data)
    if one is None or other is None:
        return cut_out(rng, data)
    content = bytes(data[one.start : one.end])
    how = str(rng.choice(["taken out", "doubled", "swapped"]))
    if how == "swapped" and (one.end <= other.start or other.end <= one.start):
        first, last = sorted((one, other), key=lambda part: part.start)
        a, b = bytes(data[first.start : first.end]), bytes(data[last.start : last.end])
        data[last.start : last.end] = a
        data[first.start : first.end] = b
        return f"{one.name!r} and {other.name!r} swapped"
    if how == "doubled":
        data[one.end : one.end] = content
    else:
        del data[one.start : one.end]
    return f"{one.name!r} {how}"


def claim_any_size(rng: Generator, data: bytearray) -> str:
    width, height = (int(rng.choice([16, 4096, 11_000, 16_380, 65_536])) for _ in range(2))
    return claim_size(data, width, height) or lie_in_part(rng, data)


def claim_size(data: bytearray, width: int, height: int) -> str | None:
    """Let a VP8 key frame or an H.264 parameter set claim huge frames."""
    place = data.find(b"\x9d\x01\x2a")
    if place > 0:
        struct.pack_into("<HH", data, place + 3, min(width, 16_383), min(height, 16_383))
        return f"VP8 frame of {width}×{height}"
    place = data.find(b"avcC")
    if place < 0:
        return None
    start = place + 4 + 8
    length = struct.unpack_from(">H", data, start - 2)[0]
    claimed = _parameter_set(width // 16, height // 16)[:length]
    data[start : start + length] = claimed + b"\x80" * (length - len(claimed))
    return f"H.264 parameter set of {width}×{height}"


def _parameter_set(columns: int, rows: int) -> bytes:
    """A sequence parameter set of H.264, baseline, level 6.2; size in macroblocks."""
    bits = ""
    for number in (0, 0, 2, 1):  # id, frame number, picture order, reference frames
        bits += _golomb(number)
    bits += "0" + _golomb(columns - 1) + _golomb(rows - 1) + "1" + "1" + "0" + "0" + "1"
    bits += "0" * (-len(bits) % 8)
    content = bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8))
    return bytes((0x67, 66, 0, 62)) + content


def _golomb(number: int) -> str:
    binary = f"{number + 1:b}"
    return "0" * (len(binary) - 1) + binary


def spoil_text(rng: Generator, data: bytearray) -> str:
    """JSON and CSV with unexpected content."""
    rows = bytes(data).split(b"\n")
    if data[:1] == b"{":
        try:
            value = json.loads(data)
        except (ValueError, RecursionError):  # damaged before
            return flip_bits(rng, data)
        key = str(rng.choice(sorted(value)))
        value[key] = _ODD[int(rng.integers(len(_ODD)))]
        content = json.dumps(value).encode()
    else:
        cell = _CELLS[int(rng.integers(len(_CELLS)))]
        cells = rows[int(rng.integers(len(rows)))].split(b",")
        cells[int(rng.integers(len(cells)))] = cell
        content = b",".join(cells) + b"\n" + bytes(data)
    if rng.random() < 0.3:
        content = _TEXTS[int(rng.integers(len(_TEXTS)))]
    data[:] = content
    return f"text {content[:60]!r}"


_ODD = (
    None,
    3,
    1e308,
    -1,
    True,
    [],
    {},
    [[]],
    [None],
    "",
    "\ud800",
    "a\nb",
    "x" * 500,
    "../x",
    "\0",
    "é",
)
_CELLS = (b"", b"nan", b"inf", b"-1e999", b"9" * 400, b"x", b"\0", b"\xff", b'"', b"1e400", b" 5 ")
_TEXTS = (b"[" * 100_000, b"null", b"\xef\xbb\xbf{}", b"\xff\xfe{\0}\0", b'"', b"NaN", b"0" * 9000)
_TEXTS += (
    b'{"id": ' * 50_000,
    b"\n" * 1000,
    b"\0" * 1000,
    b"#EXTM3U\n/etc/passwd\n",
    b"{" + b" " * 99,
)

_ANY: tuple[Change, ...] = (flip_bits, truncate, overwrite, append, cut_out)
_BY_PARTS: tuple[Change, ...] = (lie_in_part, lie_in_part, lie_in_part, resize_part, move_part)


def mutate(rng: Generator, content: bytes) -> tuple[bytes, str]:
    """The damaged content of a file, and a description of the damage."""
    data = bytearray(content)
    changes: tuple[Change, ...] = (*_ANY, lie_in_header, lie_in_header, lie_in_header)
    if content[4:8] == b"ftyp" or content[:4] == b"\x1a\x45\xdf\xa3":
        changes = (*_ANY, *_BY_PARTS, *_BY_PARTS, claim_any_size)
    elif b"\0" not in content[:50]:
        changes = (*_ANY, spoil_text, spoil_text, spoil_text, spoil_text, spoil_text)
    said = []
    for _ in range(int(rng.choice([1, 1, 1, 2, 4]))):
        if len(data) > 1:
            said.append(changes[int(rng.integers(len(changes)))](rng, data))
    if content[:4] == b"OggS" and rng.random() < 0.7:
        _mend_checksums(data)
        said.append("checksums mended")
    return bytes(data), "; ".join(said)


def _mend_checksums(data: bytearray) -> None:
    """Make checksums of Ogg pages valid again, so that decoders reach the damage inside."""
    place = data.find(b"OggS")
    while place >= 0 and place + 27 <= len(data):
        segments = data[place + 26]
        end = place + 27 + segments + sum(data[place + 27 : place + 27 + segments])
        data[place + 22 : place + 26] = bytes(4)
        struct.pack_into("<I", data, place + 22, _ogg_checksum(data[place:end]))
        place = data.find(b"OggS", place + 4)


def _ogg_checksum(page: bytearray) -> int:
    value = 0
    for byte in page:
        value = (value << 8) & 0xFFFFFFFF ^ _OGG_TABLE[(value >> 24) ^ byte]
    return value


def _ogg_table() -> list[int]:
    table = []
    for number in range(256):
        value = number << 24
        for _ in range(8):
            value = (value << 1) ^ (0x04C11DB7 if value & 1 << 31 else 0)
        table.append(value & 0xFFFFFFFF)
    return table


_OGG_TABLE = _ogg_table()
