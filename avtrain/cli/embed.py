"""``avtrain embed``."""

from __future__ import annotations

from pathlib import Path

import click

from avtrain.cli.common import networks_of, one_sentence


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
@click.option("--split", default="train")
@click.option("--windows", type=click.IntRange(1), default=1, help="Windows of every clip.")
@click.option("--num-workers", type=click.IntRange(0), help="Loaders.  [default: auto]")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto")
@click.option("--seed", type=click.IntRange(0), default=0)
@click.pass_context
def embed(
    ctx: click.Context,
    folder: str,
    checkpoint: str,
    out: Path,
    split: str,
    windows: int,
    num_workers: int | None,
    device: str,
    seed: int,
) -> None:
    """Features of all views of all clips of a split, with their keys.

    \b
    keys, sources                     of the N clips
    start_s (N, W)                    where a window's second of sound begins
    azimuth_deg, elevation_deg (N, V) where the views look
    video, audio (N, W, V, D)         features of the backbones
    video_embedding, predicted_video_embedding, audio_embedding, predicted_audio_embedding
                                      what pretraining compares: predictions are from the other

    Clips that cannot be read are left out and said, with exit status 1.

    \b
    Example:
      avtrain embed shards/ --checkpoint runs/avsa-tiny/checkpoint.pt --out features.npz
      python -c "import numpy; print(numpy.load('features.npz')['video'].shape)"
    """
    with one_sentence():
        from avtrain.evals.embed import EmbedOptions
        from avtrain.evals.embed import embed as write

        path, config = networks_of(checkpoint, None, None, None)
        options = EmbedOptions(out, path, split, windows, seed, device, num_workers)
        arrays, faults = write(folder, config, options)
    for fault in faults:
        click.echo(f"left out: {fault}", err=True)
    clips, windows, views, features = arrays["video"].shape
    click.echo(f"{out}: {clips} clips, {windows} windows, {views} views, {features} features")
    if faults:
        ctx.exit(1)
