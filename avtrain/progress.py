"""What an interrupted evaluation goes on from."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch

from avtrain.errors import TrainingError
from shards.files import atomic_file


class Progress:
    """A file beside a result, which holds the state of a training that is not finished.

    ``settings`` say whose it is: the state of other settings is not taken. It is written at the
    end of an epoch and deleted when the result is there.
    """

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        self.path = path
        self._settings = repr(sorted(settings.items()))

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
        return content

    def save(self, state: dict[str, Any]) -> None:
        """Atomically: the file is the old one or the new one, whatever happens."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        torch.save({"settings": self._settings, **state}, buffer)
        with atomic_file(self.path) as file:
            file.write(buffer.getbuffer())

    def delete(self) -> None:
        """The result is written: nothing is left to go on with."""
        self.path.unlink(missing_ok=True)
