"""``avprep demo``: write a generated world of 360° videos with FOA audio and ground truth."""

from __future__ import annotations

import io
import json
import wave
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from av.video.reformatter import ColorRange, Colorspace
from numpy.typing import ArrayLike, NDArray
from tqdm import tqdm

from avprep.errors import UserError
from avprep.processes import exit_with_parent
from avprep.recordings.events import WORLD_FORMAT
from avprep.world import picture as world_picture
from avprep.world.generate import make_clip, make_place
from avprep.world.scene import (
    CLIPS_PER_PLACE,
    DURATION_S,
    FPS,
    FRAMES,
    KINDS,
    WorldClip,
    frame_times,
)
from avprep.world.sound import SAMPLE_RATE, render_audio
from shards.files import write_atomic
from shards.geometry import direction_deg

Bytes = NDArray[np.uint8]

# An object is active in frames whose level is within this of its loudest frame.
ACTIVE_BELOW_PEAK_DB = 26.0
FLOOR_DBFS = -120.0


def make_world(out: Path, clips: int, seed: int, workers: int, progress: bool = True) -> None:
    """Write a world of ``clips`` clips, four per place, to the new or empty folder ``out``.

    The README that it writes describes the files. They depend on the seed only, not on the number
    of worker processes, and a larger world begins with the clips of a smaller one.
    """
    prepare_folder(out, clips, 1, seed, workers, ("video", "audio", "segmentation", "truth"))
    done = _write_clips(out, clips, seed, workers)
    for _ in tqdm(done, total=clips, desc="demo clips", unit="clip", disable=not progress):
        pass

    places = [make_place(seed, index) for index in range(-(-clips // CLIPS_PER_PLACE))]
    for split in ("train", "test"):
        names = "".join(f"{place.name}\n" for place in places if place.split == split)
        write_atomic(out / f"{split}.txt", names.encode())
    write_atomic(out / "README.md", _readme(clips, seed).encode())


def prepare_folder(
    out: Path, clips: int, min_clips: int, seed: int, workers: int, folders: Iterable[str]
) -> None:
    """Create ``folders`` in the new or empty folder ``out``; raises UserError if ``out`` cannot be
    used or a number is too small."""
    for name, value, minimum in (
        ("clips", clips, min_clips),
        ("workers", workers, 1),
        ("seed", seed, 0),
    ):
        if value < minimum:
            raise UserError(f"The number for {name} must be {minimum} or more, not {value}.")
    try:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise UserError(
                f"{out} exists and is not an empty folder: name a new folder, or remove it first."
            )
        for folder in folders:
            (out / folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"The folder {out} cannot be created: {error.strerror}.") from error


def worker_pool(workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, get_context("spawn"), initializer=exit_with_parent)


def _write_clips(out: Path, clips: int, seed: int, workers: int) -> Iterator[None]:
    """Write all clips, in this process or in workers; yields once per clip."""
    job = partial(_make_and_write_clip, out, seed)
    if workers == 1:
        yield from map(job, range(clips))
        return
    # The clips of a place go to one worker, which then renders their panorama only once.
    chunk = min(CLIPS_PER_PLACE, -(-clips // workers))
    with worker_pool(workers) as pool:
        yield from pool.map(job, range(clips), chunksize=chunk)


def _make_and_write_clip(out: Path, seed: int, index: int) -> None:
    write_clip(out, make_clip(seed, index))


def write_clip(out: Path, clip: WorldClip) -> None:
    """Render a clip and write its video, audio, label maps and truth to ``out``."""
    foa, levels, noise_rms = render_audio(clip)
    write_atomic(out / "audio" / f"{clip.name}.wav", encode_wav(foa))

    maps: list[Bytes] = []

    def images() -> Iterator[Bytes]:
        for image, labels in world_picture.render_frames(clip):
            if labels is not None:
                maps.append(labels)
            yield image

    write_mp4(out / "video" / f"{clip.name}.mp4", images())
    folder = out / "segmentation" / f".{clip.name}.part"
    folder.mkdir()
    for number, labels in enumerate(maps, start=1):
        (folder / f"{number:04d}.png").write_bytes(cv2.imencode(".png", labels)[1].tobytes())
    folder.rename(out / "segmentation" / clip.name)
    truth = clip_truth(clip, levels, noise_rms)
    write_atomic(out / "truth" / f"{clip.name}.json", (json.dumps(truth) + "\n").encode())


def write_mp4(path: Path, images: Iterable[Bytes]) -> None:
    """Encode I420 frames (height * 3 / 2, width) as H.264 in MP4, without audio or creation
    time."""
    part = path.with_name(f".{path.name}.part")
    options = {"movflags": "faststart", "fflags": "bitexact"}
    with av.open(str(part), "w", format="mp4", options=options) as container:
        stream = container.add_stream(
            "libx264",
            rate=FPS,
            options={
                # Half the time of superfast; baseline profile, which all players decode quickly.
                "preset": "ultrafast",
                "crf": "22",
                # One thread: the bytes must not depend on the number of cores.
                "threads": "1",
                # Our chroma is the mean of 2 x 2 pixels, hence sited at their centre (type 1).
                "x264-params": "keyint=24:chromaloc=1",
            },
        )
        stream.width, stream.height = world_picture.WIDTH, world_picture.HEIGHT
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.color_range = ColorRange.MPEG
        context.colorspace = context.color_primaries = context.color_trc = Colorspace.ITU709
        for number, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, format="yuv420p")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    part.replace(path)


def encode_wav(foa: NDArray[np.float32]) -> bytes:
    """16-bit PCM WAV of FOA (4, samples) within -1 to 1."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(len(foa))
        writer.setsampwidth(2)
        writer.setframerate(SAMPLE_RATE)
        writer.writeframes(np.rint(foa.T * 32767).astype("<i2").tobytes())
    return file.getvalue()


def clip_truth(
    clip: WorldClip, levels: dict[int, NDArray[np.float64]], noise_rms: float
) -> dict[str, Any]:
    """Content of a file in ``truth/``, which the world's README describes; levels and noise as
    `render_audio` returns them."""
    times = frame_times()
    objects = []
    for item in clip.objects:
        azimuth_deg, elevation_deg = direction_deg(item.direction(times))
        level = _dbfs(levels.get(item.id, np.zeros(FRAMES)))
        active = (level > level.max() - ACTIVE_BELOW_PEAK_DB) & (level > FLOOR_DBFS)
        objects.append(
            {
                "id": item.id,
                "kind": item.kind.name,
                "kind_index": item.kind_index,
                "silent": item.silent,
                "visible": item.visible,
                "azimuth_deg": azimuth_deg.round(3).tolist(),
                "elevation_deg": elevation_deg.round(3).tolist(),
                "angular_radius_deg": (
                    item.radius(times).round(3).tolist() if item.visible else None
                ),
                "animation": item.animation(times).round(3).tolist(),
                "active": active.tolist(),
                "level_dbfs": level.round(2).tolist(),
            }
        )
    return {
        "format": WORLD_FORMAT,
        "id": clip.name,
        "source": clip.place.name,
        "start_s": clip.start_s,
        "duration_s": DURATION_S,
        "split": clip.place.split,
        "fps": FPS,
        "frames": FRAMES,
        "sample_rate": SAMPLE_RATE,
        "diffuse_noise_dbfs": round(float(_dbfs(noise_rms)), 2),
        "reverberation_db": round(clip.place.reverb_db, 2),
        "reverberation_rt60_s": round(clip.place.rt60_s, 3),
        "objects": objects,
    }


def _dbfs(rms: ArrayLike) -> NDArray[np.float64]:
    return np.asarray(20 * np.log10(np.maximum(rms, 10 ** (FLOOR_DBFS / 20))))


def _readme(clips: int, seed: int) -> str:
    kinds = "\n".join(f"| {number} | {kind.name} |" for number, kind in enumerate(KINDS, start=1))
    width, height = world_picture.WIDTH, world_picture.HEIGHT
    return f"""# A generated world of 360° videos

{clips} clips of 10 s, seed {seed}, four from each place. A place (`place-00003`) stands for a
source recording: its clips share the panorama, the noise and the room, and have different objects.
In a clip, one to three objects are visible and audible, up to two more are visible but silent, and
sometimes an invisible object is audible. Objects pulse in the rhythm of their sound; half of the
silent ones have a rhythm too, the others are still.

- `video/ID-START.mp4`: equirectangular, {width} x {height}, {FPS} frames per second, H.264,
  no sound.
- `audio/ID-START.wav`: first-order ambisonics, ambiX (ACN order W, Y, Z, X; SN3D),
  {SAMPLE_RATE} Hz, 16 bit.
- `segmentation/ID-START/0001.png` to `0040.png`: label maps, four per second, equirectangular,
  {width // 2} x {height // 2}, one byte per pixel: the kind of object in front, 0 for the
  background. Map k (from 1) is the scene at (k - 1/2) / 4 s, which is video frame 6 k - 3 (from 0).
- `truth/ID-START.json`: the clip's contents. Lists have one value per video frame n, at time
  n / {FPS} s. `avprep build-shards` turns it into `events`.
  - `format`: identifies the file format.
  - `source`, `start_s`, `split`: the place, the start in it, and `train` or `test`.
  - `diffuse_noise_dbfs`: RMS of W of the diffuse noise. `reverberation_db`: energy of the diffuse
    tail against the direct sound. `reverberation_rt60_s`: time in which it falls by 60 dB.
  - `objects`: `id`, `kind`, `kind_index` (value in the label maps), `silent`, `visible`;
    `azimuth_deg` (positive to the left), `elevation_deg` (positive up), `angular_radius_deg` of
    the circle around the object's outline (null if not visible), `animation` (how strongly a beat
    shows in the image, 0 to 1), `level_dbfs` (RMS of W of the direct sound from this frame to the
    next; {FLOOR_DBFS:g} is silence) and `active` (level within {ACTIVE_BELOW_PEAK_DB:g} dB of the
    object's loudest frame). Later objects are in front of earlier ones.
- `train.txt`, `test.txt`: the places of each split, one per line. They are disjoint: every fifth
  place is a test place, and its objects vary in colour, size, pitch, tempo and timbre over ranges
  that overlap with those of training only in part.

| value | kind |
| --- | --- |
{kinds}
"""
