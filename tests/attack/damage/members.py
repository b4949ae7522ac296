"""Members of a sample that are not what they are called, or say more than they hold."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable
from typing import Any

from numpy.random import Generator

from tests.fuzz.mutations import claim_size, mutate

Members = dict[str, bytes]
"""The contents of a sample's files by suffix: ``view00.mp4``."""
MemberRule = Callable[[Generator, Members, str, int], str]
"""Changes the members; the port is that of a server on this machine that nothing may call."""


def _first(members: Members, ending: str) -> str:
    return next((name for name in sorted(members) if name.endswith(ending)), sorted(members)[0])


def _sdp(rng: Generator, members: Members, outside: str, port: int) -> str:
    text = f"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video {port} RTP/AVP"
    text += " 96\na=rtpmap:96 H264/90000\nm=audio 0 RTP/AVP 0\n"
    return _begin_with(rng, members, ".mp4", text)


def _sdp_before(rng: Generator, members: Members, outside: str, port: int) -> str:
    """A whole mp4 that is also a session description: its first box, of 17 MB, holds one."""
    name = _first(members, ".mp4")
    text = "\nv=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
    text += "m=video 0 RTP/AVP 96\na=rtpmap:96 H264/90000\n"
    head = b"\x01\x01\x01\nabcd" + text.encode()  # probes end at a zero, of which sizes have none
    head += b"\n" * (int.from_bytes(head[:4], "big") - len(head))
    members[name] = head + members[name]
    record = json.loads(members["json"])
    gops = record["video"]["gops"]
    gops[0] = [offset + len(head) for offset in gops[0]]
    members["json"] = json.dumps(record).encode()
    return f"{name}: a session description before the movie"


def _playlist(rng: Generator, members: Members, outside: str, port: int) -> str:
    url = f"http://127.0.0.1:{port}/a.ts" if rng.random() < 0.5 else f"{outside}/victim.txt"
    return _begin_with(
        rng, members, ".mp4", f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{url}\n"
    )


def _script(rng: Generator, members: Members, outside: str, port: int) -> str:
    text = f"ffconcat version 1.0\nfile {outside}/victim.txt\nfile http://127.0.0.1:{port}/a\n"
    return _begin_with(rng, members, str(rng.choice([".mp4", ".flac"])), text)


def _begin_with(rng: Generator, members: Members, ending: str, text: str) -> str:
    name = _first(members, ending)
    size = max(0, len(members[name]) - len(text)) if rng.random() < 0.7 else 0
    members[name] = text.encode() + b"\n" * size
    return f"{name} is {text[:12]!r}"


def _external(rng: Generator, members: Members, outside: str, port: int) -> str:
    """The movie's data reference names a file outside, or a server."""
    name = _first(members, ".mp4")
    content = bytearray(members[name])
    place = content.find(b"dref")
    url = f"http://127.0.0.1:{port}/a.mp4" if rng.random() < 0.5 else f"file://{outside}/victim.txt"
    target = url.encode() + b"\0"
    entry = struct.pack(">I4sI", 12 + len(target), b"url ", 0) + target
    box = struct.pack(">I4sII", 16 + len(entry), b"dref", 0, 1) + entry
    if place > 4:
        size = struct.unpack_from(">I", content, place - 4)[0]
        grown = len(box) - size
        content[place - 4 : place - 4 + size] = box
        for parent in (b"dinf", b"minf", b"mdia", b"trak", b"moov"):
            at = content.find(parent) - 4
            if at >= 0:
                old = struct.unpack_from(">I", content, at)[0]
                struct.pack_into(">I", content, at, old + grown)
    members[name] = bytes(content)
    return f"{name} refers to {url}"


def _claimed_frame(rng: Generator, members: Members, outside: str, port: int) -> str:
    name = _first(members, ".mp4")
    data = bytearray(members[name])
    size = int(rng.choice([2048, 8192, 16_384]))
    said = claim_size(data, size, size)
    members[name] = bytes(data)
    record = json.loads(members["json"])
    if rng.random() < 0.7:
        record["video"] |= {"height": size, "width": size}
        avcc = data.find(b"avcC")
        if avcc > 0:
            length = struct.unpack_from(">I", data, avcc - 4)[0]
            record["video"]["avcc"] = bytes(data[avcc + 4 : avcc - 4 + length]).hex()
        members["json"] = json.dumps(record).encode()
    return f"{name}: {said}"


