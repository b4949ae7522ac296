"""Builds as a user runs them, from recordings to shards."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import av
import numpy as np
import soundfile
import webdataset
from click.testing import CliRunner

from avprep.cli.main import main
from avprep.foa.energy_map import intensity_direction
from shards.geometry import (
    MIRROR,
    angle_between_deg,
    direction_deg,
    rotate_foa,
    unit_vector,
)
from shards.reader import ShardSet
from tests.support.media import (
    DIRECTIONS,
    FAST,
    build,
    centroid,
    contents,
    write_dot_recording,
)


def test_a_set_has_the_documented_format(built: Path) -> None:
    manifest = json.loads((built / "manifest.json").read_bytes())
    shards = manifest["splits"]["train"]["shards"]
    keys = [key for shard in shards for key in shard["keys"]]
    assert sorted(keys) == sorted(f"{name}-{start}" for name in DIRECTIONS for start in (0, 2))
    assert len(shards) == 8
    for shard in shards:
        assert len(set(shard["sources"])) == len(shard["sources"]), "clips of a source are spread"
        content = (built / shard["file"]).read_bytes()
        assert len(content) == shard["bytes"]
        assert hashlib.sha256(content).hexdigest() == shard["sha256"]
        with tarfile.open(fileobj=io.BytesIO(content)) as tar:
            names = tar.getnames()
            assert names == sorted(names)
            assert {(member.mtime, member.uid, member.gid) for member in tar} == {(0, 0, 0)}
    assert {path.name for path in built.iterdir()} == {"manifest.json", "train"}


def test_webdataset_reads_the_tars_without_our_code(built: Path) -> None:
    urls = sorted(str(path) for path in (built / "train").glob("*.tar"))
    samples = list(webdataset.WebDataset(urls, shardshuffle=False, empty_check=False))
    assert len(samples) == 8
    for sample in samples:
        info = json.loads(sample["json"])
        assert info["audio"]["channels"] == ["W", "Y", "Z", "X"]
        assert info["audio"]["normalization"] == "SN3D"
        assert len(info["views"]) == 4
        for number in range(4):
            with av.open(io.BytesIO(sample[f"view{number:02d}.mp4"])) as video:
                times = [frame.time for frame in video.decode(video=0)]
            assert times == [n / 16 for n in range(32)]
            sound, rate = soundfile.read(io.BytesIO(sample[f"view{number:02d}.flac"]))
            assert (rate, sound.shape) == (24000, (48000, 4))


def test_video_and_audio_agree_in_every_crop(tmp_path: Path) -> None:
    """A dot and a plane wave from one direction: within 1° in each crop, also when mirrored."""
    raw = tmp_path / "raw"
    size, sigma = (480, 960), 2.5
    views = []
    for name, (azimuth, elevation) in DIRECTIONS.items():
        write_dot_recording(raw, name, azimuth, elevation, 1.0, size, sigma)
        for away, up in ((0, 0), (14, -9), (-16, 8)):
            turned = (azimuth + away + 180) % 360 - 180
            views.append({"azimuth_deg": turned, "elevation_deg": elevation + up, "hfov_deg": 65})
    (tmp_path / "views.json").write_text(json.dumps(views))
    result = build(
        raw,
        "--out",
        tmp_path / "set",
        "--viewpoints",
        tmp_path / "views.json",
        "--clip-duration",
        1,
    )
    assert result.exit_code == 0, result.output
    shards = ShardSet(tmp_path / "set")
    checked = 0
    for sample, source in enumerate(shards.sources):
        for number, view in enumerate(shards.info(sample).views):
            centre = unit_vector(view.azimuth_deg, view.elevation_deg)
            if angle_between_deg(unit_vector(*DIRECTIONS[source]), centre) > 25:
                continue
            crop = shards.frames(sample, number, 4, 1)[0, :, :, 1]
            audio, _ = shards.foa(sample, 0, 24_000, number)
            for flipped in (False, True):
                frame = crop[:, ::-1] if flipped else crop
                field = rotate_foa(audio, MIRROR) if flipped else audio
                x, y = centroid(frame)
                half = np.tan(np.radians(view.hfov_deg) / 2)
                ray = np.array([1, (1 - 2 * x / 112) * half, (1 - 2 * y / 112) * half])
                direction = unit_vector(*intensity_direction(field))
                assert angle_between_deg(ray, direction) < 1.0, direction_deg(ray)
            checked += 1
    assert checked == 12


def test_the_number_of_workers_does_not_change_a_byte(
    raw: Path, built: Path, tmp_path: Path
) -> None:
    result = build(raw, "--out", tmp_path / "set", *FAST, "--workers", 3)
    assert result.exit_code == 0, result.output
    assert contents(tmp_path / "set") == contents(built)


def test_the_same_command_finishes_a_killed_build(raw: Path, built: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    command = [sys.executable, "-m", "avprep", "build-shards", str(raw), "--out", str(out)]
    killed = subprocess.Popen([*command, *FAST, "--workers", "1"], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list(out.glob("train/*.index.json")) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    kept = list(out.glob("train/*.tar"))
    assert kept
    assert not (out / "manifest.json").exists()
    unfinished = CliRunner().invoke(main, ["preview", str(out)])
    assert unfinished.exit_code == 2
    assert "no finished shard set" in unfinished.output
    stamps = {path: path.stat().st_mtime_ns for path in kept}
    result = build(raw, "--out", out, *FAST, "--workers", 1)
    assert result.exit_code == 0, result.output
    assert contents(out) == contents(built)
    assert {path: path.stat().st_mtime_ns for path in kept} == stamps, "finished shards are kept"


def test_a_finished_set_is_reported_as_complete_and_other_options_are_refused(
    raw: Path, built: Path
) -> None:
    before = contents(built)
    again = build(raw, "--out", built, *FAST)
    assert again.exit_code == 0
    assert "already complete" in again.output
    other = build(raw, "--out", built, *FAST, "--seed", 5, "--size", 64)
    assert other.exit_code == 2
    assert "seed 0 there, 5 now" in other.output
    assert "size 112 there, 64 now" in other.output
    assert contents(built) == before


def test_a_lost_shard_is_made_again(built: Path, raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    subprocess.run(["cp", "-r", str(built), str(out)], check=True)
    (out / "train" / "train-000003.tar").unlink()
    result = build(raw, "--out", out, *FAST)
    assert result.exit_code == 0, result.output
    assert "already complete" not in result.output
    assert contents(out) == contents(built)


def test_preview_draws_the_views_and_the_whole_frame(
    raw: Path, built: Path, tmp_path: Path
) -> None:
    for arguments in ([], ["c-2", "--raw", str(raw)]):
        out = tmp_path / f"{len(arguments)}.png"
        result = CliRunner().invoke(main, ["preview", str(built), *arguments, "--out", str(out)])
        assert result.exit_code == 0, result.output
        assert out.stat().st_size > 20_000
    found = re.search(r"azimuth (-?[\d.]+)°, elevation (-?[\d.]+)°", result.output)
    assert found is not None
    direction = unit_vector(float(found[1]), float(found[2]))
    assert angle_between_deg(direction, unit_vector(*DIRECTIONS["c"])) < 1
    missing = CliRunner().invoke(main, ["preview", str(built), "nobody"])
    assert missing.exit_code == 2
    assert "no sample 'nobody'" in missing.output


def test_making_samples_does_without_scipy() -> None:
    """Importing it takes as long as a second of 640×360 video, in every process."""
    code = "import avprep.sample.make_sample, sys; sys.exit('scipy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
