"""The command: recordings, sets and folders in, videos, pictures and tables out."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch

from avprep.recordings.recording import VIDEO_SUFFIXES
from avtrain.config import tiny
from avtrain.errors import TrainingError
from avtrain.evals.frozen import energy_features
from avtrain.locate import locate, raw_files
from avtrain.locate.background import frames
from avtrain.locate.maps import Maps
from avtrain.locate.scores import Span, score_clip
from avtrain.locate.write import COLUMNS, write
from avtrain.networks.models import Embeddings
from avtrain.options import with_options
from shards.geometry import angle_between_deg, unit_vector
from shards.reader import ShardSet
from tests.avtrain.locate.conftest import LATER, SOURCE
from tests.support.media import centroid
from tests.support.processes import children
from tests.support.runs import avtrain, refused


class Facing(torch.nn.Module):
    """Networks for which picture and sound match by the cosine of the angle between the view and
    the direction from which the sound flows."""

    def embed_video(self, video: torch.Tensor) -> torch.Tensor:
        return torch.ones(*video.shape[:2], 1)

    def embed_audio(self, audio: torch.Tensor) -> torch.Tensor:
        return audio[:, :, 6].mean(dim=(-2, -1))[..., None]  # the intensity towards X

    def embeddings(self, video: torch.Tensor, audio: torch.Tensor, *_: object) -> Embeddings:
        picture = torch.cat([video, 0 * video], dim=-1)
        sound = torch.cat([audio, (1 - audio.square()).clamp(min=0).sqrt()], dim=-1)
        return Embeddings(picture, sound, sound, picture)


def maps_of(root: Path, span: Span, key: int = 0, split: str = "train") -> tuple[Maps, ShardSet]:
    shards = ShardSet(root, split)
    config = with_options(tiny("avsa"), features="logmel+intensity")
    networks = replace(energy_features(config, 0, torch.device("cpu")), model=Facing())
    scores = score_clip(shards, key, networks, span, 0)
    return Maps.from_scores(scores, span.offset_s), shards


def rows_of(path: Path) -> list[dict[str, float]]:
    with path.open(newline="") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def test_a_recording_becomes_a_video_with_sound(located: Any) -> None:
    heat, _, output, left = located
    assert left == []
    assert "of its 4.0 s, only 1.0 s to 3.0 s are used" in output
    assert "picture and sound match best within 20° of azimuth" in output
    with av.open(str(heat)) as container:
        video, audio = container.streams
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video)]
        container.seek(0)
        heard = np.concatenate([b.to_ndarray() for b in container.decode(audio)], axis=1)
        assert (video.codec_context.name, audio.codec_context.name) == ("h264", "aac")
        assert audio.codec_context.layout.name == "mono"
        assert heard.shape[1] / audio.rate == pytest.approx(2.0, abs=0.05)
    assert len(pictures) == 16
    assert pictures[0].shape == (584, 512, 3)
    assert heard.std() == pytest.approx(0.1 / np.sqrt(2), rel=0.1)  # W below 12 kHz


def test_the_set_of_a_recording_is_a_grid_over_its_part(located: Any) -> None:
    info = ShardSet(located[1]).info(0)
    assert (info.file_start_s, info.duration_s) == (1.0, 2.0)
    assert len(info.views) == len(raw_files.grid_directions(45))
    assert {view.hfov_deg for view in info.views} == {80.0}
    assert info.audio.layout == "source"


def test_the_picture_below_a_map_is_where_it_was(located: Any) -> None:
    """From the panorama, and from crops that are mapped back."""
    shards = ShardSet(located[1])
    info, pictures = shards.info(0), []
    for known in (info, replace(info, panorama=None)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(shards, "info", lambda _, known=known: known)
            pictures += frames(shards, 0, 3, 1)
    assert not np.array_equal(*pictures)
    for picture in pictures:
        assert picture.shape == (256, 512, 3)
        column, row = centroid(picture[..., 1])
        found = unit_vector(180 * (1 - 2 * column / 512), 90 * (1 - 2 * row / 256))
        assert angle_between_deg(found, SOURCE) < 2.0


def test_both_peaks_are_where_the_sound_is(located: Any, tmp_path: Path) -> None:
    maps, shards = maps_of(located[1], Span(1.0, 2.0, 0.5, offset_s=1.0))
    np.testing.assert_allclose(maps.scores.middles_s, [0.5, 1.0, 1.5])
    for window, source in ((0, SOURCE), (2, LATER)):
        match, energy = maps.match_peaks[window], maps.energy_peaks[window]
        assert angle_between_deg(match.direction, source) < 6.0  # on a grid of 45°
        assert angle_between_deg(energy.direction, source) < 1.5
    write(maps, shards, 0, tmp_path / "heat.csv")
    rows = rows_of(tmp_path / "heat.csv")
    assert tuple(rows[0]) == COLUMNS
    assert [row["frame"] for row in rows] == list(range(10, 30))  # those of the recording
    for part, source in ((rows[:7], SOURCE), (rows[-7:], LATER)):
        for row in part:
            assert angle_between_deg(unit_vector(row["azimuth"], row["elevation"]), source) < 6.5
            assert row["azimuth"] == int(row["azimuth"])
            assert 0.5 < row["score"] <= 1


def test_truth_is_measured_in_every_window(root: Path) -> None:
    """The balls of the tiny set sound as plane waves; its views lie around the horizon."""
    maps, shards = maps_of(root, Span(hop_s=0.1), split="test")
    (event, *_) = shards.info(0).events or []
    ball = unit_vector(event["azimuth_deg"], event["elevation_deg"])
    errors = maps.errors_deg()
    assert errors is not None
    match, energy, chance = errors
    expected = np.mean([angle_between_deg(peak.direction, ball) for peak in maps.match_peaks])
    assert match == pytest.approx(expected, abs=0.1)
    assert energy < 1.5
    assert chance == pytest.approx(90.0, abs=1)
    assert len(maps.match_peaks) == 11
    assert [mark.shape for mark in maps.marks(3)] == ["o", "x", "+"]
    assert f"{match:.0f}° and {energy:.0f}° away" in maps.sentence()


def test_a_clip_of_a_set_by_its_key(checkpoint: Path, root: Path, tmp_path: Path) -> None:
    key = ShardSet(root, "test").keys[1]
    command = ("locate", root, key, "--checkpoint", checkpoint, "--out")
    for arguments in ((tmp_path / "a.csv",), (tmp_path / "a.png", "--at", 1.9)):
        done = avtrain(*command, *arguments)
        assert done.exit_code == 0, done.output
        assert "the nearest visible source is" in done.output
    assert len(rows_of(tmp_path / "a.csv")) == 20
    with av.open(str(tmp_path / "a.png")) as picture:
        (drawn,) = [frame.to_ndarray(format="rgb24") for frame in picture.decode(video=0)]
    assert drawn.std() > 20
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "a.png"]


def test_a_folder_goes_on_past_what_it_cannot_read(
    checkpoint: Path, recording: Path, tmp_path: Path
) -> None:
    raw, out = tmp_path / "raw", tmp_path / "out"
    (raw / "inner").mkdir(parents=True)
    for suffix in (".mp4", ".wav"):
        shutil.copyfile(recording.with_suffix(suffix), raw / f"inner/walk{suffix}")
    shutil.copyfile(recording, raw / "mute.mp4")
    (raw / ".hidden.mp4").write_bytes(b"")
    done = avtrain(
        *("locate", raw, "--checkpoint", checkpoint, "--out", out, "--grid", 90, "--at", 2.0)
    )
    assert done.exit_code == 1, done.output
    assert f"left out: {raw / 'mute.mp4'} cannot be used: mute: " in done.output
    assert "audio" in done.output.partition("cannot be used")[2]
    assert "avtrain-locate-" not in done.output
    assert sorted(path.name for path in out.rglob("*")) == ["inner", "walk.png"]


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    return tmp_path / "tmp"


@pytest.mark.parametrize("moment", ["build", "networks", "write"])
def test_a_signal_leaves_nothing(
    moment: str,
    checkpoint: Path,
    recording: Path,
    located: Any,
    temporary: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def stop(*_: object) -> None:
        assert list(temporary.iterdir())
        os.kill(os.getpid(), signal.SIGTERM)

    def stop_when_avprep_runs() -> None:
        while not list(temporary.glob("*/set")):  # avprep has begun
            time.sleep(0.01)
        stop()

    out, before = temporary.parent / "heat.csv", children(os.getpid())
    if moment == "build":
        threading.Thread(target=stop_when_avprep_runs, daemon=True).start()
    else:
        monkeypatch.setattr(
            raw_files, "_build", lambda _v, _r, out, *_: shutil.copytree(located[1], out) and []
        )
        name = "score_clip" if moment == "networks" else "write"
        monkeypatch.setattr(locate, name, stop)
    done = avtrain("locate", recording, "--checkpoint", checkpoint, "--out", out, "--start", 1)
    assert done.exit_code == 128 + signal.SIGTERM
    assert list(temporary.iterdir()) == []
    assert not out.exists()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert children(os.getpid()) == before


def test_a_fault_while_writing_leaves_the_earlier_file(
    located: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    maps, shards = maps_of(located[1], Span(1.0, 2.0, offset_s=1.0))
    out = tmp_path / "heat.mp4"
    out.write_bytes(b"earlier")

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("avtrain.locate.write.panel", fail)
    with pytest.raises(KeyboardInterrupt):
        write(maps, shards, 0, out)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"earlier"]


def test_a_full_disk_is_one_sentence(
    located: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    maps, shards = maps_of(located[1], Span(1.0, 2.0, offset_s=1.0))
    full = Path("/dev/full").open("wb", buffering=0)  # noqa: SIM115 (closed by what writes)
    monkeypatch.setattr("avtrain.locate.write.atomic_file", lambda _: full)
    with pytest.raises(TrainingError, match=r"heat\.mp4 cannot be written: No space left"):
        write(maps, shards, 0, tmp_path / "heat.mp4")


def test_silence_and_sound_without_a_direction_have_no_peak(located: Any, tmp_path: Path) -> None:
    maps, shards = maps_of(located[1], Span(1.0, 2.0, offset_s=1.0))
    covariance = maps.scores.covariance.copy()
    covariance[0] = 0
    covariance[1] = np.diag([1.0, 0, 0, 0])
    maps = Maps.from_scores(replace(maps.scores, covariance=covariance), 1.0)
    assert [peak is None for peak in maps.match_peaks] == [True, False, False]
    assert [peak is None for peak in maps.energy_peaks] == [True, True, False]
    assert maps.titles(0) == ("silence", "silence")
    assert maps.titles(1)[1] == "the sound is as loud from every direction"
    assert np.isnan(maps.energy_db(1)).all()
    assert "1 of 3 windows are silent" in maps.sentence()
    write(maps, shards, 0, tmp_path / "heat.csv")
    assert (
        rows_of(tmp_path / "heat.csv")[0]["frame"] == 18
    )  # from 1.8 s on the second window is nearer
    silent = Maps.from_scores(replace(maps.scores, covariance=0 * covariance), 1.0)
    for name in ("heat.mp4", "heat.png", "heat.csv"):
        write(silent, shards, 0, tmp_path / name)
    assert rows_of(tmp_path / "heat.csv") == []
    assert silent.sentence() == "silence: nothing is drawn over the picture"


def test_what_avprep_says_reaches_the_user(
    checkpoint: Path, recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its doubts, and why it cannot run at all; neither its progress nor its own folders."""
    fake = tmp_path / "python"
    fake.write_text(
        "#!/bin/sh\n"
        "printf 'build-shards: 0%%\\r   \\rcheck: %s/walk.mp4 may be upside down\\n' $4 >&2\n"
        "echo check: array ${SLURM_ARRAY_TASK_ID:-none}\n"
        "echo 'train: 1 clips of 1 recordings'\n"
        "echo 'Error: cv2 is not installed' >&2\nexit 2\n"
    )
    fake.chmod(0o755)
    monkeypatch.setattr(raw_files.sys, "executable", str(fake))
    # In a task of an array, avprep would build a part of the set.
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "1")
    said = refused("locate", recording, "--checkpoint", checkpoint, "--out", tmp_path / "a.csv")
    assert said.splitlines() == [
        f"{recording}: avprep cuts 48 views of it",
        "check: walk.mp4 may be upside down",
        "check: array none",
        f"Error: {recording} cannot be used: cv2 is not installed",
    ]


