"""Workers end with their parent, whatever they are doing, and say why they could not start."""

from __future__ import annotations

import errno
import importlib
import multiprocessing.spawn
import multiprocessing.util
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from avprep import processes
from avprep.errors import UserError
from avprep.media.find_ffmpeg import ends_with_parent
from avprep.processes import ProcessPool, ReportStep
from tests.support.package import ROOT
from tests.support.processes import lives

ONLY_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such signal")


def _sleep(pids: str, _: ReportStep) -> None:
    with open(pids, "w") as file:
        file.write(f"{os.getpid()}\n")
    time.sleep(1000)


def _hold_the_interpreter(pids: str, _: ReportStep) -> None:
    """As a decoder does that is written in C."""
    with open(pids, "w") as file:
        file.write(f"{os.getpid()}\n")
    re.match("(a*)*b", "a" * 200)


def _start_a_child(pids: str, _: ReportStep) -> None:
    # Its own output says that it has begun: stopped before, it could not ask for the signal.
    command = [*ends_with_parent(), "sh", "-c", "echo; exec sleep 1000"]
    child = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    with open(pids, "w") as file:
        file.write(f"{os.getpid()} {child.pid}\n")
    child.wait()


def _run_pool(name: str, pids: str) -> None:
    """The parent, in a process of its own."""
    pool = ProcessPool(1)
    list(pool.run(globals()[name], [pids], 1000.0))


def _wait_until(what: str, is_so: Any) -> None:
    end = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < end, what
        time.sleep(0.02)


@ONLY_LINUX
@pytest.mark.parametrize("function", [_sleep, _hold_the_interpreter, _start_a_child])
@pytest.mark.parametrize("is_stopped", [True, False])
def test_a_worker_and_its_children_do_not_outlive_their_parent(
    function: Any, is_stopped: bool, tmp_path: Path
) -> None:
    if function is _start_a_child and not ends_with_parent():
        pytest.skip("there is no setpriv")
    pids = tmp_path / "pids"
    code = f"from {__name__} import _run_pool; _run_pool({function.__name__!r}, {str(pids)!r})"
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    try:
        _wait_until("it begins", lambda: pids.exists() and pids.read_text().endswith("\n"))
        ours = pids.read_text().split()
        if is_stopped:
            for pid in ours:
                os.kill(int(pid), signal.SIGSTOP)
    finally:
        parent.kill()
        parent.wait()
    try:
        _wait_until("all have ended", lambda: not any(map(lives, ours)))
    finally:
        for pid in filter(lives, ours):
            os.kill(int(pid), signal.SIGKILL)


def _nothing(number: int, _: ReportStep) -> int:
    return number


def _refused(function: Any = _nothing) -> str:
    pool = ProcessPool(2)
    with pytest.raises(UserError) as refused:
        list(pool.run(function, [1, 2], 10.0))
    pool.close()
    assert "run the same command again with fewer --workers" in str(refused.value)
    return str(refused.value)


def test_a_package_that_cannot_be_imported_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """At once, or when the function imports it."""
    fails = "raise ImportError('libGL.so.1: cannot open shared object file')"
    (tmp_path / "needs_gl.py").write_text(f"import os\nif 'NO_GL' in os.environ: {fails}\n")
    (tmp_path / "at_once.py").write_text("import needs_gl\ndef run(*_): return 1\n")
    (tmp_path / "later.py").write_text("def run(*_): import needs_gl\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("at_once", "later"):
        function = importlib.import_module(name).run
        with monkeypatch.context() as patch:
            patch.setenv("NO_GL", "1")
            assert "cannot start: ImportError: libGL.so.1: cannot open" in _refused(function)
    assert "Traceback" not in capfd.readouterr().err


@pytest.fixture
def python(tmp_path: Path) -> Iterator[Path]:
    """A script that workers run in Python's place."""
    script, before = tmp_path / "python", multiprocessing.spawn.get_executable()
    script.touch(0o755)
    multiprocessing.spawn.set_executable(str(script))
    yield script
    multiprocessing.spawn.set_executable(before)


def test_a_process_that_ends_before_it_begins_is_said_with_its_reason(
    python: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    python.write_text("#!/bin/sh\necho Traceback >&2; echo MemoryError >&2; exit 3\n")
    assert "cannot start: they end with exit status 3 (MemoryError);" in _refused()
    python.write_text("#!/bin/sh\nkill -9 $$\n")
    assert "cannot start: they are ended by signal 9 (Killed);" in _refused()
    assert "Traceback" not in capfd.readouterr().err
    python.write_text("#!/bin/sh\nexec sleep 1000\n")
    monkeypatch.setattr(processes, "_START_S", 0.3)
    assert "cannot start: they do not begin within 0.3 s;" in _refused()


def test_a_limit_of_processes_is_said_or_fewer_do_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    start, started = multiprocessing.util.spawnv_passfds, []

    def limited(*args: Any) -> Any:
        if len(started) >= most:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        started.append(1)
        return start(*args)

    monkeypatch.setattr(multiprocessing.util, "spawnv_passfds", limited)
    most = 0
    assert "cannot start: Resource temporarily unavailable;" in _refused()
    most = 1
    pool = ProcessPool(4)
    assert sorted(pool.run(_nothing, [5, 6, 7], 10.0)) == [(0, 5), (1, 6), (2, 7)]
    pool.close()
