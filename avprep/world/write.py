"""``avprep demo``: write a generated world of 360° videos with FOA audio and ground truth."""

from __future__ import annotations

import io
import json
import shutil
import wave
from collections.abc import Iterable, Iterator, Mapping
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

from avprep.processes import exit_with_parent
from avprep.recordings.events import WORLD_FORMAT
from avprep.world import generate, hard
from avprep.world import picture as world_picture
from avprep.world.folder import README, World, check_numbers, open_world_folder
from avprep.world.readme import ACTIVE_BELOW_PEAK_DB, FLOOR_DBFS, headline, world_readme
from avprep.world.scene import (
    CLIPS_PER_PLACE,
    DURATION_S,
    FPS,
    FRAMES,
    SAMPLE_RATE,
    Difficulty,
    WorldClip,
    clip_name,
    frame_times,
    place_name,
    split_of_place,
)
from avprep.world.sound import render_audio
from shards.files import write_atomic
from shards.geometry import direction_deg

Bytes = NDArray[np.uint8]


FOLDERS = ("video", "audio", "segmentation", "truth")


def make_world(
    out: Path,
    clips: int,
    seed: int,
    workers: int,
    progress: bool = True,
    difficulty: Difficulty = "easy",
) -> None:
    """Write a world of ``clips`` clips, four per place, to ``out``.

    The README that it writes describes the files. They depend on the seed and the difficulty only,
    not on the number of worker processes, and a larger world begins with the clips of a smaller
    one. In a folder that a killed call has left, it continues: complete clips are kept.
    """
    world = World("clips", clips, seed, difficulty)
    check_numbers(world, 1, workers)
    with open_world_folder(out, world, FOLDERS, headline(world)):
        complete = {path.stem for path in (out / "truth").iterdir()}
        missing = [index for index in range(clips) if clip_name(index) not in complete]
        done = _write_clips(out, world, missing, workers)
        with tqdm(
            total=clips,
            initial=clips - len(missing),
            desc="demo clips",
            unit="clip",
            disable=not progress,
        ) as bar:
            for _ in done:
                bar.update()
        places = range(-(-clips // CLIPS_PER_PLACE))
        for split in ("train", "test"):
            names = [place_name(index) for index in places if split_of_place(index) == split]
            write_atomic(out / f"{split}.txt", "".join(f"{name}\n" for name in names).encode())
        write_atomic(out / README, world_readme(world, out / "truth").encode())


def worker_pool(workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, get_context("spawn"), initializer=exit_with_parent)


def _write_clips(out: Path, world: World, indices: list[int], workers: int) -> Iterator[None]:
    """Write clips, in this process or in workers; yields once per clip."""
    job = partial(_make_and_write_clip, out, world)
    if workers == 1 or not indices:
        yield from map(job, indices)
        return
    # The clips of a place go to one worker, which then renders their panorama only once.
    chunk = min(CLIPS_PER_PLACE, -(-len(indices) // workers))
    with worker_pool(workers) as pool:
        yield from pool.map(job, indices, chunksize=chunk)


def _make_and_write_clip(out: Path, world: World, index: int) -> None:
    make_clip = hard.make_clip if world.difficulty == "hard" else generate.make_clip
    write_clip(out, make_clip(world.seed, index))


def write_clip(out: Path, clip: WorldClip) -> None:
    """Render a clip and write its video, audio, label maps and truth to ``out``.

    The truth is written last: a clip that has it is complete.
    """
    audio = render_audio(clip)
    write_atomic(out / "audio" / f"{clip.name}.wav", encode_wav(audio.foa))

    maps: list[Bytes] = []

    def images() -> Iterator[Bytes]:
        for image, labels in world_picture.render_frames(clip):
            if labels is not None:
                maps.append(labels)
            yield image

    write_mp4(out / "video" / f"{clip.name}.mp4", images())
    folder = out / "segmentation" / f".{clip.name}.part"
    for left_over in (folder, out / "segmentation" / clip.name):
        shutil.rmtree(left_over, ignore_errors=True)
    folder.mkdir()
    for number, labels in enumerate(maps, start=1):
        (folder / f"{number:04d}.png").write_bytes(cv2.imencode(".png", labels)[1].tobytes())
    folder.rename(out / "segmentation" / clip.name)
    truth = clip_truth(clip, audio.levels, audio.noise_rms, audio.ratios_db)
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
    clip: WorldClip,
    levels: dict[int, NDArray[np.float64]],
    noise_rms: float,
    ratios_db: Mapping[int, float] | None = None,
) -> dict[str, Any]:
    """Content of a file in ``truth/``, which the world's README describes; levels, noise and ratios
    as in `RenderedAudio`."""
    times = frame_times()
    objects = []
    for item in clip.objects:
        azimuth_deg, elevation_deg = direction_deg(item.direction(times))
        level = _dbfs(levels.get(item.id, np.zeros(FRAMES)))
        active = (level > level.max() - ACTIVE_BELOW_PEAK_DB) & (level > FLOOR_DBFS)
        known: dict[str, Any] = {}
        if item.distances_m is not None:
            ratio_db = (ratios_db or {}).get(item.id)
            known = {
                "distance_m": item.distance(times).round(3).tolist(),
                "direct_to_reverberant_db": None if ratio_db is None else round(ratio_db, 2),
            }
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
                **known,
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
