"""Media of strangers choose no demuxer and no protocol: nothing is bound, connected or opened."""

from __future__ import annotations

import json
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

from avprep.errors import ClipError, UserError
from avprep.look.preview import draw_preview
from avprep.look.verify_sample import Fault
from avprep.look.verify_shard import verify_shard
from avprep.media.ffmpeg import AudioRequest, FfmpegAudioDecoder, describe
from avprep.media.probe import probe
from shards.errors import ShardError
from shards.folders import open_folder
from shards.manifest import read_manifest
from tests.support.media import write_dot_recording
from tests.support.tiny_set import change_members, make_set

_Result = TypeVar("_Result")
LIMIT_S = 10.0
UDP_PORT = 47_112


@contextmanager
def nothing_else_is_reached(folder: Path) -> Iterator[tuple[int, Path]]:
    """A port that nobody may connect to, and a pipe that nobody may open, which would wait for
    ever."""
    pipe = folder / "other.mp4"
    os.mkfifo(pipe)
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server.getsockname()[1], pipe
        with pytest.raises(BlockingIOError):
            server.accept()


def within_limit(call: Callable[[], _Result]) -> _Result:
    """The result of a call that may not bind `UDP_PORT` meanwhile."""
    results: list[_Result] = []
    thread = threading.Thread(target=lambda: results.append(call()), daemon=True)
    thread.start()
    end_s = time.monotonic() + LIMIT_S
    while thread.is_alive() and time.monotonic() < end_s:
        thread.join(0.01)
        for table in (Path("/proc/self/net/udp"), Path("/proc/self/net/udp6")):
            if table.exists():
                assert f":{UDP_PORT:04X} " not in table.read_text(), "a UDP port was bound"
    assert results, "it hangs, or failed"
    return results[0]


def sdp(port: int, pipe: Path) -> bytes:
    lines = ["v=0", "o=- 0 0 IN IP4 127.0.0.1", "s=x", "c=IN IP4 127.0.0.1", "t=0 0"]
    return "\r\n".join(
        [*lines, f"m=video {UDP_PORT} RTP/AVP 96", "a=rtpmap:96 H264/90000"]
    ).encode()


def hls(port: int, pipe: Path) -> bytes:
    lines = ["#EXTM3U", "#EXT-X-TARGETDURATION:2", "#EXTINF:2,", f"http://127.0.0.1:{port}/a.ts"]
    return "\n".join([*lines, "#EXTINF:2,", str(pipe), "#EXT-X-ENDLIST"]).encode()


def concat(port: int, pipe: Path) -> bytes:
    return f"ffconcat version 1.0\nfile {pipe}\nfile http://127.0.0.1:{port}/a.mp4\n".encode()


def dash(port: int, pipe: Path) -> bytes:
    return (
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static">'
        f"<BaseURL>http://127.0.0.1:{port}/</BaseURL></MPD>"
    ).encode()


def elsewhere(mp4: bytes, path: Path) -> bytes:
    """An mp4 whose frames lie in another file, by QuickTime's kind of data reference."""
    name = str(path).encode()
    fixed = struct.pack(
        ">10xB27s12xB63s16xHH16x", 1, b"x", len(path.name), path.name.encode(), 1, 1
    )
    alias = fixed + struct.pack(">HH", 2, len(name)) + name + struct.pack(">HH", 0xFFFF, 0)
    alias += bytes(max(0, 200 - len(alias)))
    entry = struct.pack(">I4sI", 12 + len(alias), b"alis", 0) + alias
    data = bytearray(mp4)
    at = data.index(b"url ", data.index(b"dref")) - 4
    data[at : at + 12] = entry
    for name in (b"dref", b"dinf", b"minf", b"mdia", b"trak", b"moov"):
        place = data.rindex(name, 0, at) - 4
        (length,) = struct.unpack_from(">I", data, place)
        struct.pack_into(">I", data, place, length + len(entry) - 12)
    return bytes(data)


TEXTS = [sdp, hls, concat, dash]


@pytest.mark.parametrize("write", TEXTS, ids=lambda write: write.__name__)
def test_a_crop_is_read_as_an_mp4_whatever_it_holds(
    write: Callable[[int, Path], bytes], tmp_path: Path
) -> None:
    root = make_set(tmp_path / "set", {"train": 2}, views=2)
    with nothing_else_is_reached(tmp_path) as (port, pipe):
        # Behind an mp4's own boxes, so that its groups of pictures are where the JSON says.
        text = write(port, pipe)
        key = change_members(
            root,
            1,
            lambda members: {
                suffix: text + content[len(text) :] if suffix == "view01.mp4" else content
                for suffix, content in members.items()
            },
        )
        faults = within_limit(lambda: verify(root))
    assert len(faults) == 1
    assert str(faults[0]).startswith(f"train/train-000000.tar {key} view01.mp4: ")


