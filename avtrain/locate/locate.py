"""Where does the sound come from, by pretrained networks? Heat maps of clips and of recordings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from avtrain.config import Config
from avtrain.errors import TrainingError
from avtrain.evals.frozen import Networks, load_networks
from avtrain.locate.maps import Maps
from avtrain.locate.raw_files import NoRecording, Reading, find_videos, recording_as_set
from avtrain.locate.scores import Span, score_clip
from avtrain.locate.write import write
from avtrain.own_networks import PAPERS, Factories
from avtrain.runtime.device import default_workers, pick_device
from shards.errors import ShardError
from shards.reader import ShardSet


@dataclass
class Locator:
    """Draws heat maps with the networks of a checkpoint, whose settings are ``config``."""

    checkpoint: Path
    config: Config
    span: Span
    device: str = "auto"
    workers: int | None = None
    factories: Factories = PAPERS
    _networks: Networks | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.config.sound.audio == "omni":
            raise TrainingError(
                f"{self.checkpoint} was trained with --audio omni, which sounds the same in every "
                "direction: it cannot tell where sound comes from; take networks that hear "
                "ambisonics or beams"
            )
        pick_device(self.device)  # before anything is read

    def clip(
        self,
        shards: ShardSet,
        sample: int,
        outs: list[Path],
        offset_s: float = 0.0,
        name: str = "",
    ) -> str:
        """Write the heat maps of a clip to files, and return a sentence on them. ``name`` is the
        file that the user has named, and ``offset_s`` the time at which the clip begins in it."""
        device = pick_device(self.device)
        workers = default_workers(device) if self.workers is None else self.workers
        if self._networks is None:
            self._networks = load_networks(
                self.checkpoint, self.config, shards, 0, device, workers, self.factories
            )
        span = replace(self.span, offset_s=offset_s, name=name)
        maps = Maps.from_scores(score_clip(shards, sample, self._networks, span, workers), offset_s)
        for out in outs:
            write(maps, shards, sample, out)
        return f"{' and '.join(map(str, outs))}: {maps.sentence()}"

    def recording(self, video: Path, outs: list[Path], reading: Reading) -> str:
        """The same for a raw recording."""
        with recording_as_set(video, self.config, reading) as (shards, sample):
            return self.clip(shards, sample, outs, shards.info(sample).file_start_s, str(video))

    def folder(
        self, folder: Path, out: Path, reading: Reading
    ) -> Iterator[tuple[str | None, str | None]]:
        """Heat maps of every recording in a folder, in a folder ``out`` of the same structure: for
        each a sentence, or the reason why there is none."""
        if out.resolve().is_relative_to(folder.resolve()):
            raise TrainingError(
                f"--out {out} lies in {folder}, where its videos would be taken for recordings; "
                "name another folder"
            )
        if out.exists() and not out.is_dir():
            raise TrainingError(f"--out {out} is a file, and {folder} may hold many recordings")
        videos = find_videos(folder)
        names = [path.relative_to(folder).with_suffix("") for path in videos]
        parts = 0
        for video, name in zip(videos, names, strict=True):
            if names.count(name) > 1:
                name = video.relative_to(folder)
            kinds = (".mp4", ".csv") if self.span.at_s is None else (".png",)
            outs = [out / name.with_name(name.name + kind) for kind in kinds]
            keep = None if reading.keep is None else reading.keep / name
            try:
                yield self.recording(video, outs, replace(reading, keep=keep)), None
            except NoRecording:
                parts += 1
            except (TrainingError, ShardError) as error:
                yield None, str(error)
        if parts:
            yield f"{parts} of {len(videos)} videos belong to other recordings", None
