"""What the study is asked, and what its numbers say: differences between networks of the same seed
and data, with intervals over the seeds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from avtrain.report import Interval, Line, over_seeds
from avtrain.results import in_words, markdown

BESIDE_THE_FIRST = {"localization": "one source, mean error"}
"""Metrics that are compared besides the first of a task: with several sources the error is as much
of which source a class is as of where it is, with one it is of where alone."""
HOLDS, CONTRARY, UNDECIDED = "holds", "does not hold", "not decided"
_FEATURES = "log-mel + intensity"


@dataclass(frozen=True)
class Claim:
    """The networks that ``of`` describes are better than those that differ in ``but``.

    Both are properties of `_what`; those that neither names are the same on both sides. ``tasks``
    are beginnings of names; all tasks if there are none.
    """

    words: str
    of: dict[str, Any]
    but: dict[str, Any]
    tasks: tuple[str, ...] = ()


_SPATIAL = ("avsa-bin", "localization")
_BINARY = ("avsa-bin", "avc-bin")
_AVC = {"pretraining": "AVC", "transformer": "no"}
# With one view there is no other of the clip to tell from it: AVSA is AVC.
_ONE_VIEW = {"pretraining": "AVC", "transformer": "no", "views": 1}
CLAIMS = (
    Claim("AVSA beats AVC", {"pretraining": "AVSA"}, _AVC, _SPATIAL),
    Claim("AVC beats untrained networks", _AVC, {"pretraining": "none"}, _SPATIAL),
    Claim(
        "AVSA beats untrained networks",
        {"pretraining": "AVSA"},
        {"pretraining": "none", "transformer": "no"},
        _SPATIAL,
    ),
    Claim(
        "several views with the transformer beat one view of the same networks",
        {"transformer": "yes", "views": 4},
        {"views": 1},
        _BINARY,
    ),
    Claim(
        "several views with the transformer beat pretraining and testing with one view",
        {"pretraining": "AVSA", "transformer": "yes", "views": 4},
        _ONE_VIEW,
        _BINARY,
    ),
    Claim("the transformer beats none", {"transformer": "yes"}, {"transformer": "no"}),
    Claim(
        "a transformer that normalises first (no part of the paper) beats none",
        {"transformer": "norm first"},
        {"transformer": "no"},
    ),
    Claim("intensity beats log-mel alone", {"features": _FEATURES}, {"features": "log-mel"}),
    Claim(
        "a curriculum (AVC first) beats AVSA alone",
        {"pretraining": "curriculum AVC, AVSA"},
        {"pretraining": "AVSA"},
    ),
)


@dataclass(frozen=True)
class Finding:
    """A claim in one task: how much better by seed, in the metric's unit, as the mean over all
    ``settings`` in which both sides were measured, and by each of them."""

    claim: Claim
    task: str
    unit: str
    by_seed: dict[int, float]
    settings: dict[str, dict[int, float]] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        return verdict(self.by_seed)


def verdict(by_seed: dict[int, float]) -> str:
    """Decided only by an interval of three seeds or more that does not hold zero."""
    interval = _interval(by_seed)
    if interval is None:
        return UNDECIDED
    if interval[0] > 0:
        return HOLDS
    return CONTRARY if interval[1] < 0 else UNDECIDED


def _interval(by_seed: dict[int, float]) -> Interval | None:
    return over_seeds(list(by_seed.values())) if len(by_seed) > 2 else None


def findings_of(claim: Claim, lines: Sequence[Line]) -> list[Finding]:
    """By task, of its first metric and `BESIDE_THE_FIRST`."""
    tasks: defaultdict[str, list[Line]] = defaultdict(list)
    for line in lines:
        if not line.task.startswith(claim.tasks or ""):
            continue
        if line.first:
            tasks[line.task].append(line)
        elif line.metric == BESIDE_THE_FIRST.get(line.task):
            tasks[f"{line.task}, {line.metric}"].append(line)
    findings = [_finding(claim, task, of_task) for task, of_task in tasks.items()]
    return [finding for finding in findings if finding is not None]


def _finding(claim: Claim, task: str, lines: Sequence[Line]) -> Finding | None:
    by_what = {tuple(_what(line).items()): line for line in lines}
    settings: dict[str, dict[int, float]] = {}
    for line in lines:
        what = _what(line)
        if line.untrained or any(what[name] != value for name, value in claim.of.items()):
            continue
        # What is no part of the paper is compared where a claim asks for it.
        if line.network.norm_first and "transformer" not in claim.of:
            continue
        other = by_what.get(tuple((what | claim.but).items()))
        if other is None or other is line:
            continue
        sign = 1 if line.better == "higher" else -1
        differences = {
            seed: sign * (value - other.by_seed[seed])
            for seed, value in line.by_seed.items()
            if seed in other.by_seed
        }
        if differences:
            # Networks with transformers and without may be compared with the same ones.
            free = {n: v for n, v in what.items() if n not in claim.but or n == "transformer"}
            settings[_in_words(free)] = differences
    if not settings:
        return None
    # A seed counts where all settings have it: else the mean over settings would change with it.
    seeds = set.intersection(*(set(differences) for differences in settings.values()))
    by_seed = {
        seed: float(np.mean([differences[seed] for differences in settings.values()]))
        for seed in sorted(seeds)
    }
    return Finding(claim, task, lines[0].unit, by_seed, settings)


def _what(line: Line) -> dict[str, Any]:
    network = line.network
    return {
        "pretraining": network.pretraining,
        "features": network.features,
        "transformer": network.kind_of_transformer,
        "views": line.views,
        "variant": line.variant,
    }


def _in_words(what: dict[str, Any]) -> str:
    words = [str(what[name]) for name in ("pretraining", "features") if name in what]
    if what.get("transformer", "no") != "no":
        words.append("transformer" + ", norm first" * (what["transformer"] == "norm first"))
    if "views" in what:
        words.append(f"tested with {what['views']} view{'s' * (what['views'] > 1)}")
    return "; ".join(words)


def said(claims: Sequence[Claim], lines: Sequence[Line]) -> str:
    """Markdown: all claims in one table, then each with the settings in which it was compared."""
    found = [(claim, findings_of(claim, lines)) for claim in claims]
    summary = [_summary(finding) for _, findings in found for finding in findings]
    table = [markdown(summary)] if summary else []
    return "\n\n".join([*table, *(_section(claim, findings) for claim, findings in found)])


def _summary(finding: Finding) -> dict[str, str]:
    verdicts = [verdict(by_seed) for by_seed in finding.settings.values()]
    counts = " / ".join(str(verdicts.count(one)) for one in (HOLDS, CONTRARY, UNDECIDED))
    cells = _cells(finding, "", finding.by_seed)
    return {
        "claim": finding.claim.words,
        "task": cells["task"],
        "": f"**{cells['']}**",
        "better by": cells["better by"],
        "95 % interval": cells["95 % interval"],
        "seeds": cells["seeds"],
        "settings: holds / does not / not decided": counts,
    }


def _section(claim: Claim, findings: Sequence[Finding]) -> str:
    heading = f"### {claim.words[0].upper()}{claim.words[1:]}?"
    if not findings:
        tasks = ", ".join(claim.tasks) or "any task"
        return f"{heading}\n\nNo seed has both sides of it in {tasks}."
    verdicts = "; ".join(f"{finding.task}: **{finding.verdict}**" for finding in findings)
    rows = []
    for finding in findings:
        if len(finding.settings) > 1:
            rows.append(_cells(finding, "all, their mean", finding.by_seed))
        rows += [_cells(finding, *item) for item in finding.settings.items()]
    return f"{heading}\n\n{verdicts}.\n\n{markdown(rows)}"


def _cells(finding: Finding, setting: str, by_seed: dict[int, float]) -> dict[str, str]:
    interval = _interval(by_seed)
    unit = "points" if finding.unit == "%" else finding.unit
    ends = "-"
    if interval is not None:
        ends = " to ".join(_signed(end, finding.unit) for end in interval)
    mean = _signed(float(np.mean(list(by_seed.values()))), finding.unit) if by_seed else "-"
    return {
        "task": finding.task,
        "setting": setting,
        "better by": f"{mean} {unit}".rstrip(),
        "95 % interval": ends,
        "seeds": str(len(by_seed)),
        "": verdict(by_seed),
    }


def _signed(value: float, unit: str) -> str:
    return ("+" if value >= 0 else "") + in_words(value, unit)
