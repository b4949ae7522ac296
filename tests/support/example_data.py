"""Tiny data under the names that the README and the pages of docs/ use: /raw, /data/yt360, …"""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
from click.testing import CliRunner

from avtrain.cli.main import main as avtrain
from shards.geometry import encode_foa, unit_vector
from tests.support.media import (
    build,
    dot_plane,
    grey_frame,
    noise,
    write_audio,
    write_dot_recording,
    write_video,
    write_wav,
)
from tests.support.published_files import published, saved
from tests.support.tiny_set import make_set

BUILD = ["--clip-duration", "2", "--views", "3", "--size", "32", "--fps", "8", "--workers", "1"]
PRETRAIN = ["--preset", "tiny", "--steps", "1", "--batch-size", "4", "--views", "2"]
PRETRAIN += ["--transformer", "--device", "cpu", "--num-workers", "0"]
SECONDS = 2.0
TRAINED_ON = "tiny-set"
"""A set with labels, label maps and enough sources, for training and evaluations."""


def make_examples(root: Path) -> None:
    """Fill the empty folder ``root``. A path /X of a page stands for ``root``/X."""
    frame = grey_frame(dot_plane(160, 320, 40, 15, 6))
    field = encode_foa(noise(SECONDS), unit_vector(40, 15))

    def video(path: Path, audio: np.ndarray | None = None, seconds: float = SECONDS) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        matroska = path.with_suffix(".mkv")  # any name: the content says what it is
        write_video(matroska, [frame] * round(8 * seconds), 8, audio=audio)
        return matroska.rename(path)

    for number, name in enumerate("abcd"):
        write_dot_recording(root / "raw", name, 40 * number, 15, SECONDS)
    for suffix in (".mp4", ".wav"):
        shutil.copyfile(root / f"raw/a{suffix}", root / f"a{suffix}")
    (root / "lists").mkdir()
    (root / "lists/train.txt").write_text("a\nb\n")
    (root / "lists/test.txt").write_text("c\nd\n")
    data = root / "data"

    # A file of this layout is a clip of 10 s, cut into five by BUILD.
    w, y, z, x = encode_foa(noise(10.0), unit_vector(40, 15))
    six = np.stack([x, y, w, 0 * w, z, 0 * w])
    (data / "yt360/audio").mkdir(parents=True)
    names = ("kqAZkf5Odyw", "-bcDEF_1234")
    for name in names:
        video(data / f"yt360/video/{name}-80.mp4", seconds=10.0)
        write_audio(data / f"yt360/audio/{name}-80.m4a", "aac", six, "5.1")
        maps = data / f"yt360/segmentation/{name}-80"
        maps.mkdir(parents=True)
        for kind, label in (("things", 7), ("stuff", 90)):
            cv2.imwrite(str(maps / f"{kind}-0000.png"), np.full((50, 100), label, np.uint8))
    for split, name in zip(("train", "test"), names, strict=True):
        (data / f"yt360/{split}.txt").write_text(f"{name}\n")

    video(data / "sphere360/video/-bcDEF_1234_57.webm", field)

    (data / "ambigen/audio").mkdir(parents=True)
    video(data / "ambigen/video/-bcDEF_1234_57.mp4")
    padded = np.pad(field, ((0, 0), (0, 960)))
    opus = data / "ambigen/audio/-bcDEF_1234_57.opus"
    write_audio(opus, "libopus", padded, "ambisonic 1", {"mapping_family": "2"})
    (data / "ambigen/train.csv").write_text("id,caption\n-bcDEF_1234,x\n")

    recording = "dev-train-sony/fold3_room21_mix001"
    for folder in ("foa_dev", "metadata_dev"):
        (data / "starss" / folder / recording).parent.mkdir(parents=True)
    write_wav(data / f"starss/foa_dev/{recording}.wav", field[:, ::2], 24000)
    video(data / f"starss/video_dev/{recording}.mp4")
    (data / f"starss/metadata_dev/{recording}.csv").write_text("0,1,0,130,20,150\n")

    video(data / "walks/A walk [-bcDEF_1234].webm", field)
    (data / "walks/A walk [-bcDEF_1234].info.json").write_text('{"id": "-bcDEF_1234"}')

    _labelled_videos(data)
    _sets_and_runs(root)


def _labelled_videos(data: Path) -> None:
    def video(path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_video(path, [np.full((180, 160), 99, np.uint8)] * 12, 12)

    names = [
        f"{label}/v_{label}_g0{group}_c01.avi"
        for label in ("ApplyEyeMakeup", "YoYo")
        for group in (1, 2, 3)
    ]
    lists = data / "ucf/ucfTrainTestlist"
    lists.mkdir(parents=True)
    for name in names:
        video(data / "ucf/UCF-101" / name)
    for fold, group in ((1, "_g01_"), (2, "_g02_")):
        train = [f"{name} {1 + ('YoYo' in name)}" for name in names if group not in name]
        (lists / f"trainlist0{fold}.txt").write_text("\n".join(train) + "\n")
        test = [name for name in names if group in name]
        (lists / f"testlist0{fold}.txt").write_text("\n".join(test) + "\n")

    splits = data / "hmdb/testTrainMulti_7030_splits"
    splits.mkdir(parents=True)
    for name in ("a_brush_hair.avi", "b_brush_hair.avi"):
        video(data / "hmdb/brush_hair" / name)
    text = "a_brush_hair.avi 1\nb_brush_hair.avi 2\n"
    (splits / "brush_hair_test_split1.txt").write_text(text)

    video(data / "k400/train/air drumming/-bcDEF_1234_000010_000020.mp4")
    video(data / "k400/val/zumba/kbcdefghijk_000100_000110.mp4")


def _sets_and_runs(root: Path) -> None:
    """Sets and a run, for pages that do not begin by making them."""
    make_set(root / TRAINED_ON, {"train": 8, "test": 4}, labelled=True, map_times_s=(0.5, 1.5))
    shutil.copytree(root / TRAINED_ON, root / "shards")
    make_set(root / "starss", {"train": 4}, seed=1)
    for raw, out in (("yt360", "scratch/yt360-shards"), ("ucf", "ucf101-shards")):
        built = build(root / "data" / raw, "--out", root / out, *BUILD)
        assert built.exit_code == 0, built.output
    run, shards = root / "runs/avsa-tiny", str(root / TRAINED_ON)
    evaluation = ["--checkpoint", str(run / "checkpoint.pt"), "--no-baseline", "--num-workers", "0"]
    for command in (
        ["pretrain", shards, "--out", str(run), *PRETRAIN],
        ["eval", "retrieval", shards, "--out", str(run), *evaluation],
    ):
        done = CliRunner().invoke(avtrain, command)
        assert done.exit_code == 0, done.output
    shutil.copytree(run, root / "runs/avsa")
    saved(root, published()).rename(root / "PUBLISHED.pth.tar")
