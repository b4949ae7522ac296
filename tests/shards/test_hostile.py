"""Records and members that are damaged, or made to fill memory: one ShardError, and soon."""

from __future__ import annotations

import copy
import json
import random
import resource
import struct
import zlib
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shards.errors import ShardError
from shards.files import dump_json
from shards.flac import FlacDecoder
from shards.reader import ShardSet
from shards.video import CropDecoder, decode_grey_png, index_mp4
from tests.support.tiny_set import (
    as_minor_version_0,
    change_members,
    encode_flac,
    encode_mp4,
    encode_png,
    make_set,
    renew_checksum,
)

Members = dict[str, bytes]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_set(tmp_path / "set", {"train": 2}, views=2, labelled=True, map_times_s=(0.5,))


def read_everything(shards: ShardSet, sample: int = 0) -> None:
    info = shards.info(sample)
    for view in range(2):
        shards.frames(sample, view, 3, 8)
        shards.foa(sample, 5000, 24_000, view)
        shards.label_map(sample, view, 0)
    assert info.video.height * info.video.width <= 2048**2


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


HOSTILE_RECORDS: list[tuple[str, Callable[[dict[str, Any]], object]]] = [
    ("frames", lambda r: r["video"].update(frames=10**9)),
    ("frames", lambda r: r["video"].update(frames=-1)),
    ("frames", lambda r: r["video"].update(frames=1.5)),
    ("height", lambda r: r["video"].update(height=10**5)),
    ("width", lambda r: r["video"].update(width=0)),
    ("fps", lambda r: r["video"].update(fps=0)),
    ("fps", lambda r: r["video"].update(fps=1e300)),
    ("gop_frames", lambda r: r["video"].update(gop_frames=10**6)),
    ("avcc", lambda r: r["video"].update(avcc="00")),
    ("avcc", lambda r: r["video"].update(avcc=r["video"]["avcc"][:-1])),
    ("avcc", lambda r: r["video"].update(avcc=r["video"]["avcc"] + "00" * 9000)),
    ("GOP", lambda r: r["video"].update(gops=[[0], [0]])),
    ("gops", lambda r: r["video"].update(gops=[[-1, 2], [0, 1]])),
    ("gops", lambda r: r["video"].update(gops=[[]] * 1001)),
    ("views", lambda r: r.update(views=r["views"] * 1000)),
    ("1 views", lambda r: r.update(views=r["views"][:1])),
    ("direction", lambda r: r["views"][0].update(azimuth_deg=1e9)),
    ("fields of view", lambda r: r["views"][0].update(hfov_deg=180)),
    ("sample_rate", lambda r: r["audio"].update(sample_rate=10**9)),
    ("samples", lambda r: r["audio"].update(samples=2**36)),
    ("gain", lambda r: r["audio"].update(gain=0)),
    ("channels", lambda r: r["audio"].update(channels=["W"] * 9)),
    ("layout", lambda r: r["audio"].update(layout="x")),
    ("key", lambda r: r.update(key="../x")),
    ("split", lambda r: r.update(split="\x1b[2J")),
    ("source", lambda r: r.update(source="x" * 10_000)),
    ("events", lambda r: r.update(events=[{"time_s": 0}])),
    ("events", lambda r: r["events"][0].update({"class": "bell"})),
    ("events", lambda r: r["events"][0].update(azimuth_deg=1e100)),
    ("event_step_s", lambda r: r.update(event_step_s=0)),
    ("source_format", lambda r: r.update(source_format={"a": nested(9)})),
    ("map_times_s", lambda r: r.update(map_times_s=["x"])),
    ("video", lambda r: r.pop("video")),
]


@pytest.mark.parametrize(("named", "change"), HOSTILE_RECORDS)
def test_records_that_no_clip_has_are_refused(
    root: Path, named: str, change: Callable[[dict[str, Any]], object]
) -> None:
    def edit(members: Members) -> Members:
        record = json.loads(members["json"])
        change(record)
        return {**members, "json": dump_json(record)}

    change_members(root, 0, edit)
    shards = ShardSet(root)
    with pytest.raises(ShardError, match=rf"train000\.json is not a sample record .*{named}"):
        shards.info(0)
    read_everything(shards, 1)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"[" * 100_000, "not"),
        (b'{"key": NaN}', "not JSON"),
        (b"\xff\xfe", "not"),
        (b"", "not JSON"),
        (b" " * 16_000_001, "larger than 16,000,000 bytes"),
    ],
)
def test_json_that_is_none_is_refused(root: Path, content: bytes, problem: str) -> None:
    change_members(root, 0, lambda members: {**members, "json": content})
    with pytest.raises(ShardError, match=problem) as caught:
        ShardSet(root).info(0)
    assert len(str(caught.value)) < 500


