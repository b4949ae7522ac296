"""The command ``avtrain``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from avtrain.cli.common import AUDIO, FEATURES, one_sentence
from avtrain.cli.embed import embed
from avtrain.cli.evaluate import evaluate
from avtrain.cli.evaluate_action import action
from avtrain.cli.evaluate_segmentation import segmentation
from avtrain.cli.evaluate_views import localization, retrieval
from avtrain.cli.import_checkpoint import import_checkpoint

if TYPE_CHECKING:  # importing torch takes seconds, which --help should not
    from avtrain.config import Task


@click.group(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
def main() -> None:
    """Learn from shards of 360° video with ambisonics, and measure what was learned."""


@main.command()
@click.argument("folder", metavar="DIR")
@click.option(
    "--task", type=click.Choice(["avc", "avts", "avsa"]), default="avsa", help="Pretext task."
)
@click.option("--preset", type=click.Choice(["tiny", "paper"]), default="tiny", help="Settings.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the run.  [default: runs/TASK-PRESET]",
)
@click.option(
    "--curriculum", is_flag=True, help="AVC first, in OUT/avc, and the task from its networks."
)
@click.option("--curriculum-steps", type=click.IntRange(1), help="End AVC after so many steps.")
@click.option(
    "--init-from",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Checkpoint to take weights and feature statistics from.",
)
@click.option("--resume", is_flag=True, help="Go on with the run in --out, exactly.")
@click.option("--features", type=FEATURES, help="What the audio network sees.  [default: logmel]")
@click.option("--audio", type=AUDIO, help="What a view hears.  [default: foa]")
@click.option(
    "--transformer/--no-transformer",
    default=None,
    help="Predict across the views of a clip, or from each view alone.  [default: preset]",
)
@click.option(
    "--positions",
    type=click.Choice(["none", "direction"]),
    help="What transformers know of where views look.  [default: none]",
)
@click.option(
    "--norm-first/--norm-last",
    default=None,
    help="Whether transformers normalise before their parts (small ones learn sooner) or after "
    "(the paper's).  [default: last]",
)
@click.option(
    "--negatives",
    type=click.Choice(["easy", "hard", "easy+hard"]),
    help="Other clips, the clip's other views (or moments), or both.  [default: of the task]",
)
@click.option("--temperature", type=float, help="Of the contrast.  [default: 0.07]")
@click.option("--head", type=click.Choice(["linear", "mlp"]), help="[default: linear]")
@click.option(
    "--dropout",
    type=click.FloatRange(0, 1, max_open=True),
    help="Of the transformers.  [default: of the preset]",
)
@click.option("--epochs", type=click.IntRange(1), help="Length of a stage.  [default: preset]")
@click.option("--steps", type=click.IntRange(1), help="Stop after so many steps of the run.")
@click.option("--batch-size", type=click.IntRange(2), help="Clips a step.  [default: preset]")
@click.option("--views", type=click.IntRange(1), help="Views of a clip.  [default: of the task]")
@click.option(
    "--moments", type=click.IntRange(1), help="Moments of a clip, for avts.  [default: preset]"
)
@click.option(
    "--margin", "margin_s", type=click.FloatRange(0), help="Seconds between them.  [default: 0.5]"
)
@click.option(
    "--lr", "learning_rate", type=click.FloatRange(0, min_open=True), help="[default: preset]"
)
@click.option(
    "--sampling",
    type=click.Choice(["clip", "video"]),
    help="An epoch shows every clip, or of each recording one.  [default: of the preset]",
)
@click.option(
    "--clips-per-source",
    type=click.IntRange(1),
    help="Or so many of each recording, one after the other and round again.  "
    "[default: 32 in preset paper]",
)
@click.option(
    "--bf16",
    "precision",
    flag_value="bf16",
    help="Backbones in bfloat16, where the device is fast at it.",
)
@click.option(
    "--fp16", "precision", flag_value="fp16", help="Or in float16, with scaled gradients."
)
@click.option(
    "--pieces",
    type=click.IntRange(1),
    help="Learn from a batch in so many pieces, each contrasted for itself.  [default: 1]",
)
@click.option("--compile", "compiled", is_flag=True, help="Compile the backbones (torch.compile).")
@click.option("--checkpoint-steps", type=click.IntRange(1), default=500, help="Save so often.")
@click.option("--keep-last", type=click.IntRange(1), default=1, help="Checkpoints that are kept.")
@click.option(
    "--keep-every", type=click.IntRange(1), help="Of every so many steps one is kept for good."
)
@click.option(
    "--max-faults",
    type=click.FloatRange(0, 1),
    default=0.01,
    help="Largest share of clips that may be unreadable, 10 clips at any rate (0: none at all); "
    "others take their places.",
)
@click.option(
    "--cache",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder on a disk of this machine for copies of shards that lie elsewhere; jobs share it.",
)
@click.option(
    "--cache-gb", type=click.FloatRange(0, min_open=True), default=200.0, help="Its size."
)
@click.option("--tensorboard", is_flag=True, help="Curves and pictures in OUT/tensorboard.")
@click.option("--num-workers", type=click.IntRange(0), help="Loader processes.  [default: auto]")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto")
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0)
@click.option("--split", default="train", help="Which split to learn from.")
@click.option(
    "--dry-run", is_flag=True, help="Take a few steps, save nothing, and say what a step costs."
)
@click.option(
    "--profile", is_flag=True, help="Likewise, and write OUT/trace.json for ui.perfetto.dev."
)
def pretrain(
    folder: str,
    task: str,
    preset: str,
    out: Path | None,
    curriculum: bool,
    curriculum_steps: int | None,
    init_from: Path | None,
    resume: bool,
    steps: int | None,
    compiled: bool,
    checkpoint_steps: int,
    keep_last: int,
    keep_every: int | None,
    max_faults: float,
    cache: Path | None,
    cache_gb: float,
    tensorboard: bool,
    num_workers: int | None,
    device: str,
    split: str,
    dry_run: bool,
    profile: bool,
    **settings: Any,
) -> None:
    """Contrastive pretraining on the shard set in DIR.

    Writes checkpoint.pt, log.jsonl (one line a step), config.json and curves.png.

    \b
    Example, the curriculum of the paper:
      avtrain pretrain shards/ --task avsa --preset paper --curriculum --out runs/avsa
    """
    with one_sentence():
        from avtrain.config import PRESETS, with_options
        from avtrain.errors import TrainingError
        from avtrain.pretrain.loop import RunOptions, pretrain_in_stages
        from avtrain.pretrain.loop import pretrain as run
        from avtrain.runtime.signals import Stopped

        if curriculum and task == "avc":
            raise TrainingError("a curriculum begins with avc: its --task is avsa or avts")
        if curriculum and init_from is not None:
            raise TrainingError("a curriculum begins with avc: leave out --init-from")
        if curriculum_steps is not None and not curriculum:
            raise TrainingError("--curriculum-steps is of the first stage: add --curriculum")
        settings["curriculum"] = curriculum
        config = with_options(PRESETS[preset](cast("Task", task)), **settings)
        out = Path("runs") / f"{task}-{preset}" if out is None else out
        options = RunOptions(
            out=out,
            split=split,
            init_from=init_from,
            resume=resume,
            steps=steps,
            checkpoint_steps=checkpoint_steps,
            keep_last=keep_last,
            keep_every=keep_every,
            max_faults=max_faults,
            compiled=compiled,
            cache=cache,
            cache_bytes=round(cache_gb * 1e9),
            tensorboard=tensorboard,
            device=device,
            workers=num_workers,
        )
        if dry_run or profile:
            from avtrain.pretrain.dry_run import rehearse

            lines = rehearse(folder, config, options, 20 if profile else 5, profile)
            if os.environ.get("RANK", "0") == "0":
                click.echo("\n".join(lines))
            return
        try:
            if curriculum:
                last = pretrain_in_stages(folder, config, options, curriculum_steps)
            else:
                last = run(folder, config, options)
        except Stopped as stopped:
            click.echo(str(stopped), err=True)
            return
    if os.environ.get("RANK", "0") == "0":  # of several processes one speaks
        end = f"{last['step']} steps, loss {last['loss']:.3f}"
        click.echo(f"{out}: {end}; see {out / 'curves.png'}")


@main.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for report.md, report.json and report.png, the figures.",
)
@click.option(
    "--json",
    "numbers",
    type=click.Path(path_type=Path, dir_okay=False),
    help="JSON file with all numbers of the table.",
)
def report(runs: tuple[Path, ...], out: Path | None, numbers: Path | None) -> None:
    """The results of evaluations in the folders RUNS, in one table.

    Runs that differ in the seed alone are one line, with their mean. Figures show every task's
    first metric, and the training of the runs that have a log.

    \b
    Example:
      avtrain report runs/* --out report/
    """
    with one_sentence():
        from avtrain.evals.results import read_results
        from avtrain.report.lines import lines_of
        from avtrain.report.page import NOTE, as_markdown, write_numbers, write_report

        lines = lines_of(read_results(runs))
        if numbers is not None:
            write_numbers(lines, numbers)
        if out is not None:
            write_report(lines, runs, out)
        click.echo(as_markdown(lines))
        click.echo(NOTE, err=True)


evaluate.add_command(segmentation)
evaluate.add_command(retrieval)
evaluate.add_command(localization)
evaluate.add_command(action)
main.add_command(evaluate)
main.add_command(embed)
main.add_command(import_checkpoint)
