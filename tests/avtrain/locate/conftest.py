"""A set, a checkpoint and a recording that the tests of locate share. Not to be changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shards.geometry import encode_foa, unit_vector
from tests.support.media import noise, write_dot_recording, write_wav
from tests.support.runs import SMALL, avtrain
from tests.support.tiny_set import make_set

PLACE = (40.0, 15.0)
SOURCE, LATER = unit_vector(*PLACE), unit_vector(-100.0, -30.0)


@pytest.fixture(scope="package")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_set(
        tmp_path_factory.mktemp("set"), {"train": 4, "test": 2}, labelled=True, tilt_deg=40.0
    )


@pytest.fixture(scope="package")
def checkpoint(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("run")
    done = avtrain("pretrain", root, "--out", run, "--steps", 1, *SMALL, "--num-workers", 0)
    assert done.exit_code == 0, done.output
    return run / "checkpoint.pt"


@pytest.fixture(scope="package")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dot, from which the sound comes for two seconds; then it comes from `LATER` for two."""
    video = write_dot_recording(tmp_path_factory.mktemp("raw"), "walk", *PLACE, seconds=4.0)
    halves = (encode_foa(noise(2.0, seed), one) for seed, one in enumerate((SOURCE, LATER)))
    write_wav(video.with_suffix(".wav"), np.concatenate([*halves], axis=1))
    return video


@pytest.fixture(scope="package")
def located(checkpoint: Path, recording: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The heat map of a part of a raw recording, the set that was made of it, what was said, and
    what lay in the folder for temporary files."""
    folder = tmp_path_factory.mktemp("located")
    temporary = folder / "tmp"
    temporary.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tempfile.tempdir", str(temporary))
        done = avtrain(
            *("locate", recording, "--checkpoint", checkpoint, "--out", folder / "heat.mp4"),
            *("--grid", 45, "--start", 1, "--duration", 2, "--keep-set", folder / "kept"),
        )
    assert done.exit_code == 0, done.output
    return folder / "heat.mp4", folder / "kept", done.output, list(temporary.iterdir())