HOSTILE_INDICES: list[tuple[str, Callable[[dict[str, Any]], object]]] = [
    ("lies outside of its tar", lambda i: i["samples"][0]["members"].update(json=[0, 2**40])),
    ("lies outside of its tar", lambda i: i.update(bytes=10)),
    ("members", lambda i: i["samples"][0]["members"].update(json=[-1, 5])),
    ("members", lambda i: i["samples"][0]["members"].update(json=[1, 2, 3])),
    ("members", lambda i: i["samples"][0]["members"].update(json=[1.5, 2])),
    ("not the suffix of a member", lambda i: i["samples"][0]["members"].update({"../x": [0, 0]})),
    ("not the suffix of a member", lambda i: i["samples"][0]["members"].update({"a" * 99: [0, 0]})),
    ("key twice", lambda i: i["samples"][0].update(key=i["samples"][1]["key"])),
    ("key", lambda i: i["samples"][0].update(key="a\n")),
    ("sha256", lambda i: i.update(sha256="x")),
    ("another set", lambda i: i.update(sha256="0" * 64)),
    ("another set", lambda i: i["samples"].pop()),
    ("duration_s", lambda i: i.update(duration_s=1e300)),
    ("dropped", lambda i: i.update(dropped=[{"a": []}])),
    ("failures", lambda i: i.update(failures=nested(9))),
]


@pytest.mark.parametrize(("problem", "change"), HOSTILE_INDICES)
def test_indices_that_no_shard_has_are_refused(
    root: Path, problem: str, change: Callable[[dict[str, Any]], object]
) -> None:
    path = root / "train/train-000000.index.json"
    index = json.loads(path.read_bytes())
    change(index)
    path.write_bytes(dump_json(index))
    as_minor_version_0(root / "manifest.json")  # otherwise its hash differs
    with pytest.raises(ShardError, match=problem) as caught:
        ShardSet(root).info(0)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("problem", "change"),
    [
        ("options are larger", {"options": {"a": "x" * 10**6}}),
        ("options", {"options": {"a": nested(9)}}),
        ("versions", {"versions": {"a": 1}}),
        ("plan", {"plan": 3}),
        ("splits", {"splits": []}),
        ("totals", {"totals": {}}),
        ("minor_version", {"minor_version": "1"}),
        ("its format is '", {"format": "x" * 10**6}),
    ],
)
def test_manifests_that_no_set_has_are_refused(
    root: Path, problem: str, change: dict[str, Any]
) -> None:
    path = root / "manifest.json"
    path.write_bytes(dump_json(json.loads(path.read_bytes()) | change))
    renew_checksum(path)
    with pytest.raises(ShardError, match=problem) as caught:
        ShardSet(root)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("name", ["manifest.json", "train/train-000000.index.json"])
def test_small_files_of_many_values_are_refused(root: Path, name: str) -> None:
    """Lists and dicts without content have 3 bytes each, and take more than 50 of memory."""
    as_minor_version_0(root / "manifest.json")
    (root / name).write_bytes(b'{"options": {"a": [' + b"[]," * 8_000_001 + b"[]]}}")
    with pytest.raises(ShardError, match="more than 8,000,000 values"):
        ShardSet(root).info(0)


def crop_of(size: int, members: Members, is_inside: bool) -> Members:
    """A larger crop in the place of view 0, of which the JSON says nothing. ``is_inside``: only
    its frames are larger, behind the same decoder configuration."""
    mp4 = encode_mp4(np.full((16, size, size, 3), 9, np.uint8))
    avcc, gops, _ = index_mp4(mp4)
    record = json.loads(members["json"])
    if is_inside:
        # The parameter sets lie in the stream, where a decoder takes them as well.
        sets = bytes.fromhex(avcc)[6:]
        length = int.from_bytes(sets[:2], "big")
        units, sets = [sets[2 : 2 + length]], sets[2 + length :]
        units.append(sets[3 : 3 + int.from_bytes(sets[1:3], "big")])
        before = b"".join(struct.pack(">I", len(unit)) + unit for unit in units)
        data = b"".join(before + mp4[a:b] for a, b in pairwise(gops))
        gops = tuple(at + number * len(before) for number, at in enumerate(gops))
        mp4 = mp4[: gops[0]] + data
    else:
        record["video"]["avcc"] = avcc
    record["video"]["gops"][0] = gops
    return {**members, "view00.mp4": mp4, "json": dump_json(record)}


