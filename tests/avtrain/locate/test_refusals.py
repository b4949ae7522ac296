"""What cannot be located, and why, in one sentence."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce
from pathlib import Path

import pytest

from avtrain.checkpoint import Checkpoint
from avtrain.config import tiny
from avtrain.errors import TrainingError
from avtrain.locate import locate
from avtrain.locate.scores import Span
from avtrain.options import with_options
from shards.reader import ShardSet
from tests.support.runs import refused
from tests.support.tiny_set import make_set


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (
            ("SET", "nosuch", "--out", "a.csv"),
            "has no sample 'nosuch'; its keys are",
        ),
        (("SET", "--out", "a.gif"), "must end in .mp4"),
        (("SET", "--out", "a.png", "--at", "70"), "--at 70 is past the end of train000"),
        (("SET", "--out", "a.csv", "--start", "2"), "--start 2 is past the end of train000"),
        (("SET", "--out", "a.csv", "--start", "1.5"), "trained on windows of 1 s"),
        (("SET", "--out", "a.csv", "--at", "1"), "--at is the time of a .png"),
        (("SET", "--out", "a.csv", "--hop", "0.25"), "multiple of 0.1 s"),
        (("SET", "--out", "a.csv", "--grid", "30"), "--grid is for raw recordings"),
        (("SET", "--out", "a.csv", "--projection", "eac"), "--projection is for raw recordings"),
        (("SET", "--out", "a.png", "--at", "1", "--start", "0"), "leave out --start"),
        (("SET", "--out", "a.png", "--duration", "2"), "leave --duration out"),
        (("RAW", "--out", "a.csv"), "each of which gets its own; name a folder"),
        (("WALK", "--out", "a.csv", "--keep-set", "RAW"), "may hold the set of another recording"),
        (("WALK", "--out", "a.png", "--at", "9", "--grid", "90"), "0.0 s to 4.0 s, and none from"),
        (("WALK", "key", "--out", "a.csv"), "is no shard set"),
        (("WALK", "--out", "WALK"), "is the recording itself"),
        (("WALK", "--out", "a.csv", "--projection", "flat"), "'flat' is not one of"),
        (("nowhere.mp4", "--out", "a.csv"), "nowhere.mp4 does not exist"),
        (("RAW", "--out", "RAW/heat"), "lies in"),
        (("EMPTY", "--out", "heat"), "neither a finished shard set nor a folder with videos"),
    ],
)
def test_what_cannot_be_located_is_said_in_one_sentence(
    arguments: tuple[str, ...],
    reason: str,
    checkpoint: Path,
    root: Path,
    recording: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    names = {"SET": root, "WALK": recording, "RAW": recording.parent, "EMPTY": tmp_path / "empty"}
    words = [reduce(lambda w, n: w.replace(n, str(names[n])), names, word) for word in arguments]
    before = recording.read_bytes()
    assert reason in refused("locate", *words, "--checkpoint", checkpoint)
    assert recording.read_bytes() == before
    assert not (tmp_path / "a.csv").exists()


def test_networks_and_sets_that_hear_no_directions_are_refused(
    checkpoint: Path, root: Path, tmp_path: Path
) -> None:
    config = Checkpoint.load(checkpoint).settings()
    omni = with_options(replace(tiny("avc")), audio="omni")
    with pytest.raises(TrainingError, match="sounds the same in every direction"):
        locate.Locator(checkpoint, omni, Span())
    mono = make_set(tmp_path / "set", {"train": 1}, views=1)
    with pytest.raises(TrainingError, match="a single view"):
        locate.Locator(checkpoint, config, Span()).clip(ShardSet(mono), 0, [])
    for name in ("untrained", "energy"):
        out = ("--checkpoint", name, "--out", tmp_path / "a.csv")
        assert "no pretrained networks" in refused("locate", root, *out)
