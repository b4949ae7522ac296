"""The command ``avtrain eval action``."""

from __future__ import annotations

from pathlib import Path

import click

from avtrain.cli.common import evaluation_options, networks_of, one_sentence, show


def _numbers(_: click.Context, __: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    """Numbers with commas between."""
    if value is None:
        return None
    parts = value.split(",")
    if not all(part.strip().isdecimal() for part in parts):
        raise click.BadParameter(f"{value!r} is no list of numbers such as 1,2,3")
    return tuple(sorted({int(part) for part in parts}))


@click.command()
@evaluation_options
@click.option(
    "--folds",
    callback=_numbers,
    metavar="NUMBERS",
    help="Official folds, as 1,2,3.  [default: all]",
)
@click.option("--probe", is_flag=True, help="Train a linear layer alone, on frozen features.")
@click.option(
    "--windows", type=click.IntRange(1), help="Windows of every test video.  [default: 25]"
)
@click.option(
    "--mirror/--no-mirror",
    default=None,
    help="Exchange left and right in training; not where they make classes.  "
    "[default: paper yes, tiny no]",
)
def action(
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
    folds: tuple[int, ...] | None,
    probe: bool,
    windows: int | None,
    mirror: bool | None,
) -> None:
    """Action recognition: what is done in a video, by its picture alone?

    The video network is fine-tuned with a linear layer (--probe: that alone learns) and tested on
    the folds of DIR, a set of labelled videos; of sets without folds, on --test-split. Clip@1 is
    the share of windows named right, Video@1 that of videos by the mean of their windows'
    probabilities, each the mean over the folds. Chance is the largest class's share. A video
    shorter than a window stands still on its last frame. The same command goes on with a run that
    was interrupted.

    \b
    Example:
      avprep demo actions/ --actions && avprep build-shards actions/ --out action-shards
      avtrain eval action action-shards --checkpoint runs/avsa-tiny/checkpoint.pt --out runs/action
    """
    with one_sentence():
        from dataclasses import replace

        from avtrain.evals.action.classifier import paper, tiny
        from avtrain.evals.action.evaluate import recognise
        from avtrain.evals.action.fold import ActionOptions

        path, config = networks_of(checkpoint, preset, features, audio)
        protocol = (paper if (preset or config.preset) == "paper" else tiny)(probe)
        if windows is not None:
            protocol = replace(protocol, windows=windows)
        if mirror is not None:
            protocol = replace(protocol, augment=replace(protocol.augment, mirror=mirror))
        options = ActionOptions(
            out=out,
            checkpoint=path,
            baseline=baseline,
            folds=folds,
            train_split=train_split,
            test_split=test_split,
            seed=seed,
            device=device,
            workers=num_workers,
        )
        results = recognise(folder, config, protocol, options)
    show(results)
