"""The command ``avtrain embed``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click

from avtrain.cli.common import SEED, UP_TO_1000, WORKERS, one_sentence, options_as
from avtrain.cli.evals.options import read_networks
from avtrain.cli.network_options import factories_of, named_networks
from shards.errors import show


@dataclass(frozen=True, kw_only=True)
class EmbedArguments:
    """Arguments and options of the command, by name."""

    folder: str
    checkpoint: str
    out: Path
    split: str
    windows: int
    num_workers: int | None
    device: str
    seed: int
    video_network: str | None
    audio_network: str | None


@click.command()
@click.argument("folder", metavar="DIR")
@click.option(
    "--checkpoint", required=True, help="A checkpoint.pt, or 'untrained' for random networks."
)
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="File of the features (.npz); an earlier one is replaced.",
)
@click.option("--split", default="train", help="Split whose clips are embedded.")
@click.option("--windows", type=UP_TO_1000, default=1, help="Windows per clip.")
@click.option("--num-workers", type=WORKERS, help="Loader processes.  [default: auto]")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto")
@click.option("--seed", type=SEED, default=0)
@named_networks
@options_as(EmbedArguments)
def embed(given: EmbedArguments) -> None:
    """Features of all views of all clips of a split, with their keys.

    \b
    keys, sources                     of the N clips
    start_s (N, W)                    start of a window's second of audio
    azimuth_deg, elevation_deg (N, V) directions of the views
    video, audio (N, W, V, D)         features of the backbones
    video_embedding, predicted_video_embedding, audio_embedding, predicted_audio_embedding
                                      compared in pretraining: predictions come from the other

    Clips that cannot be read are left out and reported, with exit status 1.

    \b
    Example:
      avtrain embed shards/ --checkpoint runs/avsa-tiny/checkpoint.pt --out features.npz
      python -c "import numpy; print(numpy.load('features.npz')['video'].shape)"
    """
    with one_sentence():
        from avtrain.evals.embed import EmbedOptions, embed_split

        factories = factories_of(given.video_network, given.audio_network)
        checkpoint, config = read_networks(given.checkpoint, None, None, None, factories)
        options = EmbedOptions(
            given.out,
            checkpoint,
            given.split,
            given.windows,
            given.seed,
            given.device,
            given.num_workers,
            factories,
        )
        arrays, faults = embed_split(given.folder, config, options)
    for fault in faults:
        show(f"left out: {fault}", err=True)
    clips, windows, views, features = arrays["video"].shape
    show(f"{given.out}: {clips} clips, {windows} windows, {views} views, {features} features")
    if faults:
        click.get_current_context().exit(1)
