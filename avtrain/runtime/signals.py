"""Signals that ask a run to stop: it saves, and continues when it is started again."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
"""Sent by schedulers before they end a job; Slurm's ``--signal`` names one of them."""


class StopRequest:
    """Context in which one of `SIGNALS` sets ``name`` and does nothing else."""

    def __init__(self) -> None:
        self.name: str | None = None
        self._before: dict[int, object] = {}

    def __enter__(self) -> StopRequest:
        if _may_set_handlers():
            for number in SIGNALS:
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.name = signal.Signals(number).name


def ignore_signals() -> None:
    """Ignore `SIGNALS` from now on: this process ends by itself, or with its parent."""
    if _may_set_handlers():
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)


def _may_set_handlers() -> bool:
    return threading.current_thread() is threading.main_thread()


class Stopped(Exception):
    """A run has stopped because of a signal, and can continue."""

    def __init__(self, signal_name: str, steps: int, out: object) -> None:
        super().__init__(
            f"stopped by {signal_name} after step {steps}, which is saved in {out}; run the same "
            "command with --resume to continue"
        )
