"""The group ``avtrain eval``, and those of its commands that ask frozen features in windows: avc,
avsa, retrieval, locate and localization."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import click

from avtrain.cli.common import one_sentence, options_as
from avtrain.cli.evals.options import (
    WindowArguments,
    evaluation_options,
    print_results,
    window_options,
)

if TYPE_CHECKING:  # importing torch takes seconds, which --help should not
    from avtrain.evals.binary.protocol import BinaryTask, VideoInput


@dataclass(frozen=True, kw_only=True)
class BinaryArguments(WindowArguments):
    """Arguments and options of both commands, by name."""

    video_input: VideoInput
    rounds: int | None


_video_input = click.option(
    "--input",
    "video_input",
    type=click.Choice(["prediction", "feature", "both"]),
    default="prediction",
    help="What the classifier reads of the video: the audio feature that a transformer predicts "
    "from all views, as in the paper, the video network's own feature, or both. Without a trained "
    "transformer it reads the feature.",
)


_rounds_option = click.option(
    "--rounds",
    type=click.IntRange(1, 10_000),
    help="Passes over the training split whose features are kept, each with other windows and "
    "views; with many clips, few passes are enough.  [default: the protocol's]",
)


@click.group("eval")
def evaluate() -> None:
    """Measure what networks have learned: prints a table, and writes the results to --out."""


def _evaluate_binary(task: BinaryTask, given: BinaryArguments) -> None:
    with one_sentence():
        from avtrain.evals.binary.evaluate import BinaryOptions, evaluate_binary
        from avtrain.evals.binary.protocol import paper, tiny
        from avtrain.evals.evaluation import evaluate_with_baseline

        common = given.evaluation()
        protocol = (paper if given.is_paper(common.config) else tiny)(task)
        options = BinaryOptions(
            task=task,
            protocol=replace(protocol, rounds=given.rounds or protocol.rounds),
            views=given.views,
            windows=given.windows,
            keep_features=given.keep_features,
            video_input=given.video_input,
        )
        results = evaluate_with_baseline(
            common, given.baseline, lambda one: evaluate_binary(one, options)
        )
    print_results(results)


@evaluate.command()
@evaluation_options
@window_options("Views that decide together.")
@_video_input
@_rounds_option
@options_as(BinaryArguments)
def avc(given: BinaryArguments) -> None:
    """AVC-Bin: is the audio that of the clip, or of another clip?

    A classifier on frozen features learns it on one split of DIR and is tested on the other.

    \b
    Example:
      avtrain eval avc shards/ --checkpoint runs/avc-tiny/checkpoint.pt --out runs/avc-tiny
    """
    _evaluate_binary("avc", given)


@evaluate.command()
@evaluation_options
@window_options("Views that decide together.")
@_video_input
@_rounds_option
@options_as(BinaryArguments)
def avsa(given: BinaryArguments) -> None:
    """AVSA-Bin: is the audio aligned with the video, or rotated by a random yaw?

    A classifier on frozen features learns it on one split of DIR and is tested on the other.

    \b
    Example:
      avtrain eval avsa shards/ --checkpoint runs/avsa-tiny/checkpoint.pt --out runs/avsa-tiny
    """
    _evaluate_binary("avsa", given)


@dataclass(frozen=True, kw_only=True)
class RetrievalArguments(WindowArguments):
    """Arguments and options of the command, by name."""

    gallery: int


@evaluate.command()
@evaluation_options
@window_options("Views per clip.")
@click.option(
    "--gallery",
    type=click.IntRange(1, 1_000_000),
    default=100,
    help="Clips in a gallery; all clips if there are fewer.",
)
@options_as(RetrievalArguments)
def retrieval(given: RetrievalArguments) -> None:
    """Which view does a sound belong to?

    The networks' own similarities, with nothing trained, rank the views of the clip and those of a
    gallery of clips, for the audio of every view and for its video.

    \b
    Example:
      avtrain eval retrieval shards/ --checkpoint runs/avsa-tiny/checkpoint.pt --out runs/avsa-tiny
    """
    with one_sentence():
        from avtrain.evals.evaluation import evaluate_with_baseline
        from avtrain.evals.retrieval import RetrievalOptions, evaluate_retrieval

        options = RetrievalOptions(
            views=given.views,
            windows=given.windows,
            keep_features=given.keep_features,
            gallery=given.gallery,
        )
        results = evaluate_with_baseline(
            given.evaluation(), given.baseline, lambda one: evaluate_retrieval(one, options)
        )
    print_results(results)


@evaluate.command()
@evaluation_options
@window_options("Views per clip, one of which is found.")
@options_as(WindowArguments)
def locate(given: WindowArguments) -> None:
    """Which view shows where the sound comes from?

    With nothing trained: the view whose video and sound match best, by the networks' own
    similarities, and its angle to the nearest source that sounds and can be seen. Beside it stand
    the view that is loudest, the view that pictures alone suggest, and chance. DIR must say what
    sounds where, as sets of STARSS and of the generated world do.

    \b
    Example:
      avtrain eval locate shards/ --checkpoint runs/avsa-tiny/checkpoint.pt --out runs/avsa-tiny
    """
    with one_sentence():
        from avtrain.evals.evaluation import evaluate_with_baseline
        from avtrain.evals.feature_store import WindowOptions
        from avtrain.evals.locate import evaluate_locate

        options = WindowOptions(
            views=given.views, windows=given.windows, keep_features=given.keep_features
        )
        results = evaluate_with_baseline(
            given.evaluation(), given.baseline, lambda one: evaluate_locate(one, options)
        )
    print_results(results)


@dataclass(frozen=True, kw_only=True)
class LocalizationArguments(WindowArguments):
    """Arguments and options of the command, by name."""

    rounds: int


@evaluate.command()
@evaluation_options
@window_options("Views that are averaged.")
@click.option(
    "--rounds",
    type=click.IntRange(1, 10_000),
    default=8,
    help="Passes over the training split, each with other windows and views.",
)
@options_as(LocalizationArguments)
def localization(given: LocalizationArguments) -> None:
    """Where do sounds come from?

    A linear probe on the frozen audio feature of a view learns from one split of DIR the direction
    of every class that sounds, and is tested on the other. DIR must say what sounds where, as sets
    of STARSS and of the generated world do. A figure is written beside the result.

    \b
    Example:
      avtrain eval localization shards/ --checkpoint runs/avsa-tiny/checkpoint.pt \\
        --out runs/avsa-tiny
    """
    with one_sentence():
        from avtrain.evals.evaluation import evaluate_with_baseline
        from avtrain.evals.localization.evaluate import LocalizationOptions, evaluate_localization

        options = LocalizationOptions(
            views=given.views,
            windows=given.windows,
            keep_features=given.keep_features,
            rounds=given.rounds,
        )
        results = evaluate_with_baseline(
            given.evaluation(), given.baseline, lambda one: evaluate_localization(one, options)
        )
    print_results(results)
