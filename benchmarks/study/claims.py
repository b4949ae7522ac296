"""What the study is asked, and what its numbers say: differences between networks of the same seed
and data, with intervals over the seeds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from avtrain.evals.results import in_words, markdown
from avtrain.report.lines import Interval, Line, over_seeds

BESIDE_THE_FIRST = {"localization": "one source, mean error"}
"""Metrics that are compared besides the first of a task: with several sources the error is as much
of which source a class is as of where it is, with one it is of where alone."""
HOLDS, CONTRARY, UNDECIDED = "holds", "does not hold", "not decided"
_FEATURES = "log-mel + intensity"
_SEGMENTATION = "segmentation"


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
    Claim(
        "AVC and then AVSA, half again as many steps, beat AVC",
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
        "several views with the transformer beat one view of the same networks",
        {"transformer": "yes", "views": 4},
        {"views": 1},
        _BINARY,
    ),
    Claim(
        "several views without a transformer do so (to compare with)",
        {"transformer": "no", "views": 4},
        {"views": 1},
        _BINARY,
    ),
    Claim(
        "several views with the transformer beat pretraining and testing with one view",
        {"pretraining": "AVSA", "transformer": "yes", "views": 4},
        _ONE_VIEW,
        _BINARY,
    ),
    Claim(
        "several views without a transformer beat that (to compare with)",
        {"pretraining": "AVSA", "transformer": "no", "views": 4},
        _ONE_VIEW,
        _BINARY,
    ),
    Claim("the transformer beats none", {"transformer": "yes"}, {"transformer": "no"}),
    Claim("intensity beats log-mel alone", {"features": _FEATURES}, {"features": "log-mel"}),
    Claim(
        "a curriculum (AVC first) beats AVSA alone",
        {"pretraining": "curriculum AVC, AVSA"},
        {"pretraining": "AVSA"},
    ),
    Claim(
        "the view's sound helps its segmentation",
        {"condition": "audio"},
        {"condition": "none"},
        (_SEGMENTATION,),
    ),
    Claim(
        "sound and context help segmentation",
        {"condition": "audio+context"},
        {"condition": "none"},
        (_SEGMENTATION,),
    ),
)
# Of several settings, the one that a summary shows: the first of these that tell them apart.
_SHOWN = (
    ("features", _FEATURES),
    ("views", 4),
    ("pretraining", "AVSA"),
    ("transformer", "no"),
    ("condition", "none"),
)


@dataclass(frozen=True)
class Setting:
    """Where both sides of a claim were measured: what they have in common (``words`` says what of
    it the claim leaves open), and how much better the one is by seed, in the metric's unit."""

    what: dict[str, Any]
    words: str
    by_seed: dict[int, float]

    @property
    def verdict(self) -> str:
        """Decided only by an interval of three seeds or more that does not hold zero."""
        interval = self.interval
        if interval is None:
            return UNDECIDED
        if interval[0] > 0:
            return HOLDS
        return CONTRARY if interval[1] < 0 else UNDECIDED

    @property
    def interval(self) -> Interval | None:
        return over_seeds(list(self.by_seed.values())) if len(self.by_seed) > 2 else None


@dataclass(frozen=True)
class Finding:
    """A claim in one task, in every setting; the first is the one that a summary shows."""

    claim: Claim
    task: str
    unit: str
    settings: list[Setting]

    @property
    def verdict(self) -> str:
        return self.settings[0].verdict


def findings_of(claim: Claim, lines: Sequence[Line]) -> list[Finding]:
    """By task, of its first metric and `BESIDE_THE_FIRST`."""
    tasks: defaultdict[str, list[Line]] = defaultdict(list)
    for line in lines:
        task = _task(line)
        if not task.startswith(claim.tasks or ""):
            continue
        if line.first:
            tasks[task].append(line)
        elif line.metric == BESIDE_THE_FIRST.get(task):
            tasks[f"{task}, {line.metric}"].append(line)
    findings = [_finding(claim, task, of_task) for task, of_task in tasks.items()]
    return [finding for finding in findings if finding is not None]


def _finding(claim: Claim, task: str, lines: Sequence[Line]) -> Finding | None:
    by_what = {tuple(_what(line).items()): line for line in lines}
    settings = []
    for line in lines:
        what = _what(line)
        if line.untrained or any(what[name] != value for name, value in claim.of.items()):
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
            settings.append(Setting(what, _in_words(free), differences))
    settings.sort(key=lambda setting: [setting.what[name] != value for name, value in _SHOWN])
    return Finding(claim, task, lines[0].unit, settings) if settings else None


def _task(line: Line) -> str:
    """Segmentation with sound and without is one task under several conditions."""
    return _SEGMENTATION if line.task.startswith(_SEGMENTATION) else line.task


def _what(line: Line) -> dict[str, Any]:
    network = line.network
    return {
        "pretraining": network.pretraining,
        "features": network.features,
        "transformer": network.kind_of_transformer,
        "views": line.views,
        "variant": line.variant,
        "condition": line.task.removeprefix(_task(line)).removeprefix("-"),
    }


def _in_words(what: dict[str, Any]) -> str:
    words = [str(what[name]) for name in ("pretraining", "features") if name in what]
    if what.get("transformer", "no") != "no":
        words.append("transformer")
    if "views" in what:
        words.append(f"tested with {what['views']} view{'s' * (what['views'] > 1)}")
    if what.get("condition", "none") not in ("", "none"):
        words.append(f"with {what['condition']}")
    return "; ".join(words)


def said(claims: Sequence[Claim], lines: Sequence[Line]) -> str:
    """Markdown: all claims in one table, then each with the settings in which it was compared."""
    found = [(claim, findings_of(claim, lines)) for claim in claims]
    summary = [_summary(finding) for _, findings in found for finding in findings]
    table = [markdown(summary)] if summary else []
    return "\n\n".join([*table, *(_section(claim, findings) for claim, findings in found)])


def _summary(finding: Finding) -> dict[str, str]:
    verdicts = [setting.verdict for setting in finding.settings]
    counts = " / ".join(str(verdicts.count(one)) for one in (HOLDS, CONTRARY, UNDECIDED))
    cells = _cells(finding, finding.settings[0])
    return {
        "claim": finding.claim.words,
        **cells,
        "": f"**{cells['']}**",
        "all settings: holds / does not / not decided": counts,
    }


def _section(claim: Claim, findings: Sequence[Finding]) -> str:
    heading = f"### {claim.words[0].upper()}{claim.words[1:]}?"
    if not findings:
        tasks = ", ".join(claim.tasks) or "any task"
        return f"{heading}\n\nNo seed has both sides of it in {tasks}."
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
    return ("+" if value >= 0 else "") + in_words(value, unit)
