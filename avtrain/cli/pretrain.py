"""The command ``avtrain pretrain``."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import click

from avtrain.cli.common import (
    AUDIO,
    FEATURES,
    UP_TO_1000,
    WORKERS,
    Names,
    Number,
    one_sentence,
    options_as,
)
from avtrain.cli.config_file import ConfiguredCommand, config_option
from avtrain.cli.network_options import factories_of, named_networks, network_options
from avtrain.cli.sets import parse_sets
from shards.errors import show

if TYPE_CHECKING:  # importing torch takes seconds, which --help should not
    from avtrain.config import Config, Precision, Task
    from avtrain.networks.losses import Negatives
    from avtrain.own_networks import Factories
    from avtrain.pretrain.set_up import RunOptions

_STEPS, _EPOCHS = click.IntRange(1, 1_000_000_000), click.IntRange(1, 1_000_000)
_BATCH, _SCALE = click.IntRange(2, 100_000), Number(1e-6, 1e6)
PROFILED_STEPS, REHEARSED_STEPS = 20, 5


@dataclass(frozen=True)
class PretrainOptions:
    """Arguments and options of the command, by name. None leaves the preset's setting."""

    folders: tuple[str, ...]
    task: Task
    preset: str
    out: Path | None
    curriculum: bool
    curriculum_steps: int | None
    init_from: Path | None
    resume: bool
    features: str | None
    intensity_gain: float | None
    audio: str | None
    transformer: bool | None
    positions: str | None
    norm_first: bool | None
    transformer_warmup: int | None
    negatives: Negatives | None
    temperature: float | None
    head: str | None
    dropout: float | None
    epochs: int | None
    steps: int | None
    batch_size: int | None
    views: int | None
    moments: int | None
    margin_s: float | None
    learning_rate: float | None
    sampling: str | None
    clips_per_source: int | None
    precision: Precision | None
    pieces: int | None
    shuffle_views: bool
    video_network: str | None
    audio_network: str | None
    network_options: Path | None
    freeze: str | None
    compiled: bool
    checkpoint_steps: int
    keep_last: int
    keep_every: int | None
    max_faults: float
    cache: Path | None
    cache_gb: float
    report_to: tuple[str, ...]
    num_workers: int | None
    device: str
    seed: int
    split: str
    dry_run: bool
    profile: bool

    def config(self) -> Config:
        """Settings of the run. Raises TrainingError for options that exclude each other."""
        from avtrain.config import PRESETS
        from avtrain.errors import TrainingError
        from avtrain.options import with_options
        from avtrain.own_networks import record_networks

        if self.curriculum and self.task == "avc":
            raise TrainingError("a curriculum begins with avc: its --task is avsa or avts")
        if self.curriculum and self.init_from is not None:
            raise TrainingError("a curriculum begins with avc: leave out --init-from")
        if self.curriculum_steps is not None and not self.curriculum:
            raise TrainingError("--curriculum-steps ends the first stage: add --curriculum")
        config = with_options(
            PRESETS[self.preset](self.task),
            curriculum=self.curriculum,
            features=self.features,
            intensity_gain=self.intensity_gain,
            audio=self.audio,
            transformer=self.transformer,
            positions=self.positions,
            norm_first=self.norm_first,
            transformer_warmup=self.transformer_warmup,
            negatives=self.negatives,
            temperature=self.temperature,
            head=self.head,
            dropout=self.dropout,
            epochs=self.epochs,
            batch_size=self.batch_size,
            views=self.views,
            moments=self.moments,
            margin_s=self.margin_s,
            learning_rate=self.learning_rate,
            sampling=self.sampling,
            clips_per_source=self.clips_per_source,
            precision=self.precision,
            pieces=self.pieces,
            shuffle_views=self.shuffle_views,
            freeze=self.freeze,
            seed=self.seed,
        )
        config = replace(config, weights=self.sets[1])
        return record_networks(config, self.factories)

    @cached_property
    def sets(self) -> tuple[tuple[str, ...], tuple[float, ...]]:
        """Folders or URLs of the sets, and their weights."""
        return parse_sets(self.folders)

    @cached_property
    def factories(self) -> Factories:
        """Functions that make the user's own networks."""
        return factories_of(self.video_network, self.audio_network, self.network_options)

    def run_options(self) -> RunOptions:
        """Where and how long this start of the run works."""
        from avtrain.pretrain.set_up import RunOptions

        return RunOptions(
            out=Path("runs") / f"{self.task}-{self.preset}" if self.out is None else self.out,
            split=self.split,
            init_from=self.init_from,
            resume=self.resume,
            steps=self.steps,
            checkpoint_steps=self.checkpoint_steps,
            keep_last=self.keep_last,
            keep_every=self.keep_every,
            max_faults=self.max_faults,
            compiled=self.compiled,
            cache=self.cache,
            cache_bytes=round(self.cache_gb * 1e9),
            report_to=self.report_to,
            device=self.device,
            workers=self.num_workers,
            factories=self.factories,
        )


