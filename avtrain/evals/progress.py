"""State of an interrupted evaluation, from which the same command continues."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from avtrain.data.unreadable import Unreadable
from avtrain.errors import TrainingError
from avtrain.evals.results import Result, file_name, result_path
from avtrain.run_folder import PROGRESS_ENDING
from shards.files import atomic_file

_LEFT_OUT = "left_out"
"""Key of the unreadable clips in the file."""


class Progress:
    """File beside a result with the state of a training or test that is not finished.

    ``settings`` identify the evaluation: `load` ignores a state of other settings. They are stored
    as their ``repr``, so that names and values in them must not change between versions. The
    faults of ``unreadable`` are saved with the state. The file is deleted once the result is
    written; where another result of the same command is still to come, it says ``finished`` until
    then.
    """

    def __init__(
        self, path: Path, settings: dict[str, Any], unreadable: Sequence[Unreadable] = ()
    ) -> None:
        self.path = path
        self._settings = repr(sorted(settings.items()))
        self._unreadable = unreadable

    def load(self) -> dict[str, Any] | None:
        """The saved state, None if there is none of these settings.

        Raises TrainingError for a file that cannot be read.
        """
        if not self.path.exists():
            return None
        try:
            content = torch.load(self.path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch has no common error for files it cannot read
            raise TrainingError(
                f"{self.path} is damaged ({error!r:.80}); delete it to start anew"
            ) from None
        if not isinstance(content, dict) or content.pop("settings", None) != self._settings:
            return None
        for part, faults in zip(self._unreadable, content.pop(_LEFT_OUT), strict=True):
            part.add(faults.items())
        return content

    def save(self, state: dict[str, Any]) -> None:
        """Write the state atomically: a kill leaves the old file or the new one."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        faults = [dict(part.faults) for part in self._unreadable]
        torch.save({**state, "settings": self._settings, _LEFT_OUT: faults}, buffer)
        with atomic_file(self.path) as file:
            file.write(buffer.getbuffer())

    def finished_result(self) -> Result | None:
        """The result that an interrupted command has already written, see `finish`."""
        path = result_path(self.path.parent, self.path.name.removesuffix(PROGRESS_ENDING))
        if not (self.load() or {}).get("finished") or not path.exists():
            return None
        return Result.read(path)

    def finish(self) -> None:
        """Note that the result is written, so that the same command does not repeat the work."""
        self.save({"finished": True})

    def delete(self) -> None:
        """Delete the file: the command has written all its results."""
        self.path.unlink(missing_ok=True)


def progress_path(out: Path, task: str, checkpoint: Path | None) -> Path:
    """Path of the file of one evaluation of a checkpoint's networks, or of random ones (None)."""
    return out / f"{file_name(task, checkpoint)}{PROGRESS_ENDING}"


def delete_progress(out: Path, results: Sequence[Result]) -> None:
    """Delete the files of all these results: the command has written the last of them."""
    for result in results:
        (out / f"{result.name}{PROGRESS_ENDING}").unlink(missing_ok=True)
