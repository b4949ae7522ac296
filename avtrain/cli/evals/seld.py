"""The command ``avtrain eval seld``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import click

from avtrain.cli.common import UP_TO_1000, one_sentence, options_as
from avtrain.cli.evals.options import EvaluationArguments, evaluation_options, print_results
from shards.errors import show

NO_NETWORK = "none"


@dataclass(frozen=True, kw_only=True)
class SeldArguments(EvaluationArguments):
    """Arguments and options of the command, by name."""

    takes_energy: ClassVar[bool] = True
    labels: tuple[float, ...]
    probe: bool
    video: bool
    views: int
    metrics: Literal["2023", "2024"]
    steps: int | None


def _parse_shares(_: click.Context, __: click.Parameter, value: str) -> tuple[float, ...]:
    """Sorted shares of a list such as ``0.05,0.1,1``."""
    try:
        # Folders of results name six digits of a share.
        shares = sorted({round(float(part), 6) for part in value.split(",")})
    except ValueError:
        shares = []
    if not shares or not all(1e-4 <= share <= 1 for share in shares) or len(shares) > 20:
        raise click.BadParameter(
            f"{value!r:.80} is no list of up to 20 shares from 0.0001 to 1, such as 0.05,0.1,1"
        )
    return tuple(shares)


@click.command()
@evaluation_options
@click.option(
    "--labels",
    callback=_parse_shares,
    default="1",
    metavar="SHARES",
    help="Shares of the training recordings whose labels are learned, such as 0.05,0.1,0.3,1.",
)
@click.option(
    "--probe/--fine-tune",
    default=False,
    help="Train the head alone, on frozen networks, or networks and head.",
)
@click.option("--video", is_flag=True, help="Feed the video feature of the views as well.")
@click.option("--views", type=UP_TO_1000, default=4, help="Views per clip, with --video.")
@click.option(
    "--metrics",
    type=click.Choice(["2023", "2024"]),
    default="2024",
    help="DCASE's definition of the metrics: by segments of a second, or by frame, with distance.",
)
@click.option("--steps", type=click.IntRange(1, 10_000_000), help="[default: the protocol's]")
@options_as(SeldArguments)
def seld(given: SeldArguments) -> None:
    """Sound event localization and detection: what sounds in each frame of 100 ms, and from where?

    The audio network of a checkpoint ('untrained': of random weights; 'none': no network, the
    head gets the input features) is trained with a head of three tracks per class on the labels of
    a part of the recordings. Metrics are DCASE's; their files are written beside each result, for
    the official scripts. Run the same command again to resume.

    \b
    Example:
      avtrain eval seld shards/ --checkpoint runs/avsa-tiny/checkpoint.pt --labels 0.1,1 \\
          --out runs/avsa-tiny
    """
    with one_sentence():
        from avtrain.evals.seld.evaluate import SeldOptions, evaluate_seld
        from avtrain.evals.seld.protocol import paper, tiny

        if given.checkpoint == NO_NETWORK:
            given = replace(given, checkpoint="energy")
        common = given.evaluation()
        if not common.config.sound.intensity:
            show(
                "warning: log-mels do not tell left from right, nor front from back; networks with "
                "--features logmel+intensity do",
                err=True,
            )
        make: Any = paper if given.is_paper(common.config) else tiny
        inputs = "audio+video" if given.video else "audio"
        protocol = make(inputs, given.probe, given.metrics)
        steps = given.steps or protocol.steps
        protocol = replace(protocol, steps=steps, saves=min(steps, protocol.saves))
        options = SeldOptions(protocol, given.labels, given.views, given.baseline)
        results = evaluate_seld(common, options)
    print_results(results)