@pytest.mark.parametrize("is_inside", [False, True])
def test_crops_larger_than_their_record_says_are_not_decoded(root: Path, is_inside: bool) -> None:
    change_members(root, 0, lambda members: crop_of(1024, members, is_inside))
    with pytest.raises(ShardError, match=r"view00\.mp4: a crop does not decode"):
        ShardSet(root).frames(0, 0, 0, 8)


def test_crops_a_little_larger_than_their_record_says_are_no_exception(root: Path) -> None:
    """So little that the decoder takes them."""
    change_members(root, 0, lambda members: crop_of(50, members, False))
    with pytest.raises(ShardError, match="a crop has frames of 50×50 pixels"):
        ShardSet(root).frames(0, 0, 0, 8)


def test_places_outside_of_members_are_refused(root: Path) -> None:
    def outside(members: Members, by: int) -> Members:
        record = json.loads(members["json"])
        gops = record["video"]["gops"][0]
        gops[-1] = len(members["view00.mp4"]) + by
        return {**members, "json": dump_json(record)}

    original = ShardSet(root).member(0, "json")
    for by, problem in ((1, "name bytes that it does not have"), (10**9, "larger than frames")):
        change_members(root, 0, lambda members, by=by: outside({**members, "json": original}, by))  # type: ignore[misc]
        with pytest.raises(ShardError, match=problem):
            ShardSet(root).frames(0, 0, 8, 8)


def test_windows_that_a_clip_does_not_have_are_refused(root: Path) -> None:
    shards = ShardSet(root)
    for read in (
        lambda: shards.frames(0, 2, 0, 1),
        lambda: shards.frames(0, 0, 10, 8),
        lambda: shards.foa(0, 0, 1, 2),
        lambda: shards.foa(0, 40_000, 24_000),
        lambda: shards.label_map(0, 0, 1),
    ):
        with pytest.raises(ShardError):
            read()


def stream_info(**fields: int) -> Callable[[bytes], bytes]:
    """Changes a FLAC file's STREAMINFO."""

    def change(flac: bytes) -> bytes:
        shortest, longest = struct.unpack(">HH", flac[8:12])
        bits = int.from_bytes(flac[18:26], "big")
        values = {
            "rate": bits >> 44,
            "channels": bits >> 41 & 7,
            "bits": bits >> 36 & 31,
            "samples": bits & (1 << 36) - 1,
            "shortest": shortest,
            "longest": longest,
        } | fields
        packed = values["rate"] << 44 | values["channels"] << 41 | values["bits"] << 36
        packed |= values["samples"]
        blocks = struct.pack(">HH", values["shortest"], values["longest"])
        return flac[:8] + blocks + flac[12:18] + packed.to_bytes(8, "big") + flac[26:]

    return change


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (stream_info(channels=7, rate=655_350), "of 8 channels at 655350 Hz, but its JSON says"),
        (stream_info(samples=2**36 - 1), "its audio has 68719476735 samples"),
        (stream_info(shortest=65_535, longest=65_535), "frames of one length"),
        (stream_info(shortest=1, longest=1), "frames of one length"),
        (stream_info(shortest=16, longest=16), "its audio"),
        (stream_info(bits=31), "its audio"),
        (lambda flac: b"fLaC" + b"\0\0\0\x22" + flac[8:42] + b"\x01\xff\xff\xff", "its audio"),
        (lambda flac: flac[:42] + b"\xff\xf8" * 400_000, "its audio"),
        (lambda flac: flac[:86] + flac[86:102] * 100_000, "its audio"),
        (lambda flac: b"", "its audio"),
    ],
)
def test_audio_that_is_not_what_its_record_says_is_refused(
    root: Path, change: Callable[[bytes], bytes], problem: str
) -> None:
    change_members(root, 0, lambda m: {**m, "view00.flac": change(m["view00.flac"])})
    with pytest.raises(ShardError, match=problem):
        ShardSet(root).foa(0, 5000, 24_000)


