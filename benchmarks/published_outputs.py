"""Whether our networks, loss and inputs equal those of the AVSA paper's published code.

    python benchmarks/published_outputs.py CHECKOUT

CHECKOUT is the user's own copy of the code that its authors published as AVSpatialAlignment. That
code's own functions build its networks and criteria from its own settings. They get random weights
and batch statistics, are saved as its training saves them, and are imported by `avtrain.published`.
Both sides then get the same random tensors, in float32 on the CPU. Compared are features,
predictions, embeddings, and losses in evaluation and in training (with batch statistics, and
without dropout, which is random). Then come the inputs by the `published` conventions: the channels
of views, and the log-mels with that code's own mean and standard deviation.

Prints the largest differences. The exit status is 1 if one exceeds 1e-5 (relative to the largest
value, if that is above 1), or 1e-3 in log-mels, whose logarithm magnifies the rounding of numbers
that nearly cancel.

That code was written for librosa 0.7, which reflects audio at its ends by default; later versions
need an argument for it. The script changes into the checkout for its relative paths.
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor, nn

from avtrain.config import Config
from avtrain.data.published_conventions import published_view_matrix
from avtrain.networks.features import Features
from avtrain.networks.models import AudioVisual
from avtrain.pretrain.objective import Objective
from avtrain.published import import_checkpoint
from avtrain.runtime.distributed import World
from shards.geometry import encode_foa, rotate_foa, unit_vector

TOLERANCE, LOG_TOLERANCE = 1e-5, 1e-3
_SETTINGS = {"avc": "InstDisc", "avsa": "Cur-Loc4-TransfD2"}
_STATISTICS = "datasets/assets/MelSpectDB-24khz-257fft-128mels-norm-stats.npz"
_CLIPS = 3


def _randomise(module: nn.Module) -> None:
    """Give batch normalisation values as after training, so that it is not the identity."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d | nn.BatchNorm3d | nn.LayerNorm):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, std=0.2)
        if isinstance(part, nn.BatchNorm2d | nn.BatchNorm3d):
            part.running_mean.normal_(0.0, 0.2)
            part.running_var.uniform_(0.5, 1.5)


class Differences:
    """Prints the largest difference of each quantity as it is added."""

    def __init__(self) -> None:
        self.exceeded = False
        print(f"{'':32}{'largest value':>14}{'largest difference':>20}")

    def add(self, name: str, ours: Tensor, theirs: Tensor, tolerance: float = TOLERANCE) -> None:
        if ours.shape != theirs.shape:
            sys.exit(f"{name}: our shape is {tuple(ours.shape)}, theirs {tuple(theirs.shape)}")
        largest = theirs.abs().max().item()
        difference = (ours - theirs).abs().max().item()
        self.exceeded |= not difference <= tolerance * max(1.0, largest)
        print(f"{name:32}{largest:14.3g}{difference:20.2g}")


def _theirs(checkout: Path, task: str) -> tuple[nn.Module, nn.Module]:
    import criterions
    import models

    settings = yaml.safe_load((checkout / f"configs/main/avsa/{_SETTINGS[task]}.yaml").read_text())
    arguments = settings["model"]["args"] | {"checkpoint": None}
    model = getattr(models, settings["model"]["arch"])(**arguments)
    criterion = getattr(criterions, settings["loss"]["name"])(**settings["loss"]["args"])
    return model, criterion


