"""The commands ``avtrain eval …``."""

from __future__ import annotations

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
    from avtrain.evals.binary.evaluate import Binary
    from avtrain.evals.results import Result


@click.group("eval")
def evaluate() -> None:
    """Measure what networks have learned; a table is printed, and results lie in --out."""


def _binary(
    task: Binary,
    folder: str,
    checkpoint: str,
    out: Path,
    baseline: bool,
    preset: str | None,
    features: str | None,
    audio: str | None,
    views: int,
    windows: int,
    train_split: str,
    test_split: str,
    num_workers: int | None,
    device: str,
    seed: int,
    keep_features: Path | None,
) -> None:
    with one_sentence():
        from avtrain.evals.binary import evaluate as evaluation
        from avtrain.evals.binary.classifier import paper, tiny

        path, config = networks_of(checkpoint, preset, features, audio)
        protocol = (paper if (preset or config.preset) == "paper" else tiny)(task)
        options = evaluation.EvalOptions(
            out=out,
            checkpoint=path,
            views=views,
            train_split=train_split,
            test_split=test_split,
            windows=windows,
            seed=seed,
            device=device,
            workers=num_workers,
            keep_features=keep_features,
        )

        def of(which: Path | None) -> Result:
            return evaluation.evaluate(
                folder, task, config, protocol, replace(options, checkpoint=which)
            )

        results = evaluate_all(out, path, baseline, of)
    show(results)


_VIEWS = click.option(
    "--views", type=click.IntRange(1), default=4, help="Views that decide together."
)
_WINDOWS = click.option(
    "--windows", type=click.IntRange(1), default=5, help="Windows of every test clip."
)


@evaluate.command()
@evaluation_options
@_VIEWS
@_WINDOWS
@keep_features
def avc(**arguments: Any) -> None:
    """AVC-Bin: is the sound that of the clip, or of another one?

    A classifier on frozen features learns it on one split of DIR and is tested on the other.

    \b
    Example:
      avtrain eval avc shards/ --checkpoint runs/avc-tiny/checkpoint.pt --out runs/avc-tiny
    """
    _binary("avc", **arguments)


@evaluate.command()
@evaluation_options
@_VIEWS
@_WINDOWS
@keep_features
def avsa(**arguments: Any) -> None:
    """AVSA-Bin: is the sound where it is seen, or turned by a random yaw?

    A classifier on frozen features learns it on one split of DIR and is tested on the other.

    \b
    Example:
      avtrain eval avsa shards/ --checkpoint runs/avsa-tiny/checkpoint.pt --out runs/avsa-tiny
    """
    _binary("avsa", **arguments)
