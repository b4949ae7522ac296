"""`avprep verify` finds every change of a set, names the clips that have one, and goes on."""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from avprep.cli.main import main
from avprep.look import verify as verifying
from avprep.look.verify import verify_set
from avprep.look.verify_sample import video_problem
from avprep.media.encode import GOP_FRAMES, CropEncoder
from shards.errors import ShardError
from shards.folders import open_folder
from shards.manifest import manifest_entry, read_index, read_manifest, write_manifest
from shards.reader import ShardSet
from shards.schema import VideoInfo
from shards.video import CropDecoder, index_mp4
from tests.support.tiny_set import as_minor_version_0, make_set

FLIPS = int(os.environ.get("AVSA_FLIPS", "200"))
"""Bits; a tenth of them is also looked for with all samples decoded."""


class Here:
    """In place of worker processes, whose start takes longer than to verify a small set."""

    def __init__(self, count: int) -> None:
        pass

    def __enter__(self) -> Here:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def map(
        self, function: Callable[[Any], Any], items: Sequence[Any], advance: Callable[[int], object]
    ) -> list[Any]:
        return [function(item) for item in items]


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verifying, "WorkerPool", Here)
    monkeypatch.setattr(verifying, "tqdm", lambda **_: Bar())


class Bar:
    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, count: int) -> None:
        pass


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_set(tmp_path / "set", {"train": 3, "test": 1}, views=2, map_times_s=(0.5,))


def faults(root: Path, quick: bool = False) -> list[str]:
    try:
        return list(verify_set(root, quick, 1).faults)
    except ShardError as error:
        return [str(error)]


