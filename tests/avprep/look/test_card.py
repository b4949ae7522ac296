"""The dataset card: `datasets` reads every row of a set, whatever its records lack."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from avprep.cli.main import main
from avprep.look import card as card_module
from tests.support.media import FAST, build, contents, write_dot_recording
from tests.support.tiny_set import change_members, damage, make_set

READ = """
import sys

import numpy as np
from datasets import load_dataset
from shards import ShardSet, decode_sample
from shards.geometry import rotate_foa, view_foa_matrix

root, cache, streaming = sys.argv[1], sys.argv[2], sys.argv[3] == "streaming"
for split in ("train", "dev-test"):
    shards = ShardSet(root, split)
    rows = load_dataset(
        root, "bytes", split=split.replace("-", "_"), streaming=streaming, cache_dir=cache
    )
    for number, row in enumerate(rows):
        clip, info = decode_sample(row), shards.info(number)
        assert row["__key__"] == info.key == clip["info"].key
        assert (clip["info"].views, clip["info"].events) == (info.views, info.events)
        assert (clip["info"].label, clip["info"].map_times_s) == (info.label, info.map_times_s)
        assert clip["frames"].shape == (5, 16, 48, 48, 3)
        assert clip["audio"].shape == (5, 4, 48000)
        for view in range(5):
            assert np.array_equal(clip["frames"][view], shards.frames(number, view, 0, 16))
        stored, matrix = shards.foa(number, 0, 48000, 3)
        looks = info.views[3]
        turn = view_foa_matrix(looks.azimuth_deg, looks.elevation_deg) @ matrix.T
        assert np.allclose(clip["audio"][3], rotate_foa(stored, turn), atol=1e-6)
        if info.map_times_s:
            assert row["view04.t001.seg.png"] == shards.member(number, "view04.t001.seg.png")
    assert number + 1 == len(shards)
