"""The plan of `make study`, as data: pretrainings, evaluations, and the jobs that they become."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from avprep.cli.main import main as avprep
from avtrain.cli.main import evaluate

AVPREP, AVTRAIN = ([sys.executable, "-m", name] for name in ("avprep", "avtrain"))
FEATURES = ("logmel", "logmel+intensity")
# Preset tiny reads crops of 32 pixels at 8 frames per second. In a view of HFOV an object fills so
# much of the crop that small networks see it.
BUILD = {"tiny": ["--size", "64", "--fps", "8"], "paper": []}
HFOV = ["--hfov", "70:90"]


@dataclass(frozen=True)
class Pretraining:
    """Options of `avtrain pretrain`. A curriculum starts with half as many steps of AVC."""

    name: str
    options: tuple[str, ...]
    curriculum: bool = False
    transformer: bool = False


PRETRAININGS = (
    Pretraining("avc", ("--task", "avc")),
    Pretraining("avts", ("--task", "avts")),
    Pretraining("avsa", ("--task", "avsa", "--no-transformer")),
    Pretraining("avsa-transformer", ("--task", "avsa", "--transformer"), transformer=True),
    Pretraining("curriculum", ("--task", "avsa", "--no-transformer"), curriculum=True),
    Pretraining(
        "curriculum-transformer", ("--task", "avsa", "--transformer"), True, transformer=True
    ),
)


@dataclass(frozen=True)
class Evaluation:
    """`avtrain eval COMMAND` with options.

    ``context``: needs transformers, so networks trained without them are left out. ``actions``:
    runs on the set of actions. ``shares_features``: reads the same frozen features as the others
    of this kind; the first of them computes these. ``features``: runs on networks with these.
    """

    name: str
    command: str
    options: tuple[str, ...] = ()
    context: bool = False
    actions: bool = False
    shares_features: bool = False
    features: tuple[str, ...] = FEATURES


EVALUATIONS = (
    Evaluation("avsa-view4", "avsa", ("--views", "4"), shares_features=True),
    Evaluation("avsa-view1", "avsa", ("--views", "1"), shares_features=True),
    Evaluation("avc-view4", "avc", ("--views", "4"), shares_features=True),
    Evaluation("avc-view1", "avc", ("--views", "1"), shares_features=True),
    Evaluation("retrieval", "retrieval", shares_features=True),
    Evaluation("localization", "localization", shares_features=True),
    *(
        Evaluation(
            f"segmentation-{condition.removeprefix('audio+')}",
            "segmentation",
            ("--condition", condition, "--epochs", "4", "--maps", "2"),
            context=condition == "audio+context",
            # With log-mels alone, the condition `audio` tells enough.
            features=FEATURES if condition == "audio" else FEATURES[-1:],
        )
        for condition in ("none", "audio", "audio+context")
    ),
    Evaluation("action", "action", ("--probe", "--folds", "1"), actions=True),
)


@dataclass(frozen=True)
class Job:
    """A command that fills the folder ``output`` once the jobs that it ``needs`` are finished.

    ``kind``: jobs of one kind take about equally long. ``machine``: options that do not change the
    result. ``resumes``: a restarted command continues its work; otherwise the folder is emptied
    first.
    """

    name: str
    kind: str
    command: tuple[str, ...]
    output: Path
    needs: tuple[str, ...] = ()
    machine: tuple[str, ...] = ()
    resumes: bool = True


@dataclass(frozen=True)
class Study:
    """The settings that determine the results. ``videos``: size of the set of actions; ``bf16``:
    pretrain in bfloat16."""

    clips: int = 480
    videos: int = 360
    seeds: int = 3
    steps: int = 1500
    preset: str = "tiny"
    bf16: bool = False
    device: str = "auto"
    features: tuple[str, ...] = FEATURES
    pretrainings: tuple[Pretraining, ...] = PRETRAININGS


def missing_commands(evaluations: Sequence[Evaluation] = EVALUATIONS) -> dict[str, str]:
    """The evaluations that this version cannot run, with the command or option that it lacks."""
    missing = {evaluation.name: _missing_command(evaluation) for evaluation in evaluations}
    return {name: command for name, command in missing.items() if command is not None}


def _missing_command(evaluation: Evaluation) -> str | None:
    command = evaluate.commands.get(evaluation.command)
    if command is None:
        return f"avtrain eval {evaluation.command}"
    for option in (part for part in evaluation.options if part.startswith("--")):
        if option not in _options(command):
            return f"avtrain eval {evaluation.command} {option}"
    if evaluation.actions and "--actions" not in _options(avprep.commands["demo"]):
        return "avprep demo --actions"
    return None


def _options(command: click.Command) -> list[str]:
    return [name for option in command.params for name in option.opts]


def jobs_of(study: Study, out: Path) -> list[Job]:
    """All jobs in the order in which they start: the sets, then seed after seed, the last entry of
    ``study.features`` first."""
    missing = missing_commands()
    evaluations = [evaluation for evaluation in EVALUATIONS if evaluation.name not in missing]
    build = BUILD[study.preset]
    jobs = _set_jobs("", study.clips, [*HFOV, *build], [], out)
    if any(evaluation.actions for evaluation in evaluations):
        jobs += _set_jobs("actions-", study.videos, build, ["--actions"], out)
    for features in reversed(study.features):
        for seed in range(study.seeds):
            jobs += _evaluations(study, None, features, seed, evaluations, out)
            for pretraining in study.pretrainings:
                jobs.append(_training(study, pretraining, features, seed, out))
                jobs += _evaluations(study, pretraining, features, seed, evaluations, out)
    return jobs


def _set_jobs(
    prefix: str, clips: int, build: list[str], options: list[str], out: Path
) -> list[Job]:
    world, shards = out / f"{prefix}world", out / f"{prefix}shards"
    return [
        Job(
            f"{prefix}world",
            f"{prefix}world",
            (*AVPREP, "demo", str(world), "--clips", str(clips), *options),
            world,
            resumes=False,
        ),
        Job(
            f"{prefix}shards",
            f"{prefix}shards",
            (*AVPREP, "build-shards", str(world), "--out", str(shards), *build),
            shards,
            (f"{prefix}world",),
        ),
    ]


def _name(pretraining: Pretraining | None, features: str, seed: int) -> str:
    return f"{'untrained' if pretraining is None else pretraining.name}/{features}/seed{seed}"


def _training(study: Study, pretraining: Pretraining, features: str, seed: int, out: Path) -> Job:
    name = _name(pretraining, features, seed)
    options = [*pretraining.options, "--preset", study.preset, "--features", features]
    # An epoch has at least one step, so --steps alone ends the run.
    options += ["--steps", str(study.steps), "--epochs", str(study.steps), "--seed", str(seed)]
    if pretraining.curriculum:
        options += ["--curriculum", "--curriculum-steps", str(max(1, study.steps // 2))]
    if study.bf16:
        options.append("--bf16")
    output = out / "networks" / name
    command = ["pretrain", str(out / "shards"), "--out", str(output), "--resume", *options]
    return Job(
        f"{name}/pretrain",
        f"pretrain {pretraining.name}",
        (*AVTRAIN, *command),
        output,
        ("shards",),
        _machine_options(study),
    )


def _evaluations(
    study: Study,
    pretraining: Pretraining | None,
    features: str,
    seed: int,
    evaluations: Sequence[Evaluation],
    out: Path,
) -> list[Job]:
    name = _name(pretraining, features, seed)
    if pretraining is None:
        checkpoint = ["untrained", "--features", features, "--preset", study.preset]
    else:
        checkpoint = [str(out / "networks" / name / "checkpoint.pt")]
    jobs: list[Job] = []
    first_sharing: tuple[str, ...] = ()
    for evaluation in evaluations:
        if evaluation.context and pretraining is not None and not pretraining.transformer:
            continue
        if features not in evaluation.features:
            continue
        shards = "actions-shards" if evaluation.actions else "shards"
        output = out / "results" / name / evaluation.name
        command = ["eval", evaluation.command, str(out / shards), "--checkpoint", *checkpoint]
        command += ["--out", str(output), "--no-baseline", "--seed", str(seed)]
        needs = () if pretraining is None else (f"{name}/pretrain",)
        if evaluation.shares_features:
            command += ["--keep-features", str(out / "features" / name)]
            needs += first_sharing
            first_sharing = first_sharing or (f"{name}/{evaluation.name}",)
        jobs.append(
            Job(
                f"{name}/{evaluation.name}",
                f"eval {evaluation.name}",
                (*AVTRAIN, *command, *evaluation.options),
                output,
                (shards, *needs),
                _machine_options(study),
            )
        )
    return jobs


def _machine_options(study: Study) -> tuple[str, ...]:
    """Jobs run side by side, so each one loads its data itself."""
    return "--device", study.device, "--num-workers", "0"
