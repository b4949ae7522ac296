"""Folders of recordings, real or by their names alone, and what is found in them."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner, Result

from avprep.cli.main import main
from avprep.recordings.layouts import FoundRecordings, find_recordings
from tests.support.known_truth import (
    dot_frame,
    write_recording,
)

SMALL = dot_frame(height=160, width=320, sigma_deg=6)
SECONDS = 2.0


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return folder


def found_in(raw: Path, layout: str = "auto") -> FoundRecordings:
    return find_recordings(raw, layout)


def files_found(raw: Path, layout: str = "auto") -> list[str]:
    return [recording.file for recording in found_in(raw, layout).recordings]


def inspect(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["inspect", *map(str, arguments), "--workers", "1"])


def write_small(folder: Path, name: str) -> Path:
    return write_recording(folder, name, SMALL, SECONDS)
