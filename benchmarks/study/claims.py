"""The claims that the study tests: differences between networks of the same seed and data, with
intervals over the seeds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from avtrain.evals.tables import format_value, markdown
from avtrain.report.lines import Interval, Line, over_seeds

SECOND_METRIC = {"localization": "one source, mean error"}
"""Metrics that are compared as well as a task's first one. With several sources the error depends
on which source belongs to a class as much as on where it is; with one source it depends on where
alone."""
HOLDS, REVERSED, UNDECIDED = "holds", "reversed", "undecided"
_FEATURES = "log-mel + intensity"
_SEGMENTATION = "segmentation"


@dataclass(frozen=True)
class Claim:
    """The networks with the properties ``networks`` are better than those with the properties
    ``baseline``.

    Both select from `_properties`; properties that neither names are the same on both sides.
    ``tasks`` are prefixes of task names; empty means all tasks.
    """

    words: str
    networks: dict[str, Any]
    baseline: dict[str, Any]
    tasks: tuple[str, ...] = ()


_SPATIAL = ("avsa-bin", "localization")
_BINARY = ("avsa-bin", "avc-bin")
_AVC = {"pretraining": "AVC", "transformer": "no"}
# With one view, the clip has no other view to distinguish: AVSA is AVC.
_ONE_VIEW = {"pretraining": "AVC", "transformer": "no", "views": 1}
CLAIMS = (
    Claim("AVSA beats AVC", {"pretraining": "AVSA"}, _AVC, _SPATIAL),
    Claim(
        "AVC followed by AVSA, 1.5 times as many steps, beats AVC",
        {"pretraining": "curriculum AVC, AVSA"},
        _AVC,
        _SPATIAL,
    ),
    Claim("AVC beats untrained networks", _AVC, {"pretraining": "none"}, _SPATIAL),
    Claim(
        "AVSA beats untrained networks",
        {"pretraining": "AVSA"},
        {"pretraining": "none", "transformer": "no"},
        _SPATIAL,
    ),
    Claim(
        "with the transformer, several views beat one view of the same networks",
        {"transformer": "yes", "views": 4},
        {"views": 1},
        _BINARY,
    ),
    Claim(
        "without the transformer, several views beat one view (for comparison)",
        {"transformer": "no", "views": 4},
        {"views": 1},
        _BINARY,
    ),
    Claim(
        "with the transformer, several views beat pretraining and testing with one view",
        {"pretraining": "AVSA", "transformer": "yes", "views": 4},
        _ONE_VIEW,
        _BINARY,
    ),
    Claim(
        "without the transformer, several views beat that (for comparison)",
        {"pretraining": "AVSA", "transformer": "no", "views": 4},
        _ONE_VIEW,
        _BINARY,
    ),
    Claim(
        "networks with the transformer beat those without",
        {"transformer": "yes"},
        {"transformer": "no"},
    ),
    Claim("intensity beats log-mel alone", {"features": _FEATURES}, {"features": "log-mel"}),
    Claim(
        "a curriculum (AVC first) beats AVSA alone",
        {"pretraining": "curriculum AVC, AVSA"},
        {"pretraining": "AVSA"},
    ),
    Claim(
        "the view's audio improves segmentation",
        {"condition": "audio"},
        {"condition": "none"},
        (_SEGMENTATION,),
    ),
    Claim(
        "audio and context improve segmentation",
        {"condition": "audio+context"},
        {"condition": "none"},
        (_SEGMENTATION,),
    ),
)
# The summary shows one setting of each finding, chosen by these preferences in this order.
_PREFERRED = (
    ("features", _FEATURES),
    ("views", 4),
    ("pretraining", "AVSA"),
    ("transformer", "no"),
    ("condition", "none"),
)


@dataclass(frozen=True)
class Setting:
    """The common properties under which both sides of a claim were measured.

    ``words``: the properties that the claim leaves open. ``by_seed``: the gain over the baseline
    for each seed, in the metric's unit.
    """

    properties: dict[str, Any]
    words: str
    by_seed: dict[int, float]

    @property
    def verdict(self) -> str:
        """Decided only by an interval over three or more seeds that excludes zero."""
        interval = self.interval
        if interval is None:
            return UNDECIDED
        if interval[0] > 0:
            return HOLDS
        return REVERSED if interval[1] < 0 else UNDECIDED

    @property
    def interval(self) -> Interval | None:
        return over_seeds(list(self.by_seed.values())) if len(self.by_seed) > 2 else None


@dataclass(frozen=True)
class Finding:
    """A claim in one task, in every setting; the summary shows the first one."""

    claim: Claim
    task: str
    unit: str
    settings: list[Setting]

    @property
    def verdict(self) -> str:
        return self.settings[0].verdict


def findings_of(claim: Claim, lines: Sequence[Line]) -> list[Finding]:
    """One finding per task, for its first metric and its `SECOND_METRIC`."""
    tasks: defaultdict[str, list[Line]] = defaultdict(list)
    for line in lines:
        task = _task(line)
        if not task.startswith(claim.tasks or ""):
            continue
        if line.first:
            tasks[task].append(line)
        elif line.metric == SECOND_METRIC.get(task):
            tasks[f"{task}, {line.metric}"].append(line)
    findings = [_finding(claim, task, measured) for task, measured in tasks.items()]
    return [finding for finding in findings if finding is not None]


def _finding(claim: Claim, task: str, lines: Sequence[Line]) -> Finding | None:
    by_properties = {tuple(_properties(line).items()): line for line in lines}
    settings = []
    for line in lines:
        properties = _properties(line)
        if line.untrained or any(properties[n] != value for n, value in claim.networks.items()):
            continue
        baseline = by_properties.get(tuple((properties | claim.baseline).items()))
        if baseline is None or baseline is line:
            continue
        sign = 1 if line.better == "higher" else -1
        differences = {
            seed: sign * (value - baseline.by_seed[seed])
            for seed, value in line.by_seed.items()
            if seed in baseline.by_seed
        }
        if differences:
            # Networks with and without transformers may share one baseline: keep them apart.
            free = {
                name: value
                for name, value in properties.items()
                if name not in claim.baseline or name == "transformer"
            }
            settings.append(Setting(properties, _describe(free), differences))
    settings.sort(key=lambda setting: [setting.properties[n] != value for n, value in _PREFERRED])
    return Finding(claim, task, lines[0].unit, settings) if settings else None


def _task(line: Line) -> str:
    """Segmentation with and without audio is one task under several conditions."""
    return _SEGMENTATION if line.task.startswith(_SEGMENTATION) else line.task


def _properties(line: Line) -> dict[str, Any]:
    network = line.network
    return {
        "pretraining": network.pretraining,
        "features": network.features,
        "transformer": line.name.transformer,
        "views": line.views,
        "variant": line.variant,
        "condition": line.task.removeprefix(_task(line)).removeprefix("-"),
    }


def _describe(properties: dict[str, Any]) -> str:
    words = [str(properties[name]) for name in ("pretraining", "features") if name in properties]
    if properties.get("transformer", "no") != "no":
        words.append("transformer")
    if "views" in properties:
        words.append(f"tested with {properties['views']} view{'s' * (properties['views'] > 1)}")
    if properties.get("condition", "none") not in ("", "none"):
        words.append(f"with {properties['condition']}")
    return "; ".join(words)


def compare(claims: Sequence[Claim], lines: Sequence[Line]) -> str:
    """Markdown: all claims in one table, then each claim with all settings that were compared."""
    found = [(claim, findings_of(claim, lines)) for claim in claims]
    summary = [_summary(finding) for _, findings in found for finding in findings]
    table = [markdown(summary)] if summary else []
    return "\n\n".join([*table, *(_section(claim, findings) for claim, findings in found)])


def _summary(finding: Finding) -> dict[str, str]:
    verdicts = [setting.verdict for setting in finding.settings]
    counts = " / ".join(str(verdicts.count(one)) for one in (HOLDS, REVERSED, UNDECIDED))
    cells = _cells(finding, finding.settings[0])
    return {
        "claim": finding.claim.words,
        **cells,
        "": f"**{cells['']}**",
        "all settings: holds / reversed / undecided": counts,
    }


def _section(claim: Claim, findings: Sequence[Finding]) -> str:
    heading = f"### {claim.words[0].upper()}{claim.words[1:]}?"
    if not findings:
        tasks = ", ".join(claim.tasks) or "any task"
        return f"{heading}\n\nNo seed has both sides of this comparison in {tasks}."
    rows = [_cells(finding, setting) for finding in findings for setting in finding.settings]
    return f"{heading}\n\n{markdown(rows)}"


def _cells(finding: Finding, setting: Setting) -> dict[str, str]:
    unit = "points" if finding.unit == "%" else finding.unit
    ends = "-"
    if setting.interval is not None:
        ends = " to ".join(_signed(end, finding.unit) for end in setting.interval)
    mean = _signed(float(np.mean(list(setting.by_seed.values()))), finding.unit)
    return {
        "task": finding.task,
        "setting": setting.words,
        "better by": f"{mean} {unit}".rstrip(),
        "95 % interval": ends,
        "seeds": str(len(setting.by_seed)),
        "": setting.verdict,
    }


def _signed(value: float, unit: str) -> str:
    return ("+" if value >= 0 else "") + format_value(value, unit)
