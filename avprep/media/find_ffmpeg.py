"""Find an ffmpeg that runs, and say how one ended that did not do its work."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from avprep.errors import ClipError, UserError

_VERSION_TIMEOUT_S = 30.0
_BEHIND_WRAPPERS = 128
"""A shell that started a program adds this to the number of the signal that ended it."""
_STOPPED = (signal.SIGKILL, signal.SIGTERM, signal.SIGXCPU)
_CRASHED = (signal.SIGILL, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGSEGV)
_MAX_SHOWN = 200


@dataclass(frozen=True)
class Ffmpeg:
    """An ffmpeg that runs: its path, its version (such as "7.0.2"), and a sentence if it takes the
    place of another one that does not run."""

    path: str
    version: str
    warning: str = ""


@cache
def find_ffmpeg() -> Ffmpeg:
    """The ffmpeg of ``AVPREP_FFMPEG``, else of the PATH, else of the imageio-ffmpeg package.

    One on the PATH that does not run is passed over for the package's, with a warning: it is there
    for other programs, and the package was installed for this one. One that the user names is
    taken, or nothing is. Raises UserError if none runs.
    """
    chosen = os.environ.get("AVPREP_FFMPEG")
    if chosen:
        path = shutil.which(chosen)
        if path is None:
            is_there = Path(chosen).exists()
            what = "cannot be executed" if is_there else "is not a program"
            raise UserError(f"AVPREP_FFMPEG is {chosen!r}, which {what}; correct or unset it")
        version, fault = _ask_version(path)
        if version is None:
            raise UserError(f"AVPREP_FFMPEG is {path}, which {fault}; correct or unset it")
        return Ffmpeg(path, version)
    path, broken = shutil.which("ffmpeg"), ""
    if path is not None:
        version, fault = _ask_version(path)
        if version is not None:
            return Ffmpeg(path, version)
        broken = f"{path} (from the PATH) {fault}"
    try:
        import imageio_ffmpeg

        wheels = str(imageio_ffmpeg.get_ffmpeg_exe())
    except (ImportError, RuntimeError, OSError):
        raise UserError(
            (f"{broken}; repair it, " if broken else "no ffmpeg found; ")
            + "`pip install imageio-ffmpeg`, put one on the PATH or name it in AVPREP_FFMPEG"
        ) from None
    version, fault = _ask_version(wheels)
    if version is None:
        also = f"{broken}, and " if broken else ""
        raise UserError(
            f"{also}{wheels} (from the package imageio-ffmpeg) {fault}; install an ffmpeg for this "
            "computer and name it in AVPREP_FFMPEG"
        )
    instead = f"{broken}; {wheels} ({version}) is used instead" if broken else ""
    return Ffmpeg(wheels, version, instead)


@cache
def ends_with_parent() -> tuple[str, ...]:
    """The beginning of a command that is killed when the process that started it is killed, even
    while it is stopped or busy; empty where no program does this.

    Without it, it ends when it writes to the pipe that nobody reads. (Python could do the same in
    the child, but only by a fork that copies the tables of all memory: 2 ms and more for each.)
    """
    program = shutil.which("setpriv") if sys.platform == "linux" else None
    if program is None:
        return ()
    prefix = (program, "--pdeathsig", "KILL")
    try:
        done = subprocess.run(
            [*prefix, sys.executable, "--version"], capture_output=True, timeout=9
        )
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return prefix if done.returncode == 0 else ()


def _ask_version(path: str) -> tuple[str | None, str]:
    """The version that a program states, or None and what is wrong with it."""
    try:
        done = subprocess.run(
            [path, "-hide_banner", "-version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=_VERSION_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        return None, f"does not run: it does not answer -version within {_VERSION_TIMEOUT_S:g} s"
    except OSError as error:
        # A script's interpreter, or a program's loader, is not there.
        missing = "what it needs to start is missing: " * isinstance(error, FileNotFoundError)
        return None, f"does not run ({missing}{error.strerror})"
    if done.returncode:
        return None, f"does not run: {how_it_ended(done.returncode, done.stderr or done.stdout)}"
    answer = done.stdout.decode(errors="replace")
    match = re.match(r"ffmpeg version (\S+)", answer)
    if match is None:
        return None, f"is no ffmpeg: it answers -version with {answer.strip()[:60]!r}"
    return match[1], ""


def how_it_ended(status: int, messages: bytes) -> str:
    """What happened to a program, from its exit status (negative: a signal) and its messages."""
    ended = f"it ended with exit status {status}"
    number = _ended_by_signal(status)
    if number is not None:
        ended = f"it was ended by signal {number} ({signal.strsignal(number)})"
        ended += ", as if memory ran short" * (number == signal.SIGKILL)
    message = last_line(messages)[:_MAX_SHOWN]
    return f"{ended} ({message})" if message else ended


def _ended_by_signal(status: int) -> int | None:
    """The signal that ended a program or, behind a wrapper, the program that it started."""
    if status < 0:
        return -status
    number = status - _BEHIND_WRAPPERS
    return number if number in (*_STOPPED, *_CRASHED) else None


def last_line(messages: bytes) -> str:
    """ffmpeg's last error message, as one line that is the same in every run."""
    text = re.sub(r" @ 0x[0-9a-f]+", "", messages.decode(errors="replace"))
    lines = [line.strip() for line in text.splitlines() if "Terminating thread" not in line]
    return next((line for line in reversed(lines) if line), "")


def check_end(name: str, status: int, messages: bytes) -> None:
    """Raise if ffmpeg, run on the file ``name``, did not end by itself: what it wrote then says
    nothing about the file.

    ClipError if a signal ended it, and UserError if it did not start at all.
    """
    ended_by = _ended_by_signal(status)
    if ended_by is not None:
        remedy = "allow it more memory, or use fewer --workers"
        if ended_by in _CRASHED:
            remedy = "the file is damaged, or name another ffmpeg in AVPREP_FFMPEG"
        raise ClipError(
            f"{name} could not be read with {find_ffmpeg().path}: "
            f"{how_it_ended(status, messages)}; {remedy}"
        )
    if status in (126, 127):
        raise UserError(f"{find_ffmpeg().path} does not run: {how_it_ended(status, messages)}")
