"""What `make study` does, as data: which networks are trained, how they are evaluated, and the jobs
that this makes."""

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
# An object fills much of such a view: small networks see it. Those of preset tiny look at 32 pixels
# and 8 frames a second.
BUILD = {"tiny": ["--size", "64", "--fps", "8"], "paper": []}
HFOV = ["--hfov", "70:90"]


@dataclass(frozen=True)
class Pretraining:
    """Options of `avtrain pretrain`. A curriculum begins with half as many steps of AVC."""

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
    """`avtrain eval COMMAND` with options. ``context``: it asks for transformers, so that networks
    that were trained without are left out; ``actions``: it is of the set of actions; ``shares``: it
    looks at the same frozen features as others, which the first of them makes. ``features``: it is
    made of networks with these."""

    name: str
    command: str
    options: tuple[str, ...] = ()
    context: bool = False
    actions: bool = False
    shares: bool = False
    features: tuple[str, ...] = FEATURES


EVALUATIONS = (
    Evaluation("avsa-view4", "avsa", ("--views", "4"), shares=True),
    Evaluation("avsa-view1", "avsa", ("--views", "1"), shares=True),
    Evaluation("avc-view4", "avc", ("--views", "4"), shares=True),
    Evaluation("avc-view1", "avc", ("--views", "1"), shares=True),
    Evaluation("retrieval", "retrieval", shares=True),
    Evaluation("localization", "localization", shares=True),
    *(
        Evaluation(
            f"segmentation-{condition.removeprefix('audio+')}",
            "segmentation",
            ("--condition", condition, "--epochs", "4", "--maps", "2"),
            context=condition == "audio+context",
            # With log-mels alone those that hear the view say what there is to say.
            features=FEATURES if condition == "audio" else FEATURES[-1:],
        )
        for condition in ("none", "audio", "audio+context")
    ),
    Evaluation("action", "action", ("--probe", "--folds", "1"), actions=True),
)


@dataclass(frozen=True)
class Job:
    """A command that fills the folder ``makes`` once the jobs that it ``needs`` are finished.
    ``resumes``: started again, it goes on with what is there; else the folder is emptied first.
    ``kind``: jobs of one kind take about as long. ``machine``: options that change no result."""

    name: str
    kind: str
    command: tuple[str, ...]
    makes: Path
    needs: tuple[str, ...] = ()
    machine: tuple[str, ...] = ()
    resumes: bool = True


@dataclass(frozen=True)
class Study:
    """The settings that decide what is made. ``videos``: of the set of actions; ``bf16``: of
    pretraining."""

    clips: int = 480
    videos: int = 360
    seeds: int = 3
    steps: int = 1500
    preset: str = "tiny"
    bf16: bool = False
    device: str = "auto"
    features: tuple[str, ...] = FEATURES
    pretrainings: tuple[Pretraining, ...] = PRETRAININGS


def available(evaluations: Sequence[Evaluation] = EVALUATIONS) -> dict[str, str | None]:
    """Names of evaluations, and what this version lacks for them (None: nothing)."""
    return {evaluation.name: _lacking(evaluation) for evaluation in evaluations}


def _lacking(evaluation: Evaluation) -> str | None:
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
    """All jobs, in the order in which they are begun: the sets, then seed after seed, with the
    last of the features first."""
    lacking = available()
    evaluations = [evaluation for evaluation in EVALUATIONS if lacking[evaluation.name] is None]
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
    # An epoch has at least one step, so that the steps alone end the run.
    options += ["--steps", str(study.steps), "--epochs", str(study.steps), "--seed", str(seed)]
    if pretraining.curriculum:
        options += ["--curriculum", "--curriculum-steps", str(max(1, study.steps // 2))]
    if study.bf16:
        options.append("--bf16")
    makes = out / "networks" / name
    command = ["pretrain", str(out / "shards"), "--out", str(makes), "--resume", *options]
    return Job(
        f"{name}/pretrain",
        f"pretrain {pretraining.name}",
        (*AVTRAIN, *command),
        makes,
        ("shards",),
        _machine(study),
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
    maker: tuple[str, ...] = ()
    for evaluation in evaluations:
        if evaluation.context and pretraining is not None and not pretraining.transformer:
            continue
        if features not in evaluation.features:
            continue
        shards = "actions-shards" if evaluation.actions else "shards"
        makes = out / "results" / name / evaluation.name
        command = ["eval", evaluation.command, str(out / shards), "--checkpoint", *checkpoint]
        command += ["--out", str(makes), "--no-baseline", "--seed", str(seed)]
        needs = () if pretraining is None else (f"{name}/pretrain",)
        if evaluation.shares:
            command += ["--keep-features", str(out / "features" / name)]
            needs += maker
            maker = maker or (f"{name}/{evaluation.name}",)
        jobs.append(
            Job(
                f"{name}/{evaluation.name}",
                f"eval {evaluation.name}",
                (*AVTRAIN, *command, *evaluation.options),
                makes,
                (shards, *needs),
                _machine(study),
            )
        )
    return jobs


def _machine(study: Study) -> tuple[str, ...]:
    """Jobs run beside each other, so that each one reads for itself."""
    return "--device", study.device, "--num-workers", "0"
