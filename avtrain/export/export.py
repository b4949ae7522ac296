"""Networks of a checkpoint as a folder for others: weights, settings, card, and graphs."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from avtrain.checkpoint import Checkpoint
from avtrain.config import Config
from avtrain.encoder import encoder_of
from avtrain.errors import TrainingError
from avtrain.evals.results import SHARE, Result, read_results
from avtrain.evals.tables import escape, markdown, results_table
from avtrain.export.graphs import Kind, write_graphs
from avtrain.exported import CARD, write_exported
from avtrain.own_networks import MODALITIES, PAPERS, Factories, check_named
from avtrain.run_folder import RESULT_ENDING
from shards.files import write_atomic


def export(
    path: Path, out: Path, graphs: Sequence[Kind] = (), factories: Factories = PAPERS
) -> list[str]:
    """Write the networks of a checkpoint to the new folder ``out``; return a line on each graph,
    and on each damaged result that the card lacks.

    A kill leaves no ``out``. Raises TrainingError for a checkpoint that cannot be read, for
    networks that a graph cannot hold, and if ``out`` exists.
    """
    if out.exists():
        raise TrainingError(f"{out} exists already; name another --out")
    checkpoint = Checkpoint.load(path)
    config = checkpoint.settings()
    if not checkpoint.features:
        raise TrainingError(
            f"{path} holds no mean and deviation of log-mels: it was imported without --statistics"
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        building.chmod(0o777 & ~_umask())
        write_exported(building, vars(checkpoint))
        lines = []
        for kind in graphs:
            check_named(config, factories, path)
            encoder = encoder_of(checkpoint, path, factories)
            for name, difference in write_graphs(encoder, building, kind).items():
                lines.append(f"{name}.{kind}: equals the network to {difference:.0e}")
        results, damaged = _results_beside(path, checkpoint)
        lines += [f"left out of the card: {sentence}" for sentence in damaged]
        write_atomic(building / CARD, model_card(checkpoint, config, results, graphs).encode())
        building.rename(out)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise
    return lines


def model_card(
    checkpoint: Checkpoint, config: Config, results: Sequence[Result], graphs: Sequence[Kind]
) -> str:
    """The README of exported networks, as model hubs show it."""
    clip, sound = config.clip, config.sound
    inputs = "log-mels and intensities" if sound.intensity else "log-mels"
    settings = {
        "pretext task": config.title,
        "preset": config.preset,
        "steps": f"{checkpoint.total_steps} of {config.batch_size} clips × {clip.views} views",
        "learning rate": f"{config.learning_rate:g}",
        "seed": str(config.seed),
        "settings": f"{config.digest}, all in config.json",
        "set": f"split {checkpoint.split} of the set with the manifest {checkpoint.data[:12]}",
    }
    own = [
        f', {modality}_network="{escape(network.factory)}"'
        for modality in MODALITIES
        if (network := config.model.own(modality)) is not None
    ]
    parts = [
        "---\nlibrary_name: avsa360\ntags:\n- audio-visual\n- spatial-audio\n- ambisonics\n"
        "- 360-video\n- self-supervised-learning\n---",
        f"# {escape(config.title)}, {checkpoint.total_steps} steps",
        "Networks for 360° video with first-order ambisonics, pretrained without labels by telling "
        "whether a view and a sound belong together. **Licence: to be stated by the owner.**",
        "## Use",
        "```python\nfrom avtrain import load_encoder\n\n"
        f'encoder = load_encoder("THIS_FOLDER"{"".join(own)})\n'
        "seen = encoder.video(frames)\nheard = encoder.audio(sound)\n```",
        f"- `frames`: uint8 RGB (N, {clip.frames}, height, width, 3) of perspective crops at "
        f"{clip.fps:g} frames per second; features (N, {config.model.video_dim}).\n"
        f"- `sound`: float (N, {sound.view_channels}, {sound.samples}), {sound.duration_s:g} s at "
        f"{sound.sample_rate} Hz as heard in the direction of the crop ({sound.audio}; ambisonics "
        f"are ACN, SN3D, turned so that X points there); features (N, {config.model.audio_dim}). "
        f"The network reads {inputs}.",
    ]
    if graphs:
        names = ", ".join(f"`video.{kind}`, `audio.{kind}`" for kind in graphs)
        parts.append(
            f"Graphs without this program: {names}; frames are {clip.size} × {clip.size} pixels "
            "there."
        )
    parts += [
        "## Training",
        markdown([{"setting": name, "value": value} for name, value in settings.items()]),
        "## Results",
        *_tables(results),
    ]
    return "\n\n".join(parts) + "\n"


def _tables(results: Sequence[Result]) -> list[str]:
    if not results:
        return ["No results of these weights lay beside the checkpoint."]
    # Those of shares of the labels have a column of their own.
    kinds = ([one for one in results if (SHARE in one.test) == shares] for shares in (False, True))
    return [results_table(kind) for kind in kinds if kind]


def _results_beside(path: Path, checkpoint: Checkpoint) -> tuple[list[Result], list[str]]:
    """Results of these very weights in the checkpoint's folder and below, and a sentence about each
    file that is damaged."""
    if next(path.parent.rglob(f"*{RESULT_ENDING}"), None) is None:
        return [], []
    found, damaged = read_results([path.parent])
    return [one for one in found if one.network.weights == checkpoint.weights_sha256], damaged


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
