"""What containers say about projection and eyes is honoured, or refused by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.avprep.formats.boxes import add_v1, crop_fields
from tests.support.known_truth import build_and_look, dot_frame, is_right, write_recording
from tests.support.media import grey_frame


def test_a_cropped_area_of_spherical_video_v1_is_honoured(tmp_path: Path) -> None:
    """A front part of 180°×90°, whose fields stand in Spherical Video V1's text."""
    part = dot_frame(height=320, width=640)[:320][80:240, 160:480]
    frame = grey_frame(np.ascontiguousarray(part))
    path = write_recording(tmp_path / "raw", "part", frame, seconds=2.0)
    add_v1(path, **crop_fields(320, 160, 640, 320, 160, 80))
    built = build_and_look(tmp_path / "raw", tmp_path / "set")
    assert built.result.exit_code == 0, built.output
    assert "its picture" not in built.output
    assert len(built.clips) == 1
    assert is_right(built.clips[0])
