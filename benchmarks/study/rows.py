"""What the study compares, as data: its rows (networks), and the evaluations of each row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import click

from avprep.cli.main import main as avprep
from avtrain.cli.main import evaluate
from avtrain.cli.pretrain import pretrain

NARROW, WIDE = "narrow", "wide"
HFOV = {NARROW: "70:90", WIDE: "25.5:90"}
"""Horizontal fields of view: in narrow sets an object fills so much of every view that small
networks see it; wide ones range as the paper's do, and many views hold no object."""
_INTENSITY = ("--features", "logmel+intensity")
_LOGMEL = ("--features", "logmel")
_AVC = ("--task", "avc")
_AVSA = ("--task", "avsa", "--no-transformer")
_RELATIVE = ("--task", "avsa", "--transformer", "--positions", "relative")


@dataclass(frozen=True)
class Row:
    """Networks that differ only in their seed.

    ``options``: those of `avtrain pretrain`, or beside ``checkpoint``, which stands for networks
    without training. ``downstream``: evaluated in all tasks, with further seeds.
    """

    name: str
    words: str
    options: tuple[str, ...]
    checkpoint: str = ""
    views: str = NARROW
    downstream: bool = False

    @property
    def transformer(self) -> bool:
        return "--transformer" in self.options

    @property
    def curriculum(self) -> bool:
        """Half of its steps are AVC's: it has as many in all as every other row."""
        return "--curriculum" in self.options


# One row is compared with another of the same seed and set, so that each pair differs in one thing.
AVC = Row("avc", "AVC, 48 clips × 1 view", (*_AVC, *_INTENSITY), downstream=True)
AVSA = Row("avsa", "AVSA, 12 clips × 4 views", (*_AVSA, *_INTENSITY), downstream=True)
RELATIVE = Row(
    "avsa-relative", "AVSA, relative transformer", (*_RELATIVE, *_INTENSITY), downstream=True
)
SAME_CLIPS = Row(
    "avc-same-clips",
    "AVC, 12 clips × 4 views",
    # AVSA's clips, crops and sounds; only the comparison with the clip's other views is missing.
    (*_AVC, "--views", "4", "--batch-size", "12", "--no-transformer", *_INTENSITY),
)
SHUFFLED = Row("avsa-shuffled", "AVSA, views shuffled", (*_AVSA, "--shuffle-views", *_INTENSITY))
CURRICULUM = Row(
    "curriculum", "AVC, then AVSA", (*_AVSA, "--curriculum", *_INTENSITY), downstream=True
)
AVSA_LOGMEL = Row("avsa-logmel", "AVSA, log-mel", (*_AVSA, *_LOGMEL), downstream=True)
AVC_LOGMEL = Row("avc-logmel", "AVC, log-mel", (*_AVC, *_LOGMEL))
AVC_OMNI = Row(
    # Sound that is the same in every view: a mono beam would already point somewhere.
    "avc-omni",
    "AVC, sound without directions",
    (*_AVC, "--audio", "omni", *_LOGMEL),
)
WIDE_AVC = Row("wide-avc", "AVC, 48 clips × 1 view", AVC.options, views=WIDE)
WIDE_AVSA = Row("wide-avsa", "AVSA, 12 clips × 4 views", AVSA.options, views=WIDE)
WIDE_RELATIVE = Row(
    "wide-avsa-relative", "AVSA, relative transformer", RELATIVE.options, views=WIDE
)
UNTRAINED = Row("untrained", "untrained", _INTENSITY, "untrained", downstream=True)
ENERGY = Row("energy", "energy map, nothing learned", (), "energy")
BLOCKS = (
    (AVC, AVSA),
    (WIDE_AVSA, WIDE_RELATIVE),
    (UNTRAINED, AVSA_LOGMEL, CURRICULUM),
    (SAME_CLIPS, RELATIVE),
    (ENERGY, SHUFFLED, AVC_OMNI),
    (WIDE_AVC, AVC_LOGMEL),
)
"""All rows, in blocks that each answer a claim with those before them. A block is run with all its
seeds before the next one begins: a difference is decided by five seeds of two rows, and by no
number of rows of one seed. An interrupted study has therefore decided the first claims."""
ROWS = tuple(row for block in BLOCKS for row in block)
FIRST_SEEDS = 5
FURTHER = tuple(row for row in ROWS if row.downstream)
"""Rows with more seeds, after all blocks. `FIRST_SEEDS` had left sentences 1, 3 and 5 undecided;
the other rows are compared with theirs in all tasks."""


