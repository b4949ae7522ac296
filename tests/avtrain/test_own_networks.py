"""Networks of the user's own: trained, evaluated, resumed, and never chosen by a file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from avtrain.checkpoint import Checkpoint
from avtrain.cli.main import main
from avtrain.config import tiny
from avtrain.encoder import load_encoder
from avtrain.errors import TrainingError
from avtrain.evals.results import Result
from avtrain.own_networks import Factories, build_networks, record_networks
from tests.avtrain import own_networks
from tests.support.ranks import run_ranks
from tests.support.runs import SMALL, assert_same_state, avtrain, refused, steps_of
from tests.support.tiny_set import make_set

HERE = "tests.avtrain.own_networks"
VIDEO, AUDIO = ("--video-network", f"{HERE}:video"), ("--audio-network", f"{HERE}:audio")
NAMED = (*VIDEO, *AUDIO)
FAST = ("--num-workers", "0", "--device", "cpu", "--no-baseline")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    splits = {"train": 8, "test": 6}
    times = (0.0, 0.5, 1.0, 1.5, 1.875)
    folder = tmp_path_factory.mktemp("set")
    return make_set(folder, splits, views=2, labelled=True, map_times_s=times)


def pretrain(root: Path, out: Path, *options: object) -> Path:
    result = avtrain("pretrain", root, "--out", out, *SMALL, "--num-workers", 0, *options)
    assert result.exit_code == 0, result.output
    return out / "checkpoint.pt"


@pytest.fixture(scope="module")
def checkpoint(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    options = folder / "options.yaml"
    options.write_text("video: {width: 10}\n")
    named = (*NAMED, "--network-options", options)
    return pretrain(root, folder / "avsa", *named, "--epochs", 3)


@pytest.mark.parametrize("task", ["avc", "avts"])
def test_every_pretext_task_trains_them(root: Path, tmp_path: Path, task: str) -> None:
    few = ["--batch-size", 4, "--device", "cpu", "--num-workers", 0, "--epochs", 1]
    few += ["--margin", 0] * (task == "avts")
    result = avtrain("pretrain", root, "--out", tmp_path, "--task", task, *few, *NAMED)
    assert result.exit_code == 0, result.output
    begun = build_networks(*_recorded(task))
    trained = Checkpoint.load(tmp_path / "checkpoint.pt").model
    assert trained.keys() == begun.state_dict().keys()
    torch.manual_seed(0)
    for name, value in build_networks(*_recorded(task)).named_parameters():
        if name.startswith(("video.", "audio.")):
            assert not torch.equal(value, trained[name]), name


def _recorded(task: str) -> tuple[object, Factories]:
    factories = Factories(own_networks.video, own_networks.audio)
    return record_networks(tiny(task), factories), factories  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "command",
    [
        "avsa --rounds 1",
        "avc --rounds 1",
        "retrieval",
        "localization --rounds 1",
        "probe --rounds 1",
        "segmentation --condition audio+context --epochs 1",
        "seld --steps 4 --labels 1 --video",
    ],
)
def test_every_evaluation_takes_them(
    root: Path, checkpoint: Path, tmp_path: Path, command: str
) -> None:
    name, *options = command.split()
    words = ("eval", name, root, "--checkpoint", checkpoint, "--out", tmp_path, *FAST)
    result = avtrain(*words, *options, "--views", 2, *NAMED)
    assert result.exit_code == 0, result.output
    assert f"video network {HERE}:video" in result.output
    if name == "avsa":
        said = refused(*words, *options)
        assert "if you trust its code, add --video-network" in said
        given = checkpoint.parent.with_name("options.yaml")
        said = refused(*words, *NAMED, "--network-options", given)
        assert "leave --network-options out" in said


def test_random_ones_are_evaluated_too(root: Path, tmp_path: Path) -> None:
    """Beside those of the paper they are other networks, in tables and among kept features."""
    results, files = [], []
    for name, own in (("own", VIDEO), ("paper", ())):
        words = ("eval", "avsa", root, "--checkpoint", "untrained", "--out", tmp_path / name, *FAST)
        kept = ("--keep-features", tmp_path / "features")
        result = avtrain(*words, "--views", 2, "--rounds", 1, *own, *kept)
        assert result.exit_code == 0, result.output
        files.append(len([one for one in (tmp_path / "features").rglob("*") if one.is_file()]))
        results.append(Result.read(tmp_path / name / "avsa-bin-untrained.result.json"))
    assert results[0].network != results[1].network
    assert results[1].network.settings == ""
    assert files[1] == 2 * files[0]


def test_features_of_two_sizes(root: Path, checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "features.npz"
    result = avtrain("embed", root, "--checkpoint", checkpoint, "--out", out, *FAST[:4], *NAMED)
    assert result.exit_code == 0, result.output
    with np.load(out) as found:
        assert found["video"].shape[-1] == 20
        assert found["audio"].shape[-1] == 12
        assert found["predicted_audio_embedding"].shape == found["video_embedding"].shape


def test_the_encoder_is_the_network(root: Path, checkpoint: Path) -> None:
    """In Python the functions themselves can be given."""
    encoder = load_encoder(checkpoint, "cpu", own_networks.video, own_networks.audio)
    assert (encoder.video_dim, encoder.audio_dim) == (20, 12)
    config = encoder.config
    video, sound = torch.randn(2, *config.video_shape), 0.1 * torch.randn(2, 4, 24_000)
    network = own_networks.video(config.video_shape, width=10).eval()
    weights = Checkpoint.load(checkpoint).model
    network.load_state_dict(
        {name[6:]: value for name, value in weights.items() if name.startswith("video.")}
    )
    with torch.no_grad():
        torch.testing.assert_close(encoder.video(video), network(video))
        assert encoder.audio(sound).shape == (2, 12)
    with pytest.raises(TrainingError, match="if you trust its code"):
        load_encoder(checkpoint)
    with pytest.raises(TrainingError, match=r"do not fit those of the checkpoint.*first\.0\.bias"):
        load_encoder(checkpoint, "cpu", lambda shape, width: WithoutBias(), own_networks.audio)


class WithoutBias(own_networks.Video):
    def __init__(self) -> None:
        super().__init__(3, 10)
        self.first[0].bias = None


def test_a_killed_run_continues_exactly(root: Path, checkpoint: Path, tmp_path: Path) -> None:
    options = tmp_path / "options.yaml"
    options.write_text("video: {width: 10}\n")
    named = (*NAMED, "--network-options", options, "--epochs", 3)
    pretrain(root, tmp_path / "run", *named, "--steps", 2)
    said = refused("pretrain", root, "--out", tmp_path / "run", "--resume", *SMALL, "--epochs", 3)
    assert "cannot be resumed: model.audio_network" in said
    pretrain(root, tmp_path / "run", *named, "--resume")
    assert_same_state(tmp_path / "run", checkpoint.parent)
    assert steps_of(tmp_path / "run") == steps_of(checkpoint.parent)


def _train(words: list[str]) -> None:
    main(words, standalone_mode=False)


def test_two_ranks_train_as_one(root: Path, tmp_path: Path) -> None:
    """Also with a batch normalisation that has no space around it."""
    flat = ("--video-network", f"{HERE}:flat", *AUDIO)
    words = ("pretrain", root, *SMALL, *flat, "--num-workers", 0, "--epochs", 2, "--dropout", 0)
    assert avtrain(*words, "--out", tmp_path / "one").exit_code == 0
    line = [*map(str, words), "--out", str(tmp_path / "two")]
    assert [one.status for one in run_ranks(2, tmp_path, _train, line)] == [0, 0]
    one, two = ([line["loss"] for line in steps_of(tmp_path / name)] for name in ("one", "two"))
    assert len(one) == 4
    assert one == pytest.approx(two, rel=1e-4)


def test_a_frozen_network_stays_as_it_is(root: Path, checkpoint: Path, tmp_path: Path) -> None:
    options = tmp_path / "options.yaml"
    options.write_text("video: {width: 10}\n")
    named = (*NAMED, "--network-options", options, "--init-from", checkpoint)
    later = pretrain(root, tmp_path / "run", *named, "--freeze", "video", "--epochs", 1)
    before, after = Checkpoint.load(checkpoint), Checkpoint.load(later)
    moved = {
        name.partition(".")[0]
        for name, value in after.model.items()
        if not torch.equal(value, before.model[name])
    }
    # Not even the running statistics of its batch normalisation.
    assert "video" not in moved
    assert {"audio", "video_head", "predict_audio"} <= moved
    assert after.settings().digest != before.settings().digest
    assert "video frozen" in after.settings().title


def test_what_the_file_names_is_not_imported(checkpoint: Path, root: Path, tmp_path: Path) -> None:
    """Neither by a command, nor by reading the checkpoint."""
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from avtrain.checkpoint import Checkpoint\n"
        f"Checkpoint.load(Path({str(checkpoint)!r})).settings()\n"
        f"assert {HERE!r} not in sys.modules\n"
        "from avtrain.cli.main import main\n"
        f"main(['eval', 'avsa', {str(root)!r}, '--checkpoint', {str(checkpoint)!r}, '--out', "
        f"{str(tmp_path)!r}], standalone_mode=False)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", program], capture_output=True, text=True
    )
    assert ended.returncode != 0
    assert "which is not part of this program" in ended.stderr
    assert HERE not in {line.split("|")[-1].strip() for line in ended.stderr.splitlines()}


def test_modules_in_the_current_folder_are_found(root: Path, tmp_path: Path) -> None:
    (tmp_path / "mynet.py").write_text(
        "from torch import nn\n\n\ndef small(shape):\n"
        "    return nn.Sequential(nn.AdaptiveMaxPool3d(1), nn.Flatten(), nn.Linear(shape[0], 5))\n"
    )
    # As a script of the environment starts: without the current folder on Python's path.
    program = "import sys; sys.path.remove(''); from avtrain.cli.main import main; main()"
    words = ["pretrain", str(root), "--video-network", "mynet:small", *SMALL, "--epochs", "1"]
    ended = subprocess.run(
        [sys.executable, "-c", program, *words, "--num-workers", "0"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("mynet", "is no package.module:function"),
        ("nonet:small", "cannot be imported: ModuleNotFoundError: No module named 'nonet'"),
        (f"{HERE}:nothing", "has no function nothing"),
        (f"{HERE}:no_network", "returns a str, no nn.Module"),
        (f"{HERE}:fails", "makes no network: RuntimeError: the weights are not here"),
        (f"{HERE}:of_images", "fails on an input (2, 3, 4, 32, 32): RuntimeError: "),
        (f"{HERE}:of_maps", "must return features (N, D), and returns (2, 8, 2, 30, 30)"),
    ],
)
def test_a_mistake_is_one_sentence(root: Path, tmp_path: Path, name: str, sentence: str) -> None:
    said = refused("pretrain", root, "--out", tmp_path / "run", "--video-network", name)
    assert sentence in said
    assert not (tmp_path / "run").exists()


def test_options_for_networks_are_checked(root: Path, tmp_path: Path) -> None:
    file = tmp_path / "options.yaml"
    words = ("pretrain", root, "--out", tmp_path / "run", *VIDEO, "--network-options", file)
    assert "cannot be read" in refused(*words)
    for text, sentence in (
        ("picture: {width: 3}", "has options for picture"),
        ("audio: {width: 3}", "no --audio-network is named"),
        ("video: {depth: 3}", "unexpected keyword argument 'depth'"),
        ("video: {width: {a: 1}}", "expected"),
        ("video: [", "is not YAML"),
        ("video: &a {width: 3}\naudio: *a", "refers to another value"),
    ):
        file.write_text(text)
        assert sentence in refused(*words)


def test_evaluations_that_need_maps_say_so(root: Path, tmp_path: Path) -> None:
    flat = ("--video-network", f"{HERE}:flat", "--audio-network", f"{HERE}:flat")
    words = (root, "--checkpoint", "untrained", "--out", tmp_path, *FAST, *flat)
    assert "has no method maps" in refused("eval", "segmentation", *words, "--views", 2)
    assert "has no method maps" in refused("eval", "seld", *words)
    result = avtrain("eval", "retrieval", *words, "--views", 2)
    assert result.exit_code == 0, result.output
