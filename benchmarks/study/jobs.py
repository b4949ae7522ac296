"""The plan of `make study`: the jobs that its rows, evaluations and sets become."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.study.rows import (
    BLOCKS,
    EVALUATIONS,
    FIRST_SEEDS,
    FURTHER,
    HFOV,
    NARROW,
    SHARED_S,
    WIDE,
    Evaluation,
    Row,
    difficulty_options,
    missing_evaluations,
    missing_rows,
)

AVPREP, AVTRAIN = ([sys.executable, "-m", name] for name in ("avprep", "avtrain"))
# Preset tiny reads crops of 32 pixels at 8 frames per second.
BUILD = {"tiny": ("--size", "64", "--fps", "8"), "paper": ()}
# One track per clip, which readers rotate: a seventh of the size, and fewer bytes to decode.
_SOUND = ("--audio-layout", "source")
SETS = ("world", "shards")
"""Endings of the kinds of jobs that make sets."""
TRAINING = "pretrain "
"""Begin of the kinds of jobs that train."""
_CLIPS, _STEPS = 2400, 4000
"""Sizes of the study, for which costs are stated; it has as many videos of actions as clips."""
_SET_COSTS_S = {"world": 1600.0, "shards": 940.0, "actions-world": 400.0, "actions-shards": 300.0}
_STEP_COSTS_S = {"avc": 0.23, "avsa": 0.16}
"""Seconds of a step on one core, by task. The plan is made of these costs until a study
has measured its own."""


@dataclass(frozen=True)
class Job:
    """A command that fills the folder ``output`` once the jobs that it ``needs`` are finished.

    ``kind``: jobs of one kind take about equally long; ``cost_s`` is an estimate on one core.
    ``machine``: options that do not change the result. ``steps``: the last step of a training. A
    restarted command continues its work.
    """

    name: str
    kind: str
    command: tuple[str, ...]
    output: Path
    needs: tuple[str, ...] = ()
    machine: tuple[str, ...] = ()
    steps: int = 0
    cost_s: float = 0.0

    @property
    def makes_set(self) -> bool:
        return self.kind.endswith(SETS)

    @property
    def trains(self) -> bool:
        return self.kind.startswith(TRAINING)


@dataclass(frozen=True)
class Study:
    """The settings that determine the results. ``videos``: size of the set of actions;
    ``more_seeds``: further seeds of the rows `FURTHER`; ``bf16``: pretrain in bfloat16; ``train``:
    further options of every pretraining."""

    clips: int = _CLIPS
    videos: int = _CLIPS
    seeds: int = FIRST_SEEDS
    more_seeds: int = 5
    seld_steps: int = 1500
    steps: int = _STEPS
    preset: str = "tiny"
    bf16: bool = False
    difficulty: str = "hard"
    train: tuple[str, ...] = ()
    device: str = "auto"
    blocks: tuple[tuple[Row, ...], ...] = BLOCKS

    @property
    def rows(self) -> tuple[Row, ...]:
        return tuple(row for block in self.blocks for row in block)


def jobs_of(study: Study, out: Path) -> list[Job]:
    """All jobs in the order in which they start: block after block of rows, in each seed after
    seed, then the further seeds. A set is made before the first job that needs it."""
    lacking, rows_lacking = missing_evaluations(), missing_rows()
    evaluations = [one for one in EVALUATIONS if one.name not in lacking]
    jobs: list[Job] = []
    for row, seed in _rows_and_seeds(study):
        if row.name in rows_lacking:
            continue
        if not row.checkpoint:
            jobs.append(_training(study, row, seed, out))
        jobs += _evaluations(study, row, seed, evaluations, out)
    sets = {job.name: job for job in _set_jobs(study, out)}
    ordered: dict[str, Job] = {}
    for job in jobs:
        for name in job.needs:
            if name in sets:
                ordered |= {one: sets[one] for one in (*sets[name].needs, name)}
        ordered[job.name] = job
    return list(ordered.values())


def _rows_and_seeds(study: Study) -> Iterator[tuple[Row, int]]:
    for block in study.blocks:
        for seed in range(study.seeds):
            yield from ((row, seed) for row in block)
    for seed in range(study.seeds, study.seeds + study.more_seeds):
        yield from ((row, seed) for row in FURTHER if row in study.rows)


def row_of(job: Job) -> str:
    """Name of the row that a training or an evaluation belongs to."""
    return job.name.split("/")[0]


def _set_jobs(study: Study, out: Path) -> list[Job]:
    hard = difficulty_options(study.difficulty)
    build = BUILD[study.preset]
    world = _world_job("world", study.clips, hard, out)
    actions = _world_job("actions-world", study.videos, ("--actions", *hard), out)
    narrow, wide = (
        _build_job(f"{views}-shards", world, study.clips, ("--hfov", HFOV[views], *_SOUND, *build))
        for views in (NARROW, WIDE)
    )
    return [
        world,
        narrow,
        wide,
        actions,
        _build_job("actions-shards", actions, study.videos, build),
    ]


def _world_job(name: str, clips: int, options: tuple[str, ...], out: Path) -> Job:
    command = (*AVPREP, "demo", str(out / name), "--clips", str(clips), *options)
    return Job(name, name, command, out / name, cost_s=_SET_COSTS_S[name] * clips / _CLIPS)


def _build_job(name: str, world: Job, clips: int, options: tuple[str, ...]) -> Job:
    output = world.output.with_name(name)
    command = (*AVPREP, "build-shards", str(world.output), "--out", str(output), *options)
    kind = name if world.name == "actions-world" else "shards"
    cost = _SET_COSTS_S[kind] * clips / _CLIPS
    return Job(name, kind, command, output, (world.name,), cost_s=cost)


def _set_name(row: Row) -> str:
    return f"{row.views}-shards"


def _training(study: Study, row: Row, seed: int, out: Path) -> Job:
    name = f"{row.name}/seed{seed}"
    steps = max(1, study.steps // 2) if row.curriculum else study.steps
    # An epoch has at least one step, so --steps alone ends the run.
    options = ["--preset", study.preset, "--steps", f"{steps}", "--epochs", f"{steps}"]
    options += ["--seed", str(seed), *row.options, *study.train]
    if row.curriculum:
        options += ["--curriculum-steps", str(steps)]
    if study.bf16:
        options.append("--bf16")
    output = out / "networks" / name
    command = ["pretrain", str(out / _set_name(row)), "--out", str(output), "--resume", *options]
    step_s = sum(_STEP_COSTS_S.values()) / 2 if row.curriculum else _STEP_COSTS_S[_task(row)]
    return Job(
        f"{name}/pretrain",
        f"{TRAINING}{row.name}",
        (*AVTRAIN, *command),
        output,
        (_set_name(row),),
        _machine_options(study),
        steps=steps,
        cost_s=step_s * study.steps,
    )


def _task(row: Row) -> str:
    """How many clips a step decodes decides what it costs: 48, or 12."""
    return "avc" if "avc" in row.options and "--batch-size" not in row.options else "avsa"


def _evaluations(
    study: Study, row: Row, seed: int, evaluations: list[Evaluation], out: Path
) -> list[Job]:
    name = f"{row.name}/seed{seed}"
    checkpoint = [str(out / "networks" / name / "checkpoint.pt")]
    if row.checkpoint:
        checkpoint = [row.checkpoint, *row.options, "--preset", study.preset]
    jobs: list[Job] = []
    first_sharing: tuple[str, ...] = ()
    for evaluation in evaluations:
        asked = evaluation.spatial or row.downstream
        if evaluation.last_seeds:
            asked = row.downstream and seed >= study.seeds + study.more_seeds - FIRST_SEEDS
        if not asked or evaluation.context > row.transformer:
            continue
        shards = "actions-shards" if evaluation.actions else _set_name(row)
        output = out / "results" / name / evaluation.name
        command = ["eval", evaluation.command, str(out / shards), "--checkpoint", *checkpoint]
        command += ["--out", str(output), "--no-baseline", "--seed", str(seed)]
        command += further_options(evaluation, study)
        needs = () if row.checkpoint else (f"{name}/pretrain",)
        cost = evaluation.cost_s * (study.videos if evaluation.actions else study.clips) / _CLIPS
        if evaluation.shares_features:
            command += ["--keep-features", str(out / "features" / name)]
            cost += 0 if first_sharing else SHARED_S * study.clips / _CLIPS
            needs += first_sharing
            first_sharing = first_sharing or (f"{name}/{evaluation.name}",)
        job = Job(
            f"{name}/{evaluation.name}",
            f"eval {evaluation.name}",
            (*AVTRAIN, *command, *evaluation.options),
            output,
            (shards, *needs),
            _machine_options(study),
        )
        jobs.append(replace(job, cost_s=cost))
    return jobs


def further_options(evaluation: Evaluation, study: Study) -> tuple[str, ...]:
    """Options of an evaluation that the study's settings decide."""
    return ("--steps", str(study.seld_steps)) if evaluation.command == "seld" else ()


def _machine_options(study: Study) -> tuple[str, ...]:
    """Jobs run side by side, so each one loads its data itself."""
    return "--device", study.device, "--num-workers", "0"
