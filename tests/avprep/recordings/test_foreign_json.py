"""Files beside recordings, from anybody: read up to a size and into types, never waited for."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from avprep.errors import ClipError, UserError
from avprep.formats.container_tags import DownloadInfo, read_info_json
from avprep.recordings.events import is_world_truth, read_events, read_reverberation
from avprep.sphere.viewpoints import read_views

FRAMES = 48
OBJECT = {
    "id": 3,
    "kind_index": 2,
    "visible": True,
    "azimuth_deg": [10.0] * FRAMES,
    "elevation_deg": [5.0] * FRAMES,
    "active": [True] * FRAMES,
}
TRUTH = {"format": "avsa360-world", "fps": 24, "frames": FRAMES, "objects": [OBJECT]}


def pipe(path: Path) -> None:
    os.mkfifo(path)


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


NOT_FILES: list[Callable[[Path], None]] = [pipe, endless, Path.mkdir]


@pytest.mark.parametrize("make", NOT_FILES, ids=["pipe", "endless", "folder"])
def test_pipes_and_devices_are_not_read(make: Callable[[Path], None], tmp_path: Path) -> None:
    for name in ("views.json", "a.info.json", "truth.json", "labels.csv"):
        make(tmp_path / name)
    with pytest.raises(UserError, match="cannot be read: it is not a regular file"):
        read_views(tmp_path / "views.json")
    info, ignored = read_info_json(tmp_path / "a.mp4")
    assert info == DownloadInfo()
    assert ignored == "its .info.json is ignored: it is not a regular file"
    assert is_world_truth(tmp_path / "truth.json"), "so that reading it says what is wrong"
    for name in ("truth.json", "labels.csv"):
        with pytest.raises(ClipError, match=f"{name} cannot be read: it is not a regular file"):
            read_events(tmp_path / name, 0.0, 1.0)


def test_of_info_json_only_what_is_used_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.info.json"
    for name in ("a.mp4", "a.f137.mp4"):
        path.write_text('{"id": "x", "formats": [{"format_note": 3}], "comments": null}')
        assert read_info_json(tmp_path / name) == (DownloadInfo(id="x"), "")
    path.write_text('{"requested_formats": [{"format_note": "Mesh"}, {"format_note": null}]}')
    assert read_info_json(tmp_path / "a.mp4")[0].projection == "mesh"
    for content, why in {
        '{"id": 3}': "its field id: expected str | null, got int",
        "[" * 100_000: "expected object, got array",
        '{"formats": ' + "[" * 100_000: "its JSON is nested too deeply",
        '{"id": "x"': "it is not JSON: ",
    }.items():
        path.write_text(content)
        info, ignored = read_info_json(tmp_path / "a.mp4")
        assert info == DownloadInfo()
        assert ignored.startswith(f"its .info.json is ignored: {why}")


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"fps": 0}, "its field fps: expected float > 0.0"),
        ({"frames": FRAMES + 1}, "an object has other numbers of items than 49 frames"),
        ({"objects": [{**OBJECT, "id": -1}]}, "its field objects[0].id: expected int >= 0"),
        ({"objects": [{**OBJECT, "kind_index": 1e300}]}, "its field objects[0].kind_index"),
        ({"objects": [{**OBJECT, "azimuth_deg": [1e9]}]}, "its field objects[0].azimuth_deg[0]"),
        ({"objects": 4}, "its field objects: expected array, got int"),
        ({"fps": float("nan")}, "it is not JSON"),
    ],
)
def test_a_truth_file_of_other_types_or_ranges_is_refused(
    changed: dict[str, Any], why: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(TRUTH))
    events, step_s = read_events(path, 0.0, 2.0)
    assert (len(events), step_s) == (10, 0.2)
    assert events[0] == {
        **{"time_s": 0.0, "class": 2, "source": 3},
        **{"azimuth_deg": 10.0, "elevation_deg": 5.0},
    }
    path.write_text(json.dumps(TRUTH | changed))
    with pytest.raises(ClipError) as raised:
        read_events(path, 0.0, 2.0)
    assert f"a.json is not a truth file of a generated clip ({why}" in str(raised.value)


def test_distances_and_reverberation_are_read_where_a_truth_file_states_both(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(TRUTH | {"reverberation_rt60_s": 0.4}))
    assert read_reverberation(path) is None, "sets of the easy world keep their bytes"
    distances = [1 + frame / FRAMES for frame in range(FRAMES)]
    far = {**OBJECT, "distance_m": distances}
    path.write_text(json.dumps(TRUTH | {"reverberation_rt60_s": 0.4, "objects": [far]}))
    assert read_reverberation(path) == 0.4
    events, _ = read_events(path, 0.0, 2.0)
    # The middle of the first step of 0.2 s.
    assert events[0]["distance_m"] == pytest.approx(distances[int(0.1 * TRUTH["fps"])], abs=0.005)
    path.write_text(json.dumps(TRUTH | {"objects": [{**OBJECT, "distance_m": [0.0]}]}))
    with pytest.raises(ClipError, match="distance_m"):
        read_events(path, 0.0, 2.0)
    assert read_reverberation(tmp_path / "a.csv") is None


def test_numbers_that_no_label_has_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("0,1e300,0,10,5\n")
    with pytest.raises(ClipError, match="larger than frames, classes and angles are"):
        read_events(path, 0.0, 1.0)
