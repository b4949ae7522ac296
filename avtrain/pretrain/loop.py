"""Contrastive pretraining: the loop, and the two-stage curriculum around it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace

import numpy as np

from avtrain.config import Config, first_stage
from avtrain.data.batch import Batch
from avtrain.data.plan import Step
from avtrain.data.shard_sets import Roots
from avtrain.errors import TrainingError
from avtrain.networks.losses import ContrastiveLoss
from avtrain.pretrain.checks import check_agreed, check_loss, check_own, too_many_faults
from avtrain.pretrain.curves import plot_curves
from avtrain.pretrain.reports import Reports
from avtrain.pretrain.run_log import RunLog
from avtrain.pretrain.saving import is_due, save
from avtrain.pretrain.set_up import Run, RunOptions, check_early, prepare
from avtrain.run_folder import CHECKPOINT, CONFIG, CURVES, FIRST_STAGE, StepLine, read_log
from avtrain.runtime.distributed import World, joined, restarts
from avtrain.runtime.signals import Stopped, StopRequest, WaitGivenUp
from shards.files import dump_json, remove_temporary_files, write_atomic


def pretrain(roots: Roots, config: Config, options: RunOptions) -> StepLine:
    """Train on the shard sets in ``roots`` and return the last line of the log.

    Raises Stopped after a signal; the same call with ``resume`` continues the run.
    """
    with joined(options.device) as world, StopRequest() as stop:
        options = _with_resume_after_restart(options, world)
        return train(prepare(roots, config, options, world), options, stop)


def pretrain_in_stages(
    roots: Roots, config: Config, options: RunOptions, first_steps: int | None
) -> StepLine:
    """The curriculum: AVC in ``OUT/avc`` (for at most ``first_steps``), then ``config``, whose
    ``curriculum`` is set, from its networks in ``OUT``. With ``resume``, whichever stage was
    interrupted continues."""
    first_out = options.out / FIRST_STAGE
    with joined(options.device) as world, StopRequest() as stop:
        options = _with_resume_after_restart(options, world)
        in_second_stage = options.resume and (options.out / CHECKPOINT).exists()
        check_agreed(world, options.out, roots, str(in_second_stage))
        if not in_second_stage:
            check_own(first_out)
            check_early(roots, config, options, world)  # before the first stage takes its hours
            first = replace(options, out=first_out, init_from=None, steps=first_steps)
            last = train(prepare(roots, first_stage(config), first, world), first, stop)
            # All ranks meet here, so that the first has written the checkpoint.
            if world.any([stop.name is not None])[0]:
                raise Stopped(stop.name or "another process", last["step"], first_out)
        second = replace(options, init_from=first_out / CHECKPOINT)
        return train(prepare(roots, config, second, world), second, stop)


def train(run: Run, options: RunOptions, stop: StopRequest) -> StepLine:
    """Take the remaining steps of ``run`` and return the last line of the log.

    A step is a function of (epoch, step), the weights and torch's generators.
    """
    trainer, world = run.trainer, run.trainer.world
    with _open_folder(run, options) as (log, reports), closing(run.batches()) as batches:
        while not run.finished:
            try:
                step, batch, losses = _train_step(run, batches, log)
            except WaitGivenUp:
                log.flush()
                save(run, options)
                break
            run.advance(step)
            line = log.add(run.total, step, losses, trainer.seconds)
            reports.add(line)

            spoiled = too_many_faults(log.faults, log.clips, options.max_faults)
            stopped, spoiled = world.any([stop.name is not None, spoiled])
            ends = step.last_of_epoch or run.finished or stopped or spoiled
            if world.first and (ends or is_due(run.total, options)):
                log.flush()  # never behind the checkpoint, to whose step it is cut on resuming
                save(run, options)
                reports.show(trainer, batch, run.total)
            if spoiled:
                raise TrainingError(
                    f"more than {options.max_faults:.1%} of the clips cannot be read, see "
                    f"{log.faults_path}; mend the set (`avprep verify` says what is damaged), or "
                    "allow more with --max-faults; --resume continues the run"
                )
            if stopped:
                break

    if world.first and log.last is not None:
        plot_curves(read_log(log.path).lines, run.config, options.out / CURVES)
    if not run.finished:
        raise Stopped(stop.name or "another process", run.total, options.out)
    if log.last is None:
        raise TrainingError("there is no step to take; ask for at least one (--steps, --epochs)")
    return log.last


def _train_step(
    run: Run, batches: Iterator[tuple[Step, Batch]], log: RunLog
) -> tuple[Step, Batch, list[ContrastiveLoss]]:
    """Forward and backward of every micro-batch, then the optimiser. Returns the step, the last
    micro-batch and the losses of all.

    Raises WaitGivenUp where nothing of the step was taken yet, and no other rank waits in it.
    """
    trainer, count = run.trainer, run.config.pieces
    losses: list[ContrastiveLoss] = []
    for number in range(count):
        try:
            with trainer.timed("data"):
                step, batch = next(batches)
        except WaitGivenUp:
            if not losses and trainer.world.size == 1:
                raise
            raise TrainingError(
                "the run was stopped by a signal while it waited for data; --resume continues from "
                "its last checkpoint"
            ) from None
        log.note_faults(batch, run.shards)
        last = number == count - 1
        loss = trainer.forward(batch, last)
        samples = batch.index.numpy()
        if trainer.world.size > 1:  # the part of any rank may be what is wrong
            samples = np.array_split(step.samples, count)[number]
        check_loss(loss, run.shards, samples, run.total + 1)
        trainer.backward_and_step(loss, last)
        losses.append(loss)
    return step, batch, losses


@contextmanager
def _open_folder(run: Run, options: RunOptions) -> Iterator[tuple[RunLog, Reports]]:
    """Make the run's folder, write its settings, and open its log and the reports asked for."""
    world, out = run.trainer.world, options.out
    if world.first:
        out.mkdir(parents=True, exist_ok=True)
        remove_temporary_files(out)
        write_atomic(out / CONFIG, dump_json(run.config.to_dict(), indent=2))
        run.announce()
    with RunLog(out, run.total, run.last_total, world) as log:
        try:
            reports = Reports(options.report_to if world.first else (), out, run.config, run.total)
        except TrainingError:
            if not run.total:  # nothing was begun that a corrected command would have to resume
                (out / CONFIG).unlink(missing_ok=True)
                log.path.unlink(missing_ok=True)
            raise
        log.begin()
        try:
            yield log, reports
        except BaseException:
            reports.close(failed=True)
            raise
        reports.close(failed=False)


def _with_resume_after_restart(options: RunOptions, world: World) -> RunOptions:
    """After the death of a process torchrun starts a run again with the options of its first start.
    Machines on which no process died do not know of that: they ask the others."""
    return replace(options, resume=world.any([options.resume or restarts() > 0])[0])
