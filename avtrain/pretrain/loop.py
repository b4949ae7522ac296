"""Contrastive pretraining: settings, set-up, loop, log, save, from top to bottom."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from avtrain.checkpoint import Checkpoint, keep
from avtrain.config import Config, first_stage
from avtrain.data.batch import Batch
from avtrain.data.clips import Clips
from avtrain.data.loader import load
from avtrain.data.plan import Plan, Share, Step
from avtrain.data.statistics import fit_statistics
from avtrain.errors import TrainingError
from avtrain.pretrain.checks import check_agreed, check_loss, check_weights
from avtrain.pretrain.curves import plot_curves
from avtrain.pretrain.run_log import RunLog, read_log
from avtrain.pretrain.tensorboard import Board
from avtrain.pretrain.trainer import Trainer
from avtrain.run_folder import CHECKPOINT, CONFIG, CURVES, FIRST_STAGE, LOG
from avtrain.runtime.device import default_workers
from avtrain.runtime.distributed import World, joined, restarts
from avtrain.runtime.signals import Stopped, StopRequest
from shards.files import dump_json, remove_temporary_files, write_atomic
from shards.reader import CACHE_BYTES, ShardSet

FEWEST_FAULTS = 10
"""So many clips that cannot be read never stop a run."""


@dataclass(frozen=True)
class RunOptions:
    """What a run may change from one start to the next. ``steps`` ends it early.

    A checkpoint is written every ``checkpoint_steps`` steps and at the end of every epoch; the last
    ``keep_last`` are kept, and those of every ``keep_every`` steps. ``max_faults`` is the largest
    share of clips that may be unreadable, and replaced by others. ``cache`` is a folder of this
    machine for copies of shards, of ``cache_bytes`` in all.
    """

    out: Path
    split: str = "train"
    init_from: Path | None = None
    resume: bool = False
    steps: int | None = None
    checkpoint_steps: int = 500
    keep_last: int = 1
    keep_every: int | None = None
    max_faults: float = 0.01
    compiled: bool = False
    cache: Path | None = None
    cache_bytes: int = CACHE_BYTES
    tensorboard: bool = False
    device: str = "auto"
    workers: int | None = None


def pretrain(root: Path | str, config: Config, options: RunOptions) -> dict[str, Any]:
    """Train on the shard set in ``root`` and return the last line of the log.

    Raises Stopped where a signal asked it to stop; the same call with ``resume`` goes on.
    """
    with joined(options.device) as world, StopRequest() as stop:
        return _pretrain(root, config, _started_again(options, world), world, stop)


def pretrain_in_stages(
    root: Path | str, config: Config, options: RunOptions, first_steps: int | None
) -> dict[str, Any]:
    """The curriculum: AVC in ``OUT/avc`` (``first_steps`` end it early), then ``config``, a
    ``curriculum``, from its networks in ``OUT``. With ``resume`` it goes on in whichever stage was
    interrupted."""
    first_out = options.out / FIRST_STAGE
    with joined(options.device) as world, StopRequest() as stop:
        options = _started_again(options, world)
        second = options.resume and (options.out / CHECKPOINT).exists()
        check_agreed(world, options.out, root, str(second))
        if not second:
            # What is wrong with the second stage is said before the first is trained.
            _check(root, config, options, world)
            first = replace(options, out=first_out, init_from=None, steps=first_steps)
            last = _pretrain(root, first_stage(config), first, world, stop)
            # Its checkpoint is written when all are here.
            if world.any([stop.name is not None])[0]:
                raise Stopped(stop.name or "another process", last["step"], first_out)
        start = replace(options, init_from=first_out / CHECKPOINT)
        return _pretrain(root, config, start, world, stop)


@dataclass
class Prepared:
    """A run that can take its next step: step ``step`` of ``epoch``, after ``total`` steps."""

    config: Config
    shards: ShardSet
    clips: Clips
    plan: Plan
    share: Share
    trainer: Trainer
    workers: int
    epoch: int
    step: int
    total: int
    last_total: int

    def batches(self) -> Iterator[tuple[Step, Batch]]:
        """What is left of the run; this process' part of every piece."""
        epochs = range(self.epoch, self.config.epochs)
        pinned = self.trainer.world.device.type == "cuda"
        return load(self.clips, self.plan, epochs, self.step, self.workers, pinned, self.share)


