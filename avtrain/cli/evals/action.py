"""The command ``avtrain eval action``."""

from __future__ import annotations

from dataclasses import dataclass, replace

import click

from avtrain.cli.common import UP_TO_1000, one_sentence, options_as
from avtrain.cli.evals.options import EvaluationArguments, evaluation_options, print_results


@dataclass(frozen=True, kw_only=True)
class ActionArguments(EvaluationArguments):
    """Arguments and options of the command, by name."""

    folds: tuple[int, ...] | None
    probe: bool
    windows: int | None
    mirror: bool | None


def _parse_numbers(
    _: click.Context, __: click.Parameter, value: str | None
) -> tuple[int, ...] | None:
    """Sorted numbers of a list such as ``1,2,3``."""
    if value is None:
        return None
    parts = value.split(",")
    if not all(part.strip().isdecimal() and len(part) < 5 for part in parts):
        raise click.BadParameter(f"{value!r} is no list of numbers such as 1,2,3")
    return tuple(sorted({int(part) for part in parts}))


@click.command()
@evaluation_options
@click.option(
    "--folds",
    callback=_parse_numbers,
    metavar="NUMBERS",
    help="Official folds, as 1,2,3.  [default: all]",
)
@click.option("--probe", is_flag=True, help="Train only a linear layer, on frozen features.")
@click.option("--windows", type=UP_TO_1000, help="Windows per test video.  [default: 25]")
@click.option(
    "--mirror/--no-mirror",
    default=None,
    help="Mirror videos at random in training; wrong where left and right make classes.  "
    "[default: paper yes, tiny no]",
)
@options_as(ActionArguments)
def action(given: ActionArguments) -> None:
    """Action recognition: what happens in a video, from its frames alone?

    The video network is fine-tuned with a linear layer (--probe: only the layer is trained) and
    tested on the folds of DIR, a set of labelled videos; a set without folds is tested on
    --test-split. Clip@1 is the share of windows that are predicted right, Video@1 that of videos,
    by the mean of their windows' probabilities; both are means over the folds. Chance is the share
    of the most frequent class. A video shorter than a window stands still on its last frame. Run
    the same command again to resume.

    \b
    Example:
      avprep demo actions/ --actions && avprep build-shards actions/ --out action-shards
      avtrain eval action action-shards --checkpoint runs/avsa-tiny/checkpoint.pt --out runs/action
    """
    with one_sentence():
        from avtrain.evals.action.evaluate import ActionOptions, evaluate_action
        from avtrain.evals.action.protocol import paper, tiny

        common = given.evaluation()
        protocol = (paper if given.is_paper(common.config) else tiny)(given.probe)
        if given.windows is not None:
            protocol = replace(protocol, windows=given.windows)
        if given.mirror is not None:
            protocol = replace(protocol, augment=replace(protocol.augment, mirror=given.mirror))
        results = evaluate_action(common, ActionOptions(protocol, given.folds, given.baseline))
    print_results(results)
