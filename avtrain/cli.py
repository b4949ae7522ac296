"""The command ``avtrain``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

if TYPE_CHECKING:  # importing torch takes seconds, which --help should not
    from avtrain.presets import Config, Task

FEATURES = click.Choice(["logmel", "logmel+intensity"])


class _UserError(click.ClickException):
    exit_code = 2


@contextmanager
def _one_sentence() -> Iterator[None]:
    """Turn what a user can mend into one sentence and exit status 2."""
    from avtrain.errors import TrainingError
    from shards.errors import ShardError

    try:
        yield
    except (TrainingError, ShardError) as error:
        # A loader worker's error arrives as the text of its traceback.
        message = str(error).strip()
        if "Traceback (most recent call last)" in message:
            message = message.rpartition("Error: ")[2]
        raise _UserError(message) from None
    except OSError as error:
        if error.strerror is None:
            raise
        where = "" if error.filename is None else f"{error.filename}: "
        raise _UserError(f"{where}{error.strerror}") from None
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] in ("avtrain", "shards"):
            raise
        raise _UserError(
            f"{error.name} is not installed; `pip install 'avsa360[train]'` brings it"
        ) from None
    except KeyboardInterrupt:
        raise click.Abort from None


@click.group(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
def main() -> None:
    """Learn from shards of 360° video with ambisonics, and measure what was learned."""


@main.command()
@click.argument("folder", metavar="DIR")
@click.option("--task", type=click.Choice(["avc", "avsa"]), default="avsa", help="Pretext task.")
@click.option("--preset", type=click.Choice(["tiny", "paper"]), default="tiny", help="Settings.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the run.  [default: runs/TASK-PRESET]",
)
@click.option(
    "--init-from",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Checkpoint to take weights and feature statistics from (curriculum).",
)
@click.option("--resume", is_flag=True, help="Go on with the run in --out, exactly.")
@click.option("--features", type=FEATURES, default="logmel", help="What the audio network sees.")
@click.option(
    "--transformer/--no-transformer",
    default=None,
    help="Predict across the views of a clip, or from each view alone.  [default: preset]",
)
@click.option("--epochs", type=click.IntRange(1), help="Length of the run.  [default: preset]")
@click.option("--steps", type=click.IntRange(1), help="Stop after so many steps of the run.")
@click.option("--batch-size", type=click.IntRange(2), help="Clips a step.  [default: preset]")
@click.option("--views", type=click.IntRange(1), help="Views of a clip.  [default: preset]")
@click.option("--lr", type=click.FloatRange(0, min_open=True), help="[default: preset]")
@click.option(
    "--clips-per-source",
    type=click.IntRange(1),
    help="Clips that an epoch shows of a source.  [default: preset]",
)
@click.option("--bf16", is_flag=True, help="Networks in bfloat16, where the device is fast at it.")
@click.option("--num-workers", type=click.IntRange(0), help="Loader processes.  [default: auto]")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto")
@click.option("--seed", type=click.IntRange(0), default=0)
@click.option("--split", default="train", help="Which split to learn from.")
def pretrain(
    folder: str,
    task: str,
    preset: str,
    out: Path | None,
    init_from: Path | None,
    resume: bool,
    features: str,
    transformer: bool | None,
    epochs: int | None,
    steps: int | None,
    batch_size: int | None,
    views: int | None,
    lr: float | None,
    clips_per_source: int | None,
    bf16: bool,
    num_workers: int | None,
    device: str,
    seed: int,
    split: str,
) -> None:
    """Contrastive pretraining on the shard set in DIR.

    Writes checkpoint.pt, log.jsonl (one line a step), config.json and curves.png.

    \b
    Example, the curriculum of the paper:
      avtrain pretrain shards/ --task avc --preset paper --out runs/avc
      avtrain pretrain shards/ --task avsa --preset paper --init-from runs/avc/checkpoint.pt
    """
    with _one_sentence():
        from avtrain.pretrain import RunOptions
        from avtrain.pretrain import pretrain as run

        config = _preset(preset, task, features, transformer)
        given: dict[str, Any] = {
            "batch_size": batch_size,
            "epochs": epochs,
            "learning_rate": lr,
            "clips_per_source": clips_per_source,
        }
        config = replace(
            config,
            clip=config.clip if views is None else replace(config.clip, views=views),
            seed=seed,
            bf16=bf16,
            **{name: value for name, value in given.items() if value is not None},
        )
        out = Path("runs") / f"{task}-{preset}" if out is None else out
        options = RunOptions(
            out=out,
            split=split,
            init_from=init_from,
            resume=resume,
            steps=steps,
            device=device,
            workers=num_workers,
        )
        last = run(folder, config, options)
    click.echo(f"{out}: {last['step']} steps, loss {last['loss']:.3f}; see {out / 'curves.png'}")


@main.command("eval")
@click.argument("task", type=click.Choice(["avc", "avsa"]))
@click.argument("folder", metavar="DIR")
@click.option(
    "--checkpoint", required=True, help="A checkpoint.pt, or 'untrained' for a random network."
)
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for TASK-bin.json; an earlier result there is replaced.",
)
@click.option(
    "--preset",
    type=click.Choice(["tiny", "paper"]),
    help="Protocol, and networks if untrained.  [default: the checkpoint's, or tiny]",
)
@click.option("--features", type=FEATURES, help="If untrained.  [default: logmel]")
@click.option("--views", type=click.IntRange(1), default=4, help="Views that decide together.")
@click.option("--windows", type=click.IntRange(1), default=5, help="Windows of every test clip.")
@click.option("--train-split", default="train")
@click.option("--test-split", default="test")
@click.option("--num-workers", type=click.IntRange(0), help="Loader processes.  [default: auto]")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto")
@click.option("--seed", type=click.IntRange(0), default=0)
def evaluate(
    task: str,
    folder: str,
    checkpoint: str,
    out: Path,
    preset: str | None,
    features: str | None,
    views: int,
    windows: int,
    train_split: str,
    test_split: str,
    num_workers: int | None,
    device: str,
    seed: int,
) -> None:
    """AVC-Bin or AVSA-Bin: a classifier on frozen features tells matched pairs from mismatched.

    It learns on one split of DIR and is tested on the other.

    \b
    Example:
      avtrain eval avsa shards/ --checkpoint runs/avsa-tiny/checkpoint.pt --out runs/avsa-tiny
    """
    with _one_sentence():
        from avtrain import evaluate as evaluation
        from avtrain.checkpoint import Checkpoint
        from avtrain.errors import TrainingError
        from avtrain.probe import paper, tiny
        from avtrain.report import as_table

        if checkpoint == "untrained":
            path = None
            config = _preset(preset or "tiny", "avsa", features or "logmel", None)
        else:
            if features is not None:
                raise TrainingError("--features is the checkpoint's; leave the option out")
            path = Path(checkpoint)
            config = Checkpoint.load(path).settings(path)
        protocol_of = paper if (preset or config.preset) == "paper" else tiny
        result = evaluation.evaluate(
            folder,
            cast("Task", task),
            config,
            protocol_of(cast("Task", task)),
            evaluation.EvalOptions(
                out=out,
                checkpoint=path,
                views=views,
                train_split=train_split,
                test_split=test_split,
                windows=windows,
                seed=seed,
                device=device,
                workers=num_workers,
            ),
        )
        click.echo(as_table([result]))


@main.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path, file_okay=False))
def report(runs: tuple[Path, ...]) -> None:
    """The results of evaluations in the folders RUNS, in one table.

    \b
    Example:
      avtrain report runs/avsa-tiny runs/untrained
    """
    with _one_sentence():
        from avtrain.report import as_table, read_results

        click.echo(as_table(read_results(runs)))


def _preset(preset: str, task: str, features: str, transformer: bool | None) -> Config:
    from avtrain.presets import PRESETS, with_intensity

    config = with_intensity(PRESETS[preset](cast("Task", task)), features == "logmel+intensity")
    if transformer is None:
        return config
    return replace(config, model=replace(config.model, transformer=transformer))
