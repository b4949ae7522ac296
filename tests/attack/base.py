"""Valid things, which attacks damage: recordings, sets, an unfinished build, a run, a cache."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from tests.attack.damage.sets import label
from tests.attack.runner import Decoy, run, watch

BUILD = ["--clip-duration", "2", "--views", "2", "--size", "32", "--fps", "8", "--seed", "0"]
BUILD += ["--workers", "1"]
TRAIN = ["--batch-size", "2", "--views", "2", "--device", "cpu"]
"""Options that every training here has."""


class Base:
    """Makes each thing when it is first asked for, in a process of its own."""

    def __init__(self, folder: Path, decoy: Decoy) -> None:
        self._folder, self._decoy = folder, decoy
        self._makers: dict[str, Callable[[Path], None]] = {
            "raw": self._raw,
            "tiny": self._tiny,
            "source": self._source,
            "labelled": self._labelled,
            "built": self._built,
            "half": self._half,
            "ended": self._ended,
            "run": self._run,
            "evaluated": self._evaluated,
            "published": self._published,
            "cache": self._cache,
        }

    def copy(self, name: str, to: Path) -> None:
        """A copy of the thing at a path."""
        shutil.copytree(self.path(name), to, symlinks=True)

    def path(self, name: str) -> Path:
        """Where the thing is; what lies there must not be changed."""
        path = self._folder / name
        if not path.exists():
            part = self._folder / f"{name}.part" / name
            shutil.rmtree(part.parent, ignore_errors=True)
            part.parent.mkdir(parents=True)
            self._makers[name](part)
            part.rename(path)
            shutil.rmtree(part.parent)
        return path

    def _do(self, *command: object, statuses: tuple[int, ...] = (0,)) -> None:
        outcome = run([str(part) for part in command], self._folder, {}, self._decoy, 300.0)
        if outcome.status not in statuses:
            text = (outcome.output + outcome.errors).decode(errors="replace")
            raise RuntimeError(f"{command} ended with {outcome.status}: {text}")

    def _call(self, function: Callable[[], object]) -> None:
        outcome = watch(function, self._folder, {}, self._decoy, 300.0)
        if outcome.status != 0:
            raise RuntimeError(outcome.errors.decode(errors="replace"))

    def _raw(self, to: Path) -> None:
        def make() -> None:
            from tests.support.media import write_dot_recording

            for number, name in enumerate("abcd"):
                write_dot_recording(to, name, 40.0 * number, size=(96, 192))
            (to / "train.txt").write_text("a\nb\n")
            (to / "test.txt").write_text("c\nd\n")
            (to / "segments.txt").write_text("a 0\nb 0\nc 0\nd 0\n")
            (to / "a.info.json").write_text(
                '{"id": "a", "title": "A dot", "duration": 2, "requested_formats": '
                '[{"format_note": "equi", "width": 192, "height": 96, "fps": 24}]}\n'
            )
            views = ", ".join(
                f'{{"azimuth_deg": {a}, "elevation_deg": 0, "hfov_deg": 90}}' for a in (0, 90)
            )
            (to / "views.json").write_text(f"[{views}]\n")
            (to / "list.csv").write_text("id,start\na,0\nb,0\nzz,0\n")

        self._call(make)

    def _tiny(self, to: Path) -> None:
        def make() -> None:
            from tests.support.tiny_set import make_set

            make_set(*(to, {"train": 4, "test": 4}), views=2, labelled=True, map_times_s=(0.5, 1.0))

        self._call(make)

    def _source(self, to: Path) -> None:
        def make() -> None:
            from tests.support.tiny_set import make_set

            make_set(to, {"train": 4, "test": 4}, views=2, layout="source", labelled=True)

        self._call(make)

    def _labelled(self, to: Path) -> None:
        self.copy("tiny", to)
        label(to)

    def _built(self, to: Path) -> None:
        self._do("avprep", "build-shards", self.path("raw"), "--out", to, *BUILD)

    def _half(self, to: Path) -> None:
        """The first of two tasks of a job array is done."""
        tasks = ["--task-index", "0", "--task-count", "2", "--shard-size", "0.02MB"]
        self._do("avprep", "build-shards", self.path("raw"), "--out", to, *BUILD, *tasks)

    def _ended(self, to: Path) -> None:
        """All shards are there, and the manifest is not: what `avprep merge` finishes."""
        self._half(to)
        state = next(to.glob(".build.json")).read_bytes()
        tasks = ["--task-index", "1", "--task-count", "2", "--shard-size", "0.02MB"]
        self._do("avprep", "build-shards", self.path("raw"), "--out", to, *BUILD, *tasks)
        (to / "manifest.json").unlink()
        (to / ".build.json").write_bytes(state)

    def _run(self, to: Path) -> None:
        tiny = self.path("tiny")
        train = ["avtrain", "pretrain", tiny, "--out", to, *TRAIN, "--num-workers", 0, "--steps", 2]
        self._do(*train)

    def _published(self, to: Path) -> None:
        """Weights of the paper's own code."""

        def make() -> None:
            from tests.support.published_files import published, saved

            to.mkdir()
            saved(to, published()).rename(to / "checkpoint.pt")

        self._call(make)

    def _evaluated(self, to: Path) -> None:
        """A run with a result, and the features that it is from."""
        self.copy("run", to)
        read = ["--checkpoint", to / "checkpoint.pt", "--out", to, "--device", "cpu"]
        read += ["--num-workers", 0, "--no-baseline", "--views", 2, "--windows", 1]
        features = ["--keep-features", to / "features"]
        self._do("avtrain", "eval", "avsa", self.path("tiny"), *read, *features)

    def _cache(self, to: Path) -> None:
        """Copies of a set that lies at a URL; the set's path is a part of its identity."""
        out = to.parent / "out"
        url = f"local://{os.fspath(self.path('tiny'))}"
        train = ["avtrain", "pretrain", url, "--out", out, *TRAIN, "--num-workers", 0]
        self._do(*train, "--steps", 1, "--cache", to)
        shutil.rmtree(out)
