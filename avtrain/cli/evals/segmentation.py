"""The command ``avtrain eval segmentation``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import click

from avtrain.cli.common import UP_TO_1000, one_sentence, options_as
from avtrain.cli.evals.options import EvaluationArguments, evaluation_options, print_results
from shards.errors import show

if TYPE_CHECKING:  # importing torch takes seconds, which --help should not
    from avtrain.evals.segmentation.protocol import Condition


@dataclass(frozen=True, kw_only=True)
class SegmentationArguments(EvaluationArguments):
    """Arguments and options of the command, by name."""

    condition: Condition
    classes: Literal["yt360", "all"] | None
    test_dir: str | None
    views: int
    maps: int
    epochs: int | None


@click.command()
@evaluation_options
@click.option(
    "--condition",
    type=click.Choice(["none", "audio", "audio+context"]),
    default="none",
    help="What the head gets beside the video: the view's audio, and what the transformers predict "
    "from all views.",
)
@click.option(
    "--classes",
    type=click.Choice(["yt360", "all"]),
    help="The 32 of YT-360, or all in the training split.  [default: all; paper: yt360]",
)
@click.option("--test-dir", help="Set of the test split, built at --hfov 90:90.  [default: DIR]")
@click.option("--views", type=UP_TO_1000, default=4, help="Views per training clip.")
@click.option("--maps", type=UP_TO_1000, default=5, help="Label maps per test clip.")
@click.option("--epochs", type=click.IntRange(1, 10_000), help="[default: the protocol's]")
@options_as(SegmentationArguments)
def segmentation(given: SegmentationArguments) -> None:
    """Semantic segmentation: what class is each pixel?

    A feature pyramid on frozen features learns it from the label maps of one split of DIR and is
    tested on the other. IoU and accuracy count the pixels of the whole test set. Example images are
    written beside the result. Run the same command again to resume.

    \b
    Example, the paper's fields of view:
      avprep build-shards yt360/ --out train/ --hfov 54:108
      avprep build-shards yt360/ --out test/ --hfov 90:90
      avtrain eval segmentation train/ --test-dir test/ --condition audio+context \\
          --checkpoint runs/avsa/checkpoint.pt --out runs/avsa
    """
    with one_sentence():
        from avtrain.evals.evaluation import evaluate_with_baseline
        from avtrain.evals.segmentation.evaluate import SegmentationOptions, evaluate_segmentation
        from avtrain.evals.segmentation.protocol import paper, tiny
        from avtrain.options import with_options

        common = given.evaluation()
        if common.checkpoint is None and given.condition == "audio+context":
            common = replace(common, config=with_options(common.config, transformer=True))
        protocol = paper() if given.is_paper(common.config) else tiny()
        protocol = protocol.with_epochs(given.epochs or protocol.epochs)
        options = SegmentationOptions(
            protocol=replace(protocol, classes=given.classes or protocol.classes),
            condition=given.condition,
            views=given.views,
            maps=given.maps,
            test_root=given.test_dir,
        )
        results = evaluate_with_baseline(
            common, given.baseline, lambda one: evaluate_segmentation(one, options)
        )
    show(f"chance: {results[-1].details['chance']}", "")
    print_results(results)
