"""`avtrain export`: files for others, and the folder in the place of a checkpoint."""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from avtrain.checkpoint import Checkpoint
from avtrain.encoder import load_encoder
from avtrain.errors import TrainingError
from avtrain.evals.results import SHARE, Result
from avtrain.export import export as exporting
from tests.support.runs import SMALL, avtrain, refused
from tests.support.tiny_set import make_set

FAST = ("--num-workers", 0, "--device", "cpu", "--no-baseline", "--views", 2)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_set(tmp_path_factory.mktemp("set"), {"train": 8, "test": 4}, views=2)


@pytest.fixture(scope="module")
def run(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "run"
    words = ("pretrain", root, "--out", folder, *SMALL, "--num-workers", 0, "--epochs", 1)
    assert avtrain(*words).exit_code == 0
    words = ("eval", "retrieval", root, "--checkpoint", folder / "checkpoint.pt", "--out", folder)
    assert avtrain(*words, *FAST).exit_code == 0
    (result,) = folder.glob("*.result.json")
    other = Result.read(result)
    replace(other, task="few-labels", test=other.test | {SHARE: 0.05}).write(folder)
    other = replace(other, task="foreign", network=replace(other.network, weights="0" * 64))
    other.write(folder)
    return folder


@pytest.fixture(scope="module")
def exported(run: Path) -> Path:
    out = run.parent / "exported"
    done = avtrain("export", run / "checkpoint.pt", "--out", out, "--onnx", "--torch-export")
    assert done.exit_code == 0, done.output
    for name in ("video.onnx", "audio.onnx", "video.pt2", "audio.pt2"):
        assert f"{name}: equals the network to " in done.output
    return out


def test_the_folder_holds_the_same_networks(run: Path, exported: Path) -> None:
    one, other = Checkpoint.load(run / "checkpoint.pt"), Checkpoint.load(exported)
    assert one.model.keys() == other.model.keys()
    for part in ("model", "features"):
        for name, value in getattr(one, part).items():
            assert torch.equal(value, getattr(other, part)[name]), name
    assert one.weights_sha256 == other.weights_sha256
    assert one.settings() == other.settings()
    assert not other.optimiser


@pytest.mark.parametrize("count", [1, 4])
def test_graphs_read_pixels_and_samples(run: Path, exported: Path, count: int) -> None:
    import onnxruntime

    encoder = load_encoder(run / "checkpoint.pt")
    clip, sound = encoder.config.clip, encoder.config.sound
    frames = torch.randint(0, 256, (count, clip.frames, clip.size, clip.size, 3)).byte()
    loud = torch.randn(count, sound.view_channels, sound.samples)
    quiet = 1e-3 * loud
    quiet[:, :, : sound.samples // 2] = 0
    for name, inputs, network in (
        ("video", frames, encoder.video),
        ("audio", loud, encoder.audio),
        ("audio", quiet, encoder.audio),
    ):
        with torch.no_grad():
            expected = network(inputs)
            graph = torch.export.load(exported / f"{name}.pt2").module()(inputs)
        session = onnxruntime.InferenceSession(exported / f"{name}.onnx")
        given = session.get_inputs()[0].name
        (onnx,) = session.run(None, {given: inputs.numpy()})
        for found in (graph, torch.from_numpy(onnx)):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_the_folder_stands_for_a_checkpoint(
    root: Path, run: Path, exported: Path, tmp_path: Path
) -> None:
    words = ("eval", "retrieval", root, *FAST)
    for name, checkpoint in (("one", run / "checkpoint.pt"), ("other", exported)):
        done = avtrain(*words, "--checkpoint", checkpoint, "--out", tmp_path / name)
        assert done.exit_code == 0, done.output
    one, other = (Result.read(*(tmp_path / name).glob("*.json")) for name in ("one", "other"))
    assert one.metrics == other.metrics
    assert one.network.weights == other.network.weights
    begin = ("pretrain", root, *SMALL, "--num-workers", 0, "--steps", 1)
    done = avtrain(*begin, "--out", tmp_path / "next", "--init-from", exported)
    assert done.exit_code == 0, done.output
    again = tmp_path / "again"
    shutil.copytree(exported, again / "checkpoint.pt")
    assert "cannot be resumed" in refused(*begin, "--out", again, "--resume")
    frames = torch.randint(0, 256, (1, 4, 48, 48, 3)).byte()
    with torch.no_grad():
        seen = [load_encoder(path).video(frames) for path in (run / "checkpoint.pt", exported)]
    assert torch.equal(*seen)


def test_the_card_says_what_it_was_trained_on_and_what_was_measured(exported: Path) -> None:
    card = (exported / "README.md").read_text()
    front = card.split("---")[1]
    assert "library_name: avsa360" in front
    assert "# AVSA, 2 views, 2 steps" in card
    assert "within clip, recall@1 (%)" in card
    assert "foreign" not in card
    assert "few-labels" in card
    assert " 5 % " in card
    assert 'load_encoder("THIS_FOLDER")' in card


def test_nothing_is_replaced_or_left_half_written(
    run: Path, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: path.stat().st_mtime_ns for path in exported.iterdir()}
    said = refused("export", run / "checkpoint.pt", "--out", exported)
    assert "exists already" in said
    assert before == {path: path.stat().st_mtime_ns for path in exported.iterdir()}

    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "onnxscript", None)
        said = refused("export", run / "checkpoint.pt", "--out", tmp_path / "new", "--onnx")
        assert "--onnx needs onnxscript; `pip install 'avsa360[onnx]'` brings it" in said

    def stop(*_: object) -> str:
        raise KeyboardInterrupt

    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copytree(run, alone, dirs_exist_ok=True)
    (alone / "other.result.json").write_text("{")
    done = avtrain("export", alone / "checkpoint.pt", "--out", alone / "said")
    assert "left out of the card: " in done.output
    assert "other.result.json is no result" in done.output
    for result in alone.rglob("*.result.json"):
        result.unlink()
    assert avtrain("export", alone / "checkpoint.pt", "--out", alone / "new").exit_code == 0
    assert "No results of these weights" in (alone / "new" / "README.md").read_text()
    shutil.rmtree(alone)
    monkeypatch.setattr(exporting, "model_card", stop)
    with pytest.raises(KeyboardInterrupt):
        exporting.export(run / "checkpoint.pt", tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_exported_folder_is_one_sentence(
    run: Path, exported: Path, tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match=r"no exported networks; name .*checkpoint\.pt"):
        Checkpoint.load(run)
    damaged = tmp_path / "damaged"

    def check(change: dict[str, bytes | None], sentence: str) -> None:
        shutil.rmtree(damaged, ignore_errors=True)
        shutil.copytree(exported, damaged)
        for name, content in change.items():
            (damaged / name).unlink()
            if content is not None:
                (damaged / name).write_bytes(content)
        with pytest.raises(TrainingError, match=sentence):
            Checkpoint.load(damaged)

    weights = (exported / "model.safetensors").read_bytes()
    settings = json.loads((exported / "config.json").read_bytes())
    check({"model.safetensors": weights[:-9]}, "is damaged")
    check({"model.safetensors": b"\xff" * 100}, "is damaged")
    check({"model.safetensors": weights.replace(b"model.video.stem", b"model.video.stex")}, "lacks")
    check({"model.safetensors": weights.replace(b'"model.audio', b'"other.audio')}, "is unknown")
    check({"config.json": None}, "No such file")
    check({"config.json": b"{}"}, "is not that of exported networks")
    check({"config.json": b'{"config":' * 9000}, "nested too deeply")
    check({"config.json": json.dumps(settings | {"data": 3}).encode()}, "field data")
    changed = settings["config"] | {"model": settings["config"]["model"] | {"width": 4}}
    check({"config.json": json.dumps(settings | {"config": changed}).encode()}, "has the shape")
    check({"model.safetensors": None}, "no exported networks")
    os.mkfifo(damaged / "model.safetensors")
    with pytest.raises(TrainingError, match="regular file"):
        Checkpoint.load(damaged)
