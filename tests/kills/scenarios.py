"""Builds that are killed at each of their calls in turn, and what is done afterwards."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.kills.runs import Done, run, write_recordings
from tests.support.media import contents

Command = tuple[object, ...]
FINE = (0, 1)
"""Exit statuses of a build that ends by itself: some of the recordings fail."""


@dataclass(frozen=True)
class Scenario:
    """A ``command`` that is killed in a copy of the folder ``start``, and ``then`` what brings it
    to its end: sequences of commands, by name. ``first``: the number of the call from which on it
    is killed."""

    name: str
    start: Path
    command: Command
    then: dict[str, tuple[Command, ...]]
    first: int = 1


@dataclass
class Outcome:
    """The calls at which a command was killed, by kind, the number of its continuations, and what
    went wrong."""

    name: str
    kinds: Counter[str] = field(default_factory=Counter)
    continued: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    @property
    def row(self) -> str:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.kinds.items()))
        then = ", ".join(f"{count} × {name}" for name, count in self.continued.items())
        result = "the same bytes" if not self.faults else f"{len(self.faults)} FAULTS"
        return f"| {self.name} | {sum(self.kinds.values())} ({kinds}) | {then} | {result} |"


class Kills:
    """All scenarios, in the folder ``scratch``. The sets lie in its folder ``set``."""

    def __init__(self, scratch: Path) -> None:
        self._scratch, self.out = scratch, scratch / "set"
        self._raws = {name: scratch / name for name in ("raw", "more", "other")}
        write_recordings(self._raws["raw"], "a b f d D x")
        write_recordings(self._raws["more"], "a b f d D x g dd T")
        write_recordings(self._raws["other"], "a b f d D x h dh")

    def scenarios(self, ends_only: bool) -> list[Scenario]:
        """From a new folder, from shards that lack only the end if ``ends_only``."""
        build, append = self._build("raw"), (*self._build("more"), "--append")
        other = (*self._build("other"), "--append")
        merge: Command = ("merge", self.out)
        empty = self._keep("empty")
        tasks = [(*build, "--task-index", index, "--task-count", 2) for index in (0, 1)]
        append_tasks = [(*append, "--task-index", index, "--task-count", 2) for index in (0, 1)]

        finished = self._after("finished", empty, build)
        half = self._after("half", empty, tasks[0])
        half_append = self._after("half-append", finished, append_tasks[0])
        lost = self._keep("lost", finished)
        min(lost.glob("train/*.tar")).unlink()
        same = {"same command": (), "merge": (merge,)}

        def then(command: Command, **more: tuple[Command, ...]) -> dict[str, tuple[Command, ...]]:
            return {name: (*before, command) for name, before in same.items()} | more

        def end(start: Path, command: Command) -> int:
            """The first call after the last shard."""
            calls = self._undisturbed(start, command)[0].calls
            renamed = [number for number, (kind, _) in enumerate(calls, 1) if kind == "rename"]
            return 1 + max(n for n in renamed if ".index.json." in calls[n - 1][1])

        whole = [
            Scenario("build", empty, build, then(build)),
            Scenario("append", finished, append, then(append)),
            Scenario("last task of an array", half, tasks[1], then(tasks[1])),
            Scenario("append, last task", half_append, append_tasks[1], then(append_tasks[1])),
        ]
        found = []
        for scenario in whole:
            first = end(scenario.start, scenario.command)
            made = self._killed(f"made {scenario.name}", scenario, first)
            after = dict(scenario.then)
            if "task" in scenario.name:
                others = tasks if scenario.start == half else append_tasks
                after["other task"] = (others[0],)
            again = Scenario(f"end of {scenario.name}", made, scenario.command, after)
            merging = Scenario(f"merge after {scenario.name}", made, merge, after)
            found += [again, merging]
        old = self._with_state_of_an_earlier_version(
            "old append", self._scratch / "kept/made append"
        )
        found.append(Scenario("append begun by an earlier version", old, append, then(append)))
        found.append(Scenario("merge after it", old, merge, then(append)))
        if ends_only:
            return found
        found += whole
        found.append(Scenario("lost shard", lost, build, then(build)))
        middle = end(finished, append) - 4
        begun = self._killed("begun", whole[1], middle)
        found.append(Scenario("append of others after one killed", begun, other, then(other)))
        return found

    def kill_at_each(self, scenario: Scenario, twice: bool = False) -> Outcome:
        """Kill the command at each of its calls, then continue it in each way; with ``twice``, kill
        the continuation at each of its calls as well."""
        done, expected = self._undisturbed(scenario.start, scenario.command)
        outcome = Outcome(scenario.name)
        if done.status not in FINE:
            outcome.faults.append(f"{scenario.command}: {done.status}: {done.output}")
            return outcome
        for number in range(scenario.first, len(done.calls) + 1):
            kind, path = done.calls[number - 1]
            where = f"killed at {number}, {kind} of {path}"
            self._copy(scenario.start)
            if run(scenario.command, self.out, number).status != -9:
                outcome.faults.append(f"{where}: was not killed")
            killed = self._keep("killed", self.out)
            outcome.kinds[kind] += 1
            for name, commands in scenario.then.items():
                outcome.continued[name] += 1
                self._copy(killed)
                fault = self._continue(commands, expected)
                if fault:
                    outcome.faults.append(f"{where}, then {name}: {fault}")
                if twice:
                    self._kill_again(killed, commands[0], commands[-1:], expected, outcome)
        self._copy(scenario.start)
        more = run(scenario.command, self.out, len(done.calls) + 1)
        if more.status not in FINE or contents(self.out) != expected:
            outcome.faults.append(f"a call more: {more.status}: {more.output}")
        return outcome

    def _kill_again(
        self,
        killed: Path,
        command: Command,
        then: tuple[Command, ...],
        expected: dict[str, str],
        outcome: Outcome,
    ) -> None:
        number, status = 0, -9
        while status == -9:
            number += 1
            self._copy(killed)
            status = run(command, self.out, number).status
            outcome.continued["killed again"] += status == -9
            fault = self._continue(then, expected)
            if fault:
                outcome.faults.append(f"killed again at {number}: {fault}")

    def _continue(self, commands: tuple[Command, ...], expected: dict[str, str]) -> str | None:
        """What is wrong after these commands; None if the set has the expected bytes."""
        for command in commands:
            had_state = (self.out / ".build.json").exists()
            done = run(command, self.out)
            is_last = command is commands[-1]
            if "Traceback" in done.output or done.status not in (*FINE, 2):
                return f"{command[0]} ended with {done.status}: {done.output}"
            if done.status == 2 and (is_last or not _is_refusal(done.output)):
                return f"{command[0]} was refused: {done.output}"
            if (done.status in FINE and had_state) or is_last:
                now = contents(self.out)
                names = {name for name in now | expected if now.get(name) != expected.get(name)}
                if names:
                    return f"{command[0]} left other bytes: {sorted(names)}"
        return None

    def _build(self, raw: str) -> Command:
        options = ("--clip-duration", 10, "--views", 2, "--layout", "yt360", "--drop-silent", -60)
        return "build-shards", self._raws[raw], "--out", self.out, *options

    def _undisturbed(self, start: Path, command: Command) -> tuple[Done, dict[str, str]]:
        self._copy(start)
        return run(command, self.out), contents(self.out)

    def _after(self, name: str, start: Path, command: Command) -> Path:
        self._copy(start)
        done = run(command, self.out)
        if done.status not in FINE:
            raise RuntimeError(f"{command}: {done.status}: {done.output}")
        return self._keep(name, self.out)

    def _killed(self, name: str, scenario: Scenario, number: int) -> Path:
        self._copy(scenario.start)
        run(scenario.command, self.out, number)
        return self._keep(name, self.out)

    def _with_state_of_an_earlier_version(self, name: str, folder: Path) -> Path:
        """It did not say which set is extended."""
        path = self._keep(name, folder) / ".build.json"
        state = json.loads(path.read_bytes())
        del state["extends"], state["version"]
        path.write_text(json.dumps(state))
        return path.parent

    def _keep(self, name: str, folder: Path | None = None) -> Path:
        kept = self._scratch / "kept" / name
        shutil.rmtree(kept, ignore_errors=True)
        if folder is None:
            kept.mkdir(parents=True)
        else:
            shutil.copytree(folder, kept)
        return kept

    def _copy(self, start: Path) -> None:
        shutil.rmtree(self.out, ignore_errors=True)
        shutil.copytree(start, self.out)


def _is_refusal(output: str) -> bool:
    """Whether `merge` says that tasks have to be run first."""
    return "are missing" in output or "no finished shard set" in output
