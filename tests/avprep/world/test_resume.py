"""A generated world that was interrupted: the same command continues it, to the same bytes."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from avprep.errors import UserError
from avprep.world.folder import MARKER, World, open_world_folder
from avprep.world.write import make_world
from avprep.world.write_actions import make_actions

SEED = 11


def read_files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("complete")
    make_world(out, 3, SEED, 1, progress=False, difficulty="hard")
    return out


def test_a_killed_world_is_continued_to_the_same_bytes(complete: Path, tmp_path: Path) -> None:
    out = tmp_path / "world"
    command = [
        sys.executable,
        "-m",
        "avprep",
        "demo",
        str(out),
        "--clips",
        "3",
        "--seed",
        str(SEED),
    ]
    command += ["--difficulty", "hard", "--workers", "1"]
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 200
    while not list(out.glob("truth/*.json")):
        assert time.monotonic() < deadline
        assert first.poll() is None
        time.sleep(0.01)
    first.send_signal(signal.SIGKILL)
    first.wait()
    kept = {path: path.stat().st_mtime_ns for path in out.glob("truth/*.json")}
    assert len(kept) < 3
    assert not (out / "README.md").exists()
    subprocess.run(command, check=True, capture_output=True, timeout=200)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept, "complete clips are kept"
    assert read_files(out) == read_files(complete)


def test_nothing_half_written_is_used(complete: Path, tmp_path: Path) -> None:
    """Every state in which a kill can leave a clip: its truth is written last."""
    out = tmp_path / "world"
    shutil.copytree(complete, out)
    name = "place-00000-10"
    (out / "truth" / f"{name}.json").unlink()
    (out / "truth" / f".{name}.json.0123abcd.partial").write_bytes(b"{")
    (out / "audio" / f".{name}.wav.0123abcd.partial").write_bytes(b"RIFF")
    (out / "video" / f"{name}.mp4").write_bytes(b"half")
    (out / "video" / f".{name}.mp4.part").write_bytes(b"half")
    (out / "segmentation" / name / "0001.png").write_bytes(b"half")
    part = out / "segmentation" / f".{name}.part"
    part.mkdir()
    (part / "0041.png").write_bytes(b"half")
    make_world(out, 3, SEED, 1, progress=False, difficulty="hard")
    assert read_files(out) == read_files(complete)


def test_folders_with_another_world_are_refused(complete: Path, tmp_path: Path) -> None:
    for clips, seed, difficulty in ((3, SEED + 1, "hard"), (3, SEED, "easy"), (2, SEED, "hard")):
        with pytest.raises(UserError, match="nor one with this world"):
            make_world(complete, clips, seed, 1, difficulty=difficulty)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="nor one with this world"):
        make_actions(complete, 30, SEED, 1)
    before = read_files(complete)
    begun = tmp_path / "begun"

    def interrupt() -> None:
        with open_world_folder(begun, World("clips", 3, SEED), ("truth",), "# A"):
            with pytest.raises(UserError, match="Another process writes to"):
                make_world(begun, 3, SEED, 1)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupt()
    assert (begun / MARKER).exists()
    with pytest.raises(UserError) as refused:
        make_world(begun, 3, SEED, 1, difficulty="hard")
    assert f"(3 clips, seed {SEED}, difficulty easy), not this one" in str(refused.value)
    assert list((begun / "truth").iterdir()) == []
    (begun / MARKER).write_text("[")
    with pytest.raises(UserError, match="nor one with this world"):
        make_world(begun, 3, SEED, 1)
    assert read_files(complete) == before


def test_actions_are_continued(tmp_path: Path) -> None:
    make_actions(tmp_path / "whole", 30, SEED, 1, progress=False)
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    videos = sorted((tmp_path / "cut").rglob("*.avi"))
    videos[3].unlink()
    videos[4].rename(videos[4].with_name(f".{videos[4].name}.part"))
    (tmp_path / "cut" / "README.md").rename(tmp_path / "cut" / MARKER)
    (tmp_path / "cut" / MARKER).write_text(
        f'{{"content":"videos","count":30,"seed":{SEED},"difficulty":"easy"}}'
    )
    kept = videos[0].stat().st_mtime_ns
    make_actions(tmp_path / "cut", 30, SEED, 1, progress=False)
    assert videos[0].stat().st_mtime_ns == kept
    assert read_files(tmp_path / "cut") == read_files(tmp_path / "whole")
