"""The command ``avtrain import-checkpoint``."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from avtrain.cli.common import one_sentence
from shards.errors import show


@click.command("import-checkpoint")
@click.argument("published", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="Checkpoint to write.",
)
@click.option(
    "--conventions",
    type=click.Choice(["published", "avsa360"]),
    default="published",
    help="Input of the networks from now on: channels and rotations of audio as in the published "
    "code, including its mistakes, or ours. Crops always come from the set, with true angles.",
)
@click.option(
    "--statistics",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Mean and std of the log-mels: MelSpectDB-24khz-257fft-128mels-norm-stats.npz in the "
    "published code's datasets/assets.  [default: computed from the training split]",
)
def import_checkpoint(
    published: Path,
    out: Path,
    conventions: Literal["published", "avsa360"],
    statistics: Path | None,
) -> None:
    """Convert PUBLISHED, a .pth.tar of the paper's own code (AVC or AVSA), to a checkpoint.

    Use the result like a checkpoint of avtrain pretrain: --checkpoint, --init-from.

    \b
    Example:
      avtrain import-checkpoint checkpoint.pth.tar --out runs/published.pt
    """
    with one_sentence():
        from avtrain.errors import TrainingError
        from avtrain.published import import_checkpoint as read

        if out.exists() and published.exists() and out.samefile(published):
            raise TrainingError(f"--out is {published} itself; name another file")
        checkpoint = read(published, conventions, statistics)
        out.parent.mkdir(parents=True, exist_ok=True)
        checkpoint.save(out)
    show(
        f"{out}: {checkpoint.config['task']} networks after {checkpoint.epoch} epochs, "
        f"{conventions} conventions"
    )
    if statistics is None:
        show(
            "It holds no mean and std of log-mels: they will be computed from the training split; "
            "--statistics adds the published ones"
        )
