"""A small but real shard set: in every clip one coloured, sounding ball at a known direction."""

from __future__ import annotations

import atexit
import hashlib
import io
import json
import shutil
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import soundfile
from numpy.typing import NDArray

from shards.files import dump_json
from shards.folders import open_folder
from shards.geometry import (
    direction_deg,
    encode_foa,
    rotate_foa,
    unit_vector,
    view_foa_matrix,
    view_rotation,
)
from shards.manifest import manifest_entry, read_index, shard_names, write_manifest
from shards.reader import ShardSet
from shards.schema import (
    AudioInfo,
    Manifest,
    SampleInfo,
    ShardEntry,
    VideoInfo,
    View,
    label_map_suffix,
)
from shards.video import index_mp4
from shards.writer import open_shard

SIZE, FPS, GOP, RATE = 48, 8, 8, 24_000
KINDS = 4


def ball_mask(view: View, direction: NDArray[np.float64], radius_deg: float) -> NDArray[np.bool_]:
    """Where a gnomonic view (SIZE, SIZE) shows a ball."""
    x, y, z = view_rotation(view.azimuth_deg, view.elevation_deg) @ direction
    place = 1 - 2 * (np.arange(SIZE) + 0.5) / SIZE
    left = place * np.tan(np.radians(view.hfov_deg / 2))
    up = place * np.tan(np.radians(view.vfov_deg / 2))
    rays = np.stack(np.broadcast_arrays(1.0, left[None], up[:, None]), axis=-1)
    cosine = rays @ np.array([x, y, z]) / np.linalg.norm(rays, axis=-1)
    return cosine > np.cos(np.radians(radius_deg))


def ball_crop(
    view: View, direction: NDArray[np.float64], colour: NDArray[np.float64], radius_deg: float
) -> NDArray[np.uint8]:
    """RGB (SIZE, SIZE, 3) of a gnomonic view of a ball on a grey ground."""
    inside = ball_mask(view, direction, radius_deg)
    return np.where(inside[..., None], colour, 110).astype(np.uint8)


def encode_png(labels: NDArray[np.uint8]) -> bytes:
    encoder = av.CodecContext.create("png", "w")
    encoder.height, encoder.width = labels.shape
    encoder.pix_fmt, encoder.time_base = "gray", Fraction(1)
    packets = encoder.encode(av.VideoFrame.from_ndarray(labels, format="gray"))
    return b"".join(bytes(packet) for packet in [*packets, *encoder.encode(None)])