"""


def avprep(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def _edited(members: dict[str, bytes], **changes: Any) -> dict[str, bytes]:
    """The members of a clip whose record has other fields (None: lacks one)."""
    record = {**json.loads(members["json"]), **changes}
    kept = {name: value for name, value in record.items() if value is not None}
    return {**members, "json": json.dumps(kept).encode()}


@pytest.mark.parametrize(("layout", "way"), [("rotated", "copied"), ("source", "streaming")])
def test_datasets_reads_all_rows(tmp_path: Path, layout: str, way: str) -> None:
    """Fields and label maps come and go: the first rows say nothing of the later ones."""
    root = make_set(
        tmp_path / "set",
        {"train": 8, "dev-test": 2},
        layout=layout,
        labelled=True,
        map_times_s=(0.5, 1.5),
    )
    event = {"time_s": 0.5, "class": 2, "azimuth_deg": 3.0, "elevation_deg": -1.0}
    lacking = {"events": None, "map_times_s": None, "event_step_s": None}
    for sample in range(6):
        change_members(root, sample, lambda members: _without_maps(_edited(members, **lacking)))
    far = {**event, "visible": False, "distance_m": 2.5}
    change_members(root, 7, lambda members: _edited(members, events=[event, far]))
    before = contents(root)
    done = avprep("card", root)
    assert done.exit_code == 0, done.output
    assert done.stdout == f"{root / 'README.md'}: 10 clips\n"
    assert {name: before[name] for name in before} == {
        name: value for name, value in contents(root).items() if name in before
    }
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")}
    subprocess.run(
        [sys.executable, "-c", READ, str(root), str(tmp_path / "cache"), way],
        check=True,
        env=environment,
    )


def _without_maps(members: dict[str, bytes]) -> dict[str, bytes]:
    return {name: content for name, content in members.items() if not name.endswith("png")}


def _head(root: Path) -> dict[str, Any]:
    head = (root / "README.md").read_text().split("---\n")[1]
    return yaml.safe_load(head)


def test_the_card_names_files_counts_and_media(tmp_path: Path) -> None:
    root = make_set(tmp_path / "set", {"train": 3, "test": 2})
    assert avprep("card", root).exit_code == 0
    assert 'ShardSet("PATH", "train")' in (root / "README.md").read_text()
    head = _head(root)
    assert "ambisonics" in head["tags"]
    assert head["size_categories"] == ["n<1K"]
    assert [one["config_name"] for one in head["configs"]] == ["default", "bytes"]
    assert head["configs"][0]["data_files"][1] == {"split": "test", "path": "test/*.tar"}
    media, stored = (
        {one["name"]: one.get("dtype", "record") for one in info["features"]}
        for info in head["dataset_info"]
    )
    assert (media["view00.mp4"], media["view04.flac"]) == ("video", "audio")
    assert (stored["view00.mp4"], stored["view04.flac"]) == ("binary", "binary")
    counts = [one["num_examples"] for one in head["dataset_info"][0]["splits"]]
    assert counts == [3, 2]
    assert "license" not in head  # the owner's to state
    page = (root / "README.md").read_text()
    assert "| train | 3 | 3 | 0.00 | 5 | 1 |" in page
    assert "![" in page
    assert (root / "card.png").read_bytes().startswith(b"\x89PNG")
    assert avprep("verify", root).exit_code == 0


def test_columns_are_those_of_the_record() -> None:
    """A field that the schema gains is a column without a change here."""
    record = {one["name"]: one for one in card_module.columns([])[0]["struct"]}
    assert record["start_s"] == {"name": "start_s", "dtype": "float64"}
    assert record["folds"] == {"name": "folds", "list": "string"}
    assert record["label"]["dtype"] == "string"
    assert {"name": "visible", "dtype": "bool"} in record["events"]["list"]
    assert {"name": "azimuth_deg", "dtype": "float64"} in record["views"]["list"]
    gops = next(one for one in record["video"]["struct"] if one["name"] == "gops")
    assert gops == {"name": "gops", "list": {"list": "int64"}}
    assert "source_format" not in record


def test_nothing_is_written_over_and_damage_is_named(tmp_path: Path) -> None:
    root = make_set(tmp_path / "set", {"train": 3})
    (root / "README.md").write_text("mine")
    refused = avprep("card", root)
    assert (refused.exit_code, refused.stderr.count("\n")) == (2, 1)
    assert "README.md exists" in refused.stderr
    assert (root / "README.md").read_text() == "mine"
    assert not (root / "card.png").exists()
    elsewhere = tmp_path / "cards" / "set.md"
    elsewhere.parent.mkdir()
    assert avprep("card", root, "--out", elsewhere).exit_code == 0
    assert {path.name for path in elsewhere.parent.iterdir()} == {"set.md", "set.png"}
    assert "name of its picture" in avprep("card", root, "--out", tmp_path / "x.png").stderr
    (root / "README.md").unlink()
    (root / "card.png").write_text("mine")
    assert "card.png exists" in avprep("card", root).stderr
    assert (root / "card.png").read_text() == "mine"
    assert "no folder of this machine" in avprep("card", "http://127.0.0.1:9/set").stderr
    damage(root, 0)
    broken = avprep("card", root, "--out", tmp_path / "other.md")
    assert (broken.exit_code, broken.stderr.count("\n")) == (2, 1)
    assert not (tmp_path / "other.md").exists()


def test_splits_that_datasets_cannot_tell_apart_are_refused(tmp_path: Path) -> None:
    for splits, sentence in (
        ({"train-a": 2, "train_a": 2}, "train-a and train_a have one name"),
        ({"all": 2}, "means all splits"),
    ):
        root = make_set(tmp_path / next(iter(splits)), splits)
        refused = avprep("card", root)
        assert refused.exit_code == 2
        assert sentence in refused.stderr
        assert not (root / "card.png").exists()


def test_a_set_of_beams_is_not_called_ambisonic(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = tmp_path / "raw"
    write_dot_recording(raw, "a", 40.0, 15.0, seconds=2.0)
    assert build(raw, "--out", tmp_path / "set", *FAST, "--audio", "mono").exit_code == 0
    monkeypatch.chdir(tmp_path / "set")
    assert avprep("card", ".").exit_code == 0
    assert "ambisonics" not in _head(tmp_path / "set")["tags"]
    page = (tmp_path / "set/README.md").read_text()
    assert "# set\n" in page
    assert "without ambisonics" in page


def test_label_maps_of_many_moments_are_left_out_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(card_module, "_MOST_MAPS", 4)
    root = make_set(tmp_path / "set", {"train": 2}, map_times_s=(0.5, 1.5))
    assert avprep("card", root).exit_code == 0
    names = [one["name"] for one in _head(root)["dataset_info"][0]["features"]]
    assert not any(name.endswith("png") for name in names)
    assert "label maps are too many to be columns" in (root / "README.md").read_text()