def _check(root: Path | str, config: Config, options: RunOptions, world: World) -> None:
    """Raise TrainingError where `prepare` would, as far as that is known without networks."""
    config.check()
    shards = ShardSet(root, options.split, options.cache, options.cache_bytes)
    _earlier_start(options)
    Clips(shards, config.clip, config.sound, config.augment, config.seed)
    plan = Plan(shards, config.seed, config.batch_size, config.clips_per_source)
    plan.check_batches(Share(world.rank, world.size, config.pieces))


def prepare(root: Path | str, config: Config, options: RunOptions, world: World) -> Prepared:
    """Set-up: data, networks, and the state of an earlier start. Writes nothing."""
    config.check()
    shards = ShardSet(root, options.split, options.cache, options.cache_bytes)
    shards.check_files()
    plan = Plan(shards, config.seed, config.batch_size, config.clips_per_source)
    earlier = _earlier_start(options)
    start = None
    if earlier is None and options.init_from is not None:
        start = Checkpoint.load(options.init_from)
    config = _heard_as_before(config, earlier or start)
    if earlier is not None:
        begun_with = earlier.settings(options.out / CHECKPOINT).begun_with
        config = replace(config, begun_with=begun_with)
    elif start is not None and options.init_from is not None:
        config = config.after(start.settings(options.init_from), start.total_steps)
    clips = Clips(shards, config.clip, config.sound, config.augment, config.seed)
    share = Share(world.rank, world.size, config.pieces, replace=True)
    plan.check_batches(share)

    trainer = Trainer(config, world, options.compiled)
    total = epoch = step = 0
    if earlier is not None:
        path = options.out / CHECKPOINT
        earlier.check_continues(path, config, shards.manifest.sha256, shards.split)
        trainer.resume_from(earlier)
        total, epoch, step = earlier.total_steps, earlier.epoch, earlier.step
    elif start is not None and options.init_from is not None:
        start.check_initialises(options.init_from, config)
        trainer.init_from(start)
    place = f"{shards.manifest.sha256} {config.digest} {total} {epoch} {step}"
    check_agreed(world, options.out, root, place)
    if earlier is None and (start is None or not start.features) and world.first:
        # A second of some clips is not worth copies of their shards.
        uncached = ShardSet(root, options.split)
        fit_statistics(trainer.features, uncached, config.clip, config.seed)
    # Whatever each has read, all begin with the same.
    world.share([*trainer.features.buffers(), *trainer.model.state_dict().values()])
    last_total = plan.steps_per_epoch * config.epochs
    if options.steps is not None:
        last_total = min(last_total, options.steps)
    workers = default_workers(world.device) if options.workers is None else options.workers
    return Prepared(
        config, shards, clips, plan, share, trainer, workers, epoch, step, total, last_total
    )


