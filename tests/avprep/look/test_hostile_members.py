"""Members made to fill memory or time cost their clip a sentence, in verify, info and preview."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.tiny_set import change_members, encode_mp4, make_set

LIMIT_BYTES = 2_000_000_000
LIMIT_S = 60.0
Members = dict[str, bytes]
Change = Callable[[Members], Members]


def changed_record(**changes: Any) -> Change:
    """``video__frames=3`` changes ``frames`` of ``video``."""

    def change(members: Members) -> Members:
        record = json.loads(members["json"])
        for path, value in changes.items():
            *parents, name = path.split("__")
            place = record
            for parent in parents:
                place = place[parent]
            place[name] = value(place[name]) if callable(value) else value
        return {**members, "json": json.dumps(record).encode()}

    return change


def png_bomb(width: int, height: int) -> bytes:
    """A grey PNG of nothing but zeros, which are compressed a thousandfold."""
    squeeze = zlib.compressobj(9)
    row = bytes(1 + width)
    body = b"".join([*(squeeze.compress(row) for _ in range(height)), squeeze.flush()])
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))]
    chunks += [(b"IDAT", body), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I4s", len(content), name)
        + content
        + struct.pack(">I", zlib.crc32(name + content))
        for name, content in chunks
    )


def flac_of(samples: int) -> Change:
    """A FLAC that says that it is that long."""

    def change(members: Members) -> Members:
        flac = bytearray(members["view00.flac"])
        (fields,) = struct.unpack_from(">Q", flac, 18)
        struct.pack_into(">Q", flac, 18, fields >> 36 << 36 | samples)
        return {**members, "view00.flac": bytes(flac)}

    return change


def large_crop(members: Members) -> Members:
    frames = np.zeros((16, 1024, 1024, 3), np.uint8)
    return {**members, "view00.mp4": encode_mp4(frames)}


def both(first: Change, second: Change) -> Change:
    return lambda members: second(first(members))


def table(name: str, content: bytes) -> Change:
    """A table of the container that says that it has 10⁸ rows, or frames of one size."""

    def change(members: Members) -> Members:
        mp4 = bytearray(members["view00.mp4"])
        at = mp4.index(name.encode()) + 8
        mp4[at : at + len(content)] = content
        return {**members, "view00.mp4": bytes(mp4)}

    return change


CHANGES: dict[str, Change] = {
    "many frames": changed_record(video__frames=10**9),
    "many frames in one group": changed_record(
        video__frames=10**9, video__gop_frames=10**9, video__gops=lambda g: [v[:2] for v in g]
    ),
    "groups outside": changed_record(video__gops=lambda g: [[*v[:-1], v[-1] + 10**12] for v in g]),
    "many views": changed_record(
        views=lambda v: v[:1] * 100_000, video__gops=lambda g: g[:1] * 100_000
    ),
    "large": changed_record(video__height=8192, video__width=8192),
    "large crop": large_crop,
    "long audio": changed_record(audio__samples=10**9),
    "long flac": flac_of(10**9),
    "both long": both(changed_record(audio__samples=10**9), flac_of(10**9)),
    "many maps": changed_record(map_times_s=[0.0] * 300_000),
    "png": lambda members: {**members, "view00.t000.seg.png": png_bomb(16_000, 16_000)},
    "deep": lambda members: {**members, "json": b'{"a":' + b"[" * 100_000},
    "not finite": changed_record(duration_s=1e400),
    "table of sizes": table("stsz", struct.pack(">II", 1, 10**8)),
    "table of times": table("stts", struct.pack(">III", 1, 10**9, 1)),
    "table of chunks": table("stsc", struct.pack(">III", 1, 1, 10**9)),
    "table of edits": table("elst", struct.pack(">I", 10**9)),
}

_PREVIEWS = """
import resource, sys
from pathlib import Path
from avprep.errors import UserError
from avprep.look.preview import draw_preview
from shards.errors import ShardError
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]), int(sys.argv[1])))
for key in sys.argv[4:]:
    try:
        draw_preview(sys.argv[2], key, Path(sys.argv[3]), None, 0.0)
        print(key, "was drawn", flush=True)
    except (UserError, ShardError) as error:
        print(key, error, flush=True)
"""
_COMMAND = """
import resource, sys
from avprep.cli.main import main
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]), int(sys.argv[1])))
main(sys.argv[2:])
"""


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = make_set(
        tmp_path_factory.mktemp("hostile") / "set",
        {"train": len(CHANGES) + 1},
        views=2,
        map_times_s=(0.0,),
    )
    for sample, change in enumerate(CHANGES.values()):
        change_members(root, sample, change)
    return root


def run(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-c", script, str(LIMIT_BYTES), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


def test_verify_names_each_clip_and_goes_on(hostile: Path) -> None:
    done = run(_COMMAND, "verify", hostile, "--workers", 1)
    assert done.returncode == 1
    for sample, name in enumerate(CHANGES):
        lines = [line for line in done.stdout.splitlines() if f" train{sample:03d} " in line]
        assert 1 <= len(lines) <= 5, (name, lines)
    assert f"train{len(CHANGES):03d}" not in done.stdout, "that clip is as it was"


def test_info_goes_on(hostile: Path) -> None:
    done = run(_COMMAND, "info", hostile)
    assert done.returncode == 0, done.stderr
    assert f"{len(CHANGES) + 1} clips" in done.stdout
    assert "DAMAGED: " in done.stdout


def test_preview_says_why_it_cannot_draw(hostile: Path, tmp_path: Path) -> None:
    keys = {name: f"train{sample:03d}" for sample, name in enumerate(CHANGES)}
    drawn = ("groups outside", *(name for name in CHANGES if name.startswith("table")))
    refused = [key for name, key in keys.items() if name not in drawn]
    done = run(_PREVIEWS, hostile, tmp_path / "out.png", *refused, f"train{len(CHANGES):03d}")
    *lines, last = done.stdout.splitlines()
    assert len(lines) == len(refused), done.stderr
    assert not any("was drawn" in line for line in lines)
    assert last.endswith("was drawn"), "a clip that is as it was"
