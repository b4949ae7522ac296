"""Damaged recordings beside healthy ones through the real commands, and what must not happen."""

from __future__ import annotations

import hashlib
import json
import re
import tarfile
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from avprep.recordings.recording import AUDIO_SUFFIXES, VIDEO_SUFFIXES
from shards.folders import open_folder
from shards.manifest import read_manifest
from shards.reader import ShardSet
from tests.fuzz.mutations import mutate
from tests.fuzz.seeds import LISTS, Seed
from tests.support.watched import Run, watch

MOST_BYTES = 2_000_000_000
"""Largest memory of a process of a build or an inspection."""
_OPTIONS = ["--clip-duration", "2", "--views", "2", "--size", "32", "--fps", "8"]
_OPTIONS += ["--audio-layout", "source", "--clip-timeout", "5", "--workers", "2"]
_LONGEST_REASON = 600
_BATCH = 50
_HEALTHY = 4
_LISTS_EVERY = 50


@dataclass(frozen=True)
class Mutant:
    """A damaged recording: its files by their paths, and how it was damaged."""

    number: int
    name: str
    what: str
    layout: str
    files: dict[str, bytes]

    def __str__(self) -> str:
        return f"mutant {self.number} ({self.what})"


@dataclass(frozen=True)
class Violation:
    """Something that must not happen; ``mutant``: which one caused it, if that is known."""

    what: str
    mutant: Mutant | None = None

    def __str__(self) -> str:
        return f"{self.mutant}: {self.what}" if self.mutant is not None else self.what


@dataclass
class Report:
    """Counts of a campaign; ``went_in``: mutants of which at least one clip is in the set."""

    mutants: int = 0
    went_in: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    peak_bytes: int = 0
    violations: list[Violation] = field(default_factory=list)


