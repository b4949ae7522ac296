"""The commands ``avtrain eval retrieval`` and ``avtrain eval localization``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from avtrain.cli.common import (
    evaluate_all,
    evaluation_options,
    keep_features,
    networks_of,
    one_sentence,
    show,
)

if TYPE_CHECKING:  # importing torch takes seconds, which --help should not
    from avtrain.config import Config
    from avtrain.evals.binary.evaluate import EvalOptions
    from avtrain.evals.results import Result


_WINDOWS = click.option(
    "--windows", type=click.IntRange(1), default=5, help="Windows of every test clip."
)


@click.command()
@evaluation_options
@click.option("--views", type=click.IntRange(1), default=4, help="Views of every clip.")
@_WINDOWS
@keep_features
@click.option(
    "--gallery", type=click.IntRange(1), default=100, help="Clips of a gallery, if there are many."
)
def retrieval(gallery: int, **arguments: Any) -> None:
    """Which view does a sound belong to?

    The networks' own similarities, with nothing trained, rank the views of the clip and those of a
    gallery of clips, for the sound of every view and for its picture.

    \b
    Example:
      avtrain eval retrieval shards/ --checkpoint runs/avsa-tiny/checkpoint.pt --out runs/avsa-tiny
    """
    with one_sentence():
        from avtrain.evals.retrieval import evaluate

        results = _results(evaluate, gallery, **arguments)
    show(results)


@click.command()
@evaluation_options
@click.option("--views", type=click.IntRange(1), default=4, help="Views that are averaged.")
@_WINDOWS
@keep_features
@click.option(
    "--rounds",
    type=click.IntRange(1),
    default=8,
    help="Passes over the training split, with other windows and views each.",
)
def localization(rounds: int, **arguments: Any) -> None:
    """Where do sounds come from?

    A linear probe on the frozen feature of the sound at a view learns from one split of DIR the
    direction of every class that sounds, and is tested on the other. DIR must say what sounds
    where, as sets of STARSS and of the generated world do. A picture lies beside the result.

    \b
    Example:
      avtrain eval localization shards/ --checkpoint runs/avsa-tiny/checkpoint.pt \\
        --out runs/avsa-tiny
    """
    with one_sentence():
        from avtrain.evals.localization.evaluate import evaluate

        results = _results(evaluate, rounds, **arguments)
    show(results)


def _results(
    evaluate: Callable[[str, Config, EvalOptions, int], Result],
    number: int,
    *,
    folder: str,
    checkpoint: str,
    out: Path,
    baseline: bool,
    preset: str | None,
    features: str | None,
    audio: str | None,
    num_workers: int | None,
    **rest: Any,
) -> list[Result]:
    """``number``: what ``evaluate`` is given besides."""
    from avtrain.evals.binary.evaluate import EvalOptions

    path, config = networks_of(checkpoint, preset, features, audio)
    options = EvalOptions(out=out, checkpoint=path, workers=num_workers, **rest)

    def of(which: Path | None) -> Result:
        return evaluate(folder, config, replace(options, checkpoint=which), number)

    return evaluate_all(out, path, baseline, of)
