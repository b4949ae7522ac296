"""What an interrupted evaluation goes on from."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from avtrain.data.unreadable import LeftOut
from avtrain.errors import TrainingError
from avtrain.evals.results import Result, file_name, result_path
from avtrain.run_folder import PROGRESS_ENDING
from shards.files import atomic_file

_LEFT_OUT = "left_out"


class Progress:
    """A file beside a result, which holds the state of a training that is not finished.

    ``settings`` say whose it is: the state of other settings is not taken. ``left_out``: what could
    not be read is kept with the state. It is written at the end of an epoch. When the result is
    there it is deleted; or, where other results are to come, it says `finished` until these are
    there too.
    """

    def __init__(
        self, path: Path, settings: dict[str, Any], left_out: Sequence[LeftOut] = ()
    ) -> None:
        self.path = path
        self._settings = repr(sorted(settings.items()))
        self._left_out = left_out

    @classmethod
    def of(
        cls,
        out: Path,
        task: str,
        checkpoint: Path | None,
        settings: dict[str, Any],
        left_out: Sequence[LeftOut],
    ) -> Progress:
        """Of one evaluation of a checkpoint's networks, or random ones."""
        return cls(_path(out, file_name(task, checkpoint)), settings, left_out)

    def load(self) -> dict[str, Any] | None:
        """The state, None where there is none (of these settings).

        Raises TrainingError for a file that cannot be read.
        """
        if not self.path.exists():
            return None
        try:
            content = torch.load(self.path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch has no common error for files it cannot read
            raise TrainingError(
                f"{self.path} is damaged ({error!r:.80}); delete it to begin anew"
            ) from None
        if not isinstance(content, dict) or content.pop("settings", None) != self._settings:
            return None
        for part, faults in zip(self._left_out, content.pop(_LEFT_OUT), strict=True):
            part.add(faults.items())
        return content

    def save(self, state: dict[str, Any]) -> None:
        """Atomically: the file is the old one or the new one, whatever happens."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        left_out = [dict(part.faults) for part in self._left_out]
        torch.save({**state, "settings": self._settings, _LEFT_OUT: left_out}, buffer)
        with atomic_file(self.path) as file:
            file.write(buffer.getbuffer())

    def result(self) -> Result | None:
        """What `finish` said is written already."""
        path = result_path(self.path.parent, self.path.name.removesuffix(PROGRESS_ENDING))
        if not (self.load() or {}).get("finished") or not path.exists():
            return None
        return Result.read(path)

    def finish(self) -> None:
        """The result is written; it need not be made again."""
        self.save({"finished": True})

    def delete(self) -> None:
        """The result is written: nothing is left to go on with."""
        self.path.unlink(missing_ok=True)


def _path(out: Path, name: str) -> Path:
    return out / f"{name}{PROGRESS_ENDING}"


def forget(out: Path, results: Sequence[Result]) -> None:
    """All results that were to come are written: nothing is left to go on with."""
    for result in results:
        _path(out, result.name).unlink(missing_ok=True)
