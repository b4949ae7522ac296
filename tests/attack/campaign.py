"""Many attacks one after another, and what came of them."""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tests.attack.base import Base
from tests.attack.cases import Case, Cases
from tests.attack.judge import judge
from tests.attack.runner import (
    LIMIT_S,
    Decoy,
    Outcome,
    adopt_orphans,
    import_commands,
    run,
)
from tests.attack.sandbox import Sandbox

_PATIENCE = 4
"""A busy machine takes longer: what was not done in time is tried once more, with more of it, and
counts by the time of its processor."""


@dataclass
class Report:
    """Counts by kind of damage and command."""

    runs: Counter[tuple[str, str]] = field(default_factory=Counter)
    statuses: Counter[int | None] = field(default_factory=Counter)
    wrong: Counter[tuple[str, str]] = field(default_factory=Counter)
    violations: list[tuple[Case, list[str]]] = field(default_factory=list)
    longest_s: float = 0.0
    peak_bytes: int = 0

    def table(self) -> str:
        lines = [f"{'kind':<12}{'command':<22}{'runs':>6}{'violations':>12}"]
        for (kind, name), count in sorted(self.runs.items()):
            lines.append(f"{kind:<12}{name:<22}{count:>6}{self.wrong[kind, name]:>12}")
        statuses = ", ".join(f"{count} × {status}" for status, count in self.statuses.most_common())
        lines.append(
            f"{sum(self.runs.values())} commands (exit statuses: {statuses}), at most "
            f"{self.longest_s:.1f} s and {self.peak_bytes / 1e6:.0f} MB; "
            f"{len(self.violations)} violations"
        )
        return "\n".join(lines)


class Campaign:
    """Runs cases of a seed in sandboxes below a folder."""

    def __init__(self, seed: int, scratch: Path, spawn: bool = False) -> None:
        adopt_orphans()
        import_commands()
        self._seed, self._scratch, self._spawn = seed, scratch, spawn
        self.decoy = Decoy()
        (scratch / "base").mkdir()
        self.base = Base(scratch / "base", self.decoy)
        self._cases = Cases(self.base, seed, self.decoy.port)
        self.report = Report()

    def run(self, numbers: Iterable[int], kinds: list[str] | None, keep: Path | None) -> Report:
        """Run cases and print violations; their sandboxes go to the folder ``keep``."""
        for number in numbers:
            if kinds and self._cases.kind(number) not in kinds:
                continue
            sandbox = Sandbox(self._scratch / "case" / str(number))
            case = self._cases.make(number, sandbox)
            outcome, wrong = self._attack(case, sandbox)
            self._count(case, outcome, wrong)
            if wrong:
                self._show(case, outcome, wrong)
                if keep is not None:
                    _move(sandbox.root, keep / str(number))
            if sandbox.root.exists():
                sandbox.remove()
            done = sum(self.report.runs.values())
            if done % 50 == 0:  # no progress bar: forked processes would draw it too
                print(f"{done} commands", file=sys.stderr)
        return self.report

    def _attack(self, case: Case, sandbox: Sandbox) -> tuple[Outcome, list[str]]:
        before = sandbox.snapshot(case.writable)
        outcome = self._command(case, sandbox, LIMIT_S)
        if outcome.status is None and outcome.seconds > LIMIT_S > outcome.cpu_s:
            again = self._command(case, sandbox, _PATIENCE * LIMIT_S)
            if again.status is not None and again.cpu_s < LIMIT_S:
                outcome = again
        after = sandbox.snapshot(case.writable)
        length = len("".join(case.command))
        return outcome, judge(outcome, before, after, case.refuses, length)

    def _command(self, case: Case, sandbox: Sandbox, limit_s: float) -> Outcome:
        variables = sandbox.variables()
        return run(case.command, sandbox.inside, variables, self.decoy, limit_s, self._spawn)

    def _count(self, case: Case, outcome: Outcome, wrong: list[str]) -> None:
        report = self.report
        report.runs[case.kind, case.name] += 1
        report.statuses[outcome.status] += 1
        report.longest_s = max(report.longest_s, outcome.seconds)
        report.peak_bytes = max(report.peak_bytes, outcome.peak_bytes)
        if wrong:
            report.wrong[case.kind, case.name] += 1
            report.violations.append((case, wrong))

    def _show(self, case: Case, outcome: Outcome, wrong: list[str]) -> None:
        lines = [f"VIOLATION {case}", *(f"    {what}" for what in wrong)]
        lines.append(f"    python -m tests.attack --seed {self._seed} --only {case.number}")
        print("\n".join(lines), flush=True)


def _move(folder: Path, to: Path) -> None:
    if to.exists():
        shutil.rmtree(to)
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(folder, to)
