"""The confusion table of projections, of one picture and few projections."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest

from avprep.world.generate import make_clip
from avprep.world.picture import HEIGHT, render_frames
from benchmarks import projection_frames, projections


def test_a_small_table_is_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few = ("equirect", "dual fisheye 195, black")
    makers = {name: projection_frames.PROJECTIONS[name] for name in few}
    monkeypatch.setattr(projection_frames, "PROJECTIONS", makers)
    frame, _ = next(render_frames(make_clip(0, 0)))
    cv2.imwrite(str(tmp_path / "place.png"), frame[:HEIGHT])
    command = ["projections", str(tmp_path / "place.png"), "--height", "320"]
    monkeypatch.setattr("sys.argv", [*command, "--show", str(tmp_path / "frames.png")])
    assert projections.main() == 0
    printed = capsys.readouterr().out
    assert "| 1 pictures in | eyes | right, sure |" in printed
    assert "| equirect | mono | 1 |  |  |  |  |" in printed
    assert "| equirect | top-bottom |  | 1 |  |  |  |" in printed
    assert "| dual fisheye 195, black | mono |  |  |  |  | 1 |" in printed
    assert "wrong and sure: 0" in printed
    assert (tmp_path / "frames.png").exists()
