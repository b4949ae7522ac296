"""The command ``avtrain eval probe``."""

from __future__ import annotations

from dataclasses import dataclass

import click

from avtrain.cli.common import one_sentence, options_as
from avtrain.cli.evals.options import (
    WindowArguments,
    evaluation_options,
    print_results,
    window_options,
)
from shards.errors import show


@dataclass(frozen=True, kw_only=True)
class ProbeArguments(WindowArguments):
    """Arguments and options of the command, by name."""

    rounds: int


@click.command()
@evaluation_options
@window_options("Views per clip, each asked on its own.")
@click.option(
    "--rounds",
    type=click.IntRange(1, 1000),
    default=4,
    help="Passes over the training split, each with other windows and views.",
)
@options_as(ProbeArguments)
def probe(given: ProbeArguments) -> None:
    """What does a frozen feature know?

    A linear probe, and one with a hidden layer, learn from one split of DIR, and are tested on the
    other: the azimuth and elevation of the only source that sounds, as the view sees them, its
    class and distance, the number of sources, and the reverberation time; from the features of a
    view's audio, of its video, and both. What DIR does not say is not asked. A figure is written
    beside the result.

    \b
    Example:
      avtrain eval probe shards/ --checkpoint runs/avsa-tiny/checkpoint.pt --out runs/avsa-tiny
    """
    with one_sentence():
        from avtrain.evals.evaluation import evaluate_with_baseline
        from avtrain.evals.probe.evaluate import UNKNOWN, ProbeOptions, evaluate_probe
        from avtrain.evals.probe.figure import probes_table

        options = ProbeOptions(
            views=given.views,
            windows=given.windows,
            keep_features=given.keep_features,
            rounds=given.rounds,
        )
        results = evaluate_with_baseline(
            given.evaluation(), given.baseline, lambda one: evaluate_probe(one, options)
        )
        table = probes_table(results)
    unknown = results[-1].details.get(UNKNOWN, {})
    show(*(f"not asked: {name}: {reason}" for name, reason in unknown.items()), err=True)
    print_results(results, table)