def test_videos_are_those_that_avprep_reads() -> None:
    assert raw_files.VIDEO_SUFFIXES == VIDEO_SUFFIXES


def test_files_are_linked_as_they_lie(tmp_path: Path) -> None:
    for file in (
        *("y/video/a-80.mp4", "y/audio/a-80.m4a", "y/truth/a-80.json", "y/video/b-80.mp4"),
        *("s/video_dev/t/m.mp4", "s/foa_dev/t/m.wav", "s/metadata_dev/t/m.csv"),
        *("w/A walk.f313.webm", "w/A walk.f251.webm", "w/A walk.info.json", "w/A walk 2.webm"),
    ):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()

    def linked(video: str) -> set[str]:
        raw = tmp_path / "raw" / video.replace("/", "_")
        raw_files._link(tmp_path / video, raw)
        return {path.relative_to(raw).as_posix() for path in raw.rglob("*") if path.is_symlink()}

    assert linked("y/video/a-80.mp4") == {"video/a-80.mp4", "audio/a-80.m4a", "truth/a-80.json"}
    assert linked("s/video_dev/t/m.mp4") == {
        *("video_dev/t/m.mp4", "foa_dev/t/m.wav", "metadata_dev/t/m.csv")
    }
    assert linked("w/A walk.f313.webm") == {
        *("A walk.f313.webm", "A walk.f251.webm", "A walk.info.json")
    }