@click.command(cls=ConfiguredCommand)
@click.argument("folders", metavar="DIR[:WEIGHT]...", nargs=-1, required=True)
@click.option(
    "--task", type=click.Choice(["avc", "avts", "avsa"]), default="avsa", help="Pretext task."
)
@click.option(
    "--preset",
    type=click.Choice(["tiny", "paper"]),
    default="tiny",
    help="Settings for two CPU cores, or those of the paper.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the run.  [default: runs/TASK-PRESET]",
)
@click.option(
    "--curriculum",
    is_flag=True,
    help="Train AVC first, in OUT/avc, then the task, starting from AVC's networks.",
)
@click.option("--curriculum-steps", type=_STEPS, help="End the AVC stage after this many steps.")
@click.option(
    "--init-from",
    type=click.Path(path_type=Path),
    help="Checkpoint, or exported folder, to take weights and feature statistics from.",
)
@click.option("--resume", is_flag=True, help="Continue the run in --out from its checkpoint.")
@click.option("--features", type=FEATURES, help="Input of the audio network.  [default: logmel]")
@click.option(
    "--intensity-gain",
    type=_SCALE,
    help="Scale of the intensity beside the log-mels.  [default: 8]",
)
@click.option("--audio", type=AUDIO, help="Audio format of a view.  [default: foa]")
@click.option(
    "--transformer/--no-transformer",
    default=None,
    help="Predict from all views of a clip together, or from each view alone.  [default: preset]",
)
@click.option(
    "--positions",
    type=click.Choice(["none", "direction", "relative"]),
    help="What the transformers know of where views look: nothing, each view's direction, or where "
    "the others look as seen from it (implies --norm-first).  [default: none]",
)
@click.option(
    "--norm-first/--norm-last",
    default=None,
    help="Layer normalisation before attention and MLP (small transformers learn sooner) or after "
    "(as in the paper).  [default: last]",
)
@click.option(
    "--transformer-warmup",
    type=click.IntRange(0, 1_000_000),
    help="Steps in which the transformers' learning rate rises from 0.  [default: 800 with "
    "--positions relative, or 0]",
)
@click.option(
    "--negatives",
    type=click.Choice(["easy", "hard", "easy+hard"]),
    help="Negatives: other clips, other views (or moments) of the same clip, or both.  "
    "[default: set by the task]",
)
@click.option("--temperature", type=_SCALE, help="Temperature of the loss.  [default: 0.07]")
@click.option(
    "--head",
    type=click.Choice(["linear", "mlp"]),
    help="Projection from features to embeddings.  [default: linear]",
)
@click.option(
    "--dropout",
    type=Number(0, 1, max_open=True),
    help="Dropout of the transformers.  [default: preset]",
)
@click.option("--epochs", type=_EPOCHS, help="Epochs per stage.  [default: preset]")
@click.option("--steps", type=_STEPS, help="Stop at this step of the run.")
@click.option("--batch-size", type=_BATCH, help="Clips per step.  [default: preset]")
@click.option("--views", type=UP_TO_1000, help="Views per clip.  [default: set by the task]")
@click.option("--moments", type=UP_TO_1000, help="Moments per clip, for avts.  [default: preset]")
@click.option(
    "--margin",
    "margin_s",
    type=Number(0, 3600),
    help="Smallest gap between moments in seconds.  [default: 0.5]",
)
@click.option(
    "--lr",
    "learning_rate",
    type=Number(0, 1000, min_open=True),
    help="Learning rate.  [default: preset]",
)
@click.option(
    "--sampling",
    type=click.Choice(["clip", "video"]),
    help="Clips per epoch: all of them, or one per source.  [default: preset]",
)
@click.option(
    "--clips-per-source",
    type=click.IntRange(1, 100_000),
    help="Clips per epoch: this many of every source; a source with fewer repeats its clips.  "
    "[default: 32 with preset paper]",
)
@click.option(
    "--bf16",
    "precision",
    flag_value="bf16",
    help="Run the backbones in bfloat16; faster on devices that support it.",
)
@click.option(
    "--fp16",
    "precision",
    flag_value="fp16",
    help="Run the backbones in float16, with scaled gradients.",
)
@click.option(
    "--micro-batches",
    "--pieces",
    "pieces",
    type=click.IntRange(1, 10_000),
    help="Split every batch into this many micro-batches, which need less memory; the loss "
    "compares clips within a micro-batch.  [default: 1]",
)
@click.option(
    "--shuffle-views",
    is_flag=True,
    help="Let the views of a clip exchange their audio at random: a control for avsa, which learns "
    "nothing of space.",
)
@named_networks
@network_options
@click.option(
    "--freeze",
    type=click.Choice(["none", "video", "audio", "both"]),
    help="Backbones that are not trained: with --init-from, or networks that bring weights.  "
    "[default: none]",
)
@click.option("--compile", "compiled", is_flag=True, help="Compile the backbones (torch.compile).")
@click.option("--checkpoint-steps", type=_STEPS, default=500, help="Save every N steps.")
@click.option("--keep-last", type=_STEPS, default=1, help="Number of newest checkpoints to keep.")
@click.option("--keep-every", type=_STEPS, help="Also keep a checkpoint every N steps.")
@click.option(
    "--max-faults",
    type=Number(0, 1),
    default=0.01,
    help="Largest share of unreadable clips before the run ends; up to 10 clips are always "
    "tolerated, unless it is 0. Other clips replace them.",
)
@click.option(
    "--cache",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder on a local disk for copies of remote shards; several runs may share it.",
)
@click.option(
    "--cache-gb",
    type=Number(0, 1_000_000, min_open=True),
    default=200.0,
    help="Size of the cache in GB.",
)
@click.option(
    "--report-to",
    type=Names("tensorboard", "wandb", "mlflow"),
    metavar="[tensorboard,wandb,mlflow]",  # Click writes names of types in capitals
    default=(),
    help="Report curves and figures to these, separated by commas; each is an extra of its name.",
)
@click.option("--num-workers", type=WORKERS, help="Loader processes per rank.  [default: auto]")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto")
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0)
@click.option("--split", default="train", help="Split to train on.")
@click.option(
    "--dry-run", is_flag=True, help="Take a few steps, save nothing, and print what a step costs."
)
@click.option(
    "--profile",
    is_flag=True,
    help="Like --dry-run, and write OUT/trace.json for ui.perfetto.dev.",
)
@config_option
@options_as(PretrainOptions)
def pretrain(options: PretrainOptions) -> None:
    """Contrastive pretraining on the shard set in DIR, or on several sets.

    Of several sets an epoch shows every clip once; with weights, such as A:0.7 B:0.3, as many clips
    in all, of each set its share.

    Writes checkpoint.pt, log.jsonl (one line per step), config.json and curves.png to --out.

    \b
    Example, the curriculum of the paper:
      avtrain pretrain shards/ --task avsa --preset paper --curriculum --out runs/avsa
    """
    with one_sentence():
        from avtrain.runtime.signals import Stopped

        config, run_options = options.config(), options.run_options()
        try:
            if options.dry_run or options.profile:
                lines = _rehearsal(options, config, run_options)
            else:
                lines = [_training(options, config, run_options)]
        except Stopped as stopped:
            show(str(stopped), err=True)
            return
    if os.environ.get("RANK", "0") == "0":  # of several processes one speaks
        show(*lines)


def _rehearsal(options: PretrainOptions, config: Config, run_options: RunOptions) -> list[str]:
    from avtrain.pretrain.dry_run import rehearse

    steps = PROFILED_STEPS if options.profile else REHEARSED_STEPS
    return rehearse(options.sets[0], config, run_options, steps, options.profile)


def _training(options: PretrainOptions, config: Config, run_options: RunOptions) -> str:
    from avtrain.pretrain.loop import pretrain, pretrain_in_stages
    from avtrain.run_folder import CURVES

    if options.curriculum:
        steps = options.curriculum_steps
        last = pretrain_in_stages(options.sets[0], config, run_options, steps)
    else:
        last = pretrain(options.sets[0], config, run_options)
    out = run_options.out
    return f"{out}: {last['step']} steps, loss {last['loss']:.3f}; see {out / CURVES}"