def test_every_flipped_bit_is_found(root: Path) -> None:
    assert faults(root) == []
    rng = random.Random(7)
    files = sorted(path for path in root.rglob("*") if path.is_file())
    assert {path.suffix for path in files} == {".tar", ".json"}
    for number in range(FLIPS):
        path = files[number % len(files)]
        content = path.read_bytes()
        bit = rng.randrange(8 * len(content))
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        for quick in (True, False)[: 1 + (number // len(files) % 10 == 0)]:
            found = faults(root, quick)
            assert any(path.name in fault for fault in found), f"{path} bit {bit}: {found}"
        path.write_bytes(content)
    assert faults(root) == []


def test_a_flipped_bit_of_an_old_set_is_found_in_a_tar(root: Path) -> None:
    as_minor_version_0(root / "manifest.json")
    path = root / "train/train-000000.tar"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1  # behind the last member
    path.write_bytes(content)
    assert len(faults(root, quick=True)) == 1
    assert "train-000000.tar: has changed since it was written" in faults(root)[0]


@pytest.mark.parametrize("suffix", ["json", "view00.flac", "view01.mp4", "view01.t000.seg.png"])
def test_each_damaged_clip_is_named(suffix: str, root: Path) -> None:
    path = root / "train/train-000000.tar"
    content = bytearray(path.read_bytes())
    shards = ShardSet(root)
    for sample in (0, 2):
        offset, size = shards.member_range(sample, suffix)
        content[offset + size // 3 : offset + size // 2] = b"\xa5" * (size // 2 - size // 3)
        content[offset - 512] ^= 1  # its name in the tar
    path.write_bytes(content)
    result = CliRunner().invoke(main, ["verify", str(root)])
    assert result.exit_code == 1
    for key in ("train000", "train002"):
        lines = [line for line in result.output.splitlines() if f"{key} {suffix}: " in line]
        assert len(lines) == 2, result.output
    assert "train001" not in result.output
    assert "4 samples, 5 faults" in result.output, "that of the tar's hash"


def test_what_a_set_says_of_itself_is_compared(root: Path) -> None:
    """In an index that was changed with its hash, by hand."""
    folder, name = open_folder(root), "train/train-000000.index.json"
    (entry,) = read_manifest(folder).splits["train"]
    before = (root / name).read_bytes()

    def change(part: str, fields: dict[str, Any]) -> list[str]:
        index = json.loads(before)
        (index if part == "index" else index["samples"][1]).update(fields)
        (root / name).write_text(json.dumps(index))
        changed = replace(
            entry, index_sha256=hashlib.sha256((root / name).read_bytes()).hexdigest()
        )
        manifest = read_manifest(folder)
        write_manifest(folder, replace(manifest, splits={**manifest.splits, "train": (changed,)}))
        return faults(root)

    sample = json.loads((root / "train/train-000000.index.json").read_bytes())["samples"][1]
    members = sample["members"]
    cut = {name: place for name, place in members.items() if name != "view00.flac"}
    moved = {**members, "view01.mp4": [members["view01.mp4"][0] + 512, 7]}
    outside = {**members, "view01.mp4": [10**12, 7]}
    for part, fields, expected in [
        ("index", {"duration_s": 1.0}, "its duration differ"),
        ("index", {"bytes": entry.bytes + 512}, "its size differ"),
        ("sample", {"source": "x"}, "its sources differ"),
        ("sample", {"key": "x"}, "its keys differ"),
        ("sample", {"label": "x"}, "train001 json: has another label or other folds"),
        ("sample", {"folds": ["x"]}, "train001 json: has another label or other folds"),
        ("sample", {"members": cut}, "train001 view00.flac: is missing"),
        ("sample", {"members": moved}, "train001 view01.mp4: does not begin where"),
        ("sample", {"members": outside}, "a member lies outside of its tar"),
        ("index", {"dropped": [{"key": "y", "rms_dbfs": -90.0}]}, "dropped.jsonl: lacks 1 clips"),
    ]:
        (root / "dropped.jsonl").write_text('{"key": "z", "rms_dbfs": -90.0}\n')
        found = change(part, fields)
        assert any(expected in fault for fault in found), (fields, found)


def test_of_an_old_set_verify_says_what_it_cannot_check(root: Path) -> None:
    assert verify_set(root, False, 1).unchecked == ""
    as_minor_version_0(root / "manifest.json")
    result = CliRunner().invoke(main, ["verify", str(root)])
    assert result.exit_code == 0, result.output
    assert "not checked: the manifest is of an older version of the format" in result.output
    folder = open_folder(root)
    manifest = read_manifest(folder)
    (entry,) = manifest.splits["test"]
    newer = replace(entry, index_sha256=read_index(folder, entry.index).index_sha256)
    splits = {**manifest.splits, "test": (newer,)}
    write_manifest(folder, replace(manifest, splits=splits, minor_version=1))
    assert verify_set(root, False, 1).unchecked.startswith("of 1 of 2 shards, which an older")


def test_what_else_lies_in_the_folder_is_said(root: Path) -> None:
    (root / "train/train-000001.index.json").write_text("{}")
    (root / "failures.jsonl").write_text('{"source": "a", "stage": "find", "reason": "b"}\n[]\n')
    (root / ".build.json").write_text("{}")
    found = faults(root)
    assert "train/train-000001.index.json: is not in the manifest" in found
    assert any(fault.startswith(".build.json: a build is adding") for fault in found)
    assert any(f"line 2 of {root / 'failures.jsonl'} is not" in fault for fault in found)
    assert len(found) == 3


@pytest.mark.parametrize("name", ["train-000000.tar", "train-000000.index.json"])
def test_a_pipe_in_place_of_a_file_is_not_waited_for(name: str, root: Path) -> None:
    (root / "train" / name).unlink()
    os.mkfifo(root / "train" / name)
    assert any("it is not a regular file" in fault for fault in faults(root))


def test_samples_that_share_members_are_not_verified_without_end(root: Path) -> None:
    """An index of 64 MB could name a crop half a million times."""
    name = "train/train-000000.index.json"
    index = json.loads((root / name).read_bytes())
    members = index["samples"][0]["members"]
    keys = [f"again{number:03d}" for number in range(300)]
    index["samples"] += [{"key": key, "source": "x", "members": members} for key in keys]
    (root / name).write_text(json.dumps(index))
    folder = open_folder(root)
    manifest = read_manifest(folder)
    train = (manifest_entry(read_index(folder, name), name),)
    write_manifest(folder, replace(manifest, splits={**manifest.splits, "train": train}))
    found = faults(root)
    assert any("its index names more than the shard holds" in fault for fault in found)
    assert not any(" train00" in fault for fault in found), "these come first"


def test_damage_in_coded_frames_is_not_concealed(root: Path) -> None:
    """H.264 has no checksums: half of all damage decodes to something. It is a tenth that is found
    where the decoder conceals what it notices."""
    shards, rng = ShardSet(root), random.Random(3)
    info, mp4 = shards.info(0), shards.member(0, "view00.mp4")
    first, *_, last = info.video.gops[0]
    found = 0
    for _ in range(60):
        damaged = bytearray(mp4)
        at = rng.randrange(first, last - 16)
        damaged[at : at + 16] = rng.randbytes(16)
        found += bool(video_problem(info.video, 0, bytes(damaged)))
    assert found >= 20


@pytest.mark.parametrize("size", [16, 66, 80, 130])
def test_a_crop_of_any_size_is_whole(size: int) -> None:
    """FFmpeg's own buffers are wider than such frames, by up to 63 pixels."""
    encoder = CropEncoder(1, size, Fraction(16), colorspace=1)
    for level in range(3):
        encoder.add(np.full((1, size * 3 // 2, size), 50 * level, np.uint8))
    (mp4,) = encoder.finish()
    avcc, gops, frames = index_mp4(mp4)
    video = VideoInfo(16.0, frames, size, size, GOP_FRAMES, avcc, (gops, gops))
    assert video_problem(video, 0, mp4) == ""
    decoder = CropDecoder(avcc, size, size)
    assert decoder.decode(mp4[gops[0] : gops[-1]], 0, frames).shape == (3, size, size, 3)