def encode_mp4(frames: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        options = {"crf": "18", "bf": "0", "tune": "fastdecode", "threads": "1"}
        options["sc_threshold"] = "0"  # groups of pictures begin where readers expect them
        stream = container.add_stream("libx264", rate=FPS, options=options)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.gop_size = GOP
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def encode_flac(sound: NDArray[np.float32]) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, sound.T, RATE, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


@dataclass(frozen=True)
class TinySet:
    """What a set holds. ``sources``: (split, number of its sources) pairs. Kinds of balls differ in
    colour and pitch. Views are tilted by up to ``tilt_deg``; if ``labelled``, ``events`` say where
    the ball is.

    With ``map_times_s`` there are label maps, 0 for the ground and 1 + its kind for the ball, which
    then grows from a radius of 5 degrees at the clip's begin to one of 30 at its end.
    """

    sources: tuple[tuple[str, int], ...]
    clips_per_source: int = 1
    views: int = 5
    layout: str = "rotated"
    duration_s: float = 2.0
    seed: int = 0
    tilt_deg: float = 10.0
    labelled: bool = False
    map_times_s: tuple[float, ...] | None = None


_MADE: dict[TinySet, Path] = {}


def make_set(root: Path, sources: dict[str, int], **options: Any) -> Path:
    """A set of these sources in ``root``; ``options`` are the other fields of `TinySet`.

    Many tests change the same set in their own ways: it is made once, and copied.
    """
    wanted = TinySet(tuple(sources.items()), **options)
    if wanted not in _MADE:
        made = Path(tempfile.mkdtemp(prefix="tiny-set-"))
        atexit.register(shutil.rmtree, made, ignore_errors=True)
        _write(made, wanted)
        _MADE[wanted] = made
    shutil.copytree(_MADE[wanted], root, dirs_exist_ok=True)
    return root


def _write(root: Path, wanted: TinySet) -> None:
    rng = np.random.default_rng(wanted.seed)
    splits: dict[str, tuple[ShardEntry, ...]] = {}
    for split, count in wanted.sources:
        tar, index = shard_names(split, 0)
        with open_shard(open_folder(root), tar, index) as writer:
            for number in range(count * wanted.clips_per_source):
                info, members = _sample(
                    rng, wanted, split, f"{split}-place{number % count}", number
                )
                writer.add(info, members)
        splits[split] = (manifest_entry(read_index(open_folder(root), index), index),)
    write_manifest(open_folder(root), Manifest({}, {}, splits, plan=""))


def _sample(
    rng: np.random.Generator, wanted: TinySet, split: str, source: str, number: int
) -> tuple[SampleInfo, dict[str, bytes]]:
    kind, duration_s = number % KINDS, wanted.duration_s
    direction = unit_vector(rng.uniform(-180, 180), rng.uniform(-20, 20))
    colour = 255 * np.eye(3)[kind] if kind < 3 else np.array([255, 255, 255])
    samples, frames = round(duration_s * RATE), round(duration_s * FPS)
    pitch = 400 * 2**kind * rng.uniform(0.95, 1.05)
    tone = 0.2 * np.sign(np.sin(2 * np.pi * pitch * np.arange(samples) / RATE))
    field = encode_foa(tone, direction) + rng.normal(0, 1e-3, (4, samples)).astype(np.float32)
    # The first view has the ball in it, the others look elsewhere, evenly round the horizon.
    azimuth = np.degrees(np.arctan2(direction[1], direction[0])) + rng.uniform(-10, 10)
    azimuths = (azimuth + 360 * np.arange(wanted.views) / wanted.views + 180) % 360 - 180
    tilt_deg = wanted.tilt_deg
    views = tuple(
        View(float(a), float(rng.uniform(-tilt_deg, tilt_deg)), 80.0, 80.0) for a in azimuths
    )
    members: dict[str, bytes] = {}
    avcc, gops = "", []
    for index, view in enumerate(views):
        members |= _pictures(wanted, index, view, direction, kind, colour, frames)
        avcc, offsets, _ = index_mp4(members[f"view{index:02d}.mp4"])
        gops.append(offsets)
        if wanted.layout == "rotated":
            matrix = view_foa_matrix(view.azimuth_deg, view.elevation_deg)
            members[f"view{index:02d}.flac"] = encode_flac(rotate_foa(field, matrix))
    if wanted.layout == "source":
        members["flac"] = encode_flac(field)
    video = VideoInfo(FPS, frames, SIZE, SIZE, GOP, avcc, tuple(gops))
    audio = AudioInfo(RATE, samples, 1.0, wanted.layout)
    info = SampleInfo(
        f"{split}{number:03d}",
        *(source, 0.0, duration_s, split, video, audio, views),
        map_times_s=wanted.map_times_s,
    )
    if wanted.labelled:
        ball_azimuth, ball_elevation = direction_deg(direction)
        place = {"azimuth_deg": float(ball_azimuth), "elevation_deg": float(ball_elevation)}
        events = [
            {"time_s": step / 5, "class": kind, "source": 0, **place}
            for step in range(round(5 * duration_s))
        ]
        info = replace(info, events=events, event_step_s=0.2)
    return info, members


def _pictures(
    wanted: TinySet,
    index: int,
    view: View,
    direction: NDArray[np.float64],
    kind: int,
    colour: NDArray[np.float64],
    frames: int,
) -> dict[str, bytes]:
    """A view's crops, and its label maps where there are any."""
    if wanted.map_times_s is None:
        crop = ball_crop(view, direction, colour, 15.0)
        return {f"view{index:02d}.mp4": encode_mp4(np.repeat(crop[None], frames, axis=0))}
    radii = [ball_radius_deg(frame / FPS, wanted.duration_s) for frame in range(frames)]
    crops = np.stack([ball_crop(view, direction, colour, radius) for radius in radii])
    members = {f"view{index:02d}.mp4": encode_mp4(crops)}
    for place, time_s in enumerate(wanted.map_times_s):
        ball = ball_mask(view, direction, ball_radius_deg(time_s, wanted.duration_s))
        members[label_map_suffix(index, place)] = encode_png((ball * (1 + kind)).astype(np.uint8))
    return members


def ball_radius_deg(time_s: float, duration_s: float) -> float:
    """Radius of the ball in a set with label maps."""
    return 5 + 25 * time_s / duration_s


def damage(root: Path, sample: int, split: str = "train", endings: str = "mp4 flac") -> str:
    """Write over a clip's members, as a failing disk does, and return its key."""
    shards = ShardSet(root, split)
    tar = root / split / f"{split}-000000.tar"
    content = bytearray(tar.read_bytes())
    for view in range(len(shards.info(sample).views)):
        for member in (f"view{view:02d}.{ending}" for ending in endings.split()):
            offset, size = shards.member_range(sample, member)
            content[offset : offset + size] = b"\xff" * size
    tar.write_bytes(content)
    return shards.keys[sample]


def write_over_record(root: Path, sample: int, right: bytes, wrong: bytes) -> None:
    """Change a part of a clip's JSON in the shard to another of at most its length."""
    tar = root / "train" / "train-000000.tar"
    content = bytearray(tar.read_bytes())
    offset, size = ShardSet(root).member_range(sample, "json")
    at = content.index(right, offset, offset + size)
    content[at : at + len(wrong)] = wrong
    tar.write_bytes(content)


def change_members(
    root: Path, sample: int, change: Callable[[dict[str, bytes]], dict[str, bytes]]
) -> str:
    """Write a clip of the split train with other members, JSON included, and all that holds sizes
    and hashes of them, as somebody could who makes a set by hand. Returns its key."""
    shards, folder = ShardSet(root), open_folder(root)
    (entry,) = shards.manifest.splits["train"]
    index = read_index(folder, entry.index)
    stream, samples = io.BytesIO(), []
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for number, record in enumerate(index.samples):
            members = {suffix: shards.member(number, suffix) for suffix in record.members}
            if number == sample:
                members = change(members)
            places = {}
            for suffix, content in sorted(members.items()):
                header = tarfile.TarInfo(f"{record.key}.{suffix}")
                header.size = len(content)
                places[suffix] = (stream.tell() + tarfile.BLOCKSIZE, len(content))
                tar.addfile(header, io.BytesIO(content))
            samples.append(replace(record, members=places))
    content = stream.getvalue()
    hashed = hashlib.sha256(content).hexdigest()
    index = replace(index, bytes=len(content), sha256=hashed, samples=tuple(samples))
    folder.write(entry.file, content)
    folder.write(entry.index, dump_json(index.to_json()))
    index = read_index(folder, entry.index)
    splits = {**shards.manifest.splits, "train": (manifest_entry(index, entry.index),)}
    write_manifest(folder, replace(shards.manifest, splits=splits))
    return shards.keys[sample]


def renew_checksum(manifest: Path) -> None:
    """Make an edited ``manifest.json`` one whose checksum fits its other members."""
    value = json.loads(manifest.read_bytes())
    value.pop("checksum", None)
    content = dump_json(value, indent=1).removesuffix(b"\n}\n")
    checksum = hashlib.sha256(content).hexdigest()
    manifest.write_bytes(content + f',\n "checksum": "{checksum}"\n}}\n'.encode())


def as_minor_version_0(manifest: Path) -> None:
    """Make a manifest one that was written before there were checksums and hashes of indices."""
    value = json.loads(manifest.read_bytes())
    del value["minor_version"], value["checksum"]
    for split in value["splits"].values():
        for shard in split["shards"]:
            del shard["index_sha256"]
    manifest.write_bytes(dump_json(value, indent=1))
