"""The command ``avtrain locate``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from avtrain.cli.common import WORKERS, Number, one_sentence, options_as
from avtrain.cli.evals.options import read_networks
from avtrain.cli.network_options import factories_of, named_networks
from shards.errors import show

if TYPE_CHECKING:  # importing torch takes seconds, which --help should not
    from avtrain.locate.raw_files import Reading
    from avtrain.locate.scores import Span

_GRID_DEG, _HFOV_DEG, _DURATION_S = 30.0, 80.0, 60.0


@dataclass(frozen=True, kw_only=True)
class LocateArguments:
    """Arguments and options of the command, by name."""

    place: str
    key: str | None
    checkpoint: str
    out: Path
    at: float | None
    start: float | None
    duration: float | None
    hop: float
    grid: float | None
    hfov: float | None
    projection: str | None
    stereo: str | None
    foa_convention: str | None
    keep_set: Path | None
    num_workers: int | None
    device: str
    video_network: str | None
    audio_network: str | None

    def span(self) -> Span:
        """Raises TrainingError for options that exclude each other."""
        from avtrain.errors import TrainingError
        from avtrain.locate.scores import Span

        if abs(self.hop * 10 - round(self.hop * 10)) > 1e-6:
            raise TrainingError(f"--hop {self.hop:g} is no multiple of 0.1 s, the step of DCASE")
        return Span(self.start or 0.0, self.duration or _DURATION_S, self.hop, self.at)

    def reading(self, window_s: float) -> Reading:
        """How raw recordings are read, for windows of ``window_s``."""
        from avtrain.locate.raw_files import Reading

        start_s = self.start or 0.0
        part_s = start_s, start_s + (self.duration or _DURATION_S)
        if self.at is not None:  # windows lie around it, and before the end of the recording
            part_s = max(0.0, self.at - window_s - 0.5), self.at + window_s + 0.5
        return Reading(
            self.grid or _GRID_DEG,
            self.hfov or _HFOV_DEG,
            part_s,
            self._formats(),
            self.keep_set,
            self.at is not None,
        )

    def check_set(self) -> None:
        """Raise TrainingError for options of raw recordings."""
        from avtrain.errors import TrainingError

        given = {"grid": self.grid, "hfov": self.hfov, "keep-set": self.keep_set}
        for name, value in (given | self._formats()).items():
            if value is not None:
                raise TrainingError(
                    f"--{name} is for raw recordings, and {self.place} is a set, whose views and "
                    "formats are fixed; leave it out"
                )

    def _formats(self) -> dict[str, str]:
        given = {
            "projection": self.projection,
            "stereo": self.stereo,
            "foa-convention": self.foa_convention,
        }
        return {name: value for name, value in given.items() if value is not None}


@click.command()
@click.argument("place", metavar="INPUT")
@click.argument("key", required=False)
@click.option("--checkpoint", required=True, help="A checkpoint.pt of pretrained networks.")
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    help="A file .mp4 (a video with sound), .png (one moment) or .csv (a table); for a folder of "
    "recordings a folder. An earlier file is replaced.",
)
@click.option(
    "--at", type=Number(0, 1e6), metavar="S", help="Time of the .png, seconds.  [default: --start]"
)
@click.option("--start", type=Number(0, 1e6), help="Begin, seconds.  [default: 0]")
@click.option(
    "--duration",
    type=Number(1, 600),
    help=f"Most seconds to look at.  [default: {_DURATION_S:g}]",
)
@click.option("--hop", type=Number(0.1, 60), default=0.5, help="Seconds from window to window.")
@click.option(
    "--grid",
    type=Number(7, 90),
    metavar="DEG",
    help=f"Angle between neighbouring views of a raw recording.  [default: {_GRID_DEG:g}]",
)
@click.option(
    "--hfov",
    type=Number(10, 150),
    metavar="DEG",
    help=f"Field of view of these views: that of pretraining.  [default: {_HFOV_DEG:g}]",
)
@click.option("--projection", help="As for avprep build-shards, for raw recordings.")
@click.option("--stereo", help="As for avprep build-shards, for raw recordings.")
@click.option("--foa-convention", help="As for avprep build-shards, for raw recordings.")
@click.option(
    "--keep-set",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Keep the set that is made of a raw recording.",
)
@click.option("--num-workers", type=WORKERS, help="Loader processes.  [default: auto]")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto")
@named_networks
@options_as(LocateArguments)
def locate(given: LocateArguments) -> None:
    """Where the sound comes from, by pretrained networks: a heat map over the picture.

    INPUT is a raw recording, a folder of raw recordings, or a shard set (a folder or a URL), of
    which KEY names the clip (default: its first one). Picture and sound are compared in views all
    over the sphere; beside it stands the energy of the sound alone.

    \b
    Examples:
      avtrain locate walk.mp4 --checkpoint runs/avsa-tiny/checkpoint.pt --out heat.mp4
      avtrain locate shards/ --checkpoint runs/avsa-tiny/checkpoint.pt --out heat.png --at 3
    """
    from avtrain.runtime.signals import ended_by_signals

    with one_sentence(), ended_by_signals():
        _locate(given)


def _locate(given: LocateArguments) -> None:
    from avtrain.errors import TrainingError
    from avtrain.locate.locate import Locator
    from avtrain.locate.write import WRITERS, check_name
    from shards.folders import open_folder
    from shards.manifest import MANIFEST_NAME, find_sample, read_manifest
    from shards.reader import ShardSet

    path = Path(given.place)
    is_set = "://" in given.place or (path / MANIFEST_NAME).exists()
    is_folder = path.is_dir() and not is_set
    if not is_set and not path.exists():
        raise TrainingError(f"{path} does not exist")
    if given.at is not None and (given.start, given.duration) != (None, None):
        raise TrainingError("--at names one moment; leave out --start and --duration")
    if is_folder and given.out.suffix.lower() in WRITERS:
        raise TrainingError(
            f"--out {given.out} names a file, and {path} is a folder of recordings, each of which "
            "gets its own; name a folder"
        )
    if not is_folder:
        check_name(given.out)
        if given.at is not None and given.out.suffix.lower() != ".png":
            raise TrainingError(f"--at is the time of a .png, and --out is {given.out}")
    if not is_set and given.key is not None:
        raise TrainingError(f"{path} is no shard set, of which a key ({given.key}) names a clip")
    if given.checkpoint in ("untrained", "energy"):
        raise TrainingError(
            f"--checkpoint {given.checkpoint} has no pretrained networks, whose matches are drawn; "
            "name a checkpoint.pt"
        )
    factories = factories_of(given.video_network, given.audio_network)
    checkpoint, config = read_networks(given.checkpoint, None, None, None, factories)
    assert checkpoint is not None
    if given.at is None and not is_folder and given.out.suffix.lower() == ".png":
        if given.duration is not None:
            raise TrainingError("a .png shows one moment (--at); leave --duration out")
        given = replace(given, at=given.start or 0.0)
    span = given.span()
    locator = Locator(checkpoint, config, span, given.device, given.num_workers, factories)
    if is_set:
        given.check_set()
        root = open_folder(given.place)
        split, sample = find_sample(root, read_manifest(root), given.key)
        show(locator.clip(ShardSet(root, split), sample, [given.out]))
        return
    reading = given.reading(config.sound.duration_s)
    if not is_folder:
        if given.out.exists() and given.out.samefile(path):
            raise TrainingError(f"--out {given.out} is the recording itself; name another file")
        show(locator.recording(path, [given.out], reading))
        return
    failed = 0
    for sentence, reason in locator.folder(path, given.out, reading):
        show(sentence or f"left out: {reason}", err=sentence is None)
        failed += sentence is None
    if failed:
        click.get_current_context().exit(1)
