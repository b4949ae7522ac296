"""State of an interrupted evaluation, from which the same command continues."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from avtrain.checkpoint import check_optimiser, check_tensor
from avtrain.data.unreadable import Unreadable, read_faults
from avtrain.errors import TrainingError
from avtrain.evals.results import Result, file_name, result_path
from avtrain.run_folder import PROGRESS_ENDING
from avtrain.runtime.torch_file import plain, read_torch
from shards.files import atomic_file

_LEFT_OUT, _FINISHED = "left_out", "finished"
"""Keys in the file: the unreadable clips, and that a result is written."""


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
        """The saved state, None if there is none of these settings, or if its result is gone.

        Raises TrainingError for a file that cannot be read.
        """
        content = self._read()
        return None if content is not None and _FINISHED in content else content

    def _read(self) -> dict[str, Any] | None:
        if not self.path.exists():
            return None
        try:
            content = plain(self.path, read_torch(self.path))
            if not isinstance(content, dict) or content.pop("settings", None) != self._settings:
                return None
            left_out = content.pop(_LEFT_OUT, None)
            if not isinstance(left_out, list) or len(left_out) != len(self._unreadable):
                raise ValueError("its unreadable clips are not those of the sets")
            parts = zip(self._unreadable, left_out, strict=True)
            found = [(part, read_faults(faults, part.count)) for part, faults in parts]
        except OSError as error:
            raise TrainingError(f"{self.path} cannot be read: {error.strerror}") from None
        except ValueError as error:
            raise TrainingError(
                f"{self.path} is damaged ({error}); delete it to start anew"
            ) from None
        for part, faults in found:
            part.add(faults.items())
        return content

    def check(self, state: dict[str, Any], example: dict[str, Any]) -> None:
        """Raise TrainingError unless a loaded ``state`` is like ``example``: it has the same keys,
        types of values, and shapes of tensors; items of lists are like the example's only one."""
        try:
            _check_alike("it", state, example)
        except ValueError as error:
            raise TrainingError(
                f"{self.path} is damaged ({error}); delete it to start anew"
            ) from None

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
        if (self._read() or {}).get(_FINISHED) is not True or not path.exists():
            return None
        return Result.read(path)

    def finish(self) -> None:
        """Note that the result is written, so that the same command does not repeat the work."""
        self.save({_FINISHED: True})

    def delete(self) -> None:
        """Delete the file: the command has written all its results."""
        self.path.unlink(missing_ok=True)


def _check_alike(name: str, there: Any, here: Any) -> None:
    if isinstance(here, torch.optim.Optimizer):
        parameters = [parameter for group in here.param_groups for parameter in group["params"]]
        if not isinstance(there, dict):
            raise ValueError(f"{name} is a {type(there).__name__}")
        check_optimiser(there, [parameters])
    elif isinstance(here, Tensor):
        check_tensor(name, there, here.shape, here.dtype)
        if not here.is_floating_point() and (there < 0).any():
            raise ValueError(f"{name} has numbers below 0")
    elif isinstance(here, dict):
        if not isinstance(there, dict) or there.keys() != here.keys():
            raise ValueError(f"{name} has other parts")
        for key in here:
            _check_alike(f"{name}.{key}", there[key], here[key])
    elif type(there) is not type(here):
        raise ValueError(f"{name} is a {type(there).__name__}")
    elif isinstance(here, list):
        if there and not here:
            raise ValueError(f"{name} has too many items")
        for item in there:
            _check_alike(f"an item of {name}", item, here[0])
    elif isinstance(here, int) and not 0 <= there <= 2**53:
        raise ValueError(f"{name} is {there}")


def progress_path(out: Path, task: str, kind: str) -> Path:
    """Path of the file of one evaluation of networks of a ``kind``, see `file_name`."""
    return out / f"{file_name(task, kind)}{PROGRESS_ENDING}"


def delete_progress(out: Path, results: Sequence[Result]) -> None:
    """Delete the files of all these results: the command has written the last of them."""
    for result in results:
        (out / f"{result.name}{PROGRESS_ENDING}").unlink(missing_ok=True)
