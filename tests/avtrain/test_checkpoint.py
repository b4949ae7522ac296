"""Checkpoints that do not fit are refused in one sentence, within the memory of their size."""

from __future__ import annotations

import io
import math
import os
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from avtrain.checkpoint import Checkpoint
from avtrain.errors import TrainingError
from tests.support.runs import SMALL, avtrain, refused
from tests.support.tiny_set import make_set

Content = dict[str, Any]
STEM = "video.stem.0.weight"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_set(tmp_path_factory.mktemp("set"), {"train": 4, "test": 4})


@pytest.fixture(scope="module")
def run(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run")
    done = avtrain("pretrain", root, "--out", out, "--steps", 1, *SMALL)
    assert done.exit_code == 0, done.output
    return out


def read(run: Path) -> Content:
    content: Content = torch.load(run / "checkpoint.pt", weights_only=True)
    return content


def put(*place: Any, value: Any) -> Callable[[Content], object]:
    """Put ``value`` at a place in a checkpoint; a function makes it from what is there."""

    def change(content: Content) -> None:
        for name in place[:-1]:
            content = content[name]
        there = content.get(place[-1]) if isinstance(content, dict) else content[place[-1]]
        content[place[-1]] = value(there) if callable(value) else value

    return change


def with_nan(tensor: torch.Tensor) -> torch.Tensor:
    tensor = tensor.clone()
    tensor[(-1,) * tensor.dim()] = math.nan
    return tensor


def lists_in_lists(_: Any) -> list[Any]:
    value: list[Any] = []
    for _ in range(200):
        value = [value, value]
    return value


WRONG: dict[str, tuple[Callable[[Content], object], str]] = {
    "version": (put("version", value="3"), "of this version"),
    "no model": (lambda c: c.pop("model"), "lacks model"),
    "more": (put("more", value=1), "it holds more"),
    "model": (put("model", value=[1]), "model is a list"),
    "shape": (put("model", STEM, value=torch.zeros(3, 3)), f"{STEM} has the shape (3, 3), not"),
    "missing": (lambda c: c["model"].pop(STEM), f"model lacks {STEM}"),
    "extra": (put("model", "x.y", value=torch.zeros(1)), "holds x.y, which these networks"),
    "text": (put("model", STEM, value="text"), f"{STEM} is a str"),
    "double": (put("model", STEM, value=lambda t: t.double()), "float64"),
    "half": (put("model", STEM, value=lambda t: t.half()), "float16"),
    "complex": (put("model", STEM, value=lambda t: t.to(torch.complex64)), "ComplexFloatStorage"),
    "sparse": (put("model", STEM, value=lambda t: t.to_sparse()), "sparse"),
    "meta": (put("model", STEM, value=lambda t: t.to("meta")), "meta"),
    "expanded": (
        put("model", STEM, value=lambda t: torch.zeros(1).expand(t.shape)),
        f"model.{STEM} is a tensor of",
    ),
    "absurd": (
        put("model", STEM, value=torch.zeros(1).expand(10**6, 10**6)),
        "is a tensor of 4000000000000 bytes",
    ),
    "nan": (put("model", STEM, value=with_nan), f"model.{STEM} has values that are not finite"),
    "inf": (put("features", "mean", value=lambda t: t + math.inf), "features.mean has values"),
    "bands": (put("features", "mean", value=torch.zeros(3)), "features.mean has the shape (3,)"),
    "std": (put("features", "std", value=lambda t: -t), "features.std has values that are not"),
    "steps": (put("total_steps", value=-1), "field total_steps: expected int >= 0"),
    "step": (put("step", value="1"), "field step: expected int, got str"),
    "epoch": (put("epoch", value=10**30), "field epoch"),
    "split": (put("split", value=3), "field split: expected str"),
    "config": (put("config", value="tiny"), "config is a str"),
    "preset": (put("config", "preset", value="huge"), "field preset"),
    "task": (put("config", "task", value=None), "field task"),
    "width": (put("config", "model", "width", value=10**9), "field model.width"),
    "depth": (put("config", "model", "transformer_depth", value=10**6), "transformer_depth"),
    "text width": (put("config", "model", "width", value="8"), "field model.width"),
    "nan lr": (put("config", "learning_rate", value=math.nan), "field learning_rate"),
    "seconds": (put("config", "sound", "duration_s", value=1e300), "field sound.duration_s"),
    "input": (
        lambda c: c["config"]["clip"].update(size=4096, frames=1000),
        "clips that are too large",
    ),
    "newer": (put("config", "model", "newer", value=1), "model.newer is not of this version"),
    "code": (
        put("config", "model", "video_network", value={"factory": "a:b\n", "features": 3}),
        "field model.video_network.factory",
    ),
    "more of it": (
        put("config", "model", "video_network", value={"factory": "a:b", "features": 3, "x": 1}),
        "model.video_network.x is not of this version",
    ),
    "channels": (put("config", "sound", "intensity", value=False), "feature channels"),
    "no settings": (put("config", value={}), "in its settings, object missing required field task"),
    "optimiser": (put("optimiser", value={"state": 1}), "optimiser is not that of a run"),
    "groups": (put("optimiser", "param_groups", value=[]), "has 0 groups of parameters, not 1"),
    "group": (put("optimiser", "param_groups", 0, "lr", value="fast"), "field lr"),
    "betas": (put("optimiser", "param_groups", 0, "betas", value=(math.nan, 0.9)), "betas"),
    "params": (put("optimiser", "param_groups", 0, "params", value=[1]), "not for the"),
    "moments": (put("optimiser", "state", 0, "exp_avg", value=torch.zeros(2)), "0.exp_avg has"),
    "count": (put("optimiser", "state", 0, "step", value=1.0), "0.step is a float"),
    "number": (put("optimiser", "state", 10**6, value={}), "not for the"),
    "rng": (put("rng", "cpu", value=torch.zeros(9, dtype=torch.uint8)), "rng.cpu is no state"),
    "junk rng": (put("rng", "cpu", value=lambda t: t * 0 + 255), "rng.cpu is no state"),
    "rng type": (put("rng", "tpu", value=lambda t: torch.zeros(3)), "rng.tpu is no state"),
    "scaler": (put("scaler", value={"scale": math.inf}), "field scale"),
    "nested": (put("scaler", value=lists_in_lists), "too many values in each other"),
    "set": (put("split", value={"a"}), "set beside tensors"),
    "bytes": (put("split", value=b"a"), "_codecs.encode beside tensors"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_fit_is_named(name: str, run: Path, tmp_path: Path) -> None:
    content = read(run)
    change, words = WRONG[name]
    change(content)
    path = tmp_path / "checkpoint.pt"
    torch.save(content, path)
    with pytest.raises(TrainingError) as caught:
        Checkpoint.load(path)
    assert str(caught.value).startswith(str(path)), caught.value
    assert words in str(caught.value)


def test_every_command_refuses_it(root: Path, run: Path, tmp_path: Path) -> None:
    path, out = tmp_path / "run" / "checkpoint.pt", tmp_path / "out"
    path.parent.mkdir()
    content = read(run)
    put("model", STEM, value=with_nan)(content)
    torch.save(content, path)
    evals = ["avc", "avsa", "action", "segmentation", "retrieval", "localization"]
    for command in (
        ("pretrain", root, "--out", path.parent, "--resume", *SMALL),
        ("pretrain", root, "--out", out, "--init-from", path, *SMALL),
        ("embed", root, "--checkpoint", path, "--out", tmp_path / "x.npz"),
        *(("eval", task, root, "--checkpoint", path, "--out", out) for task in evals),
    ):
        output = refused(*command)
        assert output.count("\n") == 1
        assert f"{path} is no checkpoint of this version of avtrain: its model.{STEM}" in output
    assert not out.exists()


def test_networks_alone_cannot_be_resumed(root: Path, run: Path, tmp_path: Path) -> None:
    content = read(run)
    content |= {"optimiser": {}, "rng": {}}
    torch.save(content, tmp_path / "checkpoint.pt")
    output = refused("pretrain", root, "--out", tmp_path, "--resume", "--steps", 2, *SMALL)
    assert "holds networks alone" in output


@pytest.mark.parametrize("change", [{"epoch": 0, "step": 10**6}, {"epoch": 10**6, "step": 0}])
def test_places_beyond_the_run(change: Content, root: Path, run: Path, tmp_path: Path) -> None:
    torch.save(read(run) | change, tmp_path / "checkpoint.pt")
    output = refused("pretrain", root, "--out", tmp_path, "--resume", "--steps", 3, *SMALL)
    assert f"step {change['step']} of epoch {change['epoch']} does not follow 1 steps" in output


def test_only_regular_files_are_opened(root: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in ("/dev/zero", tmp_path / "fifo"):
        output = refused("embed", root, "--checkpoint", path, "--out", tmp_path / "x.npz")
        assert "it is not a regular file" in output
        output = refused("import-checkpoint", path, "--out", tmp_path / "x.pt")
        assert "it is not a regular file" in output


class Call:
    """Calls a function when it is unpickled."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def bombs(folder: Path, run: Path) -> dict[str, Path]:
    """Small files that would take much memory."""
    content = read(run)
    whole = (run / "checkpoint.pt").read_bytes()
    paths = {name: folder / f"{name}.pt" for name in ("bytearray", "zip", "short", "legacy")}
    torch.save(content | {"split": Call(bytearray, 8 * 10**9)}, paths["bytearray"])
    with (
        zipfile.ZipFile(io.BytesIO(whole)) as there,
        zipfile.ZipFile(paths["zip"], "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for record in there.infolist():
            bomb.writestr(record.filename, there.read(record))
        bomb.writestr("checkpoint/data/x", bytes(3 * 10**8))
    # A record that is shorter than the tensor in it, which would read what lies behind in memory.
    tensor = torch.zeros(10**6)
    torch.save(content | {"model": content["model"] | {STEM: tensor}}, paths["short"])
    with zipfile.ZipFile(paths["short"]) as there:
        records = {record.filename: there.read(record) for record in there.infolist()}
    with zipfile.ZipFile(paths["short"], "w") as short:
        for name, data in records.items():
            short.writestr(name, data[:8] if len(data) == 4 * 10**6 else data)
    legacy = {"model": torch.zeros(1).expand(10**6, 10**6), "train_criterion": {}}
    torch.save(legacy, paths["legacy"], _use_new_zipfile_serialization=False)
    paths["legacy"].write_bytes(paths["legacy"].read_bytes()[:-4])
    return paths


def test_bombs_take_no_memory(run: Path, tmp_path: Path) -> None:
    code = """
import resource, sys
from pathlib import Path
from avtrain.checkpoint import Checkpoint
from avtrain.errors import TrainingError
from avtrain.published import import_checkpoint
begin = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in map(Path, sys.argv[1:]):
    for read in (Checkpoint.load, import_checkpoint):
        try:
            read(path)
        except TrainingError:
            more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - begin) >> 10
            print(path.name, more)
"""
    paths = bombs(tmp_path, run)
    command = [sys.executable, "-c", code, *map(str, paths.values())]
    told = subprocess.run(command, capture_output=True, text=True, timeout=60)
    lines = told.stdout.splitlines()
    assert len(lines) == 2 * len(paths), told.stdout + told.stderr
    assert int(lines[-1].split()[1]) < 200, lines  # MB


def test_old_and_new_pickles_of_text(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    for protocol in range(6):
        path.write_bytes(pickle.dumps({"version": 3, "x": len}, protocol))
        with pytest.raises(TrainingError, match=r"is no checkpoint"):
            Checkpoint.load(path)


def test_a_checkpoint_of_a_gpu_is_read_on_a_cpu(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its tensors are marked as those of a GPU."""
    checkpoint = Checkpoint.load(run / "checkpoint.pt")
    monkeypatch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
    checkpoint.save(tmp_path / "gpu.pt")
    assert b"cuda:0" in (tmp_path / "gpu.pt").read_bytes()
    read = Checkpoint.load(tmp_path / "gpu.pt")
    assert read.weights_sha256 == checkpoint.weights_sha256
    moments = [value for each in read.optimiser["state"].values() for value in each.values()]
    assert {value.device.type for value in [*moments, *read.model.values()]} == {"cpu"}