def test_a_crop_that_begins_with_sdp_binds_no_port(tmp_path: Path) -> None:
    """Its first box is one to skip, and its groups of pictures are where its JSON says."""
    root = make_set(tmp_path / "set", {"train": 2}, views=1)
    size = 0x01010101  # the smallest without a zero, at which a search for SDP would end
    text = sdp(0, tmp_path)
    box = struct.pack(">I4s", size, b"none") + b"\n" + text
    box += b"\n" * (size - len(box))

    def change(members: dict[str, bytes]) -> dict[str, bytes]:
        record = json.loads(members["json"])
        (gops,) = record["video"]["gops"]
        record["video"]["gops"] = [[offset + size for offset in gops]]
        crop = box + members["view00.mp4"]
        return {**members, "json": json.dumps(record).encode(), "view00.mp4": crop}

    key = change_members(root, 0, change)
    (fault,) = within_limit(lambda: verify(root))
    assert str(fault).startswith(f"train/train-000000.tar {key} view00.mp4: ")


def verify(root: Path) -> list[Fault]:
    folder = open_folder(root)
    (entry,) = read_manifest(folder).splits["train"]
    return list(verify_shard(folder, "train", entry).faults)


@pytest.mark.parametrize("magic", [b"RIFF", b"OggS", b"ID3\x03"])
def test_audio_is_read_as_flac_whatever_it_holds(magic: bytes, tmp_path: Path) -> None:
    root = make_set(tmp_path / "set", {"train": 2}, views=2)
    key = change_members(
        root,
        0,
        lambda members: {
            suffix: magic + content[4:] if suffix == "view00.flac" else content
            for suffix, content in members.items()
        },
    )
    assert [str(fault) for fault in verify(root)] == [
        f"train/train-000000.tar {key} view00.flac: its audio is not FLAC with frames of one length"
    ]


@pytest.mark.parametrize("write", TEXTS, ids=lambda write: write.__name__)
def test_a_recording_is_read_as_a_recording_whatever_it_holds(
    write: Callable[[int, Path], bytes], tmp_path: Path
) -> None:
    with nothing_else_is_reached(tmp_path) as (port, pipe):
        path = tmp_path / "a.mp4"
        path.write_bytes(write(port, pipe) + b"\n" * 400)
        for read in (probe, describe, decode):
            assert "a.mp4" in within_limit(lambda read=read: refusal(read, path))  # type: ignore[misc]


def test_a_recording_whose_frames_lie_in_another_file_is_not_followed(tmp_path: Path) -> None:
    root = make_set(tmp_path / "set", {"train": 1}, views=1)
    with nothing_else_is_reached(tmp_path) as (_, pipe):
        mp4 = (root / "train/train-000000.tar").read_bytes()
        at = mp4.index(b"ftyp") - 4
        path = tmp_path / "a.mp4"
        path.write_bytes(elsewhere(mp4[at:], pipe))
        media = within_limit(lambda: probe(path))
        assert media.video is not None
        within_limit(lambda: describe(path))


def refusal(read: Callable[[Path], object], path: Path) -> str:
    try:
        read(path)
    except ClipError as error:
        return str(error)
    return "it was read"


def decode(path: Path) -> object:
    request = AudioRequest(path, 0, 0.0, 0.0, 1.0, 0.1, 2, 48_000, True, 30.0)
    with FfmpegAudioDecoder(request) as decoder:
        samples = decoder.audio()
        if samples.size == 0:
            raise ClipError(f"a.mp4: {decoder.message}")
        return samples


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"file": "../a.mp4"}, "its file '../a.mp4' would lie outside of"),
        ({"file": "x/../../a.mp4"}, "would lie outside of"),
        ({"file": "{raw}/a.mp4"}, "would lie outside of"),
        ({"source_format": {"projection": "x"}}, "its field projection: invalid enum value 'x'"),
        ({"source_format": {"stereo": 3}}, "its field stereo: expected str, got int"),
        ({"source_format": {"bounds": [0.5, 0, 0.5, 0]}}, "leave nothing of the sphere"),
        ({"source_format": {"rotation_deg": 45}}, "its field rotation_deg: invalid enum value 45"),
        ({"source_format": {"video_track": 7}}, "has no such video track"),
        ({"source_format": {"fov_deg": 0}}, "its field fov_deg: expected float > 0.0"),
    ],
)
def test_preview_does_not_trust_what_a_sample_says_of_its_recording(
    changes: dict[str, Any], why: str, tmp_path: Path
) -> None:
    raw = tmp_path / "raw"
    write_dot_recording(raw, "a", seconds=1.0)
    write_dot_recording(tmp_path, "a", seconds=1.0)
    root = make_set(tmp_path / "set", {"train": 1}, views=1)

    def change(members: dict[str, bytes]) -> dict[str, bytes]:
        record = {**json.loads(members["json"]), "file": "a.mp4", **changes}
        return {**members, "json": json.dumps(record).replace("{raw}", str(raw)).encode()}

    change_members(root, 0, change)
    with pytest.raises((ShardError, UserError)) as raised:
        draw_preview(root, None, tmp_path / "out.png", raw, 0.0)
    assert why in str(raised.value)
    assert not (tmp_path / "out.png").exists()


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: Path(path).symlink_to("/dev/zero")])
def test_pipes_and_devices_are_no_recordings(make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path / "a.mp4")
    with pytest.raises(ClipError, match=r"a\.mp4 is not a regular file"):
        probe(tmp_path / "a.mp4")
