"""The commands ``avtrain eval retrieval`` and ``avtrain eval localization``."""

from __future__ import annotations

from dataclasses import dataclass

import click

from avtrain.cli.common import one_sentence, options_as
from avtrain.cli.evaluation_options import (
    WindowArguments,
    evaluation_options,
    print_results,
    window_options,
)


@dataclass(frozen=True, kw_only=True)
class RetrievalArguments(WindowArguments):
    """Arguments and options of the command, by name."""

    gallery: int


@click.command()
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


@dataclass(frozen=True, kw_only=True)
class LocalizationArguments(WindowArguments):
    """Arguments and options of the command, by name."""

    rounds: int


@click.command()
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
