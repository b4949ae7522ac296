"""Signals that ask a run to stop: it saves, and continues when it is started again."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import ClassVar

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
"""Sent by schedulers before they end a job; Slurm's ``--signal`` names one of them."""
PATIENCE_S = 5.0
"""A step that waits for data as long as this after a signal is given up."""


class StopRequest:
    """Context in which one of `SIGNALS` sets ``name`` and does nothing else."""

    current: ClassVar[StopRequest | None] = None

    def __init__(self) -> None:
        self.name: str | None = None
        self.since_s = float("inf")
        self._before: dict[int, object] = {}

    def __enter__(self) -> StopRequest:
        StopRequest.current = self
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
        StopRequest.current = None
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    @property
    def is_overdue(self) -> bool:
        """Whether the signal came more than `PATIENCE_S` ago."""
        return time.monotonic() - self.since_s > PATIENCE_S

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.name is None:
            self.since_s = time.monotonic()
        self.name = signal.Signals(number).name


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Context that `SIGNALS` and a closed terminal end as an exception does, so that what is open
    is closed and temporary files are deleted."""

    def end(number: int, frame: FrameType | None) -> None:
        for other in before:
            signal.signal(other, signal.SIG_IGN)  # another one must not interrupt the cleaning
        raise SystemExit(128 + number)

    before: dict[int, object] = {}
    if _may_set_handlers():
        for name in (*SIGNALS, signal.SIGHUP):
            before[name] = signal.signal(name, end)
    try:
        yield
    finally:
        for key, handler in before.items():
            signal.signal(key, handler)  # type: ignore[arg-type]


def ignore_signals() -> None:
    """Ignore `SIGNALS` from now on: this process ends by itself, or with its parent."""
    if _may_set_handlers():
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)


@contextmanager
def delayed_signals() -> Iterator[None]:
    """Signals wait until the block ends. Processes that are started inside begin with them
    delayed, for as long as they leave it so."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (*SIGNALS, signal.SIGINT))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def leave_signals_to_parent() -> None:
    """Ignore `SIGNALS` and Ctrl-C, which launchers, schedulers and terminals send to whole process
    groups: the parent has a step to finish, and this process ends with it."""
    ignore_signals()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (*SIGNALS, signal.SIGINT))


def _may_set_handlers() -> bool:
    return threading.current_thread() is threading.main_thread()


class WaitGivenUp(Exception):
    """A signal asked this process to stop while it waited for data that did not come."""


class Stopped(Exception):
    """A run has stopped because of a signal, and can continue."""

    def __init__(self, signal_name: str, steps: int, out: object) -> None:
        super().__init__(
            f"stopped by {signal_name} after step {steps}, which is saved in {out}; run the same "
            "command with --resume to continue"
        )
