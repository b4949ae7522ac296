"""Commands in forked children, whose imports are done already, with samples that cost nothing."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avprep.build import build_shards
from avprep.cli.main import main
from avprep.errors import ClipError
from avprep.media.find_ffmpeg import find_ffmpeg
from avprep.recordings.clips import Clip
from avprep.sample import make_sample
from avprep.sample.options import ClipOptions
from avprep.sample.thresholds import DroppedError
from shards.schema import AudioInfo, SampleInfo, VideoInfo, View
from tests.kills.hook import Hook


@dataclass(frozen=True)
class Done:
    """How a command ended (-9: killed), what it printed, and its calls, if it was not killed."""

    status: int
    output: str
    calls: list[tuple[str, str]]


def write_recordings(raw: Path, names: str) -> None:
    """Recordings whose names say what becomes of them: f fails, d is dropped, x has no audio;
    those of capital letters are in the split test."""
    for folder in ("video", "audio"):
        (raw / folder).mkdir(parents=True, exist_ok=True)
    for name in names.split():
        (raw / "video" / f"{name}-0.mp4").touch()
        if not name.startswith("x"):
            (raw / "audio" / f"{name}-0.m4a").touch()
    sources = sorted(path.stem.partition("-")[0] for path in (raw / "video").iterdir())
    for split, listed in (
        ("train", [source for source in sources if source.islower()]),
        ("test", [source for source in sources if not source.islower()]),
    ):
        (raw / f"{split}.txt").write_text("".join(f"{source}\n" for source in listed))


def run(arguments: Sequence[object], folder: Path, kill_at: int | None = None) -> Done:
    """Run ``avprep ARGUMENTS`` in a child that is killed at its call number ``kill_at`` that
    changes something in ``folder``."""
    _prepare()
    with tempfile.TemporaryFile() as printed, tempfile.TemporaryFile() as counted:
        child = os.fork()
        if child == 0:
            _run_here(
                [str(argument) for argument in arguments], Hook(folder, kill_at), printed, counted
            )
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        printed.seek(0)
        counted.seek(0)
        calls = [(kind, name) for kind, name in json.loads(counted.read() or b"[]")]
        return Done(status, printed.read().decode(errors="replace"), calls)


def _run_here(arguments: list[str], hook: Hook, printed: Any, counted: Any) -> None:
    status = 70
    try:
        for descriptor in (1, 2):
            os.dup2(printed.fileno(), descriptor)
        sys.stdout = os.fdopen(1, "w", closefd=False)
        sys.stderr = os.fdopen(2, "w", closefd=False)
        hook.install()
        try:
            main.main(arguments, "avprep")
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
        except BaseException:
            import traceback

            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        counted.write(json.dumps(hook.calls).encode())
        counted.flush()
    finally:
        os._exit(status)


def _prepare() -> None:
    """Before any child: what all of them share."""
    find_ffmpeg()
    build_shards.WorkerPool = _Inline  # type: ignore[misc, assignment]
    make_sample.make_sample = _make_sample


class _Inline:
    """Takes the place of a `WorkerPool`: everything is done in the process that counts."""

    def __init__(self, *_: object) -> None: ...

    def __enter__(self) -> _Inline:
        return self

    def __exit__(self, *_: object) -> None: ...

    def map(self, function: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        return [function(item) for item in items]

    def run(
        self, function: Callable[..., Any], items: Sequence[Any], on_step: Callable[..., Any]
    ) -> Iterator[tuple[int, Any]]:
        for number, item in enumerate(items):
            yield number, function(item, lambda _: None)


def _make_sample(clip: Clip, options: ClipOptions) -> tuple[SampleInfo, dict[str, bytes]]:
    if clip.source.lower().startswith("f"):
        raise ClipError("it is damaged")
    if clip.source.lower().startswith("d"):
        raise DroppedError("it is silent", {"level_dbfs": -90.0})
    video = VideoInfo(16, 16, 16, 16, 16, "00", ((0, 8),))
    audio = AudioInfo(24_000, 24_000, 1.0, "source")
    info = SampleInfo(
        clip.key,
        clip.source,
        clip.start_s,
        clip.duration_s,
        clip.split,
        video,
        audio,
        (View(0.0, 0.0, 60.0, 60.0),),
        clip.file,
        clip.offset_s,
    )
    return info, {"view00.mp4": clip.key.encode() * 4, "flac": bytes(100)}
