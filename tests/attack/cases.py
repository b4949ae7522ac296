"""Attacks: what is damaged, by which rule, and the command that meets it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator

from tests.attack.base import BUILD, TRAIN, Base
from tests.attack.commands import embedding, evaluation, pick, set_command
from tests.attack.damage.checkpoints import damage_checkpoint
from tests.attack.damage.files import damage_file
from tests.attack.damage.options import attack_option
from tests.attack.damage.sets import SetDamage, make_old, place_elsewhere, rename_all, sealed
from tests.attack.damage.values import damage_json, dump, hostile_names
from tests.attack.sandbox import Sandbox


@dataclass(frozen=True)
class Case:
    """One command and what it meets. ``writable``: names inside the sandbox that it may change.
    ``refuses``: whether the exit status must not be 0; None: it may be either."""

    number: int
    kind: str
    what: str
    command: list[str]
    writable: tuple[str, ...]
    refuses: bool | None = None

    @property
    def name(self) -> str:
        """The command without its arguments."""
        words = [word for word in self.command[1:3] if word[:1] not in ("-", "/", "")]
        return " ".join(words if words[0] == "eval" else words[:1])

    def __str__(self) -> str:
        shown = " ".join(part if len(part) < 100 else part[:100] + "…" for part in self.command)
        return f"case {self.number} ({self.kind}: {self.what}): {shown!r}"


Made = tuple[str, list[Any], tuple[str, ...], bool | None]
"""What was done, the command, what it may change, and whether it must refuse (None: either)."""


class Cases:
    """Case ``number`` is a function of the seed and the number."""

    def __init__(self, base: Base, seed: int, port: int) -> None:
        self._base, self._seed, self._port = base, seed, port
        self._kinds: dict[str, Callable[[Generator, Sandbox], Made]] = {
            "set": self._set,
            "healthy": self._healthy,
            "state": self._state,
            "cache": self._cache,
            "checkpoint": self._checkpoint,
            "run": self._run,
            "raw": self._raw,
            "option": self._option,
        }

    @staticmethod
    def kind(number: int) -> str:
        """What kind of thing case ``number`` damages."""
        return "healthy" if number % 30 == 29 else _CYCLE[number % len(_CYCLE)]

    def make(self, number: int, sandbox: Sandbox) -> Case:
        """Fill the sandbox with what a command is to meet."""
        rng = np.random.default_rng([self._seed, number])
        kind = self.kind(number)
        what, command, writable, refuse = self._kinds[kind](rng, sandbox)
        return Case(number, kind, what, [str(part) for part in command], writable, refuse)

    def _names(self, sandbox: Sandbox) -> list[str]:
        return hostile_names(str(sandbox.outside), self._port)

    def _set(self, rng: Generator, sandbox: Sandbox) -> Made:
        root = sandbox.inside / "set"
        command, writable = set_command(rng, "set", self._base)
        kinds = ["tiny", "source", "built", "labelled"]
        if "--append" in command or "action" in command:
            kinds = ["built"] if "--append" in command else ["labelled"]
        self._base.copy(pick(rng, kinds), root)
        old = rng.random() < 0.25
        if old:
            make_old(root)
        damage = SetDamage(root, sandbox.outside, self._port)
        done = [damage.any(rng)]
        if rng.random() < 0.25 and damage.is_readable():
            # What was damaged before may not be read again.
            with suppress(Exception):
                done.append(damage.any(rng))
        # Old sets have fewer hashes: verify says what it cannot check.
        refuse = command[1] == "verify" and len(done) == 1 and done[0][1] and not old
        said = "old, " * old + "; ".join(said for said, _ in done)
        return said, command, writable, refuse or None

    def _healthy(self, rng: Generator, sandbox: Sandbox) -> Made:
        """Nothing: the command must do its work, or attacks with it would say nothing."""
        command, writable = set_command(rng, "set", self._base)
        kind = "built" if command[1] in ("build-shards", "merge") else "labelled"
        self._base.copy(kind, sandbox.inside / "set")
        return f"the {kind} set", command, writable, None if command[1] == "merge" else False

    def _state(self, rng: Generator, sandbox: Sandbox) -> Made:
        """An unfinished build, a finished one with another's state, and what continues them."""
        root, raw = sandbox.inside / "set", sandbox.inside / "raw"
        kind = str(rng.choice(["half", "ended", "built"]))
        self._base.copy(kind, root)
        self._base.copy("raw", raw)
        state = root / ".build.json"
        if kind == "built":
            shutil.copyfile(self._base.path("half") / ".build.json", state)
        (root / "notes.txt").write_text("the user's own\n")
        names = self._names(sandbox)
        how = rng.random()
        if how < 0.35:
            said = rename_all(rng, state, names)
        elif how < 0.7:
            content, said = damage_json(rng, state.read_bytes(), names)
            state.write_bytes(content)
        else:
            files = sorted(path for path in root.rglob("*") if path.is_file())
            said = damage_file(rng, pick(rng, files), sandbox.outside)
        if rng.random() < 0.6:
            self._more_recordings(raw)
        build = ["avprep", "build-shards", "raw", "--out", "set", *BUILD]
        build += [] if kind == "built" else ["--shard-size", "0.02MB"]
        commands: list[list[Any]] = [
            ["avprep", "merge", "set"],
            [*build, "--append"],
            [*build, "--append"],
            [*build, "--task-index", 1, "--task-count", 2],
            build,
        ]
        return f"{kind}: {said}", pick(rng, commands), ("set",), None

    def _more_recordings(self, raw: Path) -> None:
        for suffix in (".mp4", ".wav"):
            shutil.copyfile(raw / f"a{suffix}", raw / f"e{suffix}")
        (raw / "train.txt").write_text("a\nb\ne\n")

    def _cache(self, rng: Generator, sandbox: Sandbox) -> Made:
        """Copies in a cache, or the names of what is to be copied."""
        cache = sandbox.inside / "cache"
        train = ["--out", "run", *TRAIN, "--num-workers", 0, "--steps", 1, "--cache", "cache"]
        if rng.random() < 0.5:
            self._base.copy("cache", cache)
            files = sorted(path for path in cache.rglob("*") if path.is_file())
            said = damage_file(rng, pick(rng, files), sandbox.outside)
            url = f"local://{self._base.path('tiny')}"
        else:
            root = sandbox.inside / "set"
            self._base.copy("tiny", root)
            path = root / "manifest.json"
            manifest: dict[str, Any] = json.loads(path.read_bytes())
            name: str = pick(rng, self._names(sandbox))
            entry: dict[str, Any] = manifest["splits"]["train"]["shards"][0]
            field = str(rng.choice(["file", "file", "index", "split", "placed", "placed"]))
            if field == "split":
                manifest["splits"][name] = manifest["splits"].pop("train")
                typed = name.replace("\0", "").encode("utf-8", "replace").decode()
                train += ["--split", typed[:10_000]]
            elif field == "placed":
                name = place_elsewhere(rng, root, entry)
            else:
                entry[field] = name
            path.write_bytes(sealed(dump(manifest)))
            said, url = f"manifest: {field} {name[:60]!r}", f"local://{root}"
        return said, ["avtrain", "pretrain", url, *train], ("run", "cache"), None

    def _checkpoint(self, rng: Generator, sandbox: Sandbox) -> Made:
        run, imports = sandbox.inside / "run", rng.random() < 0.15
        self._base.copy("published" if imports else "run", run)
        said, refused = damage_checkpoint(rng, run / "checkpoint.pt", sandbox.outside, self._port)
        tiny, labelled = self._base.path("tiny"), self._base.path("labelled")
        train = ["avtrain", "pretrain", tiny, *TRAIN, "--num-workers", pick(rng, [0, 0, 2])]
        start = ["--init-from", "run/checkpoint.pt", "--steps", 1, "--out", "new"]
        commands: list[list[Any]] = [
            [*train, "--resume", "--steps", 3, "--out", "run"],
            [*train, *start],
            [*train, *start],
            *(evaluation(rng, labelled, "run/checkpoint.pt") for _ in range(3)),
            embedding(tiny, "run/checkpoint.pt"),
        ]
        command = pick(rng, commands)
        if imports:
            command = ["avtrain", "import-checkpoint", "run/checkpoint.pt", "--out", "new.pt"]
        resumes = "--resume" in command
        writable = ("run",) if resumes else ("new", "out", "new.pt")
        return said, command, writable, True if refused and not resumes else None

    def _run(self, rng: Generator, sandbox: Sandbox) -> Made:
        """The other files in a run, and those who read them."""
        run = sandbox.inside / "run"
        self._base.copy("evaluated", run)
        files = [p for p in sorted(run.rglob("*")) if p.is_file() and p.name != "checkpoint.pt"]
        names = sorted({path.suffix for path in files})
        suffix = pick(rng, names)
        files = [path for path in files if path.suffix == suffix]
        path = pick(rng, files)
        if suffix == ".pt" and rng.random() < 0.7:
            said, _ = damage_checkpoint(rng, path, sandbox.outside, self._port)
        elif suffix in (".json", ".jsonl") and rng.random() < 0.75:
            lines = path.read_bytes().split(b"\n")[:-1] if suffix == ".jsonl" else [b""]
            place = int(rng.integers(len(lines)))
            content = lines[place] if suffix == ".jsonl" else path.read_bytes()
            lines[place], said = damage_json(rng, content, self._names(sandbox))
            path.write_bytes(b"\n".join(lines) + b"\n")
        else:
            said = damage_file(rng, path, sandbox.outside)
        tiny = self._base.path("tiny")
        train = ["avtrain", "pretrain", tiny, *TRAIN, "--num-workers", pick(rng, [0, 2])]
        evaluate = ["avtrain", "eval", "avsa", tiny, "--checkpoint", "run/checkpoint.pt"]
        evaluate += ["--device", "cpu", "--num-workers", 0, "--no-baseline", "--views", 2]
        evaluate += ["--windows", 1, "--out", "run", "--keep-features", "run/features"]
        commands: list[list[Any]] = [
            ["avtrain", "report", "run", "--out", "report"],
            ["avtrain", "report", "run", "--json", "report.json"],
            [*train, "--resume", "--steps", 3, "--out", "run"],
            evaluate,
        ]
        fitting = dict[str, list[int]]({".pt": [3], ".jsonl": [0, 2, 2]}).get(suffix, [0, 1, 2, 3])
        command = commands[pick(rng, fitting)]
        writable = ("report", "report.json") if command[1] == "report" else ("run",)
        return f"{path.name}: {said}", command, writable, None

    def _raw(self, rng: Generator, sandbox: Sandbox) -> Made:
        """Recordings, their lists and what lies beside them."""
        raw = sandbox.inside / "raw"
        self._base.copy("raw", raw)
        files = sorted(path for path in raw.iterdir())
        path = pick(rng, files)
        if path.suffix == ".json" and rng.random() < 0.6:
            content, said = damage_json(rng, path.read_bytes(), self._names(sandbox))
            path.write_bytes(content)
        elif path.suffix in (".txt", ".csv") and rng.random() < 0.5:
            lines = path.read_bytes().splitlines()
            name = pick(rng, self._names(sandbox))
            lines.insert(int(rng.integers(len(lines) + 1)), name.encode("utf-8", "replace"))
            path.write_bytes(b"\n".join(lines) + b"\n")
            said = f"a line {name[:60]!r}"
        elif rng.random() < 0.3:
            new = pick(rng, ["a\x1b[2Jb\nEVIL-LINE", "a\rEVIL-LINE", "-rf", "a\x9b31m", "a\u202e"])
            path.rename(raw / f"{new}{path.suffix}")
            said = f"called {new!r}"
        else:
            said = damage_file(rng, path, sandbox.outside)
        build = ["avprep", "build-shards", "raw", "--out", "out", *BUILD, "--clip-timeout", 5]
        shards = self._base.path("built")
        commands: list[list[Any]] = [
            [*build, "--splits", "raw"],
            [*build, "--segments", "raw/segments.txt"],
            [*build, "--viewpoints", "raw/views.json"],
            ["avprep", "inspect", "raw", "--workers", 1],
            ["avprep", "coverage", "raw", "--against", "raw/list.csv", "--workers", 1],
            ["avprep", "preview", shards, "--raw", "raw", "--out", "out"],
        ]
        named = {"views.json": [2], "segments.txt": [1], "list.csv": [4]}
        fitting = named.get(path.name, [0, 0, 0, 3, 4, 5])
        return f"{path.name}: {said}", commands[pick(rng, fitting)], ("out",), None

    def _option(self, rng: Generator, sandbox: Sandbox) -> Made:
        """Healthy files, and a value of one option that is none."""
        for name, to in (("raw", "raw"), ("evaluated", "run"), ("built", "set")):
            self._base.copy(name, sandbox.inside / to)
        said, command = attack_option(rng, self._base, sandbox)
        return said, command, ("out", "run", "set", "cache", "report", "runs"), None


_CYCLE = ("set", "checkpoint", "set", "state", "set", "run", "set", "raw", "cache", "option")
KINDS = (*dict.fromkeys(_CYCLE), "healthy")