def _ours(model: nn.Module, criterion: nn.Module) -> tuple[AudioVisual, Config]:
    optimiser = torch.optim.Adam([*model.parameters(), *criterion.parameters()])
    state = {
        "epoch": 50,
        "model": nn.DataParallel(model).state_dict(),
        "optimizer": optimiser.state_dict(),
        "train_criterion": criterion.state_dict(),
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "checkpoint.pth.tar"
        torch.save(state, path, _use_new_zipfile_serialization=False)  # as PyTorch 1.4 did
        checkpoint = import_checkpoint(path)
        config = checkpoint.settings()
    ours = AudioVisual(config.model)
    ours.load_state_dict(checkpoint.model)
    return ours, config


def compare_networks(differences: Differences, checkout: Path, task: str) -> None:
    torch.manual_seed(0)
    model, criterion = _theirs(checkout, task)
    _randomise(model)
    _randomise(criterion)
    ours, config = _ours(model, criterion)
    objective = Objective(ours, config, World(torch.device("cpu")))
    for part in (*criterion.modules(), *ours.modules()):
        if isinstance(part, nn.Dropout):
            part.p = 0.0
    views = config.clip.views
    video = torch.randn(_CLIPS, views, 3, 8, 112, 112)
    audio = torch.randn(_CLIPS, views, 4, 100, 128)
    directions = torch.zeros(_CLIPS, views, 3)
    loss = criterion.losses[0]
    for mode in ("evaluation", "training"):
        for module in (model, criterion, ours):
            module.train(mode == "training")
        with torch.no_grad():
            flat = model(video.flatten(0, 1), audio.flatten(0, 1))
            their_video, their_audio = (part.view(_CLIPS, views, -1) for part in flat)
            total, _ = criterion(their_video, their_audio, directions)
            our_loss = objective(video, audio, directions)
            differences.add(f"{task}, {mode}: loss", our_loss.value, total)
            if mode == "training":
                continue
            our_video, our_audio = ours.embed(video, audio)
            differences.add(f"{task}: video features", our_video, their_video)
            differences.add(f"{task}: audio features", our_audio, their_audio)
            heads = {"video": (ours.video_head, our_video), "audio": (ours.audio_head, our_audio)}
            if task == "avc":
                theirs = [loss.video_projection(their_video), loss.audio_projection(their_audio)]
            else:
                predicted = ours.predict_audio(our_video, directions)
                theirs_predicted = loss.predict(their_video, their_audio)
                differences.add(f"{task}: predicted audio", predicted, theirs_predicted[0])
                heads["video from audio"] = (
                    ours.predicted_video_head,
                    ours.predict_video(our_audio, directions),
                )
                heads["audio from video"] = (ours.predicted_audio_head, predicted)
                differences.add(
                    f"{task}: predicted video", heads["video from audio"][1], theirs_predicted[1]
                )
                theirs = loss.predict(their_video, their_audio, proj=True)
            for (name, (head, features)), expected in zip(heads.items(), theirs, strict=True):
                differences.add(f"{task}: head of {name}", head(features), expected)


def compare_inputs(differences: Differences, checkout: Path) -> None:
    """Compare channels and log-mels of FOA that comes from YouTube's six channels."""
    import librosa

    melspectrogram = functools.partial(librosa.feature.melspectrogram, pad_mode="reflect")
    librosa.feature.melspectrogram = melspectrogram
    from datasets.preprocessing import LogMelSpectrogram
    from utils.ambisonics.position import Position
    from utils.video360 import rotate_ambix

    rng = np.random.default_rng(0)
    field = sum(
        encode_foa(rng.normal(0, 0.1, 24_000) * loudness, unit_vector(*direction))
        for direction, loudness in (((40, 20), 1.0), ((-110, -35), 0.3))
    )
    field[:, 12_000:] *= 1e-12  # quiet enough for top_db to matter
    w, y, z, x = field
    read = np.stack([x, y, w, z * 0.5**0.5]) * 0.5**0.5
    _, config = _ours(*_theirs(checkout, "avc"))
    features = Features(config.sound)
    with np.load(checkout / _STATISTICS) as statistics:
        features.mean.copy_(torch.from_numpy(statistics["mean"]))
        features.std.copy_(torch.from_numpy(statistics["std"]) + 1e-5)
    log_mels = LogMelSpectrogram(24_000, n_mels=128, n_fft=512, hop_size=0.01, normalize=True)
    for azimuth, elevation in ((0.0, 0.0), (30.0, 20.0), (-150.0, -30.0), (90.0, 10.0)):
        place = Position(np.radians(azimuth), np.radians(elevation), 1.0, "polar")
        turned: Any = rotate_ambix(read, place)[0]
        matrix = published_view_matrix(azimuth, elevation)
        name = f"view {azimuth:.0f}°, {elevation:.0f}°"
        channels = torch.from_numpy(rotate_foa(field, matrix))
        differences.add(f"{name}: channels", channels, torch.from_numpy(np.float32(turned)))
        theirs, _ = log_mels(np.float32(turned), 24_000, 1.0)
        matrices = torch.from_numpy(matrix.astype(np.float32))[None, None]
        ours = features(torch.from_numpy(field)[None], matrices)[0, 0]
        differences.add(f"{name}: log-mels", ours, theirs, LOG_TOLERANCE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkout", type=Path)
    checkout = parser.parse_args().checkout.absolute()
    for settings in _SETTINGS.values():
        if not (checkout / f"configs/main/avsa/{settings}.yaml").exists():
            sys.exit(
                f"{checkout} is not a checkout of AVSpatialAlignment: it lacks {settings}.yaml"
            )
    sys.path.insert(0, str(checkout))
    sys.dont_write_bytecode = True
    os.chdir(checkout)
    differences = Differences()
    for task in _SETTINGS:
        compare_networks(differences, checkout, task)
    compare_inputs(differences, checkout)
    if differences.exceeded:
        sys.exit("some differences exceed the tolerance")


if __name__ == "__main__":
    main()