def _pretrain(
    root: Path | str, config: Config, options: RunOptions, world: World, stop: StopRequest
) -> dict[str, Any]:
    run = prepare(root, config, options, world)
    config, shards, trainer = run.config, run.shards, run.trainer
    total, last_total = run.total, run.last_total
    if world.first:
        options.out.mkdir(parents=True, exist_ok=True)
        remove_temporary_files(options.out)
    board = Board(options.out, total) if options.tensorboard and world.first else None
    if world.first:
        write_atomic(options.out / CONFIG, dump_json(config.to_dict(), indent=2))
        _announce(run)

    # The loop. A step is a function of (epoch, step), the weights and torch's generators.
    batches = run.batches()
    bar = tqdm(
        total=last_total,
        initial=total,
        unit="step",
        mininterval=0.5 if sys.stderr.isatty() else 30.0,
        disable=not world.first,
    )
    with RunLog(options.out, total, world, bar) as log:
        while total < last_total:
            contrasts = []
            for piece in range(config.pieces):
                with trainer.timed("data"):
                    place, batch = next(batches)
                log.note_faults(batch, shards)
                last_piece = piece == config.pieces - 1
                contrasts.append(trainer.forward(batch, last_piece))
                samples = batch.index.numpy()
                if world.size > 1:  # any process' part may be what is wrong
                    samples = np.array_split(place.samples, config.pieces)[piece]
                check_loss(contrasts[-1], shards, samples, total + 1)
                trainer.backward_and_step(contrasts[-1], last_piece)
            total += 1
            line = log.add(total, place, contrasts, trainer.seconds)
            if board is not None:
                board.add(line)
            too_many = log.faults > max(
                FEWEST_FAULTS * (options.max_faults > 0), options.max_faults * log.clips
            )
            stopped, spoiled = world.any([stop.name is not None, too_many])
            ends = place.last_of_epoch or total == last_total or stopped or spoiled
            kept = options.keep_every is not None and total % options.keep_every == 0
            if world.first and (ends or kept or total % options.checkpoint_steps == 0):
                log.flush()  # never behind the checkpoint, whose step it is cut to
                next_epoch, next_step = place.epoch, place.step + 1
                if place.last_of_epoch:
                    next_epoch, next_step = place.epoch + 1, 0
                path = options.out / CHECKPOINT
                check_weights(trainer.model, total, path)
                trainer.checkpoint(
                    shards.manifest.sha256, shards.split, next_epoch, next_step, total
                ).save(path)
                keep(path, total, options.keep_last, options.keep_every)
                if board is not None:
                    board.show(trainer, batch, total)
            if spoiled:
                raise TrainingError(
                    f"more than {options.max_faults:.1%} of the clips cannot be read, see "
                    f"{log.faults_path}; mend the set (`avprep verify` says what is damaged), or "
                    "allow more with --max-faults; --resume goes on"
                )
            if stopped and total < last_total:
                if world.first:
                    plot_curves(read_log(log.path), config, options.out / CURVES)
                raise Stopped(stop.name or "another process", total, options.out)
    if board is not None:
        board.close()
    if log.last is None:
        raise TrainingError("there is no step to take; ask for at least one (--steps, --epochs)")
    if world.first:
        plot_curves(read_log(log.path), config, options.out / CURVES)
    return log.last


def _started_again(options: RunOptions, world: World) -> RunOptions:
    """torchrun starts a run again, as it was started, when a process has died; which the machines
    whose processes had not do not know."""
    return replace(options, resume=world.any([options.resume or restarts() > 0])[0])


def _heard_as_before(config: Config, start: Checkpoint | None) -> Config:
    """Conventions belong to the weights: those of the checkpoint that a run begins with."""
    conventions = None if start is None else start.config["sound"].get("conventions")
    if conventions is None:
        return config
    try:
        return replace(config, sound=replace(config.sound, conventions=conventions))
    except ValueError as error:
        raise TrainingError(str(error)) from None


def _earlier_start(options: RunOptions) -> Checkpoint | None:
    """The checkpoint to go on from. A run killed before its first one starts over."""
    if options.resume:
        path = options.out / CHECKPOINT
        return Checkpoint.load(path) if path.exists() else None
    for name in (CHECKPOINT, LOG, CONFIG):
        if (options.out / name).exists():
            raise TrainingError(
                f"{options.out} holds a run already; go on with --resume, or choose another --out"
            )
    return None


def _announce(run: Prepared) -> None:
    million = sum(parameter.numel() for parameter in run.trainer.model.parameters()) / 1e6
    config, shards, world = run.config, run.shards, run.trainer.world
    print(
        f"{config.task} with preset {config.preset}: {million:.2f} million parameters on "
        f"{f'{world.size} x ' * (world.size > 1)}{world.device.type}; "
        f"{len(shards)} clips of {len(set(shards.sources))} sources, "
        f"{config.batch_size} clips x {config.clip.views} views a step; "
        f"steps {run.total + 1} to {run.last_total}",
        file=sys.stderr,
    )
