"""`avtrain pretrain --config FILE`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avtrain.cli.pretrain import PretrainOptions, pretrain
from avtrain.config import PRESETS, Config
from avtrain.errors import TrainingError
from avtrain.options import options_of, with_options
from tests.support.runs import SMALL, avtrain, refused
from tests.support.tiny_set import make_set


def parsed(*words: object) -> Config:
    """Settings of a command line."""
    # Click keeps the help option of a command's first context, so it is that of the group.
    help_options = {"help_option_names": ["-h", "--help"]}
    context = pretrain.make_context("pretrain", ["DIR", *map(str, words)], **help_options)
    return PretrainOptions(**context.params).config()


def refusal(*words: object) -> str:
    with pytest.raises(click.ClickException) as raised:
        parsed(*words)
    return raised.value.format_message()


OPTIONS: dict[str, st.SearchStrategy[Any]] = {
    "curriculum": st.booleans(),
    "features": st.sampled_from(["logmel", "logmel+intensity"]),
    "intensity_gain": st.floats(0.1, 100),
    "audio": st.sampled_from(["foa", "mono", "stereo"]),
    "transformer": st.booleans(),
    "positions": st.sampled_from(["none", "direction", "relative"]),
    "norm_first": st.booleans(),
    "negatives": st.sampled_from(["easy", "hard", "easy+hard"]),
    "temperature": st.floats(1e-3, 10),
    "head": st.sampled_from(["linear", "mlp"]),
    "dropout": st.floats(0, 0.9),
    "epochs": st.integers(1, 1000),
    "batch_size": st.integers(2, 1000),
    "views": st.integers(1, 9),
    "moments": st.integers(1, 9),
    "margin_s": st.floats(0, 10),
    "learning_rate": st.floats(1e-7, 1),
    "sampling": st.sampled_from(["clip", "video"]),
    "clips_per_source": st.integers(1, 99),
    "precision": st.sampled_from(["bf16", "fp16"]),
    "pieces": st.integers(1, 9),
    "shuffle_views": st.booleans(),
    "freeze": st.sampled_from(["none", "video", "audio", "both"]),
    "seed": st.integers(0, 2**40),
}


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["avc", "avts", "avsa"]),
    st.sampled_from(["tiny", "paper"]),
    st.fixed_dictionaries({}, optional=OPTIONS),
)
def test_the_settings_of_a_run_are_options_that_give_them(
    tmp_path_factory: pytest.TempPathFactory, task: Any, preset: str, changes: dict[str, Any]
) -> None:
    try:
        config = with_options(PRESETS[preset](task), **changes)
        config.check()
    except TrainingError:
        return
    assert with_options(PRESETS[preset](task), **options_of(config)) == config
    if config.curriculum and task == "avc":
        return
    file = tmp_path_factory.mktemp("run") / "config.json"
    file.write_text(json.dumps(config.to_dict()))
    assert parsed("--config", file) == config


def test_options_by_their_names_and_those_given_win(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(
        "task: avsa\nbatch_size: 16\nlr: 1e-4\ntransformer: true\npositions: relative\n"
        "bf16: true\nseed: 3\nsteps:\n"
    )
    words = ["--batch-size", 16, "--lr", 1e-4, "--transformer", "--positions", "relative"]
    assert parsed("--config", file) == parsed(*words, "--bf16", "--seed", 3)
    given = parsed("--seed", 5, f"--config={file}", "--no-transformer", "--positions", "none")
    assert (given.seed, given.model.transformer, given.batch_size) == (5, False, 16)
    assert parsed("--config", file, "--fp16").precision == "fp16"
    file.write_text("no-transformer: true\nmicro-batches: 2\nshuffle-views: false\n")
    assert parsed("--config", file) == parsed("--no-transformer", "--pieces", 2)
    file.write_text("")
    assert parsed("--config", file) == parsed()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("batch_size: 0", "Invalid value for '--batch-size': 0 is not in the range"),
        ("batchsize: 4", "avtrain pretrain has no option --batchsize"),
        ("transformer: 1", "--transformer is true or false, not 1"),
        ("task: [avc]", "--task takes one value, not ['avc']"),
        ("batch_size: true", "--batch-size takes one value, not True"),
        ("video_network: os:system", "video_network is read from the command line alone"),
        ("config: other.yaml", "config is read from the command line alone"),
        ("DIR", "expected"),
        ("a: [", "is not YAML"),
        ("a: &x 1\nb: *x", "refers to another value"),
        ("a: !!python/object/apply:os.system ['true']", "is not YAML"),
        ("[" * 5000, "nested too deeply"),
        ('{"clip": 1, "sound": 2, "model": 3}', "its field"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(text)
    said = refusal("--config", file)
    assert sentence in said
    assert str(file) in said


def test_a_run_is_repeated_from_its_settings(tmp_path: Path) -> None:
    root = make_set(tmp_path / "set", {"train": 8}, views=2)
    one, other = tmp_path / "one", tmp_path / "other"
    words = ("--epochs", 1, "--num-workers", 0, "--device", "cpu")
    assert avtrain("pretrain", root, "--out", one, *SMALL, *words).exit_code == 0
    repeated = ("pretrain", root, "--out", other, "--config", one / "config.json", *words[2:])
    assert avtrain(*repeated).exit_code == 0
    for name in ("config.json", "checkpoint.pt"):
        assert (one / name).read_bytes() == (other / name).read_bytes()


def test_what_options_cannot_give_is_asked_for(tmp_path: Path) -> None:
    """A run that began with another's networks is not repeated from random ones."""
    file = tmp_path / "config.json"
    config = PRESETS["tiny"]("avsa")
    file.write_text(json.dumps(config.initialised_from(config, 7).to_dict()))
    assert "is of a run with 7 steps of AVSA" in refusal("--config", file)
    assert "give --init-from as well" in refused("pretrain", tmp_path, "--config", file)
    assert parsed("--config", file, "--init-from", "x.pt") == config
    changed = config.to_dict()
    changed["clip"]["frames"] = 5
    file.write_text(json.dumps(changed))
    assert "its clip is not that of preset tiny" in refusal("--config", file)
    changed["model"]["video_network"] = {"factory": "a:b", "features": 3, "options": {}}
    changed["clip"]["frames"] = 4
    file.write_text(json.dumps(changed))
    assert "is of a run with a:b: give --video-network as well" in refusal("--config", file)