class Fuzzer:
    """Makes mutants of seeds and runs them in batches."""

    def __init__(self, seeds: list[Seed], seed: int, scratch: Path) -> None:
        self._seeds = [seed for seed in seeds if seed.layout != LISTS]
        self._lists = [seed for seed in seeds if seed.layout == LISTS]
        self._seed = seed
        self._scratch = scratch
        self._healthy: dict[str, dict[str, dict[str, str]]] = {}
        self.report = Report()

    def mutant(self, number: int) -> Mutant:
        """Mutant ``number``, a function of the seed and the number alone."""
        rng = np.random.default_rng([self._seed, number])
        seed, other = (self._seeds[int(i)] for i in rng.integers(len(self._seeds), size=2))
        if number % _LISTS_EVERY == _LISTS_EVERY - 1 and self._lists:
            seed = self._lists[0]
        name = f"m{number:010d}"
        files = _named(seed, name)
        path = str(rng.choice([p for p in sorted(files) if seed.layout != LISTS or name not in p]))
        content = files[path]
        foreign = other.files[str(rng.choice(sorted(other.files)))]
        chance = rng.random()
        if chance < 0.05:
            changed, how = foreign, f"content of {other.label}"
        elif chance < 0.1:
            changed, how = content + foreign, f"{other.label} appended"
        else:
            changed, how = mutate(rng, content)
        what = f"{seed.label}, {path.replace(name, 'NAME')}: {how}"
        return Mutant(number, name, what, seed.layout, {**files, path: changed})

    def run(self, numbers: Iterable[int], narrow: bool = True) -> Report:
        """Run mutants in batches.

        With ``narrow``, a batch is halved again and again to find the mutant that causes a
        violation.
        """
        by_layout: defaultdict[str, list[Mutant]] = defaultdict(list)
        for number in numbers:
            mutant = self.mutant(number)
            by_layout[mutant.layout].append(mutant)
        total = sum(map(len, by_layout.values()))
        with tqdm(total=total, unit="mutant", smoothing=0) as bar:
            for mutant in by_layout.pop(LISTS, ()):
                self.report.violations += self._run_lists(mutant)
                bar.update(1)
            for layout in sorted(by_layout):
                for start in range(0, len(by_layout[layout]), _BATCH):
                    batch = by_layout[layout][start : start + _BATCH]
                    violations = self._batch(batch)
                    for violation in violations:
                        bar.write(f"violation: {violation}")
                    self.report.violations += self._narrowed(batch, violations, narrow)
                    bar.update(len(batch))
        return self.report

    def _narrowed(
        self, batch: list[Mutant], violations: list[Violation], narrow: bool
    ) -> list[Violation]:
        unknown = [violation for violation in violations if violation.mutant is None]
        if not unknown or (not narrow and len(batch) > 1):
            return violations
        known = [violation for violation in violations if violation.mutant is not None]
        if len(batch) == 1:
            return known + [Violation(violation.what, batch[0]) for violation in unknown]
        found = list(known)
        for half in (batch[: len(batch) // 2], batch[len(batch) // 2 :]):
            found += self._narrowed(half, self._batch(half, count=False), narrow)
        return found if len(found) > len(known) else [*known, *unknown]  # it takes several

    def _batch(self, batch: list[Mutant], count: bool = True) -> list[Violation]:
        layout = batch[0].layout
        with tempfile.TemporaryDirectory(dir=self._scratch) as folder:
            raw, out = Path(folder) / "raw", Path(folder) / "set"
            healthy = self._neighbours(layout, batch[0].number)
            for name, seed in healthy.items():
                write_files(raw, _named(seed, name))
            for mutant in batch:
                write_files(raw, mutant.files)
            limit_s = 60 + 6 * len(batch)
            build = _build(raw, out, layout, limit_s)
            violations = [
                Violation(what) for what in _violations_of_run("build-shards", build, (0, 1))
            ]
            self.report.peak_bytes = max(self.report.peak_bytes, build.peak_bytes)
            if build.status in (0, 1):
                violations += self._violations_in_set(out, batch, healthy, count)
            look = watch(["inspect", "--json", raw], limit_s)
            self.report.peak_bytes = max(self.report.peak_bytes, look.peak_bytes)
            wrong = [Violation(what) for what in _violations_of_run("inspect", look, (0,))]
            violations += wrong or _violations_of_inspection(raw, look, batch)
            return violations

    def _run_lists(self, mutant: Mutant) -> list[Violation]:
        """Split lists concern all recordings: damaged ones may be refused, in one sentence."""
        with tempfile.TemporaryDirectory(dir=self._scratch) as folder:
            raw, out = Path(folder) / "raw", Path(folder) / "set"
            write_files(raw, mutant.files)
            build = _build(raw, out, "folder", 120)
        wrong = _violations_of_run("build-shards", build, (0, 1, 2))
        last = (build.errors.strip().splitlines() or [""])[-1]
        if build.status == 2 and not last.startswith("Error: "):
            wrong.append(f"build-shards says no sentence: {last!r}")
        self.report.mutants += 1
        self.report.went_in += build.status != 2
        return [Violation(what, mutant) for what in wrong]

    def _violations_in_set(
        self, out: Path, batch: list[Mutant], healthy: dict[str, Seed], count: bool
    ) -> list[Violation]:
        failures = _failures(out)
        samples = _samples(out)
        files = _files(out)
        wrong = []
        for mutant in batch:
            named = [f for f in failures if mutant.name in f["source"] + f["reason"]]
            reasons = {failure["reason"] for failure in named}
            went_in = any(mutant.name in file for file in files)
            if not reasons and not went_in:
                wrong.append(Violation("it is neither in the set nor among the failures", mutant))
            for reason in reasons:
                if "unexpected" in reason:
                    wrong.append(Violation(f"nobody foresaw: {reason}", mutant))
                if not reason.isprintable() or len(reason) > _LONGEST_REASON:
                    wrong.append(Violation(f"its reason is no sentence: {reason!r}", mutant))
            if count:
                self.report.mutants += 1
                self.report.went_in += went_in
                self.report.reasons.update({_kind(reason) for reason in reasons})
        for name, seed in healthy.items():
            expected = self._expected(seed.layout)
            for key in (key for key in expected if name in key):
                if samples.get(key) != expected[key]:
                    how = "changed" if key in samples else "lost"
                    wrong.append(Violation(f"the healthy sample {key} ({seed.label}) is {how}"))
        left = [str(path) for path in out.rglob(".*")]
        wrong += [Violation(f"build-shards leaves {name}") for name in left]
        verify = watch(["verify", out, "--workers", 2], 300)
        wrong += [Violation(what) for what in _violations_of_run("verify", verify, (0,))]
        return wrong

    def _neighbours(self, layout: str, number: int) -> dict[str, Seed]:
        """Some of the layout's healthy recordings by name; the next batch takes others."""
        healthy = self._all_healthy(layout)
        names = sorted(healthy)
        first = number % len(names)
        return {name: healthy[name] for name in (names[first:] + names[:first])[:_HEALTHY]}

    def _all_healthy(self, layout: str) -> dict[str, Seed]:
        seeds = [seed for seed in self._seeds if seed.layout == layout and seed.healthy]
        return {f"h{number:010d}": seed for number, seed in enumerate(seeds)}

    def _expected(self, layout: str) -> dict[str, dict[str, str]]:
        """Samples of the healthy recordings in a build without mutants: key -> hashes."""
        if layout not in self._healthy:
            with tempfile.TemporaryDirectory(dir=self._scratch) as folder:
                raw, out = Path(folder) / "raw", Path(folder) / "set"
                for name, seed in self._all_healthy(layout).items():
                    write_files(raw, _named(seed, name))
                run = _build(raw, out, layout, 300)
                if run.status != 0:
                    raise RuntimeError(f"the healthy recordings do not build: {run.errors}")
                self._healthy[layout] = _samples(out)
        return self._healthy[layout]


def _named(seed: Seed, name: str) -> dict[str, bytes]:
    return {
        path.replace("{name}", name): content.replace(b"{name}", name.encode())
        for path, content in seed.files.items()
    }


def write_files(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _build(raw: Path, out: Path, layout: str, limit_s: float) -> Run:
    command = ["build-shards", raw, "--out", out, "--layout", layout, *_OPTIONS]
    return watch(command, limit_s)


def _files(out: Path) -> set[str]:
    """Recordings from which the samples were made."""
    sets = [ShardSet(out, split) for split in read_manifest(open_folder(out)).splits]
    return {shards.info(sample).file for shards in sets for sample in range(len(shards))}


def _samples(out: Path) -> dict[str, dict[str, str]]:
    """The hash of every member of every sample, by key."""
    samples: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for tar in sorted(out.glob("*/*.tar")):
        with tarfile.open(tar) as members:
            for member in members:
                key, _, suffix = member.name.partition(".")
                file = members.extractfile(member)
                content = b"" if file is None else file.read()
                samples[key][suffix] = hashlib.sha256(content).hexdigest()
    return dict(samples)


def _failures(out: Path) -> list[dict[str, str]]:
    path = out / "failures.jsonl"
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]] if path.exists() else []


def _violations_of_run(command: str, run: Run, allowed: tuple[int, ...]) -> list[str]:
    last = run.errors.strip().splitlines()[-1:] or [""]
    wrong = []
    if run.status is None:
        wrong.append(f"{command} hangs")
    elif run.status not in allowed:
        wrong.append(f"{command} ends with {run.status}: {last[0]}")
    if "Traceback" in run.errors:
        wrong.append(f"{command} shows a traceback: {last[0]}")
    if run.peak_bytes > MOST_BYTES:
        wrong.append(f"a process of {command} takes {run.peak_bytes / 1e9:.1f} GB")
    return wrong + [f"{command} leaves {what}" for what in run.left]


def _violations_of_inspection(raw: Path, run: Run, batch: list[Mutant]) -> list[Violation]:
    kinds = (*VIDEO_SUFFIXES, *AUDIO_SUFFIXES)
    media = sorted(str(path) for path in raw.rglob("*") if path.suffix in kinds)
    results = json.loads(run.output)
    if sorted(result["file"] for result in results) != media:
        return [Violation("inspect does not name every file once")]
    wrong = []
    for result in results:
        mutant = next((mutant for mutant in batch if mutant.name in result["file"]), None)
        for said in result["suspicious"]:
            if "unexpected" in said or not said.isprintable() or len(said) > _LONGEST_REASON:
                wrong.append(Violation(f"inspect says no sentence: {said!r}", mutant))
    return wrong


def _kind(reason: str) -> str:
    """A reason without names and numbers, so that equal reasons can be counted."""
    without_names = re.sub(r"\S*m\d{10}\S*", "FILE", reason).removeprefix("FILE FILE")
    return re.sub(r"[\d.]+|\(.*\)", "…", without_names)[:90]