def test_thousands_of_frames_in_one_are_not_decoded(root: Path) -> None:
    """Silent frames of a few bytes each, inside of a loud one."""

    def bomb(flac: bytes) -> bytes:
        silence = encode_flac(np.zeros((4, 8 * 4096), np.float32))
        small = silence[silence.rindex(b"\xff\xf8") :]
        assert len(small) < 40
        return flac[:3000] + small * 800 + flac[3000:]

    change_members(root, 0, lambda m: {**m, "view00.flac": bomb(m["view00.flac"])})
    with pytest.raises(ShardError, match="frames that do not belong to it"):
        ShardSet(root).foa(0, 0, 24_000)


def png_chunk(name: bytes, content: bytes) -> bytes:
    check = struct.pack(">I", zlib.crc32(name + content))
    return struct.pack(">I", len(content)) + name + content + check


def test_large_and_other_pngs_are_refused_before_they_are_decoded(root: Path) -> None:
    signature = b"\x89PNG\r\n\x1a\n"

    def png(width: int, height: int, depth: int, kind: int) -> bytes:
        head = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
        rows = zlib.compress(bytes(10**7))
        return signature + png_chunk(b"IHDR", head) + png_chunk(b"IDAT", rows)

    for content, problem in (
        (png(60_000, 60_000, 8, 0), "60000×60000 pixels"),
        (png(0, 10, 8, 0), "0×10 pixels"),
        (png(48, 48, 16, 0), "not a grey PNG"),
        (png(48, 48, 8, 6), "not a grey PNG"),
        (encode_png(np.zeros((50, 48), np.uint8)), "another size than the crops"),
        (b"GIF89a", "is not a PNG"),
    ):
        change_members(root, 0, lambda m, png=content: {**m, "view00.t000.seg.png": png})  # type: ignore[misc]
        with pytest.raises(ShardError, match=problem):
            ShardSet(root).label_map(0, 0, 0)


def test_profiles_and_texts_of_a_png_are_not_unpacked(root: Path) -> None:
    png = encode_png(np.full((48, 48), 7, np.uint8))
    bomb = zlib.compress(bytes(10**8))
    chunks = png_chunk(b"iCCP", b"x\0\0" + bomb) + png_chunk(b"zTXt", b"x\0\0" + bomb)
    change_members(root, 0, lambda m: {**m, "view00.t000.seg.png": png[:33] + chunks + png[33:]})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert (ShardSet(root).label_map(0, 0, 0) == 7).all()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 30_000


@pytest.mark.parametrize("seed", range(3))
def test_any_flip_in_a_member_gives_data_or_a_shard_error(root: Path, seed: int) -> None:
    rng = random.Random(seed)
    shards = ShardSet(root)
    tar = root / shards.shard_file(0)
    before = tar.read_bytes()
    suffixes = ["json", "view00.mp4", "view01.flac", "view00.t000.seg.png"]
    for _ in range(120):
        suffix = rng.choice(suffixes)
        offset, size = shards.member_range(0, suffix)
        damaged = bytearray(before)
        for _ in range(rng.choice([1, 1, 3, 50])):
            head = 200 if rng.random() < 0.5 else size
            damaged[offset + rng.randrange(min(head, size))] ^= 1 << rng.randrange(8)
        tar.write_bytes(damaged)
        read = copy.copy(shards)
        with suppress(ShardError):
            read_everything(read)


def test_any_bytes_give_data_or_a_shard_error() -> None:
    """What begins like a member and goes on at random."""
    rng = np.random.default_rng(0)
    mp4 = encode_mp4(np.zeros((8, 48, 48, 3), np.uint8))
    avcc, gops, _ = index_mp4(mp4)
    png = encode_png(np.zeros((48, 48), np.uint8))
    for _ in range(150):
        noise = rng.bytes(int(rng.integers(0, 3000)))
        cut = int(rng.integers(0, 60))
        flac = b"fLaC\0\0\0\x22" + noise
        with suppress(ShardError):
            CropDecoder(avcc, 48, 48).decode(mp4[gops[0] :][:cut] + noise, 0, 8)
        with suppress(ShardError):
            index_mp4(mp4[: gops[0] + cut] + noise)
        with suppress(ShardError):
            decode_grey_png(png[:cut] + noise)
        with suppress(ShardError):
            FlacDecoder().decode(lambda a, b, flac=flac: flac[a:b], len(flac), 0, 100)  # type: ignore[misc]
