"""The command ``avtrain export``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from avtrain.cli.common import one_sentence
from avtrain.cli.network_options import factories_of, named_networks
from shards.errors import show

if TYPE_CHECKING:
    from avtrain.export.graphs import Kind


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder to make.",
)
@click.option(
    "--onnx", is_flag=True, help="Also write video.onnx and audio.onnx, from pixels and samples on."
)
@click.option(
    "--torch-export",
    is_flag=True,
    help="Also write video.pt2 and audio.pt2, the same for torch.export.load.",
)
@named_networks
def export(
    checkpoint: Path,
    out: Path,
    onnx: bool,
    torch_export: bool,
    video_network: str | None,
    audio_network: str | None,
) -> None:
    """Networks of CHECKPOINT as a folder for others.

    Writes model.safetensors, config.json and a model card (README.md) with the results that lie
    beside the checkpoint. The folder is taken wherever a checkpoint is: --checkpoint, --init-from,
    load_encoder.

    \b
    Example:
      avtrain export runs/avsa-tiny/checkpoint.pt --out exported/avsa-tiny
    """
    with one_sentence():
        from avtrain.export.export import export as write

        kinds = [kind for kind, given in (("onnx", onnx), ("pt2", torch_export)) if given]
        lines = write(
            checkpoint, out, cast("list[Kind]", kinds), factories_of(video_network, audio_network)
        )
    show(*lines, str(out))
