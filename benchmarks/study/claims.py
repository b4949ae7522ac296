"""What the study measures and claims: columns of numbers, and differences between rows of the same
seed and set."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from avtrain.errors import TrainingError
from avtrain.evals.results import Result, read_results
from avtrain.report.lines import Line, make_lines
from benchmarks.study.jobs import Job, row_of
from benchmarks.study.rows import (
    AVC,
    AVC_LOGMEL,
    AVC_OMNI,
    AVSA,
    AVSA_LOGMEL,
    CURRICULUM,
    ENERGY,
    FIRST_SEEDS,
    RELATIVE,
    SAME_CLIPS,
    SHUFFLED,
    UNTRAINED,
    WIDE_AVC,
    WIDE_AVSA,
    WIDE_RELATIVE,
    Row,
)
from benchmarks.study.statistics import Difference, Verdict, holm
from shards.errors import show


@dataclass(frozen=True)
class Column:
    """A number that is compared: a metric of an evaluation, the first one by default.

    ``matters``: the smallest difference that matters, in points or degrees.
    """

    name: str
    words: str
    evaluation: str
    matters: float
    metric: str | None = None


AVSA_4 = Column("avsa-4", "AVSA-Bin, %", "avsa-view4", 2.0)
AVSA_1 = Column("avsa-1", "AVSA-Bin, 1 view, %", "avsa-view1", 2.0)
AVC_4 = Column("avc-4", "AVC-Bin, %", "avc-view4", 2.0)
LOCALIZATION = Column("localization", "localization error, °", "localization", 3.0)
ONE_SOURCE = Column(
    "one-source", "the same, one source, °", "localization", 3.0, "one source, mean error"
)
LOCATE = Column("locate", "best of 8 views, error, °", "locate", 3.0)
AVSA_BOTH = Column("avsa-both", "AVSA-Bin, feature and prediction, %", "avsa-both", 2.0)
RIGHT_VIEW = Column(
    "right-view",
    "right view without a source in it, %",
    "retrieval",
    2.0,
    "source in other views, recall@1",
)
AZIMUTH = Column(
    "azimuth", "azimuth read from audio, error, °", "probe", 3.0, "azimuth from audio, linear"
)
SELD = Column("seld", "SELD score, 5 % of the labels, %", "seld", 1.5, "SELD score")
F20 = Column("f20", "SELD F20°, 5 % of the labels, %", "seld", 3.0, "F20°")
SEGMENTATION = Column("segmentation", "segmentation, mIoU %", "segmentation-none", 3.0)
ACTIONS = Column("actions", "actions, Video@1 %", "action", 3.0)
COLUMNS = (
    AVSA_4,
    AVSA_1,
    AVSA_BOTH,
    AVC_4,
    RIGHT_VIEW,
    LOCALIZATION,
    ONE_SOURCE,
    LOCATE,
    AZIMUTH,
    SELD,
    F20,
    SEGMENTATION,
    ACTIONS,
)
_SPATIAL = (AVSA_4, LOCALIZATION, LOCATE)
"""Columns in which a claim is made unless it says otherwise."""
TASKS = (*_SPATIAL, AZIMUTH, SELD, SEGMENTATION, ACTIONS)
"""Those of claims about two rows that are evaluated ``downstream``."""


@dataclass(frozen=True)
class Claim:
    """The networks of ``row`` against those of ``baseline``, in each of ``columns``.

    ``baseline_column``: the baseline's, if it is another.
    """

    words: str
    row: Row
    baseline: Row
    columns: tuple[Column, ...] = _SPATIAL
    baseline_column: Column | None = None


ALIGNMENT = Claim("AVSA against AVC", AVSA, AVC, TASKS)
# AVSA-Bin pools the views itself (docs/transformer.md), so the transformer is asked for more.
CONTEXT = Claim(
    "relative transformer against none, paper's views",
    WIDE_RELATIVE,
    WIDE_AVSA,
    (RIGHT_VIEW, *_SPATIAL),
)
FIRST_AVC = Claim("AVC first, then AVSA, against as many steps of AVSA", CURRICULUM, AVSA, TASKS)
SIGNS = Claim("log-mel + intensity against log-mel alone", AVSA, AVSA_LOGMEL, TASKS)
PRETRAINED = Claim("AVSA against no pretraining", AVSA, UNTRAINED, TASKS)
CLAIMS = (
    ALIGNMENT,
    CONTEXT,
    FIRST_AVC,
    SIGNS,
    PRETRAINED,
    Claim("AVSA against AVC on the same clips and crops", AVSA, SAME_CLIPS),
    Claim("AVSA against AVC, paper's views", WIDE_AVSA, WIDE_AVC),
    Claim("AVSA against AVC, log-mel alone", AVSA_LOGMEL, AVC_LOGMEL),
    Claim("log-mel + intensity against log-mel alone, AVC", AVC, AVC_LOGMEL),
    Claim("relative transformer against none, narrow views", RELATIVE, AVSA, (RIGHT_VIEW, *TASKS)),
    Claim("AVC first, then AVSA, against as many steps of AVC", CURRICULUM, AVC, TASKS),
    Claim("AVSA against AVSA with shuffled views", AVSA, SHUFFLED),
    Claim("AVSA against AVC with sound without directions", AVSA, AVC_OMNI),
    Claim("AVSA against the energy map without learning", AVSA, ENERGY),
    Claim(
        "prediction and feature against the feature of networks without transformer",
        WIDE_RELATIVE,
        WIDE_AVSA,
        (AVSA_BOTH,),
        AVSA_4,
    ),
    Claim("four views against one, no transformer", WIDE_AVSA, WIDE_AVSA, (AVSA_4,), AVSA_1),
    Claim(
        "four views and the transformer against one view",
        WIDE_RELATIVE,
        WIDE_AVSA,
        (AVSA_4,),
        AVSA_1,
    ),
    Claim(
        "four views against one, with the transformer",
        WIDE_RELATIVE,
        WIDE_RELATIVE,
        (AVSA_4,),
        AVSA_1,
    ),
)
HEADLINES = (
    (ALIGNMENT, AVSA_4),
    (CONTEXT, RIGHT_VIEW),
    (FIRST_AVC, AVSA_4),
    (SIGNS, AVSA_4),
    (PRETRAINED, SELD),
)
"""The five sentences of the page. They are one family, for which p-values are corrected."""


@dataclass(frozen=True)
class Finding:
    """A claim in one column. ``values`` and ``baseline`` are by seed, in percent or degrees.
    ``p``: corrected for its family."""

    claim: Claim
    column: Column
    values: dict[int, float]
    baseline: dict[int, float]
    difference: Difference
    p: float

    @property
    def verdict(self) -> Verdict:
        return self.difference.verdict(self.column.matters, self.p)

    @property
    def measured(self) -> bool:
        """Whether a seed has both sides."""
        return bool(self.difference.by_seed)


@dataclass(frozen=True)
class Measurements:
    """The results of a study: of each row and evaluation, one line per metric over all seeds."""

    lines: dict[str, dict[str, list[Line]]]

    @classmethod
    def read(cls, jobs: Iterable[Job]) -> Measurements:
        """Read the results of finished evaluations; those that cannot be read are named."""
        results: dict[str, dict[str, list[Result]]] = {}
        for job in jobs:
            _, _, evaluation = job.name.split("/")
            by_evaluation = results.setdefault(row_of(job), {})
            try:
                found = read_results([job.output])[0]
            except TrainingError as error:
                show(f"left out: {error}", err=True)
                continue
            by_evaluation.setdefault(evaluation, []).extend(found)
        return cls(
            {
                row: {name: make_lines(some) for name, some in by_evaluation.items() if some}
                for row, by_evaluation in results.items()
            }
        )

    def line(self, row: str, column: Column) -> Line | None:
        """The line of a row in a column, if it is measured."""
        for line in self.lines.get(row, {}).get(column.evaluation, []):
            if line.metric == column.metric or (column.metric is None and line.first):
                return line
        return None

    def values(self, row: str, column: Column) -> dict[int, float]:
        """By seed, in percent or degrees."""
        line = self.line(row, column)
        if line is None:
            return {}
        scale = 100 if line.unit == "%" else 1
        return {seed: scale * value for seed, value in line.by_seed.items()}

    def all_lines(self, row: str) -> list[Line]:
        return [line for lines in self.lines.get(row, {}).values() for line in lines]


EVERY = range(2**63)
FIRST, ADDED = EVERY[:FIRST_SEEDS], EVERY[FIRST_SEEDS:]
"""Seeds."""


def headline_findings(measured: Measurements, seeds: range = EVERY) -> list[Finding]:
    """The five sentences' findings by these ``seeds``, corrected as one family; those not measured
    yet count in it as decided by nothing (p = 1)."""
    return _corrected([_find(claim, column, measured, seeds) for claim, column in HEADLINES])


def added_seeds_findings(measured: Measurements) -> list[Finding]:
    """The five sentences by the seeds that were added to some of them alone; empty where none or
    all of them have more than the first seeds."""
    further = headline_findings(measured, ADDED)
    with_more = sum(finding.measured for finding in further)
    return further if 0 < with_more < len(further) else []


def other_findings(measured: Measurements) -> dict[Column, list[Finding]]:
    """All other findings that are measured, by column; each column is a family of its own, with
    those that are not measured yet."""
    found: dict[Column, list[Finding]] = {}
    for column in COLUMNS:
        family = [
            _find(claim, column, measured)
            for claim in CLAIMS
            if column in claim.columns and (claim, column) not in HEADLINES
        ]
        found[column] = [finding for finding in _corrected(family) if finding.measured]
    return {column: findings for column, findings in found.items() if findings}


def _find(claim: Claim, column: Column, measured: Measurements, seeds: range = EVERY) -> Finding:
    values = measured.values(claim.row.name, column)
    values = {seed: value for seed, value in values.items() if seed in seeds}
    baseline = measured.values(claim.baseline.name, claim.baseline_column or column)
    line = measured.line(claim.row.name, column)
    sign = -1 if line is not None and line.better == "lower" else 1
    difference = Difference.between(values, baseline, sign)
    return Finding(claim, column, values, baseline, difference, difference.p)


def _corrected(family: Sequence[Finding]) -> list[Finding]:
    corrected = holm([finding.p for finding in family])
    return [replace(one, p=p) for one, p in zip(family, corrected, strict=True)]