@dataclass(frozen=True)
class Evaluation:
    """`avtrain eval COMMAND` with options.

    ``spatial``: asks for space, and runs on all rows; the others run on the rows `FURTHER`.
    ``context``: runs on networks with transformers. ``last_seeds``: runs only on the last
    `FIRST_SEEDS` seeds of the rows `FURTHER`. ``actions``: runs on the
    set of actions. ``shares_features``: reads the same frozen features as the others of this kind;
    the first of them computes these.
    ``cost_s``: seconds on one core, with the study's 2,400 clips; the first that shares features
    costs ``SHARED_S`` more.
    """

    name: str
    command: str
    options: tuple[str, ...] = ()
    spatial: bool = False
    context: bool = False
    last_seeds: bool = False
    actions: bool = False
    shares_features: bool = False
    cost_s: float = field(default=6.0, compare=False)


# Five times as many clips as have been enough before: two passes over them show more windows than
# eight passes did, in the same time.
_WINDOWS = ("--rounds", "2", "--windows", "2")
_HEAD = ("--epochs", "2", "--maps", "1")
EVALUATIONS = (
    Evaluation("avsa-view4", "avsa", ("--views", "4", *_WINDOWS), True, shares_features=True),
    Evaluation("avsa-view1", "avsa", ("--views", "1", *_WINDOWS), True, shares_features=True),
    Evaluation("avc-view4", "avc", ("--views", "4", *_WINDOWS), True, shares_features=True),
    Evaluation(
        "avsa-both",
        "avsa",
        ("--views", "4", "--input", "both", *_WINDOWS),
        True,
        context=True,
        shares_features=True,
    ),
    Evaluation("localization", "localization", _WINDOWS, True, shares_features=True),
    Evaluation(
        "probe", "probe", _WINDOWS, True, last_seeds=True, shares_features=True, cost_s=22.0
    ),
    Evaluation(
        "retrieval", "retrieval", ("--views", "4", "--windows", "2"), True, shares_features=True
    ),
    # All views of a set: not those of the shared features.
    Evaluation("locate", "locate", ("--views", "8", "--windows", "2"), True, cost_s=30.0),
    Evaluation("seld", "seld", ("--labels", "0.05"), cost_s=140.0),
    Evaluation(
        "segmentation-none",
        "segmentation",
        ("--condition", "none", *_HEAD),
        last_seeds=True,
        cost_s=100.0,
    ),
    # Fine-tuned, which costs half as much as pretraining: on frozen features no network knew the
    # hard actions, trained or not.
    Evaluation(
        "action",
        "action",
        ("--folds", "1", "--windows", "4"),
        last_seeds=True,
        actions=True,
        cost_s=240.0,
    ),
)
SHARED_S = 50.0


def missing_evaluations() -> dict[str, str]:
    """The evaluations that this version cannot run, with the command or option that it lacks."""
    missing = {}
    for evaluation in EVALUATIONS:
        command = evaluate.commands.get(evaluation.command)
        lacks = f"avtrain eval {evaluation.command}"
        if command is not None:
            lacks = _first_missing(command, evaluation.options, lacks)
        if not lacks and evaluation.actions and not _has(avprep.commands["demo"], "--actions"):
            lacks = "avprep demo --actions"
        if lacks:
            missing[evaluation.name] = lacks
    return missing


def missing_rows() -> dict[str, str]:
    """The rows that this version cannot train, with the option that it lacks."""
    missing = {row.name: _first_missing(pretrain, row.options, "avtrain pretrain") for row in ROWS}
    checkpoint = next(one for one in evaluate.commands["avsa"].params if one.name == "checkpoint")
    if isinstance(checkpoint, click.Option) and "'energy'" not in (checkpoint.help or ""):
        missing[ENERGY.name] = "avtrain eval avsa --checkpoint energy"
    return {name: lacks for name, lacks in missing.items() if lacks}


def difficulty_options(difficulty: str) -> tuple[str, ...]:
    """Options of `avprep demo` and `avprep demo --actions`; none for the easy world."""
    return () if difficulty == "easy" else ("--difficulty", difficulty)


def _has(command: click.Command, name: str) -> bool:
    return any(name in option.opts for option in command.params)


def _first_missing(command: click.Command, options: Sequence[str], words: str) -> str:
    """``words`` and the first option or choice that a command does not have; empty if it has all
    of them."""
    known = {name: one for one in command.params for name in (*one.opts, *one.secondary_opts)}
    for name, value in pairwise((*options, "")):
        if not name.startswith("--"):
            continue
        if name not in known:
            return f"{words} {name}"
        choices = known[name].type
        if isinstance(choices, click.Choice) and value not in choices.choices:
            return f"{words} {name} {value}"
    return ""
