"""Checkpoints of a run: when one is due, how it is written, which ones are kept."""

from __future__ import annotations

import os
import re
from pathlib import Path

from avtrain.pretrain.checks import check_own, check_weights
from avtrain.pretrain.set_up import Run, RunOptions
from avtrain.run_folder import CHECKPOINT, KEPT_CHECKPOINTS
from shards.files import atomic_file

_NAME = re.compile(r"step-[0-9]{8,12}\.pt")


def is_due(total: int, options: RunOptions) -> bool:
    """Whether a checkpoint is written after ``total`` steps, wherever in an epoch they end."""
    kept = options.keep_every is not None and total % options.keep_every == 0
    return kept or total % options.checkpoint_steps == 0


def save(run: Run, options: RunOptions) -> None:
    """Write ``OUT/checkpoint.pt``, and keep it beyond the next one where the options say so.

    Raises TrainingError, and writes nothing, where weights are not finite.
    """
    path = options.out / CHECKPOINT
    check_weights(run.trainer.model, run.total, path)
    run.checkpoint().save(path)
    keep(path, run.total, options.keep_last, options.keep_every)


def keep(path: Path, step: int, last: int, every: int | None) -> None:
    """Keep the checkpoint in ``path``, written after ``step``, in ``checkpoints/`` as well: as one
    of the newest ``last`` (1: none, ``path`` itself is the newest), or, every ``every`` steps, for
    good. Older ones are deleted."""
    folder = path.parent / KEPT_CHECKPOINTS
    check_own(folder)
    for_good = every is not None and step % every == 0
    if last > 1 or for_good:
        folder.mkdir(exist_ok=True)
        name = folder / f"step-{step:08d}.pt"
        name.unlink(missing_ok=True)
        try:
            os.link(path, name)  # both names are of the whole file, at no cost
        except OSError:  # file systems without links
            with atomic_file(name) as file:
                file.write(path.read_bytes())
    kept = sorted(old for old in folder.glob("step-*.pt") if _NAME.fullmatch(old.name))
    for old in kept[: max(0, len(kept) - last)] if last > 1 else kept:
        number = int(old.stem.removeprefix("step-"))
        if every is None or number % every:
            old.unlink()
