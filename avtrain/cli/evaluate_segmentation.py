"""The command ``avtrain eval segmentation``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from avtrain.cli.common import (
    evaluate_all,
    evaluation_options,
    networks_of,
    one_sentence,
    show,
)

if TYPE_CHECKING:  # importing torch takes seconds, which --help should not
    from avtrain.evals.results import Result
    from avtrain.evals.segmentation.segmenter import Condition


@click.command()
@evaluation_options
@click.option(
    "--condition",
    type=click.Choice(["none", "audio", "audio+context"]),
    default="none",
    help="What helps the pictures: the view's sound, and what transformers make of all views.",
)
@click.option(
    "--classes",
    type=click.Choice(["yt360", "all"]),
    help="The 32 of YT-360, or what the training split has.  [default: all; paper: yt360]",
)
@click.option("--test-dir", help="Set that is tested on, built at --hfov 90:90.  [default: DIR]")
@click.option("--views", type=click.IntRange(1), default=4, help="Views of a training clip.")
@click.option("--maps", type=click.IntRange(1), default=5, help="Maps of every test clip.")
@click.option("--epochs", type=click.IntRange(1), help="[default: the protocol's]")
def segmentation(
    folder: str,
    checkpoint: str,
    out: Path,
    baseline: bool,
    preset: str | None,
    features: str | None,
    audio: str | None,
    train_split: str,
    test_split: str,
    num_workers: int | None,
    device: str,
    seed: int,
    condition: Condition,
    classes: Literal["yt360", "all"] | None,
    test_dir: str | None,
    views: int,
    maps: int,
    epochs: int | None,
) -> None:
    """Semantic segmentation: of which class is each pixel?

    A feature pyramid on frozen features learns it from the label maps of one split of DIR and is
    tested on the other. IoU and accuracy are of the pixels of the whole test set. Pictures are in
    OUT, beside the result. What was interrupted is gone on with by the same command.

    \b
    Example, the paper's fields of view:
      avprep build-shards yt360/ --out train/ --hfov 54:108
      avprep build-shards yt360/ --out test/ --hfov 90:90
      avtrain eval segmentation train/ --test-dir test/ --condition audio+context \\
          --checkpoint runs/avsa/checkpoint.pt --out runs/avsa
    """
    with one_sentence():
        from avtrain.config import with_options
        from avtrain.evals.segmentation import evaluate as evaluation
        from avtrain.evals.segmentation.segmenter import paper, tiny

        path, config = networks_of(checkpoint, preset, features, audio)
        if path is None and condition == "audio+context":
            config = with_options(config, transformer=True)
        protocol = paper() if (preset or config.preset) == "paper" else tiny()
        protocol = protocol.lasting(epochs or protocol.epochs)
        protocol = replace(protocol, classes=classes or protocol.classes)
        options = evaluation.SegmentationOptions(
            out=out,
            checkpoint=path,
            condition=condition,
            views=views,
            maps=maps,
            test_root=test_dir,
            train_split=train_split,
            test_split=test_split,
            seed=seed,
            device=device,
            workers=num_workers,
        )

        def of(which: Path | None) -> Result:
            return evaluation.evaluate(folder, config, protocol, replace(options, checkpoint=which))

        results = evaluate_all(out, path, baseline, of)
    click.echo(f"chance: {results[-1].details['chance']}\n")
    show(results)