def _png_bomb(rng: Generator, members: Members, outside: str, port: int) -> str:
    side = int(rng.choice([4096, 16_383, 30_000, 65_535]))
    name = _first(members, ".seg.png")
    row = zlib.compressobj(1)
    rows = min(side, 400)
    idat = b"".join(row.compress(bytes(side + 1)) for _ in range(rows)) + row.flush()

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    members[name] = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", idat)
    members[name] += chunk(b"IEND", b"")
    return f"{name}: a picture of {side}²"


def _stream_info(rng: Generator, members: Members, outside: str, port: int) -> str:
    name = _first(members, ".flac")
    data = bytearray(members[name])
    if data[:4] != b"fLaC" or len(data) < 42:
        return _mutated(rng, members, outside, port)
    blocks, frames = struct.pack(">HH", 16, 65_535), bytes(6)
    rate = int(rng.choice([1, 8000, 24_000, 655_350]))
    channels, bits = int(rng.choice([1, 2, 4, 8])), int(rng.choice([4, 16, 32]))
    samples = int(rng.choice([0, 1, (1 << 36) - 1, 48_000]))
    packed = rate << 44 | (channels - 1) << 41 | (bits - 1) << 36 | samples
    data[8:26] = blocks + frames + packed.to_bytes(8, "big")
    members[name] = bytes(data)
    return f"{name}: {channels} channels of {bits} bits, {rate} Hz, {samples} samples"


def _exchanged(rng: Generator, members: Members, outside: str, port: int) -> str:
    one, other = (str(name) for name in rng.choice(sorted(members), 2, replace=False))
    members[one], members[other] = members[other], members[one]
    return f"{one} and {other} exchanged"


def _lost(rng: Generator, members: Members, outside: str, port: int) -> str:
    name = str(rng.choice(sorted(members)))
    members[name] = b"" if rng.random() < 0.5 else members[name][: len(members[name]) // 2]
    return f"{name} cut to {len(members[name])} bytes"


def _mutated(rng: Generator, members: Members, outside: str, port: int) -> str:
    name = str(rng.choice(sorted(set(members) - {"json"})))
    if len(members[name]) < 2:
        return _lost(rng, members, outside, port)
    members[name], how = mutate(rng, members[name])
    return f"{name}: {how}"


def _lie(rng: Generator, members: Members, outside: str, port: int) -> str:
    """A record whose numbers agree with each other, and are absurd."""
    record: dict[str, Any] = json.loads(members["json"])
    video, audio = record["video"], record["audio"]
    ends = [offsets[-1] for offsets in video["gops"]]
    lies: dict[str, Callable[[], object]] = {
        "10⁹ frames": lambda: video.update(
            frames=10**9, gop_frames=10**9, gops=[[0, end] for end in ends]
        ),
        "10⁵ groups": lambda: video.update(
            frames=10**5, gop_frames=1, gops=[[0] * 10**5 + [end] for end in ends]
        ),
        "8192² pixels": lambda: video.update(height=8192, width=8192),
        "10¹² samples": lambda: audio.update(samples=10**12),
        "10⁹ seconds": lambda: record.update(duration_s=1e9),
        "10⁻⁹ frames per second": lambda: video.update(fps=1e-9),
        "10⁹ frames per second": lambda: video.update(fps=1e9),
        "10⁻³⁰⁰ gain": lambda: audio.update(gain=1e-300),
        "10⁵ views": lambda: (
            record.update(views=record["views"][:1] * 10**5),
            video.update(gops=video["gops"][:1] * 10**5),
        ),
        "10⁵ map times": lambda: record.update(map_times_s=[0.5] * 10**5),
        "10⁶ events": lambda: record.update(
            event_step_s=1e-6, events=[{"time_s": 0, "azimuth_deg": 0}] * 10**6
        ),
        "8 GB of access units": lambda: video.update(
            gops=[[0] * (len(offsets) - 1) + [8 * 10**9] for offsets in video["gops"]]
        ),
    }
    name = sorted(lies)[int(rng.integers(len(lies)))]
    lies[name]()
    members["json"] = json.dumps(record).encode()
    return f"json: {name}"


MEMBER_RULES: tuple[MemberRule, ...] = (
    _sdp,
    _sdp_before,
    _playlist,
    _script,
    _external,
    _claimed_frame,
)
MEMBER_RULES += (_png_bomb, _stream_info, _stream_info, _exchanged, _lost, _mutated, _mutated)
MEMBER_RULES += (_lie, _lie, _lie, _lie)


def damage_members(rng: Generator, members: Members, outside: str, port: int) -> str:
    """Change one sample's members by a rule."""
    rule = MEMBER_RULES[int(rng.integers(len(MEMBER_RULES)))]
    return rule(rng, members, outside, port)
